use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{BURST, Observed, plan};
use crate::controller::actions::Action;

fn set(replicas: usize) -> Value {
    json!({
        "metadata": {"name": "rs", "namespace": "ns", "uid": "rs-uid", "resourceVersion": "1"},
        "spec": {
            "replicas": replicas,
            "selector": {
                "matchLabels": {"app": "x"},
                "matchExpressions": [
                    {"key": "a", "operator": "In", "values": ["1", "2"]},
                    {"key": "b", "operator": "Exists"},
                    {"key": "c", "operator": "DoesNotExist"},
                ],
            },
            "template": {"metadata": {"labels": {"app": "x"}}, "spec": {"domain": {}}},
        },
    })
}

fn instance(name: &str, phase: &str, is_ready: bool) -> Arc<Value> {
    let status = if is_ready { "True" } else { "False" };
    Arc::new(json!({
        "metadata": {"name": name, "namespace": "ns", "uid": name, "creationTimestamp": format!("2026-01-01T00:00:{name}Z")},
        "status": {"phase": phase, "conditions": [{"type": "Ready", "status": status}]},
    }))
}

fn decide(set: &Value, instances: &[Arc<Value>], trouble: Option<&str>) -> Vec<Action> {
    plan(
        Timestamp::UNIX_EPOCH,
        &Observed {
            raw: set,
            instances,
            trouble,
        },
    )
}

fn outcome(set: &Value, instances: &[Arc<Value>], trouble: Option<&str>) -> Value {
    let mut outcome = set.clone();
    for action in decide(set, instances, trouble) {
        if let Action::Patch { patch, .. } = action {
            json_patch::patch(&mut outcome, &patch).unwrap();
        }
    }
    outcome
}

fn created(actions: &[Action]) -> Vec<&str> {
    let created = actions.iter().filter_map(|action| match action {
        Action::Create { key, .. } => Some(key.name.as_str()),
        _ => None,
    });
    created.collect()
}

fn deleted(actions: &[Action]) -> Vec<&str> {
    let deleted = actions.iter().filter_map(|action| match action {
        Action::Delete { key, .. } => Some(key.name.as_str()),
        _ => None,
    });
    deleted.collect()
}

#[test]
fn missing_instances_are_made_under_names_of_their_own() {
    let plan = decide(&set(3), &[instance("01", "Running", true)], None);
    let names = created(&plan);
    assert_eq!(names.len(), 2);
    assert!(names[0] != names[1] && names.iter().all(|name| name.starts_with("rs-")));
    let Some(Action::Create { object, .. }) =
        plan.iter().find(|a| matches!(a, Action::Create { .. }))
    else {
        panic!("nothing made");
    };
    assert_eq!(object["metadata"]["labels"], json!({"app": "x"}));
    assert_eq!(object["metadata"]["ownerReferences"][0]["uid"], "rs-uid");
}

#[test]
fn no_more_than_a_burst_is_made_at_once() {
    assert_eq!(created(&decide(&set(BURST + 50), &[], None)).len(), BURST);
}

#[test]
fn of_too_many_those_go_first_that_are_of_least_use() {
    let instances = [
        instance("01", "Running", true),
        instance("02", "Running", true),
        instance("03", "Scheduling", false),
    ];
    assert_eq!(deleted(&decide(&set(2), &instances, None)), ["03"]);
    assert_eq!(deleted(&decide(&set(1), &instances, None)), ["03", "02"]);
}

#[test]
fn ended_instances_are_removed_and_replaced() {
    let instances = [
        instance("01", "Failed", false),
        instance("02", "Running", true),
    ];
    let plan = decide(&set(2), &instances, None);
    assert_eq!(deleted(&plan), ["01"]);
    assert_eq!(created(&plan).len(), 1);
}

#[test]
fn a_paused_or_deleted_set_does_nothing_but_tell() {
    let mut paused = set(3);
    paused["spec"]["paused"] = json!(true);
    let plan = decide(&paused, &[], None);
    assert!(created(&plan).is_empty());
    let told = outcome(&paused, &[], None);
    assert_eq!(told["status"]["conditions"][0]["type"], "ReplicaPaused");
    let mut gone = set(3);
    gone["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert!(created(&decide(&gone, &[], None)).is_empty());
}

#[test]
fn the_status_counts_and_names_what_autoscalers_need() {
    let instances = [
        instance("01", "Running", true),
        instance("02", "Scheduling", false),
        instance("03", "Failed", false),
    ];
    let told = outcome(&set(2), &instances, None);
    assert_eq!(
        (
            &told["status"]["replicas"],
            &told["status"]["readyReplicas"]
        ),
        (&json!(2), &json!(1))
    );
    assert_eq!(told["status"]["labelSelector"], "app=x,a in (1,2),b,!c");
    assert!(decide(&told, &instances[..2], None).is_empty());
    let failed = outcome(&set(3), &instances, Some("quota"));
    let condition = &failed["status"]["conditions"][0];
    assert_eq!(
        (&condition["type"], &condition["message"]),
        (&json!("ReplicaFailure"), &json!("quota"))
    );
}
