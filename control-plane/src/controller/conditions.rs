//! Conditions in an object's status, of which nothing is lost that we don't know.

use api::condition::{Condition, ConditionStatus};
use serde_json::Value;

use super::change::entry;

/// Puts a condition in the place of the one of its kind, or at the end; one that says the same stays as it is.
pub(crate) fn set(object: &mut Value, mut new: Condition) {
    let conditions = entry(object, &["status", "conditions"]);
    if !conditions.is_array() {
        *conditions = Value::Array(Vec::new());
    }
    let Some(conditions) = conditions.as_array_mut() else {
        return;
    };
    let same = |known: &&mut Value| known["type"] == new.kind.as_str();
    let Some(known) = conditions.iter_mut().find(same) else {
        return conditions.push(serde_json::to_value(new).unwrap_or_default());
    };
    let old: Condition = serde_json::from_value(known.clone()).unwrap_or_default();
    if old.says_the_same(&new) {
        return;
    }
    if old.status == new.status && old.last_transition_time.is_some() {
        new.last_transition_time = old.last_transition_time;
    }
    *known = serde_json::to_value(new).unwrap_or_default();
}

/// Removes the condition of a kind.
pub(crate) fn remove(object: &mut Value, kind: &str) {
    let conditions = object.pointer_mut("/status/conditions");
    if let Some(conditions) = conditions.and_then(Value::as_array_mut) {
        conditions.retain(|known| known["type"] != kind);
    }
}

/// Returns the condition of a kind.
pub(crate) fn find(object: &Value, kind: &str) -> Option<Condition> {
    let conditions = object.pointer("/status/conditions")?.as_array()?;
    let found = conditions.iter().find(|known| known["type"] == kind)?;
    serde_json::from_value(found.clone()).ok()
}

/// Whether the condition of a kind is there and holds.
pub(crate) fn is_true(object: &Value, kind: &str) -> bool {
    find(object, kind).is_some_and(|condition| condition.status == ConditionStatus::True)
}
