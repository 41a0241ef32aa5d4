//! Resources from custom resource definitions.

use serde_json::Value;

use super::Resource;
use crate::failure::Cause;

/// Returns the resource that a custom resource definition (`apiextensions.k8s.io/v1`) makes.
///
/// # Errors
///
/// All fields of the definition that are wrong.
pub fn custom(crd: &Value) -> Result<Resource, Vec<Cause>> {
    let _ = crd;
    Err(Vec::new())
}
