use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Observed, plan};
use crate::controller::RESTART_ON_UPDATE;
use crate::controller::actions::Action;
use crate::controller::configuration::Config;
use crate::controller::key::Kind;
use crate::controller::pod::Claims;

const NOW: &str = "2026-01-01T00:10:00Z";

fn now() -> Timestamp {
    NOW.parse().unwrap()
}

/// A virtual machine that is prepared, with the fields of a strategy.
fn vm(strategy: &Value) -> Value {
    let mut vm = json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine",
        "metadata": {
            "name": "vm", "namespace": "ns", "uid": "vm-uid", "resourceVersion": "7", "generation": 3,
            "finalizers": ["kubevirt.io/virtualMachineControllerFinalize"],
        },
        "spec": {"template": {
            "metadata": {"labels": {"app": "x"}, "annotations": {"a": "b"}},
            "spec": {"domain": {"firmware": {"uuid": "u"}, "cpu": {"cores": 1}}},
        }},
    });
    for (field, value) in strategy.as_object().unwrap() {
        vm["spec"][field] = value.clone();
    }
    vm
}

fn strategy(name: &str) -> Value {
    vm(&json!({ "runStrategy": name }))
}

fn instance(phase: &str) -> Value {
    json!({
        "metadata": {
            "name": "vm", "namespace": "ns", "uid": "vmi-uid",
            "annotations": {"kubevirt.io/vm-generation": "3"},
            "ownerReferences": [{"kind": "VirtualMachine", "name": "vm", "uid": "vm-uid", "controller": true}],
        },
        "spec": {"domain": {}},
        "status": {"phase": phase},
    })
}

struct Scene {
    vm: Value,
    instance: Option<Value>,
    claims: Claims,
    started_from: Option<Arc<Value>>,
    has_importer: bool,
    trouble: Option<&'static str>,
    config: Config,
}

impl Scene {
    fn new(vm: Value, instance: Option<Value>) -> Self {
        Self {
            vm,
            instance,
            claims: Claims::default(),
            started_from: None,
            has_importer: false,
            trouble: None,
            config: Config::default(),
        }
    }

    fn plan(&self) -> Vec<Action> {
        let observed = Observed {
            raw: &self.vm,
            instance: self.instance.as_ref(),
            claims: &self.claims,
            started_from: self.started_from.clone(),
            has_importer: self.has_importer,
            trouble: self.trouble,
        };
        plan(now(), &observed, &self.config)
    }

    fn words(&self) -> Vec<String> {
        self.plan()
            .iter()
            .map(|action| match action {
                Action::Create { key, .. } => format!("create {}", key.kind.name()),
                Action::Patch { part, .. } => format!("patch {}", part.unwrap_or("spec")),
                Action::Delete { key, .. } => format!("delete {}", key.kind.name()),
                Action::Tell(event) => format!("tell {}", event.reason),
                Action::LookAgain(at) => format!("later {at}"),
                Action::LookAt(key) => format!("look at {key}"),
            })
            .filter(|word| word != "patch status")
            .collect()
    }

    /// The virtual machine as the plan leaves it.
    fn outcome(&self) -> Value {
        let mut outcome = self.vm.clone();
        for action in self.plan() {
            if let Action::Patch { patch, .. } = action {
                json_patch::patch(&mut outcome, &patch).unwrap();
            }
        }
        outcome
    }

    fn printable(&self) -> String {
        let outcome = self.outcome();
        outcome["status"]["printableStatus"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}

fn condition<'v>(object: &'v Value, kind: &str) -> &'v Value {
    let conditions = object["status"]["conditions"].as_array().unwrap();
    conditions
        .iter()
        .find(|known| known["type"] == kind)
        .unwrap_or(&Value::Null)
}

const STARTS: [&str; 3] = [
    "create ControllerRevision",
    "create VirtualMachineInstance",
    "tell SuccessfulCreate",
];
const STOPS: [&str; 2] = ["delete VirtualMachineInstance", "tell SuccessfulDelete"];
const STAYS: [&str; 0] = [];

#[test]
fn a_new_machine_is_prepared_in_one_write_before_anything_else() {
    let mut new = strategy("Always");
    new["metadata"]["finalizers"] = json!([]);
    new["spec"]["template"]["spec"]["domain"] = json!({});
    let scene = Scene::new(new, None);
    assert_eq!(scene.words(), ["patch spec"]);
    let outcome = scene.outcome();
    assert_eq!(
        outcome["metadata"]["finalizers"],
        json!(["kubevirt.io/virtualMachineControllerFinalize"])
    );
    let uuid = outcome["spec"]["template"]["spec"]["domain"]["firmware"]["uuid"]
        .as_str()
        .unwrap();
    assert_eq!(uuid.len(), 36);
}

#[test]
fn strategies_decide_about_a_start() {
    let starts = |vm: Value| Scene::new(vm, None).words();
    assert_eq!(starts(strategy("Always")), STARTS);
    assert_eq!(starts(vm(&json!({"running": true}))), STARTS);
    assert_eq!(starts(vm(&json!({"running": false}))), STAYS);
    for name in ["Halted", "Manual", "WaitAsReceiver"] {
        assert_eq!(starts(strategy(name)), STAYS, "{name}");
    }
    for name in ["Once", "RerunOnFailure"] {
        assert_eq!(starts(strategy(name)), STARTS, "{name}");
        let mut before = strategy(name);
        before["status"] = json!({ "runStrategy": name });
        assert_eq!(starts(before), STAYS, "{name}");
    }
}

#[test]
fn strategies_decide_about_the_end_of_an_instance() {
    let ends = |name: &str, phase: &str| Scene::new(strategy(name), Some(instance(phase))).words();
    for phase in ["Pending", "Scheduling", "Scheduled", "Running"] {
        for name in [
            "Always",
            "Manual",
            "RerunOnFailure",
            "Once",
            "WaitAsReceiver",
        ] {
            assert_eq!(ends(name, phase), STAYS, "{name} {phase}");
        }
        assert_eq!(ends("Halted", phase), STOPS);
    }
    assert_eq!(ends("Always", "Succeeded"), STOPS);
    assert_eq!(ends("Always", "Failed"), STOPS);
    assert_eq!(ends("RerunOnFailure", "Succeeded"), STAYS);
    assert_eq!(ends("RerunOnFailure", "Failed"), STOPS);
    for name in ["Manual", "Once"] {
        assert_eq!(ends(name, "Succeeded"), STAYS);
        assert_eq!(ends(name, "Failed"), STAYS);
    }
}

#[test]
fn a_rerun_after_a_failure_survives_the_failed_instance() {
    let mut vm = strategy("RerunOnFailure");
    vm["status"] = json!({"runStrategy": "RerunOnFailure"});
    let outcome = Scene::new(vm, Some(instance("Failed"))).outcome();
    assert_eq!(
        outcome["status"]["stateChangeRequests"],
        json!([{"action": "Start"}])
    );
    // The request outlives the instance, whose deletion takes time.
    let mut going = instance("Failed");
    going["metadata"]["deletionTimestamp"] = json!(NOW);
    let outcome = Scene::new(outcome, Some(going)).outcome();
    assert_eq!(
        outcome["status"]["stateChangeRequests"],
        json!([{"action": "Start"}])
    );
    let mut outcome = outcome;
    outcome["status"]
        .as_object_mut()
        .unwrap()
        .remove("startFailure");
    assert_eq!(Scene::new(outcome, None).words(), STARTS);
}

#[test]
fn requests_are_carried_out_and_forgotten() {
    let with = |name: &str, requests: Value| {
        let mut vm = strategy(name);
        vm["status"] = json!({"runStrategy": name, "stateChangeRequests": requests});
        vm
    };
    let stop = json!({"action": "Stop", "uid": "vmi-uid"});
    let start = json!({"action": "Start"});
    for name in ["Always", "Manual", "RerunOnFailure"] {
        let vm = with(name, json!([stop]));
        assert_eq!(
            Scene::new(vm, Some(instance("Running"))).words(),
            STOPS,
            "{name}"
        );
    }
    // A restart: the stop is done when its instance is no more, the start when there is another.
    let vm = with("Manual", json!([stop, start]));
    assert_eq!(Scene::new(vm.clone(), None).words(), STARTS);
    let mut next = instance("Pending");
    next["metadata"]["uid"] = json!("next");
    let outcome = Scene::new(vm, Some(next)).outcome();
    assert_eq!(outcome["status"].get("stateChangeRequests"), None);
    assert_eq!(
        Scene::new(with("Manual", json!([start])), None).words(),
        STARTS
    );
    // A stop of another instance means nothing.
    let stale = with("Manual", json!([{"action": "Stop", "uid": "old"}]));
    assert_eq!(Scene::new(stale, Some(instance("Running"))).words(), STAYS);
}

#[test]
fn a_halted_machine_that_is_to_start_paused_runs_and_its_instance_is_paused() {
    let request = json!([{"action": "Start", "data": {"paused": "true"}}]);
    for (fields, field, value) in [
        (json!({"running": false}), "running", json!(true)),
        (
            json!({"runStrategy": "Halted"}),
            "runStrategy",
            json!("Always"),
        ),
    ] {
        let mut halted = vm(&fields);
        halted["status"] = json!({ "stateChangeRequests": request });
        let scene = Scene::new(halted, None);
        assert_eq!(scene.words(), ["patch spec"]);
        let mut running = scene.vm.clone();
        for action in scene.plan() {
            if let Action::Patch {
                part: None, patch, ..
            } = action
            {
                json_patch::patch(&mut running, &patch).unwrap();
            }
        }
        assert_eq!(running["spec"][field], value);
        let plan = Scene::new(running, None).plan();
        let made = plan.iter().find_map(|action| match action {
            Action::Create { key, object } if key.kind == Kind::Instance => Some(object),
            _ => None,
        });
        assert_eq!(made.unwrap()["spec"]["startStrategy"], "Paused");
    }
}

#[test]
fn an_instance_is_the_template_under_the_name_of_its_machine() {
    let plan = Scene::new(strategy("Always"), None).plan();
    let [
        Action::Create {
            key,
            object: revision,
        },
        Action::Create { object, .. },
        ..,
    ] = &plan[..]
    else {
        panic!("{plan:?}");
    };
    assert_eq!(key.name, "revision-start-vm-vm-uid-3");
    assert_eq!(revision["data"]["spec"]["runStrategy"], "Always");
    let metadata = &object["metadata"];
    assert_eq!(
        (&metadata["name"], &metadata["namespace"]),
        (&json!("vm"), &json!("ns"))
    );
    assert_eq!(metadata["labels"], json!({"app": "x"}));
    assert_eq!(
        metadata["annotations"],
        json!({"a": "b", "kubevirt.io/vm-generation": "3"})
    );
    assert_eq!(metadata["ownerReferences"][0]["uid"], "vm-uid");
    assert_eq!(object["spec"]["domain"]["firmware"]["uuid"], "u");
    assert_eq!(
        object["status"]["virtualMachineRevisionName"],
        "revision-start-vm-vm-uid-3"
    );
}

#[test]
fn starts_that_fail_in_a_row_wait_longer_and_longer() {
    let mut vm = strategy("Always");
    let mut waits = Vec::new();
    for attempt in 0..8 {
        let mut failed = instance("Failed");
        failed["metadata"]["uid"] = json!(format!("vmi-{attempt}"));
        vm = Scene::new(vm, Some(failed.clone())).outcome();
        let failure = &vm["status"]["startFailure"];
        assert_eq!(failure["consecutiveFailCount"], attempt + 1);
        let at: Timestamp = failure["retryAfterTimestamp"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        waits.push(at.as_second() - now().as_second());
        // The same failure counts once.
        let again = Scene::new(vm.clone(), Some(failed)).outcome();
        assert_eq!(
            again["status"]["startFailure"]["consecutiveFailCount"],
            attempt + 1
        );
        let waiting = Scene::new(vm.clone(), None);
        assert_eq!(waiting.words(), [format!("later {at}")]);
        assert_eq!(waiting.printable(), "CrashLoopBackOff");
    }
    assert!((10..=15).contains(&waits[0]), "{waits:?}");
    assert!(waits.is_sorted() && waits[7] == 300, "{waits:?}");
    let running = Scene::new(vm, Some(instance("Running"))).outcome();
    assert_eq!(running["status"].get("startFailure"), None);
}

#[test]
fn an_instance_that_has_run_is_no_failed_start() {
    let mut failed = instance("Failed");
    failed["status"]["phaseTransitionTimestamps"] = json!([{"phase": "Running"}]);
    let outcome = Scene::new(strategy("Always"), Some(failed)).outcome();
    assert_eq!(outcome["status"].get("startFailure"), None);
}

#[test]
fn the_state_is_told_in_a_word() {
    let told = |vm: &Value, instance: Option<Value>| Scene::new(vm.clone(), instance).printable();
    let always = strategy("Always");
    let with = |phase: &str, conditions: Value| {
        let mut instance = instance(phase);
        instance["status"]["conditions"] = conditions;
        Some(instance)
    };
    let no =
        |kind: &str, reason: &str| json!([{"type": kind, "status": "False", "reason": reason}]);
    assert_eq!(told(&strategy("Halted"), None), "Stopped");
    assert_eq!(
        told(&strategy("Manual"), Some(instance("Succeeded"))),
        "Stopped"
    );
    assert_eq!(told(&always, Some(instance("Scheduling"))), "Starting");
    assert_eq!(told(&always, Some(instance("Running"))), "Running");
    assert_eq!(told(&always, Some(instance("Unknown"))), "Unknown");
    assert_eq!(
        told(
            &always,
            with("Running", json!([{"type": "Paused", "status": "True"}]))
        ),
        "Paused"
    );
    for (kind, reason, word) in [
        ("Synchronized", "FailedPvcNotFound", "ErrorPvcNotFound"),
        ("Synchronized", "ErrImagePull", "ErrImagePull"),
        ("Synchronized", "ImagePullBackOff", "ImagePullBackOff"),
        ("PodScheduled", "Unschedulable", "ErrorUnschedulable"),
        ("DataVolumesReady", "NotAllDVsReady", "Provisioning"),
    ] {
        assert_eq!(told(&always, with("Scheduling", no(kind, reason))), word);
    }
    let mut going = instance("Running");
    going["metadata"]["deletionTimestamp"] = json!(NOW);
    assert_eq!(told(&always, Some(going.clone())), "Stopping");
    let mut deleted = always.clone();
    deleted["metadata"]["deletionTimestamp"] = json!(NOW);
    assert_eq!(told(&deleted, Some(going)), "Terminating");
    let mut moving = instance("Running");
    moving["status"]["migrationState"] = json!({"startTimestamp": NOW});
    assert_eq!(told(&always, Some(moving)), "Migrating");
}

#[test]
fn conditions_are_the_instances_and_readiness_without_one_is_explained() {
    let mut running = instance("Running");
    running["status"]["conditions"] = json!([
        {"type": "Ready", "status": "True"},
        {"type": "LiveMigratable", "status": "False", "reason": "DisksNotLiveMigratable"},
    ]);
    let outcome = Scene::new(strategy("Always"), Some(running)).outcome();
    assert_eq!(condition(&outcome, "Ready")["status"], "True");
    assert_eq!(
        condition(&outcome, "LiveMigratable")["reason"],
        "DisksNotLiveMigratable"
    );
    assert_eq!(
        (&outcome["status"]["created"], &outcome["status"]["ready"]),
        (&json!(true), &json!(true))
    );
    let mut halted = outcome;
    halted["spec"]["runStrategy"] = json!("Halted");
    let outcome = Scene::new(halted, None).outcome();
    assert_eq!(condition(&outcome, "Ready")["reason"], "VMINotExists");
    assert!(condition(&outcome, "LiveMigratable").is_null());
    assert_eq!(
        (&outcome["status"]["created"], &outcome["status"]["ready"]),
        (&json!(false), &json!(false))
    );
}

#[test]
fn nothing_is_written_twice() {
    for vmi in [
        None,
        Some(instance("Running")),
        Some(instance("Scheduling")),
    ] {
        let outcome = Scene::new(strategy("Manual"), vmi.clone()).outcome();
        let again = Scene::new(outcome, vmi);
        assert!(again.plan().is_empty(), "{:?}", again.plan());
    }
}

/// A machine whose template has changed since its instance was made.
fn changed(change: impl FnOnce(&mut Value)) -> Scene {
    let mut vm = strategy("Manual");
    let started_from = Arc::new(json!({"data": {"spec": vm["spec"]}}));
    vm["metadata"]["generation"] = json!(4);
    change(&mut vm);
    let mut scene = Scene::new(vm, Some(instance("Running")));
    scene.started_from = Some(started_from);
    scene
}

#[test]
fn a_change_that_needs_a_restart_is_told() {
    let required =
        |scene: &Scene| condition(&scene.outcome(), "RestartRequired")["status"] == "True";
    let cpu = changed(|vm| vm["spec"]["template"]["spec"]["domain"]["cpu"]["cores"] = json!(2));
    assert!(required(&cpu));
    assert_eq!(cpu.words(), STAYS);
    assert!(!required(&changed(
        |vm| vm["spec"]["runStrategy"] = json!("Always")
    )));
    let placed =
        |vm: &mut Value| vm["spec"]["template"]["spec"]["nodeSelector"] = json!({"a": "b"});
    assert!(!required(&changed(placed)));
    let mut staged = changed(placed);
    staged.config.cluster.vm_rollout_strategy = Some("Stage".to_owned());
    assert!(required(&staged));
    // With its instance the need goes.
    let mut stopped = Scene::new(cpu.outcome(), None);
    stopped.vm["spec"]["runStrategy"] = json!("Halted");
    assert!(!required(&stopped));
}

#[test]
fn a_change_restarts_the_machine_only_where_that_is_asked_for() {
    let cpu = |vm: &mut Value| vm["spec"]["template"]["spec"]["domain"]["cpu"]["cores"] = json!(2);
    let mut by_cluster = changed(cpu);
    by_cluster.config.restart_on_update = true;
    let by_machine = changed(|vm| {
        cpu(vm);
        vm["metadata"]["annotations"] = json!({RESTART_ON_UPDATE: "true"});
    });
    for scene in [&by_cluster, &by_machine] {
        let mut stops = STOPS.to_vec();
        stops.push("delete ControllerRevision");
        assert_eq!(scene.words(), stops);
        let requests = scene.outcome()["status"]["stateChangeRequests"].clone();
        assert_eq!(
            requests,
            json!([{"action": "Stop", "uid": "vmi-uid"}, {"action": "Start"}])
        );
        assert_eq!(Scene::new(scene.outcome(), None).words(), STARTS);
    }
    let mut refused = changed(|vm| {
        cpu(vm);
        vm["metadata"]["annotations"] = json!({RESTART_ON_UPDATE: "false"});
    });
    refused.config.restart_on_update = true;
    assert_eq!(refused.words(), STAYS);
}

fn templated(source: &Value) -> Value {
    let mut vm = strategy("Always");
    vm["spec"]["dataVolumeTemplates"] = json!([{
        "metadata": {"name": "data"},
        "spec": {"source": source, "storage": {"resources": {"requests": {"storage": "1Gi"}}}},
    }]);
    vm
}

#[test]
fn a_template_without_content_becomes_a_claim() {
    let mut scene = Scene::new(templated(&json!({"blank": {}})), None);
    assert_eq!(scene.words(), ["create PersistentVolumeClaim"]);
    assert_eq!(scene.printable(), "Provisioning");
    // That it waits is told before something is tried that may fail.
    let Action::Create { object, .. } = scene.plan().remove(1) else {
        panic!("no claim");
    };
    assert_eq!(object["spec"]["accessModes"], json!(["ReadWriteOnce"]));
    assert_eq!(object["spec"]["resources"]["requests"]["storage"], "1Gi");
    assert_eq!(object["metadata"]["ownerReferences"][0]["uid"], "vm-uid");
    scene.claims.insert("data".to_owned(), Arc::new(object));
    assert_eq!(scene.words(), STARTS);
}

#[test]
fn a_template_with_content_needs_somebody_who_fetches_it() {
    let mut scene = Scene::new(templated(&json!({"http": {"url": "http://x"}})), None);
    assert_eq!(scene.words(), STAYS);
    assert_eq!(scene.printable(), "Provisioning");
    let failure = condition(&scene.outcome(), "Failure").clone();
    assert_eq!(failure["reason"], "DataVolumeNotSupported");
    assert!(
        failure["message"]
            .as_str()
            .unwrap()
            .contains("create a PVC named data")
    );
    scene.has_importer = true;
    assert_eq!(scene.words(), ["create DataVolume"]);
    assert!(condition(&scene.outcome(), "Failure").is_null());
    let annotations = json!({"cdi.kubevirt.io/storage.pod.phase": "Running"});
    scene.claims.insert(
        "data".to_owned(),
        Arc::new(json!({"metadata": {"annotations": annotations}})),
    );
    assert_eq!(scene.words(), STAYS);
    scene
        .claims
        .insert("data".to_owned(), Arc::new(json!({"metadata": {}})));
    assert_eq!(scene.words(), STARTS);
}

#[test]
fn a_machine_of_an_instance_type_says_that_there_are_none() {
    let scene = Scene::new(
        vm(&json!({"runStrategy": "Always", "instancetype": {"name": "u1.small"}})),
        None,
    );
    assert_eq!(scene.words(), STAYS);
    let failure = condition(&scene.outcome(), "Failure").clone();
    assert_eq!(failure["reason"], "InstancetypeNotSupported");
    assert!(failure["message"].as_str().unwrap().contains("u1.small"));
}

#[test]
fn an_instance_that_somebody_else_made_is_in_the_way_and_left_alone() {
    let mut other = instance("Running");
    other["metadata"]["ownerReferences"] = json!([]);
    for name in ["Always", "Halted"] {
        let scene = Scene::new(strategy(name), Some(other.clone()));
        assert_eq!(scene.words(), STAYS);
        let told = condition(&scene.outcome(), "Failure")["reason"] == "FailedCreate";
        assert_eq!(told, name == "Always");
    }
}

#[test]
fn a_start_that_the_api_server_refuses_is_told_and_tried_again() {
    let mut scene = Scene::new(strategy("Always"), None);
    scene.trouble = Some("denied by admission");
    assert_eq!(scene.words(), STARTS);
    assert_eq!(
        condition(&scene.outcome(), "Failure")["message"],
        "denied by admission"
    );
    let started = Scene::new(scene.outcome(), Some(instance("Pending"))).outcome();
    assert!(condition(&started, "Failure").is_null());
}

#[test]
fn a_deleted_machine_goes_after_its_instance() {
    let mut deleted = strategy("Always");
    deleted["metadata"]["deletionTimestamp"] = json!(NOW);
    assert_eq!(
        Scene::new(deleted.clone(), Some(instance("Running"))).words(),
        STOPS
    );
    let mut going = instance("Running");
    going["metadata"]["deletionTimestamp"] = json!(NOW);
    assert_eq!(Scene::new(deleted.clone(), Some(going)).words(), STAYS);
    let scene = Scene::new(deleted.clone(), None);
    assert_eq!(scene.words(), ["patch spec"]);
    assert_eq!(scene.outcome()["metadata"]["finalizers"], json!([]));
    // An orphaned instance stays.
    deleted["metadata"]["finalizers"] =
        json!(["kubevirt.io/virtualMachineControllerFinalize", "orphan"]);
    assert_eq!(
        Scene::new(deleted, Some(instance("Running"))).words(),
        ["patch spec"]
    );
}

#[test]
fn a_strategy_that_makes_no_sense_is_left_alone() {
    for fields in [
        json!({}),
        json!({"running": true, "runStrategy": "Always"}),
        json!({"runStrategy": "Odd"}),
    ] {
        assert_eq!(Scene::new(vm(&fields), None).words(), STAYS);
        assert_eq!(
            Scene::new(vm(&fields), Some(instance("Running"))).words(),
            STAYS
        );
    }
}
