//! The life of instances on a node: a real handler, real launchers, real guests; the API server is scripted.

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use nix::sys::signal::Signal;
    use serde_json::{Value, json};
    use tests::node::status::{condition, is_final, is_true, phases};
    use tests::node::{Node, manifest, until};
    use tests::program;

    const PATIENCE: Duration = Duration::from_secs(60);

    /// A node with its agent.
    fn node() -> Option<Node> {
        let mut node = Node::new()?;
        node.start_handler(&[]);
        Some(node)
    }

    /// An instance whose guest has this on its kernel's command line too.
    fn with_kernel_arguments(mut vmi: Value, more: &str) -> Value {
        let arguments = &mut vmi["spec"]["domain"]["firmware"]["kernelBoot"]["kernelArgs"];
        *arguments = json!(format!("{} {more}", arguments.as_str().unwrap_or_default()));
        vmi
    }

    fn delete(node: &Node, name: &str, grace_seconds: u64) {
        let key = tests::api_endpoint::Resource::vmis().key(tests::node::NAMESPACE, name);
        node.api.change(&key, |vmi| {
            vmi["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            vmi["metadata"]["deletionGracePeriodSeconds"] = json!(grace_seconds);
        });
    }

    #[test]
    fn an_instance_runs_and_its_status_says_how() {
        let Some(mut node) = Node::new() else { return };
        let launcher = program("virt-launcher").expect("the node has one");
        let facts = node.path("node-facts.json");
        let mut probe = Command::new(launcher);
        probe.arg("--node-facts").arg(&facts);
        assert!(probe.status().expect("run the probe").success());
        node.start_handler(&["--node-facts", &facts.display().to_string()]);
        let key = node.schedule(manifest::vmi("runs"));
        let vmi = node.wait_for_phase(&key, "Running", PATIENCE);
        let status = &vmi["status"];
        assert_eq!(
            phases(&vmi),
            ["Pending", "Scheduling", "Scheduled", "Running"]
        );
        let machine = status["machine"]["type"].as_str().unwrap_or_default();
        assert!(
            machine.starts_with("pc-q35") || machine == "q35",
            "{status:#}"
        );
        assert_eq!(condition(&vmi, "LiveMigratable")["status"], "False");
        assert_eq!(status["memory"]["guestCurrent"], "128Mi", "{status:#}");
        // Fields that the handler does not own are as they were.
        assert_eq!(status["migrationTransport"], "Unix");
        assert_eq!(
            vmi["metadata"]["finalizers"],
            json!(["kubevirt.io/foregroundDeleteVirtualMachine"])
        );
        says_why_it_is_emulated(&vmi, &std::fs::read(&facts).expect("facts were written"));
        // One event for a machine that starts at once; that it was made is told of one that waits.
        node.wait_for_event("runs", "Started", PATIENCE);
    }

    /// Checks that the condition gives the probe's reason, on a node whose processors are emulated and nowhere else.
    fn says_why_it_is_emulated(vmi: &Value, facts: &[u8]) {
        let facts: Value = serde_json::from_slice(facts).expect("facts are JSON");
        let reason = facts["backendReason"]
            .as_str()
            .expect("the probe gives a reason");
        let emulated = condition(vmi, "SoftwareEmulation");
        if facts["backend"] == "kvm" {
            assert_eq!(*emulated, Value::Null);
            return;
        }
        assert_eq!(emulated["status"], "True", "{:#}", vmi["status"]);
        assert!(emulated["reason"].is_string());
        let message = emulated["message"].as_str().unwrap_or_default();
        assert!(message.contains(reason), "{message:?} lacks {reason:?}");
    }

    #[test]
    fn a_guest_that_powers_off_has_succeeded_and_nothing_is_left() {
        let Some(mut node) = node() else { return };
        let key = node.schedule(manifest::vmi("off"));
        node.wait_for_phase(&key, "Running", PATIENCE);
        let mut console = node.console("off");
        console.log_in();
        console.send("poweroff\n");
        let vmi = node.wait_for(&key, "final", PATIENCE, is_final);
        assert_eq!(vmi["status"]["phase"], "Succeeded", "{:#}", vmi["status"]);
        assert_eq!(phases(&vmi).last(), Some(&"Succeeded"));
        assert_eq!(*condition(&vmi, "Paused"), Value::Null);
        node.wait_for_event("off", "Stopped", PATIENCE);
        node.wait_until_clean("off", PATIENCE);
        let has_ended = || node.pod("off").launcher_pid().is_none();
        assert!(until(PATIENCE, has_ended), "the launcher stays");
    }

    #[test]
    fn a_guest_that_reboots_keeps_running() {
        let Some(mut node) = node() else { return };
        let key = node.schedule(manifest::vmi("again"));
        node.wait_for_phase(&key, "Running", PATIENCE);
        let mut console = node.console("again");
        console.log_in();
        console.run("touch /run/before-the-reboot");
        console.send("reboot\n");
        console.log_in();
        assert_eq!(console.run("ls /run/before-the-reboot 2>/dev/null"), "");
        let vmi = node.api.get(&key).expect("the instance is there");
        assert_eq!(
            phases(&vmi),
            ["Pending", "Scheduling", "Scheduled", "Running"]
        );
        assert_eq!(vmi["status"]["phase"], "Running");
    }

    /// Debian's cloud kernel has no driver for the panic device, so nobody is told of the panic; the machine that has
    /// the device runs all the same.
    #[test]
    fn a_guest_whose_kernel_panics_boots_again_and_keeps_running() {
        let Some(mut node) = node() else { return };
        let mut vmi = with_kernel_arguments(manifest::vmi("panics"), "panic=1");
        vmi["spec"]["domain"]["devices"]["panicDevices"] = json!([{"model": "pvpanic"}]);
        let key = node.schedule(vmi);
        node.wait_for_phase(&key, "Running", PATIENCE);
        let mut console = node.console("panics");
        console.log_in();
        console.send("echo c >/proc/sysrq-trigger\n");
        console.expect("Kernel panic", PATIENCE);
        console.log_in();
        let vmi = node.api.get(&key).expect("the instance is there");
        assert_eq!(vmi["status"]["phase"], "Running");
    }

    #[test]
    fn a_deleted_instance_is_shut_down_by_its_guest() {
        let Some(mut node) = node() else { return };
        let key = node.schedule(manifest::vmi("deleted"));
        node.wait_for_phase(&key, "Running", PATIENCE);
        node.console("deleted").log_in();
        delete(&node, "deleted", 30);
        let vmi = node.wait_for(&key, "final", Duration::from_secs(25), is_final);
        assert_eq!(vmi["status"]["phase"], "Succeeded", "{:#}", vmi["status"]);
        node.wait_for_event("deleted", "ShuttingDown", PATIENCE);
        // The controller takes the finalizer away, not the node.
        assert!(vmi["metadata"]["finalizers"].is_array());
        node.wait_until_clean("deleted", PATIENCE);
    }

    #[test]
    fn a_guest_that_does_not_shut_down_is_switched_off_after_its_grace_period() {
        let Some(mut node) = node() else { return };
        let mut vmi = manifest::vmi("stubborn");
        vmi["spec"]["terminationGracePeriodSeconds"] = json!(2);
        let key = node.schedule(vmi);
        node.wait_for_phase(&key, "Running", PATIENCE);
        let mut console = node.console("stubborn");
        console.log_in();
        console.run("kill -STOP $(pidof acpid)");
        delete(&node, "stubborn", 2);
        let vmi = node.wait_for(&key, "final", Duration::from_secs(15), is_final);
        assert_eq!(vmi["status"]["phase"], "Failed", "{:#}", vmi["status"]);
        assert_eq!(vmi["status"]["reason"], "Killed");
        node.wait_until_clean("stubborn", PATIENCE);
    }

    #[test]
    fn a_machine_whose_instance_vanishes_is_shut_down_and_cleaned_up() {
        let Some(mut node) = node() else { return };
        let mut vmi = manifest::vmi("vanishes");
        vmi["metadata"]["finalizers"] = json!([]);
        let key = node.schedule(vmi);
        node.wait_for_phase(&key, "Running", PATIENCE);
        node.console("vanishes").log_in();
        node.api.remove(&key);
        let has_ended = || node.pod("vanishes").launcher_pid().is_none();
        assert!(
            until(Duration::from_secs(25), has_ended),
            "the launcher stays\n{}",
            node.logs("vanishes")
        );
        node.wait_until_clean("vanishes", PATIENCE);
        assert_eq!(node.api.get(&key), None, "it was not written anew");
    }

    #[test]
    fn a_pod_that_is_to_end_has_its_guest_shut_down_first() {
        let Some(mut node) = node() else { return };
        let key = node.schedule(manifest::vmi("evicted"));
        node.wait_for_phase(&key, "Running", PATIENCE);
        node.console("evicted").log_in();
        node.pod("evicted").signal(Signal::SIGTERM);
        let vmi = node.wait_for(&key, "final", Duration::from_secs(25), is_final);
        assert_eq!(vmi["status"]["phase"], "Succeeded", "{:#}", vmi["status"]);
        node.wait_for_event("evicted", "ShuttingDown", PATIENCE);
        node.wait_until_clean("evicted", PATIENCE);
    }

    #[test]
    fn an_instance_that_is_to_start_paused_says_so_and_does_not_run() {
        let Some(mut node) = node() else { return };
        let mut vmi = manifest::vmi("paused");
        vmi["spec"]["startStrategy"] = json!("Paused");
        let key = node.schedule(vmi);
        let vmi = node.wait_for_phase(&key, "Running", PATIENCE);
        let vmi = match is_true(&vmi, "Paused") {
            true => vmi,
            false => node.wait_for(&key, "paused", PATIENCE, |vmi| is_true(vmi, "Paused")),
        };
        assert_eq!(condition(&vmi, "Paused")["reason"], "PausedByUser");
        node.wait_for_event("paused", "Created", PATIENCE);
        assert!(
            !node
                .console("paused")
                .says_something(Duration::from_secs(2)),
            "a paused guest boots"
        );
    }

    #[test]
    fn an_instance_that_cannot_run_says_why_and_runs_once_it_is_corrected() {
        let Some(mut node) = node() else { return };
        let mut vmi = manifest::vmi("cannot");
        let good = vmi["spec"]["domain"]["firmware"].take();
        vmi["spec"]["domain"]["firmware"] = json!({"bootloader": {"efi": {}}});
        let key = node.schedule(vmi);
        let vmi = node.wait_for(&key, "not synchronized", PATIENCE, |vmi| {
            condition(vmi, "Synchronized")["status"] == "False"
        });
        let message = condition(&vmi, "Synchronized")["message"]
            .as_str()
            .unwrap_or_default();
        assert!(message.contains("bootloader.efi"), "{message}");
        assert_eq!(vmi["status"]["phase"], "Scheduled");
        assert!(!is_true(&vmi, "Paused"));
        node.wait_for_event("cannot", "SyncFailed", PATIENCE);
        assert!(
            node.pod("cannot").launcher_pid().is_some(),
            "the launcher stays"
        );
        node.api
            .change(&key, |vmi| vmi["spec"]["domain"]["firmware"] = good);
        let vmi = node.wait_for(&key, "running and synchronized", PATIENCE, |vmi| {
            vmi["status"]["phase"] == "Running" && condition(vmi, "Synchronized").is_null()
        });
        assert_eq!(phases(&vmi).last(), Some(&"Running"));
    }

    #[test]
    fn a_guest_agent_is_told_of_and_describes_its_guest() {
        let Some(mut node) = node() else { return };
        let mut vmi = manifest::vmi("agent");
        vmi["spec"]["domain"]["firmware"]["kernelBoot"]["container"]["initrdPath"] =
            json!("/agent-initrd");
        let key = node.schedule(vmi);
        let vmi = node.wait_for(&key, "connected to its agent", PATIENCE, |vmi| {
            is_true(vmi, "AgentConnected") && vmi["status"]["guestOSInfo"]["id"].is_string()
        });
        let os = &vmi["status"]["guestOSInfo"];
        assert_eq!(os["id"], "ferrovirt-demo", "{os:#}");
        assert_eq!(os["prettyName"], "Ferrovirt demo guest");
        assert_eq!(os["machine"], "x86_64");
        assert!(!is_true(&vmi, "UnsupportedAgent"), "{:#}", vmi["status"]);
        let mut console = node.console("agent");
        console.log_in();
        console.run("mv $(which qemu-ga) /gone; kill -KILL $(pidof qemu-ga)");
        node.wait_for(&key, "without its agent", PATIENCE, |vmi| {
            condition(vmi, "AgentConnected").is_null()
        });
    }
}
