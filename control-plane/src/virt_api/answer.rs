//! What a request is answered that cannot be done: `metav1.Status` (API conventions, "Response Status Kind").

use api::FieldError;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use kube::core::Status;
use kube::core::response::{StatusCause, StatusDetails, StatusSummary};
use serde_json::{Value, json};

use super::objects::Kind;

/// Bytes of a message that are sent.
const MESSAGE_LEN_MAX_BYTES: usize = 8192;

/// Why a request is not done.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Refusal(Box<Status>);

impl Refusal {
    pub(crate) fn new(code: StatusCode, message: impl Into<String>) -> Self {
        let mut message = message.into();
        message.truncate(message.floor_char_boundary(MESSAGE_LEN_MAX_BYTES));
        let status = Status {
            status: Some(StatusSummary::Failure),
            code: code.as_u16(),
            message,
            reason: reason(code).to_owned(),
            ..Status::default()
        };
        Self(status.boxed())
    }

    /// Passes on what the API server says.
    pub(crate) fn of_api_server(mut status: Box<Status>) -> Self {
        status.status = Some(StatusSummary::Failure);
        Self(status)
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// There is no such object.
    pub(crate) fn not_found(kind: Kind, name: &str) -> Self {
        let message = format!("{} {name:?} not found", kind.qualified());
        Self::new(StatusCode::NOT_FOUND, message).about(kind, name)
    }

    /// The object is in no state for it.
    pub(crate) fn conflict(kind: Kind, name: &str, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} {name:?}: {why}",
            kind.qualified()
        );
        Self::new(StatusCode::CONFLICT, message).about(kind, name)
    }

    /// The object does not allow it.
    pub(crate) fn forbidden(kind: Kind, name: &str, why: &str) -> Self {
        let message = format!("{} {name:?} is forbidden: {why}", kind.qualified());
        Self::new(StatusCode::FORBIDDEN, message).about(kind, name)
    }

    /// There is no such function.
    pub(crate) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, message)
    }

    /// Fields are wrong.
    pub(crate) fn invalid(code: StatusCode, errors: &[FieldError]) -> Self {
        let mut refusal = Self::new(code, summary(errors));
        let causes = errors.iter().map(|error| StatusCause {
            reason: error.reason.as_str().to_owned(),
            message: error.message.clone(),
            field: error.path.as_str().to_owned(),
        });
        refusal.details().causes = causes.collect();
        refusal
    }

    /// Says which object it is about.
    pub(crate) fn about(mut self, kind: Kind, name: &str) -> Self {
        let details = self.details();
        kind.singular().clone_into(&mut details.kind);
        kind.group().clone_into(&mut details.group);
        name.clone_into(&mut details.name);
        self
    }

    fn details(&mut self) -> &mut StatusDetails {
        self.0.details.get_or_insert_with(|| StatusDetails {
            name: String::new(),
            group: String::new(),
            kind: String::new(),
            uid: String::new(),
            causes: Vec::new(),
            retry_after_seconds: 0,
        })
    }

    pub(crate) fn code(&self) -> StatusCode {
        StatusCode::from_u16(self.0.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }

    /// Whether a patch was refused because the object is no longer what it was made from.
    pub(crate) fn is_outdated(&self) -> bool {
        let names_field = |cause: &StatusCause| !cause.field.is_empty();
        let causes = self.0.details.iter().flat_map(|details| &details.causes);
        match self.0.code {
            409 => true,
            422 => !causes.clone().any(names_field),
            _ => false,
        }
    }

    pub(crate) fn is_not_found(&self) -> bool {
        self.0.code == 404
    }

    /// Returns the `Status` object.
    pub(crate) fn status(&self) -> Value {
        let mut status = serde_json::to_value(&self.0).unwrap_or_default();
        for (field, value) in [
            ("kind", json!("Status")),
            ("apiVersion", json!("v1")),
            ("metadata", json!({})),
        ] {
            status[field] = value;
        }
        status
    }
}

/// All errors in one sentence.
fn summary(errors: &[FieldError]) -> String {
    match errors {
        [] => "the object is invalid".to_owned(),
        [error] => error.to_string(),
        [first, rest @ ..] => format!("{first}, and {} more", rest.len()),
    }
}

impl From<FieldError> for Refusal {
    fn from(error: FieldError) -> Self {
        Self::invalid(StatusCode::BAD_REQUEST, &[error])
    }
}

/// The word for a status that Kubernetes' clients decide by.
fn reason(code: StatusCode) -> &'static str {
    match code {
        StatusCode::BAD_REQUEST => "BadRequest",
        StatusCode::UNAUTHORIZED => "Unauthorized",
        StatusCode::FORBIDDEN => "Forbidden",
        StatusCode::NOT_FOUND => "NotFound",
        StatusCode::METHOD_NOT_ALLOWED => "MethodNotAllowed",
        StatusCode::CONFLICT => "Conflict",
        StatusCode::PAYLOAD_TOO_LARGE => "RequestEntityTooLarge",
        StatusCode::UNPROCESSABLE_ENTITY => "Invalid",
        StatusCode::TOO_MANY_REQUESTS => "TooManyRequests",
        StatusCode::NOT_IMPLEMENTED => "NotImplemented",
        StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => "Timeout",
        _ => "InternalError",
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        json_response(self.code(), &self.status())
    }
}

/// Makes a response of JSON.
pub(crate) fn json_response(code: StatusCode, body: &Value) -> Response {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = code;
    let json = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}
