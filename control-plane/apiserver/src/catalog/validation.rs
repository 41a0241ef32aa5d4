//! Rules of built-in kinds that no schema says.

use serde_json::Value;

use super::Resource;
use crate::failure::Cause;

/// Returns what is wrong with an object of a built-in kind beyond its schema, `old` being the object that it replaces;
/// for custom kinds, the rules of metadata alone.
#[must_use]
pub fn validate_builtin(resource: &Resource, old: Option<&Value>, new: &Value) -> Vec<Cause> {
    let _ = (resource, old, new);
    Vec::new()
}
