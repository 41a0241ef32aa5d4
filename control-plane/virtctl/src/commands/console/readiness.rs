//! Whether a console can be opened yet, seen from the objects.

use api::labels;
use serde_json::Value;

/// What to do about a console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The machine runs.
    Connect {
        /// Which instance it is.
        uid: String,
    },
    /// The machine is going to run; what it waits for.
    Wait(String),
    /// The machine will not run, or has no console; why and what to do.
    GiveUp(String),
}

/// Decides what to do about the console of an instance. `place` is where the objects were looked for.
pub(super) fn readiness(name: &str, place: &str, vmi: Option<&Value>, vm: Option<&Value>) -> Step {
    let Some(vmi) = vmi else {
        return without_instance(name, place, vm);
    };
    if vmi["spec"]["domain"]["devices"]["autoattachSerialConsole"] == false {
        return Step::GiveUp(format!(
            "VMI {name} has no serial console: leave spec.domain.devices.autoattachSerialConsole out, and restart it"
        ));
    }
    match text(vmi, "/status/phase") {
        "Running" => Step::Connect {
            uid: text(vmi, "/metadata/uid").to_owned(),
        },
        phase @ ("Succeeded" | "Failed") if !is_wanted(vm) => Step::GiveUp(format!(
            "VMI {name} has ended ({phase}){}: start it again with `virtctl start {name}`",
            because(vmi)
        )),
        "" => Step::Wait(format!(
            "Waiting for VMI {name}: phase Pending{}",
            because(vmi)
        )),
        phase => Step::Wait(format!(
            "Waiting for VMI {name}: phase {phase}{}",
            because(vmi)
        )),
    }
}

fn without_instance(name: &str, place: &str, vm: Option<&Value>) -> Step {
    match vm {
        None => Step::GiveUp(format!(
            "Can't access VMI {name}: virtualmachineinstance.kubevirt.io {name:?} not found in {place}. Look for it with `kubectl get vm,vmi -A`, and choose its namespace with -n."
        )),
        Some(vm) if is_wanted(Some(vm)) => {
            let status = text(vm, "/status/printableStatus");
            let status = if status.is_empty() {
                "not started yet"
            } else {
                status
            };
            Step::Wait(format!("Waiting for VM {name}: {status}{}", because(vm)))
        }
        Some(_) => Step::GiveUp(format!(
            "VM {name} is stopped: start it with `virtctl start {name}`"
        )),
    }
}

/// Whether a virtual machine is to have an instance (run strategies, KubeVirt user guide).
fn is_wanted(vm: Option<&Value>) -> bool {
    let Some(vm) = vm else {
        return false;
    };
    if !text(vm, "/metadata/deletionTimestamp").is_empty() {
        return false;
    }
    let requests = vm["status"]["stateChangeRequests"].as_array();
    let mut requests = requests.into_iter().flatten();
    let is_asked_for = requests.any(|request| request["action"] == "Start");
    let status = text(vm, "/status/printableStatus");
    match text(vm, "/spec/runStrategy") {
        "Always" => true,
        "Once" | "RerunOnFailure" | "WaitAsReceiver" => is_asked_for || status != "Stopped",
        "Manual" => is_asked_for || !matches!(status, "" | "Stopped"),
        _ => is_asked_for || vm["spec"]["running"] == true,
    }
}

/// Returns the message of the condition that tells why something does not run.
fn because(object: &Value) -> String {
    let conditions = object["status"]["conditions"].as_array();
    let conditions = || conditions.into_iter().flatten();
    let with = |kind: &str, status: &str| {
        conditions()
            .find(|condition| condition["type"] == kind && condition["status"] == status)
            .map(|condition| text(condition, "/message"))
            .filter(|message| !message.is_empty())
    };
    let message = with("Failure", "True")
        .or_else(|| with("Synchronized", "False"))
        .or_else(|| with("PodScheduled", "False"));
    match message {
        Some(message) => format!(" ({message})"),
        None => reason_of_node(object),
    }
}

fn reason_of_node(object: &Value) -> String {
    let node = object["metadata"]["labels"][labels::NODE_NAME].as_str();
    node.map(|node| format!(" on node {node}"))
        .unwrap_or_default()
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Step, readiness};

    fn vmi(phase: &str) -> Value {
        json!({"metadata": {"uid": "u"}, "status": {"phase": phase}})
    }

    fn decide(vmi: Option<&Value>, vm: Option<&Value>) -> Step {
        readiness("n", "namespace d", vmi, vm)
    }

    #[test]
    fn a_running_instance_is_connected() {
        let uid = "u".to_owned();
        assert_eq!(decide(Some(&vmi("Running")), None), Step::Connect { uid });
    }

    #[test]
    fn one_that_is_going_to_run_is_waited_for_with_the_reason() {
        for phase in ["", "Pending", "Scheduling", "Scheduled", "Unknown"] {
            assert!(
                matches!(decide(Some(&vmi(phase)), None), Step::Wait(_)),
                "{phase}"
            );
        }
        let mut unschedulable = vmi("Scheduling");
        unschedulable["status"]["conditions"] =
            json!([{"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}]);
        let step = decide(Some(&unschedulable), None);
        assert_eq!(
            step,
            Step::Wait("Waiting for VMI n: phase Scheduling (0/1 nodes)".to_owned())
        );
    }

    #[test]
    fn a_started_machine_is_waited_for_before_its_instance_exists() {
        let started = [
            json!({"spec": {"running": true}}),
            json!({"spec": {"runStrategy": "Always"}, "status": {"printableStatus": "Stopped"}}),
            json!({"spec": {"runStrategy": "Manual"}, "status": {"stateChangeRequests": [{"action": "Start"}]}}),
            json!({"spec": {"runStrategy": "Manual"}, "status": {"printableStatus": "Starting"}}),
            json!({"spec": {"runStrategy": "Once"}}),
        ];
        for vm in started {
            assert!(matches!(decide(None, Some(&vm)), Step::Wait(_)), "{vm}");
            let ended = decide(Some(&vmi("Succeeded")), Some(&vm));
            assert!(matches!(ended, Step::Wait(_)), "{vm}");
        }
    }

    #[test]
    fn what_will_not_run_is_given_up_with_the_cure() {
        let stopped = [
            json!({"spec": {"running": false}}),
            json!({"spec": {"runStrategy": "Halted"}}),
            json!({"spec": {"runStrategy": "Manual"}}),
            json!({"spec": {"runStrategy": "Once"}, "status": {"printableStatus": "Stopped"}}),
            json!({"spec": {"running": true}, "metadata": {"deletionTimestamp": "now"}}),
        ];
        for vm in stopped {
            let Step::GiveUp(why) = decide(None, Some(&vm)) else {
                panic!("{vm}");
            };
            assert!(why.contains("virtctl start n"), "{why}");
        }
        let Step::GiveUp(why) = decide(None, None) else {
            panic!()
        };
        assert!(why.contains("not found in namespace d"), "{why}");
        assert!(matches!(
            decide(Some(&vmi("Failed")), None),
            Step::GiveUp(_)
        ));
        let mut blind = vmi("Running");
        blind["spec"]["domain"]["devices"]["autoattachSerialConsole"] = false.into();
        let Step::GiveUp(why) = decide(Some(&blind), None) else {
            panic!()
        };
        assert!(why.contains("autoattachSerialConsole"), "{why}");
    }
}
