use std::sync::Arc;

use api::Vmi;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Observed, Past, plan};
use crate::controller::actions::Action;
use crate::controller::configuration::Config;
use crate::controller::key::Kind;
use crate::controller::pod::{Attachments, Claims};

const MADE: &str = "2026-01-01T00:00:00Z";

fn at(seconds: i64) -> Timestamp {
    MADE.parse::<Timestamp>().unwrap() + jiff::SignedDuration::from_secs(seconds)
}

fn vmi(phase: &str) -> Value {
    json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
        "metadata": {
            "name": "vm", "namespace": "ns", "uid": "vmi-uid", "resourceVersion": "5",
            "creationTimestamp": MADE, "finalizers": ["kubevirt.io/foregroundDeleteVirtualMachine"],
        },
        "spec": {"domain": {"devices": {}, "memory": {"guest": "64Mi"}}},
        "status": {"phase": phase, "phaseTransitionTimestamps": [
            {"phase": phase, "phaseTransitionTimestamp": MADE},
        ]},
    })
}

fn pod() -> Value {
    json!({
        "metadata": {
            "name": "virt-launcher-vm-abcde", "namespace": "ns", "uid": "pod-uid", "resourceVersion": "9",
            "creationTimestamp": MADE, "labels": {"kubevirt.io/created-by": "vmi-uid"},
        },
        "spec": {"nodeName": "node1", "containers": [{"name": "compute", "image": "launcher:1"}]},
        "status": {"phase": "Pending", "conditions": [open_gate()]},
    })
}

fn open_gate() -> Value {
    json!({"type": "kubevirt.io/virtual-machine-unpaused", "status": "True", "lastTransitionTime": MADE})
}

fn running_pod() -> Value {
    let mut pod = pod();
    pod["status"] = json!({
        "phase": "Running", "qosClass": "Burstable", "conditions": [open_gate()],
        "containerStatuses": [
            {"name": "compute", "ready": false, "state": {"running": {}}},
            {"name": "volumeroot", "ready": true, "state": {"running": {}}},
        ],
    });
    pod
}

struct Scene {
    vmi: Value,
    pods: Vec<Value>,
    claims: Claims,
    attachments: Attachments,
    config: Config,
    node_is_dead: bool,
    past: Past,
    now: Timestamp,
}

impl Scene {
    fn new(vmi: Value, pods: impl Into<Vec<Value>>) -> Self {
        Self {
            vmi,
            pods: pods.into(),
            claims: Claims::default(),
            attachments: Attachments::default(),
            config: Config::default(),
            node_is_dead: false,
            past: Past::default(),
            now: at(5),
        }
    }

    fn plan(&self) -> Vec<Action> {
        let typed = Vmi::deserialize(&self.vmi).unwrap();
        let pods: Vec<Arc<Value>> = self.pods.iter().cloned().map(Arc::new).collect();
        let observed = Observed {
            raw: &self.vmi,
            vmi: &typed,
            pods: &pods,
            claims: &self.claims,
            attachments: &self.attachments,
            node_is_dead: self.node_is_dead,
            past: &self.past,
        };
        plan(self.now, &observed, &self.config)
    }

    /// The instance as the plan leaves it.
    #[track_caller]
    fn outcome(&self) -> Value {
        let mut outcome = self.vmi.clone();
        for action in self.plan() {
            if let Action::Patch { key, patch, .. } = action
                && key.kind == Kind::Instance
            {
                json_patch::patch(&mut outcome, &patch).unwrap();
            }
        }
        outcome
    }
}

fn words(actions: &[Action]) -> Vec<String> {
    actions
        .iter()
        .map(|action| match action {
            Action::Create { key, .. } => format!("create {}", key.kind.name()),
            Action::Patch { key, part, .. } => {
                format!(
                    "patch {}{}",
                    key.kind.name(),
                    part.map_or(String::new(), |part| format!("/{part}"))
                )
            }
            Action::Delete { key, .. } => format!("delete {}", key.kind.name()),
            Action::Tell(event) => format!("tell {}", event.reason),
            Action::LookAgain(_) => "later".to_owned(),
            Action::LookAt(key) => format!("look at {}", key.kind.name()),
        })
        .collect()
}

fn condition<'v>(object: &'v Value, kind: &str) -> &'v Value {
    let conditions = object["status"]["conditions"].as_array().unwrap();
    conditions
        .iter()
        .find(|known| known["type"] == kind)
        .unwrap_or(&Value::Null)
}

fn noted(object: &Value) -> Vec<&str> {
    let noted = object["status"]["phaseTransitionTimestamps"]
        .as_array()
        .unwrap();
    noted
        .iter()
        .map(|known| known["phase"].as_str().unwrap())
        .collect()
}

fn claim(phase: &str, annotations: &Value) -> Arc<Value> {
    Arc::new(json!({
        "metadata": {"name": "data", "annotations": annotations},
        "spec": {
            "accessModes": ["ReadWriteOnce"], "volumeMode": "Block",
            "resources": {"requests": {"storage": "1Gi"}},
        },
        "status": {"phase": phase, "capacity": {"storage": "2Gi"}},
    }))
}

fn with_claim(mut vmi: Value, source: &Value) -> Value {
    let mut volume = source.clone();
    volume["name"] = json!("disk");
    vmi["spec"]["volumes"] = json!([volume]);
    vmi
}

#[test]
fn a_new_instance_gets_one_pod_and_no_other_write() {
    for phase in ["", "Pending"] {
        let scene = Scene::new(vmi(phase), []);
        assert_eq!(
            words(&scene.plan()),
            ["create Pod", "tell SuccessfulCreate"]
        );
    }
}

#[test]
fn the_name_of_the_pod_follows_from_the_instance() {
    let name = |scene: &Scene| match scene.plan().remove(0) {
        Action::Create { key, object } => {
            assert_eq!(object["metadata"]["name"], key.name.as_str());
            key.name
        }
        other => panic!("{other:?}"),
    };
    let (first, again) = (
        Scene::new(vmi("Pending"), []),
        Scene::new(vmi("Pending"), []),
    );
    assert_eq!(name(&first), name(&again));
    let mut other = vmi("Pending");
    other["metadata"]["uid"] = json!("another");
    assert_ne!(name(&first), name(&Scene::new(other, [])));
}

#[test]
fn a_pod_that_starts_at_once_costs_one_write_for_all_phases() {
    let mut scene = Scene::new(vmi("Pending"), [pod()]);
    scene.now = at(0);
    assert_eq!(words(&scene.plan()), ["later"]);
    let scene = Scene::new(vmi("Pending"), [running_pod()]);
    assert_eq!(words(&scene.plan()), ["patch VirtualMachineInstance"]);
    let outcome = scene.outcome();
    assert_eq!(noted(&outcome), ["Pending", "Scheduling", "Scheduled"]);
    assert_eq!(
        outcome["metadata"]["labels"]["kubevirt.io/nodeName"],
        "node1"
    );
    let status = &outcome["status"];
    assert_eq!(status["phase"], "Scheduled");
    assert_eq!(status["nodeName"], "node1");
    assert_eq!(status["activePods"], json!({"pod-uid": "node1"}));
    assert_eq!(status["launcherContainerImageVersion"], "launcher:1");
    assert_eq!(status["migrationTransport"], "Unix");
    assert_eq!(status["qosClass"], "Burstable");
    assert_eq!(condition(&outcome, "Ready")["reason"], "GuestNotRunning");
}

#[test]
fn a_pod_that_takes_its_time_makes_its_instance_scheduling() {
    let scene = Scene::new(vmi("Pending"), [pod()]);
    let outcome = scene.outcome();
    assert_eq!(outcome["status"]["phase"], "Scheduling");
    // Once that is told there is nothing to do but to wait.
    assert!(Scene::new(outcome, [pod()]).plan().is_empty());
}

#[test]
fn an_instance_that_no_webhook_saw_gets_what_it_lacks() {
    let mut bare = vmi("");
    bare["metadata"]["finalizers"] = json!([]);
    bare["status"] = json!({});
    let outcome = Scene::new(bare, [running_pod()]).outcome();
    assert_eq!(
        outcome["metadata"]["finalizers"],
        json!(["kubevirt.io/foregroundDeleteVirtualMachine"])
    );
    assert_eq!(outcome["status"]["runtimeUser"], 107);
    assert_eq!(noted(&outcome), ["Pending", "Scheduling", "Scheduled"]);
    assert_eq!(
        outcome["status"]["phaseTransitionTimestamps"][0]["phaseTransitionTimestamp"],
        MADE
    );
}

#[test]
fn what_keeps_a_pod_from_running_is_told() {
    for (reason, list) in [
        ("ErrImagePull", "containerStatuses"),
        ("ImagePullBackOff", "initContainerStatuses"),
    ] {
        let mut pod = pod();
        let waiting = json!({"reason": reason, "message": "no such image"});
        pod["status"][list] = json!([{"name": "volumeroot", "state": {"waiting": waiting}}]);
        let mut scene = Scene::new(vmi("Pending"), [pod]);
        scene.now = at(0);
        let outcome = scene.outcome();
        let told = condition(&outcome, "Synchronized");
        assert_eq!(
            (&told["status"], &told["reason"]),
            (&json!("False"), &json!(reason))
        );
        assert_eq!(told["message"], "no such image");
        // It is over when the pod runs.
        let outcome = Scene::new(outcome, [running_pod()]).outcome();
        assert!(condition(&outcome, "Synchronized").is_null());
    }
}

#[test]
fn a_pod_without_a_node_makes_the_instance_unscheduled() {
    let mut pod = pod();
    let message = "0/1 nodes are available: 1 Insufficient memory.";
    pod["status"]["conditions"] = json!([{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}]);
    let outcome = Scene::new(vmi("Pending"), [pod]).outcome();
    let told = condition(&outcome, "PodScheduled");
    assert_eq!(
        (&told["reason"], &told["message"]),
        (&json!("Unschedulable"), &json!(message))
    );
    assert!(condition(&outcome, "Synchronized").is_null());
    let outcome = Scene::new(outcome, [running_pod()]).outcome();
    assert!(condition(&outcome, "PodScheduled").is_null());
}

#[test]
fn what_the_node_agent_says_of_an_instance_is_left_alone() {
    let mut instance = Scene::new(vmi("Scheduling"), [running_pod()]).outcome();
    assert_eq!(instance["status"]["phase"], "Scheduled");
    let told = json!({"type": "Synchronized", "status": "False", "reason": "SyncFailed", "message": "no memory"});
    let conditions = instance["status"]["conditions"].as_array_mut().unwrap();
    conditions.push(told.clone());
    let outcome = Scene::new(instance, [running_pod()]).outcome();
    assert_eq!(condition(&outcome, "Synchronized"), &told);
}

#[test]
fn what_has_ended_is_not_ready() {
    for phase in ["Failed", "Succeeded"] {
        let mut ended = vmi(phase);
        ended["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
        let scene = Scene::new(ended, [running_pod()]);
        let outcome = scene.outcome();
        assert_eq!(condition(&outcome, "Ready")["status"], "False", "{phase}");
        assert_eq!(words(&Scene::new(outcome, []).plan()), [""; 0]);
    }
}

#[test]
fn a_device_that_is_not_permitted_keeps_the_pod_from_being_made() {
    let mut wanting = vmi("Pending");
    wanting["spec"]["domain"]["devices"]["hostDevices"] =
        json!([{"name": "a", "deviceName": "v.example/usb"}]);
    let mut scene = Scene::new(wanting, []);
    assert_eq!(words(&scene.plan())[0], "create Pod");
    scene.config.cluster.permitted_host_devices =
        Some(api::kubevirt::PermittedHostDevices::default());
    assert_eq!(
        words(&scene.plan()),
        ["patch VirtualMachineInstance", "tell FailedCreate"]
    );
    let outcome = scene.outcome();
    let told = condition(&outcome, "Synchronized");
    assert_eq!(
        (&told["status"], &told["reason"]),
        (&json!("False"), &json!("FailedCreate"))
    );
    let message = told["message"].as_str().unwrap();
    let expected = "HostDevice v.example/usb is not permitted";
    assert!(message.starts_with(expected), "{message}");
    assert_eq!(outcome["status"]["phase"], "Pending");
    scene.vmi = outcome;
    assert_eq!(words(&scene.plan()), [""; 0]);
    let permitted = json!({"usb": [{"resourceName": "v.example/usb"}]});
    scene.config.cluster.permitted_host_devices = serde_json::from_value(permitted).unwrap();
    assert_eq!(words(&scene.plan())[0], "create Pod");
    scene.pods = vec![running_pod()];
    assert!(condition(&scene.outcome(), "Synchronized").is_null());
}

#[test]
fn a_network_without_its_definition_is_waited_for() {
    let mut wanting = vmi("Pending");
    wanting["spec"]["networks"] = json!([{"name": "n", "multus": {"networkName": "vf"}}]);
    let mut scene = Scene::new(wanting, []);
    assert_eq!(
        words(&scene.plan()),
        ["patch VirtualMachineInstance", "tell FailedCreate", "later"]
    );
    scene.vmi = scene.outcome();
    let message = &condition(&scene.vmi, "Synchronized")["message"];
    assert!(
        message.as_str().unwrap().contains("ns/vf of network n"),
        "{message}"
    );
    assert_eq!(words(&scene.plan()), ["later"]);
    let key = ("ns".to_owned(), "vf".to_owned());
    scene.attachments.insert(key, "intel.com/vf".to_owned());
    let actions = scene.plan();
    let Some(Action::Create { object, .. }) = actions.first() else {
        panic!("{actions:?}");
    };
    let limits = &object["spec"]["containers"][0]["resources"]["limits"];
    assert_eq!(limits["intel.com/vf"], "1");
}

#[test]
fn a_missing_claim_is_waited_for_and_told_once() {
    let source = json!({"persistentVolumeClaim": {"claimName": "data"}});
    let mut scene = Scene::new(with_claim(vmi("Pending"), &source), []);
    assert_eq!(
        words(&scene.plan()),
        ["patch VirtualMachineInstance", "tell FailedPvcNotFound"]
    );
    let outcome = scene.outcome();
    assert_eq!(
        condition(&outcome, "Synchronized")["reason"],
        "FailedPvcNotFound"
    );
    let text = condition(&outcome, "Synchronized")["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        text.contains("PVC data of volume disk does not exist"),
        "{text}"
    );
    scene.vmi = outcome;
    assert!(scene.plan().is_empty());
    scene
        .claims
        .insert("data".to_owned(), claim("Pending", &json!({})));
    assert_eq!(
        words(&scene.plan()),
        ["create Pod", "tell SuccessfulCreate"]
    );
}

#[test]
fn data_volumes_are_waited_for_until_they_are_full() {
    let source = json!({"dataVolume": {"name": "data"}});
    let mut scene = Scene::new(with_claim(vmi("Pending"), &source), []);
    let outcome = scene.outcome();
    assert_eq!(
        condition(&outcome, "Synchronized")["reason"],
        "FailedDataVolumeNotFound"
    );
    assert_eq!(condition(&outcome, "DataVolumesReady")["status"], "False");
    let filling = |phase: &str| {
        claim(
            "Bound",
            &json!({"cdi.kubevirt.io/storage.pod.phase": phase}),
        )
    };
    scene.claims.insert("data".to_owned(), filling("Running"));
    let outcome = scene.outcome();
    assert_eq!(
        condition(&outcome, "DataVolumesReady")["reason"],
        "NotAllDVsReady"
    );
    scene.claims.insert("data".to_owned(), filling("Succeeded"));
    assert_eq!(
        words(&scene.plan()),
        ["create Pod", "tell SuccessfulCreate"]
    );
}

#[test]
fn the_node_agent_learns_what_claims_are() {
    let source = json!({"persistentVolumeClaim": {"claimName": "data"}});
    let mut scene = Scene::new(with_claim(vmi("Scheduling"), &source), [running_pod()]);
    scene
        .claims
        .insert("data".to_owned(), claim("Bound", &json!({})));
    let outcome = scene.outcome();
    assert_eq!(
        outcome["status"]["volumeStatus"],
        json!([{
            "name": "disk", "target": "",
            "persistentVolumeClaimInfo": {
                "claimName": "data", "accessModes": ["ReadWriteOnce"], "volumeMode": "Block",
                "capacity": {"storage": "2Gi"}, "requests": {"storage": "1Gi"},
            },
        }])
    );
}

#[test]
fn a_pod_that_cannot_be_made_is_tried_again_and_told() {
    let mut scene = Scene::new(vmi("Pending"), []);
    scene.past.trouble = Some("Error creating pod: exceeded quota".to_owned());
    let tried = [
        "patch VirtualMachineInstance",
        "create Pod",
        "tell SuccessfulCreate",
    ];
    assert_eq!(words(&scene.plan()), tried);
    let outcome = scene.outcome();
    assert_eq!(
        condition(&outcome, "Synchronized")["message"],
        "Error creating pod: exceeded quota"
    );
    scene.vmi = outcome;
    assert_eq!(words(&scene.plan()), tried[1..]);
}

#[test]
fn an_instance_fails_when_its_pod_ends_before_it_ran() {
    let mut ended = pod();
    ended["status"]["phase"] = json!("Failed");
    let mut going = running_pod();
    going["metadata"]["deletionTimestamp"] = json!(MADE);
    for pods in [vec![ended], vec![going], vec![]] {
        let outcome = Scene::new(vmi("Scheduling"), pods).outcome();
        assert_eq!(outcome["status"]["phase"], "Failed");
        assert_ne!(outcome["status"]["reason"], Value::Null);
    }
}

#[test]
fn readiness_follows_the_pod_while_the_guest_runs() {
    let mut pod = running_pod();
    let outcome = Scene::new(vmi("Running"), [pod.clone()]).outcome();
    assert_eq!(
        condition(&outcome, "Ready")["reason"],
        "PodConditionMissing"
    );
    pod["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
    let outcome = Scene::new(outcome, [pod.clone()]).outcome();
    assert_eq!(condition(&outcome, "Ready")["status"], "True");
    pod["metadata"]["deletionTimestamp"] = json!(MADE);
    let outcome = Scene::new(outcome, [pod]).outcome();
    assert_eq!(condition(&outcome, "Ready")["reason"], "PodTerminating");
}

#[test]
fn a_pod_has_a_moment_to_become_ready_before_its_instance_says_that_it_isnt() {
    let mut vmi = vmi("Running");
    vmi["status"]["conditions"] =
        json!([{"type": "Ready", "status": "False", "reason": "GuestNotRunning"}]);
    let mut scene = Scene::new(vmi, [running_pod()]);
    scene.pods[0]["status"]["conditions"] = json!([]);
    assert_eq!(words(&scene.plan()), ["patch Pod/status", "later"]);
    let gate = |seconds: i64| json!({"type": "kubevirt.io/virtual-machine-unpaused", "status": "True", "lastTransitionTime": at(seconds).to_string()});
    scene.pods[0]["status"]["conditions"] =
        json!([gate(5), {"type": "Ready", "status": "False", "reason": "ReadinessGatesNotReady"}]);
    assert_eq!(words(&scene.plan()), ["later"]);
    scene.now = at(7);
    assert_eq!(
        condition(&scene.outcome(), "Ready")["reason"],
        "ReadinessGatesNotReady"
    );
    scene.now = at(5);
    scene.pods[0]["status"]["conditions"] = json!([gate(5), {"type": "Ready", "status": "True"}]);
    assert_eq!(condition(&scene.outcome(), "Ready")["status"], "True");
}

#[test]
fn the_readiness_gate_opens_with_the_pod_and_closes_when_the_guest_is_paused() {
    let gate = |vmi: Value, pod: Value| {
        let plan = Scene::new(vmi, [pod.clone()]).plan();
        let patch = plan.into_iter().find_map(|action| match action {
            Action::Patch {
                key,
                part: Some("status"),
                patch,
            } if key.kind == Kind::Pod => Some(patch),
            _ => None,
        })?;
        let mut pod = pod;
        json_patch::patch(&mut pod, &patch).unwrap();
        Some(pod)
    };
    let mut new = pod();
    new["status"]["conditions"] = json!([]);
    for phase in ["Pending", "Scheduling", "Scheduled"] {
        assert!(gate(vmi(phase), new.clone()).is_some(), "{phase}");
    }
    let open = gate(vmi("Running"), new).unwrap();
    assert_eq!(
        condition(&open, "kubevirt.io/virtual-machine-unpaused")["status"],
        "True"
    );
    assert!(gate(vmi("Running"), open.clone()).is_none());
    let mut paused = vmi("Running");
    paused["status"]["conditions"] = json!([{"type": "Paused", "status": "True"}]);
    let closed = gate(paused, open).unwrap();
    assert_eq!(
        condition(&closed, "kubevirt.io/virtual-machine-unpaused")["status"],
        "False"
    );
}

#[test]
fn the_node_agent_has_the_last_word_on_a_machine_whose_pod_has_gone() {
    let mut scene = Scene::new(vmi("Running"), []);
    scene.past.podless_since = Some(at(5));
    assert_eq!(words(&scene.plan()), ["later"]);
    scene.now = at(15);
    let outcome = scene.outcome();
    assert_eq!(
        (&outcome["status"]["phase"], &outcome["status"]["reason"]),
        (&json!("Failed"), &json!("PodGone"))
    );
}

#[test]
fn a_pod_that_has_ended_while_nobody_tells_how_fails_its_instance_after_a_minute() {
    let mut ended = running_pod();
    ended["status"]["phase"] = json!("Failed");
    let mut scene = Scene::new(vmi("Running"), [ended]);
    scene.past.podless_since = Some(at(5));
    assert_eq!(
        words(&scene.plan()),
        ["later", "patch VirtualMachineInstance"]
    );
    assert_eq!(
        condition(&scene.outcome(), "Ready")["reason"],
        "PodTerminating"
    );
    scene.now = at(65);
    assert_eq!(scene.outcome()["status"]["phase"], "Failed");
}

#[test]
fn a_dead_node_takes_its_instances_with_it_once_their_pods_have_gone() {
    let mut scene = Scene::new(vmi("Running"), [running_pod()]);
    scene.node_is_dead = true;
    assert_eq!(scene.outcome()["status"]["phase"], "Running");
    scene.pods[0]["metadata"]["deletionTimestamp"] = json!(MADE);
    let outcome = scene.outcome();
    assert_eq!(outcome["status"]["phase"], "Failed");
    assert_eq!(outcome["status"]["reason"], "NodeUnresponsive");
}

#[test]
fn a_deleted_instance_goes_after_its_pods() {
    let mut deleted = vmi("Running");
    deleted["metadata"]["deletionTimestamp"] = json!(MADE);
    let scene = Scene::new(deleted.clone(), [running_pod()]);
    let plan = words(&scene.plan());
    assert_eq!(plan[..2], ["delete Pod", "tell SuccessfulDelete"]);
    let mut going = running_pod();
    going["metadata"]["deletionTimestamp"] = json!(MADE);
    let outcome = Scene::new(deleted.clone(), [going.clone()]).outcome();
    assert_eq!(condition(&outcome, "Ready")["reason"], "PodTerminating");
    assert!(Scene::new(outcome, [going]).plan().is_empty());
    // The agent has said how it ended: nothing keeps it.
    deleted["status"]["phase"] = json!("Succeeded");
    let outcome = Scene::new(deleted, []).outcome();
    assert_eq!(outcome["metadata"]["finalizers"], json!([]));
    assert_eq!(outcome["status"]["phase"], "Succeeded");
}

#[test]
fn an_instance_that_is_deleted_before_it_has_a_pod_goes_in_one_write() {
    let mut deleted = vmi("Pending");
    deleted["metadata"]["deletionTimestamp"] = json!(MADE);
    let scene = Scene::new(deleted, []);
    assert_eq!(words(&scene.plan()), ["patch VirtualMachineInstance"]);
    let outcome = scene.outcome();
    assert_eq!(outcome["status"]["phase"], "Failed");
    assert_eq!(outcome["metadata"]["finalizers"], json!([]));
}

#[test]
fn a_final_instance_is_left_alone_with_its_pod() {
    let mut ended = running_pod();
    ended["status"]["phase"] = json!("Succeeded");
    for phase in ["Succeeded", "Failed"] {
        assert!(Scene::new(vmi(phase), [ended.clone()]).plan().is_empty());
    }
}

#[test]
fn the_target_of_a_migration_is_not_taken_for_the_machines_pod() {
    let mut target = running_pod();
    target["metadata"]["uid"] = json!("target");
    target["metadata"]["labels"]["kubevirt.io/migrationJobUID"] = json!("m");
    target["spec"]["nodeName"] = json!("node2");
    let outcome = Scene::new(vmi("Scheduling"), [target, running_pod()]).outcome();
    assert_eq!(outcome["status"]["nodeName"], "node1");
    let active = json!({"pod-uid": "node1", "target": "node2"});
    assert_eq!(outcome["status"]["activePods"], active);
}

#[test]
fn nothing_is_written_twice() {
    for (phase, pods) in [
        ("Pending", vec![pod()]),
        ("Scheduling", vec![running_pod()]),
        ("Running", vec![running_pod()]),
    ] {
        let scene = Scene::new(vmi(phase), pods.clone());
        let outcome = scene.outcome();
        let again = Scene::new(outcome.clone(), pods);
        assert_eq!(again.outcome(), outcome, "{phase}");
    }
}
