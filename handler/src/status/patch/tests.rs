//! Patches, applied.

use api::Vmi;
use api::condition::{Condition, set};
use api::status::{Phase, VmiStatus};
use json_patch::{Patch, PatchOperation};
use serde::Deserialize;
use serde_json::{Value, json};

use super::status_patch;

fn raw() -> Value {
    json!({
        "metadata": {"name": "vm", "uid": "uid-1", "labels": {"a": "b"}},
        "status": {
            "phase": "Scheduled",
            "nodeName": "node1",
            "futureField": {"x": 1},
            "conditions": [{"type": "Ready", "status": "True", "futureField": 7}],
            "volumeStatus": [{"name": "root", "target": "", "hotplugVolume": {"attachPodName": "p", "new": 1}}],
            "fsFreezeStatus": "frozen",
        },
    })
}

fn status(raw: &Value) -> VmiStatus {
    Vmi::deserialize(raw).unwrap().status
}

fn patch(raw: &Value, change: impl FnOnce(&mut VmiStatus)) -> Option<Patch> {
    let old = status(raw);
    let mut new = old.clone();
    change(&mut new);
    status_patch(raw, &old, &new)
}

fn apply(raw: &Value, patch: &Patch) -> Result<Value, json_patch::PatchError> {
    let mut patched = raw.clone();
    json_patch::patch(&mut patched, patch).map(|()| patched)
}

#[test]
fn no_change_makes_no_patch() {
    assert_eq!(patch(&raw(), |_| ()), None);
    // Nor does a field that others look after.
    assert_eq!(
        patch(&raw(), |status| status.node_name = "other".to_owned()),
        None
    );
}

#[test]
fn only_what_changes_is_replaced_and_only_if_it_is_as_it_was() {
    let patch = patch(&raw(), |status| {
        status.enter_phase(Phase::Running, "2026-01-02T03:04:05Z");
        let paused = Condition::new("Paused", true, "2026-01-02T03:04:05Z");
        set(&mut status.conditions, paused);
        status.volume_status[0].target = "sda".to_owned();
        status.fs_freeze_status.clear();
    })
    .unwrap();
    let patched = apply(&raw(), &patch).unwrap();
    let mut expected = raw();
    let status = &mut expected["status"];
    status["phase"] = json!("Running");
    status["phaseTransitionTimestamps"] = json!([
        {"phase": "Running", "phaseTransitionTimestamp": "2026-01-02T03:04:05Z"},
    ]);
    status["volumeStatus"][0]["target"] = json!("sda");
    status["conditions"].as_array_mut().unwrap().push(json!({
        "type": "Paused", "status": "True", "lastProbeTime": "2026-01-02T03:04:05Z",
        "lastTransitionTime": "2026-01-02T03:04:05Z",
    }));
    status.as_object_mut().unwrap().remove("fsFreezeStatus");
    assert_eq!(patched, expected);
}

#[test]
fn a_status_that_others_changed_refuses_the_patch() {
    let to_running = |status: &mut VmiStatus| status.phase = Phase::Running;
    let patch = patch(&raw(), to_running).unwrap();
    let mut changed = raw();
    changed["status"]["phase"] = json!("Failed");
    assert!(apply(&changed, &patch).is_err());
    let mut recreated = raw();
    recreated["metadata"]["uid"] = json!("uid-2");
    assert!(apply(&recreated, &patch).is_err());
    let mut unrelated = raw();
    unrelated["status"]["conditions"] = json!([]);
    assert!(apply(&unrelated, &patch).is_ok());
}

#[test]
fn a_field_that_was_absent_is_added_only_to_a_status_that_nobody_changed() {
    let add = |status: &mut VmiStatus| status.reason = "LauncherLost".to_owned();
    let patch = patch(&raw(), add).unwrap();
    assert_eq!(
        apply(&raw(), &patch).unwrap()["status"]["reason"],
        "LauncherLost"
    );
    let mut changed = raw();
    changed["status"]["interfaces"] = json!([{"name": "default"}]);
    assert!(apply(&changed, &patch).is_err());
}

#[test]
fn a_status_is_made_where_there_is_none() {
    for status in [None, Some(Value::Null)] {
        let mut bare = json!({"metadata": {"name": "vm", "uid": "uid-1"}});
        if let Some(status) = status {
            bare["status"] = status;
        }
        let patch = patch(&bare, |status| status.phase = Phase::Running).unwrap();
        assert_eq!(
            apply(&bare, &patch).unwrap()["status"],
            json!({"phase": "Running"})
        );
    }
}

#[test]
fn patches_touch_nothing_outside_the_status() {
    let patch = patch(&raw(), |status| {
        status.phase = Phase::Failed;
        status.conditions.clear();
        status.volume_status.clear();
        status.interfaces = serde_json::from_value(json!([{"name": "a"}])).unwrap();
    })
    .unwrap();
    for operation in &patch.0 {
        let is_test = matches!(operation, PatchOperation::Test(_));
        let path = operation.path().to_string();
        assert!(
            path.starts_with("/status") || is_test && path == "/metadata/uid",
            "{path}"
        );
    }
}
