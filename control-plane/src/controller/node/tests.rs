use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{Observed, is_dead, plan};
use crate::controller::actions::Action;

const HEARTBEAT: &str = "2026-01-01T00:00:00Z";

fn node(schedulable: &str) -> Value {
    json!({"metadata": {
        "name": "n", "labels": {"kubevirt.io/schedulable": schedulable},
        "annotations": {"kubevirt.io/heartbeat": HEARTBEAT},
    }})
}

fn after(seconds: i64) -> Timestamp {
    HEARTBEAT.parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds)
}

fn instance(phase: &str) -> Arc<Value> {
    Arc::new(json!({"metadata": {"name": phase, "namespace": "ns"}, "status": {"phase": phase}}))
}

fn decide(now: Timestamp, node: Option<&Value>) -> Vec<Action> {
    let instances = [instance("Running"), instance("Failed")];
    plan(
        now,
        &Observed {
            name: "n",
            raw: node,
            instances: &instances,
        },
    )
}

#[test]
fn a_node_is_looked_at_when_its_next_sign_is_overdue() {
    assert_eq!(
        decide(after(10), Some(&node("true"))),
        [Action::LookAgain(after(300))]
    );
}

#[test]
fn a_node_without_signs_of_life_gets_no_more_instances() {
    let plan = decide(after(300), Some(&node("true")));
    let Action::Patch { patch, .. } = &plan[0] else {
        panic!("{plan:?}");
    };
    let mut closed = node("true");
    json_patch::patch(&mut closed, patch).unwrap();
    assert_eq!(
        closed["metadata"]["labels"]["kubevirt.io/schedulable"],
        "false"
    );
    let looked_at: Vec<String> = plan[1..]
        .iter()
        .map(|action| format!("{action:?}"))
        .collect();
    assert_eq!(looked_at.len(), 1);
    assert!(looked_at[0].contains("Running"));
    assert_eq!(decide(after(900), Some(&node("false"))).len(), 1);
}

#[test]
fn a_node_that_is_gone_is_dead_and_one_that_never_spoke_is_not() {
    assert!(is_dead(None, after(0)));
    assert!(!is_dead(Some(&json!({"metadata": {}})), after(9999)));
    assert_eq!(decide(after(0), None).len(), 1);
}

#[test]
fn instances_of_a_tainted_node_are_looked_at() {
    let mut tainted = node("true");
    tainted["spec"] = json!({"taints": [{"key": "kubevirt.io/drain", "effect": "NoSchedule"}]});
    assert_eq!(decide(after(0), Some(&tainted)).len(), 2);
}
