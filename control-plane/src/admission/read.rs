//! Objects of reviews as types of ours.

use api::{FieldError, FieldPath};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Reads an object; an error names the field of the wrong type.
pub(super) fn read<T: DeserializeOwned>(object: &Value) -> Result<T, FieldError> {
    serde_path_to_error::deserialize(object).map_err(|error| {
        let path = error.path().to_string();
        let path = if path == "." { "" } else { path.as_str() };
        FieldError::invalid(FieldPath::new(path), error.inner().to_string())
    })
}
