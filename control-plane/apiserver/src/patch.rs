//! How objects are changed in part: JSON patch (RFC 6902), merge patch (RFC 7386), strategic merge patch, and
//! server-side apply with the ownership of fields (Kubernetes API concepts, "Server-Side Apply").
//!
//! All of it is pure: values in, a value or a failure out.

mod apply;
mod compare;
mod fields;
mod lists;
mod managers;
mod strategic;

use json_patch::{Patch, PatchOperation};
use serde_json::Value;

pub use self::apply::{apply, track};
pub use self::strategic::strategic;
use crate::failure::Failure;

/// Operations of one JSON patch, as the API server of Kubernetes bounds them.
const OPERATIONS_MAX: usize = 10_000;
/// Values that all `copy` and `move` operations of a patch may bring about: without a bound they double an object each.
const COPIED_VALUES_MAX: usize = 200_000;
/// Depth of a patched document, that of the deepest JSON that is read; what recurses over it has a stack.
const DEPTH_MAX: usize = 128;

/// Applies a JSON patch.
///
/// # Errors
///
/// 400 when it is no JSON patch, 413 when it is too large, 422 when an operation does not apply.
pub fn json(doc: &Value, patch: &Value) -> Result<Value, Failure> {
    let Patch(operations) = serde_json::from_value(patch.clone()).map_err(|error| {
        Failure::bad_request(format!(
            "the body is not a JSON patch (RFC 6902), a list of operations with op and path: {error}"
        ))
    })?;
    if operations.len() > OPERATIONS_MAX {
        return Err(too_large(format!(
            "the patch has {} operations; at most {OPERATIONS_MAX} are taken",
            operations.len()
        )));
    }
    let (mut patched, mut copied) = (doc.clone(), 0);
    for operation in operations {
        let (values, depth) = effect(&patched, &operation);
        copied += values;
        if copied > COPIED_VALUES_MAX {
            return Err(too_large("the patch copies too much".to_owned()));
        }
        if depth > DEPTH_MAX {
            return Err(too_large(format!(
                "the patch nests values deeper than {DEPTH_MAX}"
            )));
        }
        if is_absence_told(&patched, &operation) {
            continue;
        }
        let one = [operation];
        json_patch::patch_unsafe(&mut patched, &one).map_err(|error| {
            let message = format!("the JSON patch does not apply: {error}");
            Failure::new(422, "Invalid", message)
        })?;
    }
    Ok(patched)
}

/// Whether an operation tests a field for `null` that an object lacks. Kubernetes' API server takes that for true, and clients
/// in Go, which tell an empty list from none by nothing else, rely on it.
fn is_absence_told(doc: &Value, operation: &PatchOperation) -> bool {
    let PatchOperation::Test(test) = operation else {
        return false;
    };
    let Some((parent, field)) = test.path.split_back() else {
        return false;
    };
    let parent = doc.pointer(parent.as_str()).and_then(Value::as_object);
    test.value.is_null()
        && parent.is_some_and(|fields| !fields.contains_key(field.decoded().as_ref()))
}

fn too_large(message: String) -> Failure {
    Failure::new(413, "RequestEntityTooLarge", message)
}

/// Returns how many values an operation copies or moves, and how deep the document becomes where it changes it.
fn effect(doc: &Value, operation: &PatchOperation) -> (usize, usize) {
    let place = operation.path().as_str().matches('/').count();
    let taken = |from: &str| {
        doc.pointer(from)
            .map_or((0, 0), |it| (count(it), place + depth(it)))
    };
    match operation {
        PatchOperation::Add(add) => (0, place + depth(&add.value)),
        PatchOperation::Replace(replace) => (0, place + depth(&replace.value)),
        PatchOperation::Copy(copy) => taken(copy.from.as_str()),
        PatchOperation::Move(moved) => taken(moved.from.as_str()),
        PatchOperation::Remove(_) | PatchOperation::Test(_) => (0, 0),
    }
}

fn depth(value: &Value) -> usize {
    let below = match value {
        Value::Array(items) => items.iter().map(depth).max(),
        Value::Object(fields) => fields.values().map(depth).max(),
        _ => return 0,
    };
    1 + below.unwrap_or_default()
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(fields) => fields.values().map(count).sum::<usize>(),
        _ => 0,
    }
}

/// Applies a merge patch.
#[must_use]
pub fn merge(doc: &Value, patch: &Value) -> Value {
    let mut merged = doc.clone();
    json_patch::merge(&mut merged, patch);
    merged
}

#[cfg(test)]
mod tests;
