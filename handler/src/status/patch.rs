//! The JSON patch that brings an instance's status from one value to another.
//!
//! Only fields of the status that the node agent looks after are touched, and each is replaced only on the condition
//! that it still is what the decision was made from; others write the same object. What our types don't know of a field
//! stays in it.

use api::status::VmiStatus;
use json_patch::jsonptr::PointerBuf;
use json_patch::{
    AddOperation, Patch, PatchOperation, RemoveOperation, ReplaceOperation, TestOperation,
};
use serde_json::{Map, Value};

/// Fields of the status that the node agent looks after.
const OWNED: [&str; 13] = [
    "conditions",
    "fsFreezeStatus",
    "guestOSInfo",
    "interfaces",
    "kernelBootStatus",
    "machine",
    "memory",
    "migrationMethod",
    "phase",
    "phaseTransitionTimestamps",
    "reason",
    "selinuxContext",
    "volumeStatus",
];

/// Keys by which the elements of lists are known.
const ELEMENT_KEYS: [&str; 3] = ["type", "name", "phase"];

/// Returns the patch of the object `raw`, whose status is `old` to our types, that makes the status `new`; `None` when
/// there is nothing to change.
#[must_use]
pub fn status_patch(raw: &Value, old: &VmiStatus, new: &VmiStatus) -> Option<Patch> {
    let (old, new) = (object(old), object(new));
    let raw_status = raw.get("status").and_then(Value::as_object);
    let mut operations = Vec::new();
    let mut is_guarded = true;
    for field in OWNED {
        let (before, after) = (old.get(field), new.get(field));
        if before == after {
            continue;
        }
        let raw_field = raw_status.and_then(|status| status.get(field));
        is_guarded &= raw_field.is_some();
        change(&mut operations, field, raw_field, before, after);
    }
    if operations.is_empty() {
        return None;
    }
    guard(&mut operations, raw, is_guarded);
    Some(Patch(operations))
}

fn object(status: &VmiStatus) -> Map<String, Value> {
    match serde_json::to_value(status) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

/// Puts in front what holds for the whole patch: it is the same instance, and where a field is added that was not
/// there, nobody else has written the status.
fn guard(operations: &mut Vec<PatchOperation>, raw: &Value, is_guarded: bool) {
    let mut front = Vec::with_capacity(2);
    if let Some(uid) = raw.pointer("/metadata/uid") {
        front.push(test(&["metadata", "uid"], uid));
    }
    match raw.get("status") {
        None | Some(Value::Null) => front.push(add(&["status"], Value::Object(Map::new()))),
        Some(status) if !is_guarded => front.push(test(&["status"], status)),
        Some(_) => {}
    }
    operations.splice(0..0, front);
}

fn change(
    operations: &mut Vec<PatchOperation>,
    field: &str,
    raw: Option<&Value>,
    before: Option<&Value>,
    after: Option<&Value>,
) {
    let path = ["status", field];
    match (raw, after) {
        (Some(raw), Some(after)) => {
            operations.push(test(&path, raw));
            let value = merge(raw, before.unwrap_or(&Value::Null), after);
            operations.push(PatchOperation::Replace(ReplaceOperation {
                path: pointer(&path),
                value,
            }));
        }
        (Some(raw), None) => {
            operations.push(test(&path, raw));
            operations.push(PatchOperation::Remove(RemoveOperation {
                path: pointer(&path),
            }));
        }
        (None, Some(after)) => operations.push(add(&path, after.clone())),
        (None, None) => {}
    }
}

fn pointer(path: &[&str]) -> PointerBuf {
    PointerBuf::from_tokens(path.iter().copied())
}

fn test(path: &[&str], value: &Value) -> PatchOperation {
    PatchOperation::Test(TestOperation {
        path: pointer(path),
        value: value.clone(),
    })
}

fn add(path: &[&str], value: Value) -> PatchOperation {
    PatchOperation::Add(AddOperation {
        path: pointer(path),
        value,
    })
}

/// Returns `raw` with the changes that lead from `before` to `after`, keeping what neither of these has.
fn merge(raw: &Value, before: &Value, after: &Value) -> Value {
    match (raw, before, after) {
        _ if before == after => raw.clone(),
        (Value::Object(raw), Value::Object(before), Value::Object(after)) => {
            Value::Object(merge_objects(raw, before, after))
        }
        (Value::Array(raw), Value::Array(before), Value::Array(after)) => {
            let merged = after.iter().map(|after| merge_element(raw, before, after));
            Value::Array(merged.collect())
        }
        _ => after.clone(),
    }
}

fn merge_objects(
    raw: &Map<String, Value>,
    before: &Map<String, Value>,
    after: &Map<String, Value>,
) -> Map<String, Value> {
    let mut merged = raw.clone();
    merged.retain(|key, _| after.contains_key(key) || !before.contains_key(key));
    for (key, value) in after {
        let before = before.get(key).unwrap_or(&Value::Null);
        let value = match raw.get(key) {
            Some(raw) => merge(raw, before, value),
            None => value.clone(),
        };
        merged.insert(key.clone(), value);
    }
    merged
}

/// Merges an element of a list with the one that has the same key, if there is one.
fn merge_element(raw: &[Value], before: &[Value], after: &Value) -> Value {
    let Some((key, name)) = identity(after) else {
        return after.clone();
    };
    let same = |element: &&Value| element.get(key) == Some(name);
    match (raw.iter().find(same), before.iter().find(same)) {
        (Some(raw), Some(before)) => merge(raw, before, after),
        _ => after.clone(),
    }
}

fn identity(element: &Value) -> Option<(&'static str, &Value)> {
    let named = |key: &'static str| element.get(key).filter(|name| name.as_str() != Some(""));
    ELEMENT_KEYS
        .iter()
        .find_map(|key| named(key).map(|name| (*key, name)))
}

#[cfg(test)]
mod tests;
