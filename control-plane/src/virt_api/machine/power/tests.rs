use api::options::{RestartOptions, StartOptions, StopOptions};
use serde_json::{Value, json};

use super::{Target, check_restart, restart, start, stop};

fn machine(strategy: &str) -> Value {
    json!({
        "metadata": {"name": "vm", "resourceVersion": "7"},
        "spec": {"runStrategy": strategy},
        "status": {"created": true},
    })
}

fn instance(phase: &str) -> Value {
    json!({
        "metadata": {"uid": "u", "resourceVersion": "8"},
        "spec": {"terminationGracePeriodSeconds": 30},
        "status": {"phase": phase},
    })
}

/// What a plan does: the writes' targets and the objects that they make, or the end of its refusal.
fn outcome(vm: &Value, vmi: Option<&Value>, plan: super::Plan) -> Value {
    match plan {
        Err(refusal) => {
            let message = refusal.message();
            json!(message.split("\"vm\": ").last())
        }
        Ok(writes) => {
            let written = writes.into_iter().map(|write| {
                let mut object = match write.target {
                    Target::Instance => vmi.unwrap().clone(),
                    Target::Machine | Target::MachineStatus => vm.clone(),
                };
                json_patch::patch(&mut object, &write.patch).unwrap();
                match write.target {
                    Target::Machine => object["spec"].take(),
                    Target::MachineStatus => object["status"]["stateChangeRequests"].take(),
                    Target::Instance => object["spec"]["terminationGracePeriodSeconds"].take(),
                }
            });
            written.collect()
        }
    }
}

#[track_caller]
fn check_start(strategy: &str, phase: Option<&str>, expected: &Value) {
    let (vm, vmi) = (machine(strategy), phase.map(instance));
    let plan = start(&vm, vmi.as_ref(), &StartOptions::default());
    assert_eq!(
        &outcome(&vm, vmi.as_ref(), plan),
        expected,
        "{strategy} {phase:?}"
    );
}

#[track_caller]
fn check_stop(strategy: &str, phase: Option<&str>, seconds: Option<i64>, expected: &Value) {
    let (vm, vmi) = (machine(strategy), phase.map(instance));
    let options = StopOptions {
        grace_period: seconds,
        ..StopOptions::default()
    };
    let plan = stop(&vm, vmi.as_ref(), &options);
    assert_eq!(
        &outcome(&vm, vmi.as_ref(), plan),
        expected,
        "{strategy} {phase:?} {seconds:?}"
    );
}

#[test]
fn a_start_follows_the_run_strategy() {
    let request = json!([[{"action": "Start"}]]);
    let both = json!([[{"action": "Stop", "uid": "u"}, {"action": "Start"}]]);
    let refused =
        |strategy: &str| json!(format!("{strategy} does not support manual start requests"));
    check_start("Halted", None, &json!([{"runStrategy": "Always"}]));
    check_start(
        "Halted",
        Some("Failed"),
        &json!([{"runStrategy": "Always"}]),
    );
    check_start("Manual", None, &request);
    check_start("Manual", Some("Succeeded"), &both);
    check_start("Manual", Some("Failed"), &both);
    check_start("RerunOnFailure", None, &request);
    check_start("RerunOnFailure", Some("Succeeded"), &both);
    let failed = "RerunOnFailure does not support starting VM from failed state";
    check_start("RerunOnFailure", Some("Failed"), &json!(failed));
    check_start("Always", None, &refused("Always"));
    check_start("Once", None, &refused("Once"));
    check_start("WaitAsReceiver", None, &refused("WaitAsReceiver"));
    for phase in ["Pending", "Scheduling", "Scheduled", "Running"] {
        check_start("Manual", Some(phase), &json!("VM is already running"));
    }
}

#[test]
fn a_paused_start_of_a_halted_machine_is_a_request() {
    let vm = machine("Halted");
    let options = StartOptions {
        paused: Some(true),
        ..StartOptions::default()
    };
    let plan = start(&vm, None, &options);
    let expected = json!([[{"action": "Start", "data": {"paused": "true"}}]]);
    assert_eq!(outcome(&vm, None, plan), expected);
}

#[test]
fn a_stop_follows_the_run_strategy() {
    let request = json!([[{"action": "Stop", "uid": "u"}]]);
    let shorter = json!([5, [{"action": "Stop", "uid": "u"}]]);
    let none = json!("VM is not running");
    check_stop(
        "Always",
        Some("Running"),
        None,
        &json!([{"runStrategy": "Halted"}]),
    );
    check_stop("Once", None, None, &json!([{"runStrategy": "Halted"}]));
    check_stop(
        "Always",
        Some("Running"),
        Some(0),
        &json!([0, {"runStrategy": "Halted"}]),
    );
    check_stop("Manual", Some("Running"), None, &request);
    check_stop("RerunOnFailure", Some("Running"), None, &request);
    check_stop("Manual", Some("Running"), Some(5), &shorter);
    check_stop("Manual", None, None, &none);
    check_stop("Manual", Some("Succeeded"), None, &none);
    check_stop("Halted", None, Some(0), &none);
    check_stop("Halted", Some("Running"), Some(5), &shorter);
    let longer = "Halted only supports manual stop requests with a shorter graceperiod";
    check_stop("Halted", Some("Running"), Some(30), &json!(longer));
    check_stop("Halted", Some("Running"), None, &json!(longer));
    let negative = json!("gracePeriod has to be greater or equal to 0");
    check_stop("Manual", Some("Running"), Some(-1), &negative);
}

#[test]
fn a_restart_follows_the_run_strategy() {
    let both = json!([[{"action": "Stop", "uid": "u"}, {"action": "Start"}]]);
    let vmi = instance("Running");
    for (strategy, expected) in [
        ("Always", both.clone()),
        ("Manual", both.clone()),
        ("RerunOnFailure", both),
        (
            "Halted",
            json!("RunStategy Halted does not support manual restart requests"),
        ),
        (
            "Once",
            json!("RunStategy Once does not support manual restart requests"),
        ),
    ] {
        let vm = machine(strategy);
        let plan = restart(&vm, Some(&vmi), &RestartOptions::default());
        assert_eq!(outcome(&vm, Some(&vmi), plan), expected, "{strategy}");
    }
    let vm = machine("Always");
    let plan = restart(&vm, None, &RestartOptions::default());
    assert_eq!(outcome(&vm, None, plan), json!("VM is not running"));
}

#[test]
fn a_forced_restart_shortens_the_grace_period_and_can_be_taken_back() {
    let (vm, vmi) = (machine("Always"), instance("Running"));
    let options = RestartOptions {
        grace_period_seconds: Some(0),
        ..RestartOptions::default()
    };
    let writes = restart(&vm, Some(&vmi), &options).unwrap();
    let mut changed = vmi.clone();
    json_patch::patch(&mut changed, &writes[0].patch).unwrap();
    assert_eq!(changed["spec"]["terminationGracePeriodSeconds"], 1);
    json_patch::patch(&mut changed, writes[0].undo.as_ref().unwrap()).unwrap();
    assert_eq!(changed, vmi);
    for (seconds, is_fine) in [(0, true), (1, false), (-1, false)] {
        let options = RestartOptions {
            grace_period_seconds: Some(seconds),
            ..RestartOptions::default()
        };
        assert_eq!(check_restart(&options).is_ok(), is_fine, "{seconds}");
    }
}

#[test]
fn a_stop_takes_the_place_of_requests_under_way_and_a_start_waits() {
    let mut vm = machine("Manual");
    vm["status"]["stateChangeRequests"] = json!([{"action": "Start"}]);
    let vmi = instance("Running");
    let plan = stop(&vm, Some(&vmi), &StopOptions::default());
    let expected = json!([[{"action": "Stop", "uid": "u"}]]);
    assert_eq!(outcome(&vm, Some(&vmi), plan), expected);
    let plan = start(&vm, None, &StartOptions::default());
    let expected = "unable to complete request: stop/start already underway";
    assert_eq!(outcome(&vm, None, plan), json!(expected));
}

#[test]
fn patches_apply_only_to_what_they_were_made_from() {
    let vm = machine("Halted");
    let [write] = &start(&vm, None, &StartOptions::default()).unwrap()[..] else {
        panic!("one write");
    };
    let mut other = machine("Manual");
    assert!(json_patch::patch(&mut other, &write.patch).is_err());
    let vm = machine("Manual");
    let [write] = &start(&vm, None, &StartOptions::default()).unwrap()[..] else {
        panic!("one write");
    };
    let mut other = vm.clone();
    other["metadata"]["resourceVersion"] = json!("8");
    assert!(json_patch::patch(&mut other, &write.patch).is_err());
}

#[test]
fn a_machine_without_status_or_with_failed_starts_gets_its_request() {
    let mut vm = machine("Manual");
    vm["status"]["startFailure"] = json!({"consecutiveFailCount": 3});
    let writes = start(&vm, None, &StartOptions::default()).unwrap();
    let mut changed = vm.clone();
    json_patch::patch(&mut changed, &writes[0].patch).unwrap();
    assert!(changed["status"]["startFailure"].is_null());
    vm.as_object_mut().unwrap().remove("status");
    let writes = start(&vm, None, &StartOptions::default()).unwrap();
    json_patch::patch(&mut vm, &writes[0].patch).unwrap();
    assert_eq!(
        vm["status"],
        json!({"stateChangeRequests": [{"action": "Start"}]})
    );
}

#[test]
fn machines_that_a_lost_volume_migration_left_are_not_touched() {
    let mut vm = machine("Manual");
    vm["status"]["conditions"] = json!([{"type": "ManualRecoveryRequired", "status": "True"}]);
    let refusal = start(&vm, None, &StartOptions::default()).unwrap_err();
    assert!(refusal.message().contains("VM recovery required"));
}
