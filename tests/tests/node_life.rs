//! The life of instances on a node: a real handler, real launchers, real guests; the API server is scripted.

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use nix::sys::signal::Signal;
    use serde_json::{Value, json};
    use tests::node::{Node, manifest};

    const PATIENCE: Duration = Duration::from_secs(60);

    fn condition<'a>(vmi: &'a Value, kind: &str) -> &'a Value {
        let conditions = vmi["status"]["conditions"].as_array();
        let found = conditions.and_then(|all| all.iter().find(|one| one["type"] == kind));
        found.unwrap_or(&Value::Null)
    }

    fn is_true(vmi: &Value, kind: &str) -> bool {
        condition(vmi, kind)["status"] == "True"
    }

    #[test]
    fn an_instance_runs_and_its_status_says_how() {
        let Some(mut node) = Node::new() else { return };
        node.start_handler(&[]);
        let key = node.schedule(manifest::vmi("runs"));
        let vmi = node.wait_for_phase(&key, "Running", PATIENCE);
        let phases: Vec<&str> = vmi["status"]["phaseTransitionTimestamps"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|entry| entry["phase"].as_str())
            .collect();
        assert_eq!(phases, ["Pending", "Scheduling", "Scheduled", "Running"]);
        assert_eq!(
            vmi["status"]["machine"]["type"]
                .as_str()
                .map(|t| t.starts_with("pc-q35") || t == "q35"),
            Some(true),
            "{:#}",
            vmi["status"]
        );
        assert_eq!(condition(&vmi, "LiveMigratable")["status"], "False");
        assert_eq!(
            vmi["status"]["memory"]["guestCurrent"], "128Mi",
            "{:#}",
            vmi["status"]
        );
        // Fields that the handler does not own are as they were.
        assert_eq!(vmi["status"]["migrationTransport"], "Unix");
        assert_eq!(
            vmi["metadata"]["finalizers"],
            json!(["kubevirt.io/foregroundDeleteVirtualMachine"])
        );
        let started = |reasons: Vec<String>| reasons.iter().any(|reason| reason == "Started");
        node.wait_for(&key, "said to be started", PATIENCE, |_| true);
        assert!(
            started(node.event_reasons("runs")),
            "{:?}",
            node.event_reasons("runs")
        );
    }

    #[test]
    fn a_deleted_instance_is_shut_down_and_ends() {
        let Some(mut node) = Node::new() else { return };
        node.start_handler(&[]);
        let mut vmi = manifest::vmi("deleted");
        vmi["spec"]["terminationGracePeriodSeconds"] = json!(2);
        let key = node.schedule(vmi);
        node.wait_for_phase(&key, "Running", PATIENCE);
        node.api.change(&key, |vmi| {
            vmi["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            vmi["metadata"]["deletionGracePeriodSeconds"] = json!(2);
        });
        node.wait_for(&key, "final", PATIENCE, |vmi| {
            matches!(
                vmi["status"]["phase"].as_str(),
                Some("Succeeded" | "Failed")
            )
        });
    }

    #[test]
    fn a_killed_launcher_fails_its_instance_within_five_seconds() {
        let Some(mut node) = Node::new() else { return };
        node.start_handler(&[]);
        let key = node.schedule(manifest::vmi("killed"));
        node.wait_for_phase(&key, "Running", PATIENCE);
        node.pod("killed").signal(Signal::SIGKILL);
        let vmi = node.wait_for_phase(&key, "Failed", Duration::from_secs(5));
        assert!(
            vmi["status"]["reason"].is_string()
                || node.event_reasons("killed").contains(&"Stopped".to_owned()),
            "{:#}",
            vmi["status"]
        );
    }

    #[test]
    fn guests_outlive_their_handler_and_it_catches_up() {
        let Some(mut node) = Node::new() else { return };
        node.start_handler(&[]);
        let stays = node.schedule(manifest::vmi("stays"));
        let goes = node.schedule(manifest::vmi("goes"));
        node.wait_for_phase(&stays, "Running", PATIENCE);
        node.wait_for_phase(&goes, "Running", PATIENCE);
        node.stop_handler(Signal::SIGKILL);
        // What happens meanwhile is seen afterwards.
        node.pod("goes").signal(Signal::SIGKILL);
        node.start_handler(&[]);
        node.wait_for_phase(&goes, "Failed", Duration::from_secs(5));
        let vmi = node.api.get(&stays).expect("the instance is there");
        assert_eq!(vmi["status"]["phase"], "Running");
        assert!(node.pod("stays").launcher_pid().is_some());
    }

    #[test]
    fn an_instance_that_cannot_run_says_which_field_and_why() {
        let Some(mut node) = Node::new() else { return };
        node.start_handler(&[]);
        let mut vmi = manifest::vmi("cannot");
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
        assert!(
            node.pod("cannot").launcher_pid().is_some(),
            "the launcher stays"
        );
        assert!(!is_true(&vmi, "Paused"));
    }
}
