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

/// What kind of wrong it is, as API servers tell programs (`metav1.CauseType`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// A field that must be set isn't.
    Required,
    /// A value of the wrong form or size.
    #[default]
    Invalid,
    /// A value outside a closed set, or one that we cannot do.
    NotSupported,
    /// Something that is well-formed but not allowed here or to this user.
    Forbidden,
    /// A value that must be unique and isn't.
    Duplicate,
}

impl Reason {
    /// Returns the reason of a cause in a `Status` (`metav1.StatusCause.reason`).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Forbidden => "FieldValueForbidden",
            Self::Duplicate => "FieldValueDuplicate",
        }
    }
}

/// Something wrong with a field: what, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct FieldError {
    /// The field.
    pub path: FieldPath,
    /// What kind of wrong it is.
    pub reason: Reason,
    /// What is wrong and the cure.
    pub message: String,
}

impl FieldError {
    /// Returns an error about a field's value.
    pub fn new(path: FieldPath, message: impl Into<String>) -> Self {
        Self::because(path, Reason::Invalid, message)
    }

    /// Returns an error of a kind about a field.
    pub fn because(path: FieldPath, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            path,
            reason,
            message: message.into(),
        }
    }

    /// Returns an error about a value of the wrong form or size.
    pub fn invalid(path: FieldPath, message: impl Into<String>) -> Self {
        Self::because(path, Reason::Invalid, message)
    }

    /// Returns an error about a field that must be set.
    pub fn required(path: FieldPath, message: impl Into<String>) -> Self {
        Self::because(path, Reason::Required, message)
    }

    /// Returns an error about a value outside a closed set.
    pub fn not_supported(path: FieldPath, message: impl Into<String>) -> Self {
        Self::because(path, Reason::NotSupported, message)
    }

    /// Returns an error about what is not allowed.
    pub fn forbidden(path: FieldPath, message: impl Into<String>) -> Self {
        Self::because(path, Reason::Forbidden, message)
    }

    /// Returns an error about a value that is taken.
    pub fn duplicate(path: FieldPath, message: impl Into<String>) -> Self {
        Self::because(path, Reason::Duplicate, message)
    }

    /// Returns the error about the same field inside another object, whose field is `parent`.
    #[must_use]
    pub fn inside(mut self, parent: &FieldPath) -> Self {
        self.path = FieldPath(match self.path.as_str() {
            "" => parent.0.clone(),
            path => format!("{parent}.{path}"),
        });
        self
    }
}
