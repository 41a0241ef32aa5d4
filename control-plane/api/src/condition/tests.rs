use serde_json::json;

use super::{Condition, ConditionStatus, is_true, kind, reason, remove, set};

const FIRST: &str = "2026-01-01T00:00:00Z";
const LATER: &str = "2026-01-01T00:01:00Z";

fn paused(now: &str) -> Condition {
    Condition::new(kind::PAUSED, true, now).because(reason::PAUSED_BY_USER, "asked for")
}

#[test]
fn a_condition_is_written_as_kubernetes_does() {
    assert_eq!(
        serde_json::to_value(paused(FIRST)).unwrap(),
        json!({
            "type": "Paused", "status": "True", "reason": "PausedByUser", "message": "asked for",
            "lastProbeTime": FIRST, "lastTransitionTime": FIRST,
        })
    );
    let unsaid = serde_json::to_value(Condition::default()).unwrap();
    assert_eq!(unsaid, json!({"status": "Unknown"}));
}

#[test]
fn null_times_and_unknown_statuses_are_read() {
    let json = json!({
        "type": "Ready", "status": "Perhaps", "lastProbeTime": null, "lastTransitionTime": null,
    });
    let condition: Condition = serde_json::from_value(json).unwrap();
    assert_eq!(condition.status, ConditionStatus::Unknown);
    assert_eq!(condition.last_probe_time, None);
}

#[test]
fn saying_the_same_again_changes_nothing() {
    let mut conditions = vec![paused(FIRST)];
    set(&mut conditions, paused(LATER));
    assert_eq!(conditions, [paused(FIRST)]);
}

#[test]
fn another_reason_keeps_the_transition_time_and_another_status_does_not() {
    let mut conditions = vec![paused(FIRST)];
    let broken = Condition::new(kind::PAUSED, true, LATER).because(reason::PAUSED_IO_ERROR, "");
    set(&mut conditions, broken);
    assert_eq!(conditions[0].last_transition_time.as_deref(), Some(FIRST));
    assert_eq!(conditions[0].last_probe_time.as_deref(), Some(LATER));
    assert!(is_true(&conditions, kind::PAUSED));

    set(&mut conditions, Condition::new(kind::PAUSED, false, LATER));
    assert_eq!(conditions[0].last_transition_time.as_deref(), Some(LATER));
    assert!(!is_true(&conditions, kind::PAUSED));

    remove(&mut conditions, kind::PAUSED);
    assert_eq!(conditions, []);
}
