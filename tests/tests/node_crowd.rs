//! Many launchers on one node: one handler, and nobody hears what is another's.

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Duration;

    use nix::sys::signal::Signal;
    use serde_json::{Value, json};
    use tests::api_endpoint::{ObjectKey, Resource};
    use tests::node::status::phases;
    use tests::node::{Node, manifest, until};

    const CROWD: usize = 50;
    /// Every so many is killed.
    const KILLED: usize = 10;
    const PATIENCE: Duration = Duration::from_secs(90);

    /// An instance that says its name early in its boot, to its console's log.
    fn named(name: &str) -> Value {
        let mut vmi = manifest::vmi(name);
        vmi["spec"]["domain"]["memory"]["guest"] = json!("80Mi");
        let boot = &mut vmi["spec"]["domain"]["firmware"]["kernelBoot"];
        boot["kernelArgs"] = json!(format!("console=ttyS0 cryptomgr.notests who={name}."));
        vmi["spec"]["domain"]["devices"]["logSerialConsole"] = json!(true);
        vmi
    }

    /// The names that a guest's console log has.
    fn names_in_log(node: &Node, name: &str) -> Vec<String> {
        let pod = node.pod(name);
        let folder = pod.volume("private").join(pod.instance_uid());
        let log = fs::read(folder.join("virt-serial0-log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        let mut names: Vec<String> = text
            .split("who=")
            .skip(1)
            .filter_map(|rest| rest.split_once('.'))
            .map(|(name, _)| name.to_owned())
            .collect();
        names.dedup();
        names
    }

    fn events_of(node: &Node, name: &str, reason: &str) -> u64 {
        let events = node.api.list(&Resource::events());
        let of_it = events
            .iter()
            .filter(|event| event["involvedObject"]["name"] == name && event["reason"] == reason);
        of_it
            .map(|event| event["count"].as_u64().unwrap_or(1))
            .sum()
    }

    #[test]
    fn fifty_launchers_run_at_once_and_do_not_disturb_each_other() {
        let Some(mut node) = Node::new() else { return };
        node.start_handler(&[]);
        let names: Vec<String> = (0..CROWD).map(|number| format!("crowd{number}")).collect();
        let keys: Vec<ObjectKey> = names
            .iter()
            .map(|name| node.schedule(named(name)))
            .collect();
        for (key, name) in keys.iter().zip(&names) {
            let vmi = node.wait_for_phase(key, "Running", PATIENCE);
            assert_eq!(
                vmi["metadata"]["uid"],
                manifest::vmi(name)["metadata"]["uid"]
            );
            assert_eq!(
                phases(&vmi),
                ["Pending", "Scheduling", "Scheduled", "Running"]
            );
        }
        for name in &names {
            let has_said = until(PATIENCE, || !names_in_log(&node, name).is_empty());
            assert!(has_said, "{name} has not booted\n{}", node.logs(name));
            assert_eq!(names_in_log(&node, name), std::slice::from_ref(name));
            node.wait_for_event(name, "Started", PATIENCE);
            assert_eq!(events_of(&node, name, "Started"), 1);
        }
        let is_killed = |number: usize| number.is_multiple_of(KILLED);
        for name in names.iter().step_by(KILLED) {
            node.pod(name).signal(Signal::SIGKILL);
        }
        for key in keys.iter().step_by(KILLED) {
            node.wait_for_phase(key, "Failed", Duration::from_secs(5));
        }
        for (number, key) in keys.iter().enumerate() {
            let vmi = node.api.get(key).expect("the instance is there");
            let expected = if is_killed(number) {
                "Failed"
            } else {
                "Running"
            };
            assert_eq!(vmi["status"]["phase"], expected, "{}", key.name);
            assert_eq!(events_of(&node, &key.name, "Started"), 1);
        }
    }
}
