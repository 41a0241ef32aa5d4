//! What is answered: `response` of an `AdmissionReview`.

use api::FieldError;
use api::admission::Verdict;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

/// Causes of a denial that are told.
const CAUSES_MAX: usize = 100;
/// Bytes of a message; API servers drop warnings that are longer.
const MESSAGE_LEN_MAX_BYTES: usize = 4096;

impl From<Verdict> for Answer {
    fn from(verdict: Verdict) -> Self {
        Self::of_errors(&verdict.errors).warn(verdict.warnings)
    }
}

/// Yes with a patch, or no with the reason.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Answer {
    denial: Option<Value>,
    patch: Option<Value>,
    warnings: Vec<String>,
}

impl Answer {
    /// Yes.
    pub(super) fn allow() -> Self {
        Self {
            denial: None,
            patch: None,
            warnings: Vec::new(),
        }
    }

    /// Yes, if the object becomes another.
    pub(super) fn change(old: &Value, new: &Value) -> Self {
        let patch = api::defaulting::patch(old, new);
        Self {
            patch: (!patch.is_empty()).then(|| patch.into()),
            ..Self::allow()
        }
    }

    /// No, with an HTTP status and its word.
    pub(super) fn deny(code: u16, reason: &str, message: impl Into<String>) -> Self {
        let mut message = message.into();
        message.truncate(message.floor_char_boundary(MESSAGE_LEN_MAX_BYTES));
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "code": code, "reason": reason, "message": message,
        });
        Self {
            denial: Some(status),
            ..Self::allow()
        }
    }

    /// No, because of these fields; yes when there are none.
    pub(super) fn of_errors(errors: &[FieldError]) -> Self {
        if errors.is_empty() {
            return Self::allow();
        }
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let mut answer = Self::deny(422, "Invalid", texts.join("; "));
        let causes = errors.iter().take(CAUSES_MAX).map(|error| {
            json!({
                "reason": error.reason.as_str(), "message": error.message,
                "field": error.path.as_str(),
            })
        });
        if let Some(status) = &mut answer.denial {
            status["details"] = json!({"causes": causes.collect::<Vec<_>>()});
        }
        answer
    }

    /// Adds what users are told although the answer is yes.
    pub(super) fn warn(mut self, warnings: Vec<String>) -> Self {
        self.warnings.extend(warnings);
        self
    }

    /// Returns the answer to a review.
    pub(super) fn review(self, asked: &Value) -> Value {
        let mut response = json!({
            "uid": asked["request"]["uid"],
            "allowed": self.denial.is_none(),
        });
        if let Some(status) = self.denial {
            response["status"] = status;
        } else if let Some(patch) = self.patch {
            response["patchType"] = json!("JSONPatch");
            response["patch"] = json!(BASE64_STANDARD.encode(patch.to_string()));
        }
        if !self.warnings.is_empty() {
            response["warnings"] = json!(self.warnings);
        }
        let kind = |field: &str, default: &str| match asked[field].as_str() {
            Some(text) => text.to_owned(),
            None => default.to_owned(),
        };
        json!({
            "apiVersion": kind("apiVersion", "admission.k8s.io/v1"),
            "kind": kind("kind", "AdmissionReview"),
            "response": response,
        })
    }
}
