//! Objects as people write them.

use serde_json::Value;

use crate::failure::Failure;

/// Returns an object in YAML.
///
/// # Errors
///
/// Fails when it holds something that has no form in YAML, which objects of an API do not.
pub(crate) fn text(object: &Value) -> Result<String, Failure> {
    serde_saphyr::to_string(object)
        .map_err(|error| Failure::Argument(format!("cannot write the object in YAML: {error}")))
}
