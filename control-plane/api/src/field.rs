//! Names of fields, written as Kubernetes does: `spec.domain.devices.disks[1].name`.

use std::fmt;

/// The path of a field from the top of its object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FieldPath(String);

impl FieldPath {
    /// Returns the path of a top-level field, or of a dotted run of fields.
    pub fn new(fields: &str) -> Self {
        Self(fields.to_owned())
    }

    /// Returns the path of a field inside this one.
    #[must_use]
    pub fn child(&self, field: &str) -> Self {
        Self(if self.0.is_empty() {
            field.to_owned()
        } else {
            format!("{}.{field}", self.0)
        })
    }

    /// Returns the path of a list element.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// Returns the path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<&serde_ignored::Path<'_>> for FieldPath {
    fn from(path: &serde_ignored::Path<'_>) -> Self {
        use serde_ignored::Path;
        match path {
            Path::Root => Self(String::new()),
            Path::Seq { parent, index } => Self::from(*parent).index(*index),
            Path::Map { parent, key } => Self::from(*parent).child(key),
            Path::Some { parent }
            | Path::NewtypeStruct { parent }
            | Path::NewtypeVariant { parent } => Self::from(*parent),
        }
    }
}

/// Something wrong with a field: what, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct FieldError {
    /// The field.
    pub path: FieldPath,
    /// What is wrong and the cure.
    pub message: String,
}

impl FieldError {
    /// Returns an error about a field.
    pub fn new(path: FieldPath, message: impl Into<String>) -> Self {
        Self {
            path,
            message: message.into(),
        }
    }
}
