use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{Observed, plan};
use crate::controller::actions::Action;
use crate::controller::configuration::Config;

const THEN: &str = "2026-01-01T00:00:00Z";

fn after(seconds: i64) -> Timestamp {
    THEN.parse::<Timestamp>().unwrap() + SignedDuration::from_secs(seconds)
}

fn instance(marked: bool, strategy: &str) -> Value {
    json!({
        "metadata": {"name": "vm", "namespace": "ns", "uid": "u"},
        "spec": {"evictionStrategy": strategy},
        "status": {
            "phase": "Running", "nodeName": "n",
            "evacuationNodeName": if marked { "n" } else { "" },
        },
    })
}

fn migration(of: &str, phase: &str) -> Arc<Value> {
    Arc::new(json!({
        "metadata": {
            "name": "m", "namespace": "ns", "creationTimestamp": THEN,
            "annotations": {"kubevirt.io/evacuationMigration": "n"},
        },
        "spec": {"vmiName": of},
        "status": {"phase": phase},
    }))
}

fn decide(
    instance: &Value,
    taint: Option<&str>,
    migrations: &[Arc<Value>],
    now: Timestamp,
) -> Vec<Action> {
    let node = taint.map(|key| json!({"spec": {"taints": [{"key": key}]}}));
    let observed = Observed {
        instance,
        node: node.as_ref(),
        migrations,
    };
    plan(now, &observed, &Config::default())
}

fn moves(actions: &[Action]) -> bool {
    matches!(actions, [Action::Create { .. }, Action::Tell(_)])
}

#[test]
fn a_marked_instance_gets_one_migration() {
    let plan = decide(&instance(true, ""), None, &[], after(0));
    assert!(moves(&plan), "{plan:?}");
    let Action::Create { object, .. } = &plan[0] else {
        panic!("{plan:?}");
    };
    assert_eq!(
        object["spec"],
        json!({"vmiName": "vm", "priority": "system-critical"})
    );
    assert_eq!(
        object["metadata"]["annotations"]["kubevirt.io/evacuationMigration"],
        "n"
    );
    let busy = [migration("vm", "Running")];
    assert!(decide(&instance(true, ""), None, &busy, after(0)).is_empty());
}

#[test]
fn a_drained_node_is_left_by_those_who_migrate() {
    let drained = Some("kubevirt.io/drain");
    assert!(moves(&decide(
        &instance(false, "LiveMigrate"),
        drained,
        &[],
        after(0)
    )));
    assert!(moves(&decide(
        &instance(false, "LiveMigrateIfPossible"),
        drained,
        &[],
        after(0)
    )));
    for strategy in ["", "None", "External"] {
        assert!(
            decide(&instance(false, strategy), drained, &[], after(0)).is_empty(),
            "{strategy}"
        );
    }
    assert!(
        decide(
            &instance(false, "LiveMigrate"),
            Some("other"),
            &[],
            after(0)
        )
        .is_empty()
    );
}

#[test]
fn only_so_many_leave_at_once() {
    let others = [migration("a", "Running"), migration("b", "Pending")];
    let plan = decide(&instance(true, ""), None, &others, after(0));
    assert_eq!(plan, [Action::LookAgain(after(30))]);
    let one = [migration("a", "Running"), migration("b", "Failed")];
    assert!(moves(&decide(&instance(true, ""), None, &one, after(0))));
}

#[test]
fn a_migration_that_failed_is_tried_again_after_a_while_that_grows() {
    let wait = |times: usize| {
        let failed = vec![migration("vm", "Failed"); times];
        match decide(&instance(true, ""), None, &failed, after(0)).as_slice() {
            [Action::LookAgain(at)] => at.as_second() - after(0).as_second(),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(
        [wait(1), wait(2), wait(3), wait(5), wait(9)],
        [20, 40, 80, 320, 640]
    );
    let failed = [migration("vm", "Failed")];
    assert!(moves(&decide(
        &instance(true, ""),
        None,
        &failed,
        after(20)
    )));
}

#[test]
fn an_instance_that_isnt_running_or_is_going_stays() {
    let mut scheduled = instance(true, "");
    scheduled["status"]["phase"] = json!("Scheduled");
    assert!(decide(&scheduled, None, &[], after(0)).is_empty());
    let mut going = instance(true, "");
    going["metadata"]["deletionTimestamp"] = json!(THEN);
    assert!(decide(&going, None, &[], after(0)).is_empty());
}
