//! A changed object as the JSON patch that makes it so, on the condition that nobody else has written meanwhile.

use json_patch::jsonptr::PointerBuf;
use json_patch::{Patch, PatchOperation, TestOperation};
use serde_json::Value;

/// Returns the patch that turns `old` into `new`; `None` when they are the same.
pub(crate) fn patch(old: &Value, new: &Value) -> Option<Patch> {
    let changes = json_patch::diff(old, new);
    if changes.0.is_empty() {
        return None;
    }
    let guards = ["uid", "resourceVersion"].map(|field| guard(old, field));
    let mut operations: Vec<PatchOperation> = guards.into_iter().flatten().collect();
    operations.extend(changes.0);
    Some(Patch(operations))
}

fn guard(old: &Value, field: &str) -> Option<PatchOperation> {
    let value = old.get("metadata")?.get(field)?;
    let path = PointerBuf::from_tokens(["metadata", field]);
    Some(PatchOperation::Test(TestOperation {
        path,
        value: value.clone(),
    }))
}

/// Returns the version that a patch holds for.
pub(crate) fn made_from(patch: &Patch) -> Option<&str> {
    let tests = patch.0.iter().filter_map(|operation| match operation {
        PatchOperation::Test(test) => Some(test),
        _ => None,
    });
    let mut versions = tests.filter(|test| test.path.as_str() == "/metadata/resourceVersion");
    versions.next()?.value.as_str()
}

/// Returns a place in an object, making the objects on the way.
pub(crate) fn entry<'o>(object: &'o mut Value, path: &[&str]) -> &'o mut Value {
    path.iter().fold(object, |object, field| {
        if !object.is_object() {
            *object = Value::Object(serde_json::Map::new());
        }
        &mut object[*field]
    })
}

/// Sets a field, making the objects on the way.
pub(crate) fn set(object: &mut Value, path: &[&str], value: impl Into<Value>) {
    *entry(object, path) = value.into();
}

/// Removes a field; lists and maps that get empty stay.
pub(crate) fn remove(object: &mut Value, path: &[&str]) {
    let Some((last, way)) = path.split_last() else {
        return;
    };
    let parent = way
        .iter()
        .try_fold(object, |object, field| object.get_mut(*field));
    if let Some(parent) = parent.and_then(Value::as_object_mut) {
        parent.remove(*last);
    }
}

/// Returns the text at a JSON pointer, empty where there is none.
pub(crate) fn text<'o>(object: &'o Value, pointer: &str) -> &'o str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// Whether an object is being deleted.
pub(crate) fn is_deleted(object: &Value) -> bool {
    !text(object, "/metadata/deletionTimestamp").is_empty()
}

/// Whether an object waits for a finalizer.
pub(crate) fn has_finalizer(object: &Value, finalizer: &str) -> bool {
    let finalizers = object.pointer("/metadata/finalizers");
    let mut finalizers = finalizers.and_then(Value::as_array).into_iter().flatten();
    finalizers.any(|known| known == finalizer)
}

/// Adds a finalizer.
pub(crate) fn add_finalizer(object: &mut Value, finalizer: &str) {
    if has_finalizer(object, finalizer) {
        return;
    }
    let finalizers = entry(object, &["metadata", "finalizers"]);
    match finalizers.as_array_mut() {
        Some(known) => known.push(finalizer.into()),
        None => *finalizers = Value::from(vec![finalizer]),
    }
}

/// Removes finalizers.
pub(crate) fn remove_finalizers(object: &mut Value, finalizers: &[&str]) {
    let known = object.pointer_mut("/metadata/finalizers");
    if let Some(known) = known.and_then(Value::as_array_mut) {
        known.retain(|known| !finalizers.iter().any(|finalizer| known == finalizer));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{add_finalizer, patch, remove, remove_finalizers, set};

    #[test]
    fn a_change_holds_for_the_version_it_was_made_from() {
        let old = json!({"metadata": {"uid": "u", "resourceVersion": "5"}, "spec": {"x": 1}});
        let mut new = old.clone();
        set(&mut new, &["status", "phase"], "Pending");
        let patch = patch(&old, &new).unwrap();
        assert_eq!(super::made_from(&patch), Some("5"));
        let patch = serde_json::to_value(patch).unwrap();
        assert_eq!(
            patch,
            json!([
                {"op": "test", "path": "/metadata/uid", "value": "u"},
                {"op": "test", "path": "/metadata/resourceVersion", "value": "5"},
                {"op": "add", "path": "/status", "value": {"phase": "Pending"}},
            ])
        );
        assert!(super::patch(&old, &old).is_none());
    }

    #[test]
    fn finalizers_come_and_go_once() {
        let mut object = json!({"metadata": {}});
        add_finalizer(&mut object, "a");
        add_finalizer(&mut object, "a");
        add_finalizer(&mut object, "b");
        assert_eq!(object["metadata"]["finalizers"], json!(["a", "b"]));
        remove_finalizers(&mut object, &["a", "c"]);
        assert_eq!(object["metadata"]["finalizers"], json!(["b"]));
        remove(&mut object, &["metadata", "finalizers"]);
        assert_eq!(object, json!({"metadata": {}}));
    }
}
