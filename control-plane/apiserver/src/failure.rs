//! What a request is answered when it fails: `metav1.Status` (API conventions, "Response Status Kind").

use serde_json::{Value, json};

/// Most characters of a value that a cause repeats.
const MAX_SHOWN: usize = 200;

/// A failed request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// HTTP status.
    pub code: u16,
    /// `reason`, by which clients decide: `NotFound`, `AlreadyExists`, `Conflict`, `Invalid`, …
    pub reason: &'static str,
    /// What is wrong and the cure.
    pub message: String,
    /// The object that it is about.
    pub about: Option<Box<About>>,
    /// Fields that are wrong.
    pub causes: Vec<Cause>,
    /// Seconds after which to try again.
    pub retry_after: Option<u32>,
}

/// The object that a failure is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// API group, empty for the core group.
    pub group: String,
    /// Resource (plural) or kind, as the API server of Kubernetes puts in `details.kind`.
    pub kind: String,
    /// Name, empty where there is none.
    pub name: String,
    /// Identity, empty where unknown.
    pub uid: String,
}

/// A field that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// `FieldValueRequired`, `FieldValueInvalid`, `FieldValueNotSupported`, `FieldValueForbidden`, `FieldManagerConflict`, …
    pub reason: &'static str,
    /// What is wrong and the cure.
    pub message: String,
    /// Path such as `spec.template.spec.domain`.
    pub field: String,
}

impl Failure {
    /// Returns a failure with a status, a reason and a message.
    #[must_use]
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            about: None,
            causes: Vec::new(),
            retry_after: None,
        }
    }

    /// 400: the request cannot be understood.
    #[must_use]
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 404: there is no such object.
    #[must_use]
    pub fn not_found(about: About) -> Self {
        let message = format!("{} \"{}\" not found", about.resource(), about.name);
        Self::new(404, "NotFound", message).about(about)
    }

    /// 409: there is one of that name.
    #[must_use]
    pub fn already_exists(about: About) -> Self {
        let message = format!("{} \"{}\" already exists", about.resource(), about.name);
        Self::new(409, "AlreadyExists", message).about(about)
    }

    /// 409: the object changed meanwhile.
    #[must_use]
    pub fn conflict(about: About, why: &str) -> Self {
        let (resource, name) = (about.resource(), &about.name);
        let message = format!("Operation cannot be fulfilled on {resource} \"{name}\": {why}");
        Self::new(409, "Conflict", message).about(about)
    }

    /// 422: fields are wrong.
    #[must_use]
    pub fn invalid(about: About, causes: Vec<Cause>) -> Self {
        let all: Vec<_> = causes
            .iter()
            .map(|cause| format!("{}: {}", cause.field, cause.message))
            .collect();
        let all = match all.as_slice() {
            [one] => one.clone(),
            many => format!("[{}]", many.join(", ")),
        };
        let message = format!("{} \"{}\" is invalid: {all}", about.resource(), about.name);
        Self {
            causes,
            ..Self::new(422, "Invalid", message).about(about)
        }
    }

    /// Says which object it is about.
    #[must_use]
    pub fn about(self, about: About) -> Self {
        Self {
            about: Some(Box::new(about)),
            ..self
        }
    }

    /// Returns the `Status` object.
    #[must_use]
    pub fn status(&self) -> Value {
        let mut details = serde_json::Map::new();
        let about = self.about.as_deref().cloned().unwrap_or_default();
        for (name, text) in [
            ("name", about.name),
            ("group", about.group),
            ("kind", about.kind),
            ("uid", about.uid),
        ] {
            if !text.is_empty() {
                details.insert(name.to_owned(), text.into());
            }
        }
        if !self.causes.is_empty() {
            details.insert(
                "causes".to_owned(),
                self.causes.iter().map(Cause::json).collect(),
            );
        }
        if let Some(seconds) = self.retry_after {
            details.insert("retryAfterSeconds".to_owned(), seconds.into());
        }
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason, "code": self.code,
        });
        if !details.is_empty() {
            status["details"] = details.into();
        }
        status
    }
}

impl About {
    fn resource(&self) -> String {
        if self.group.is_empty() {
            self.kind.clone()
        } else {
            format!("{}.{}", self.kind, self.group)
        }
    }
}

impl Cause {
    /// The field must be there; `why` may be empty.
    #[must_use]
    pub fn required(field: &str, why: &str) -> Self {
        let colon = if why.is_empty() { "" } else { ": " };
        Self::new(
            "FieldValueRequired",
            field,
            format!("Required value{colon}{why}"),
        )
    }

    /// The field has a value that it may not have.
    #[must_use]
    pub fn invalid(field: &str, value: &Value, why: &str) -> Self {
        Self::new(
            "FieldValueInvalid",
            field,
            format!("Invalid value: {}: {why}", shown(value)),
        )
    }

    /// The field has another value than the few that it may have.
    #[must_use]
    pub fn not_supported(field: &str, value: &Value, choices: &[&str]) -> Self {
        let choices: Vec<_> = choices.iter().map(|it| format!("\"{it}\"")).collect();
        let (value, choices) = (shown(value), choices.join(", "));
        let message = format!("Unsupported value: {value}: supported values: {choices}");
        Self::new("FieldValueNotSupported", field, message)
    }

    /// The field may not be there, or may not change.
    #[must_use]
    pub fn forbidden(field: &str, why: &str) -> Self {
        Self::new("FieldValueForbidden", field, format!("Forbidden: {why}"))
    }

    /// Another item has the same value.
    #[must_use]
    pub fn duplicate(field: &str, value: &Value) -> Self {
        Self::new(
            "FieldValueDuplicate",
            field,
            format!("Duplicate value: {}", shown(value)),
        )
    }

    /// The field names something that there is not.
    #[must_use]
    pub fn not_found(field: &str, value: &Value) -> Self {
        Self::new(
            "FieldValueNotFound",
            field,
            format!("Not found: {}", shown(value)),
        )
    }

    fn new(reason: &'static str, field: &str, message: String) -> Self {
        Self {
            reason,
            message,
            field: field.to_owned(),
        }
    }

    fn json(&self) -> Value {
        json!({"reason": self.reason, "message": self.message, "field": self.field})
    }
}

/// Returns the JSON of a value, cut where it would hide what is said about it.
pub(crate) fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}
