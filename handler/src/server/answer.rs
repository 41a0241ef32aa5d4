//! What is answered when a request cannot be done: `metav1.Status`.

use api::error_chain::chain;
use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;

use crate::key::VmiKey;
use crate::launchers::CommandError;

/// Bytes of a message that are sent.
const MESSAGE_LEN_MAX_BYTES: usize = 2048;

/// Why a request is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    status: StatusCode,
    message: String,
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        let mut message = message.into();
        message.truncate(message.floor_char_boundary(MESSAGE_LEN_MAX_BYTES));
        Self { status, message }
    }

    /// There is no such instance on this node.
    pub(super) fn unknown(key: &VmiKey) -> Self {
        // The name is the client's, so it is quoted.
        let name = key.to_string();
        let message = format!("virtualmachineinstances.kubevirt.io {name:?} is not on this node");
        Self::new(StatusCode::NOT_FOUND, message)
    }

    pub(super) fn conflict(message: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, message)
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    /// The machine has no such thing.
    pub(super) fn unsupported(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_IMPLEMENTED, message)
    }
}

/// A launcher's trouble as a client is told of it.
impl From<CommandError> for Refusal {
    fn from(error: CommandError) -> Self {
        let status = match &error {
            CommandError::Unreachable { .. } => StatusCode::SERVICE_UNAVAILABLE,
            CommandError::TimedOut { .. } => StatusCode::GATEWAY_TIMEOUT,
            CommandError::Unimplemented { .. } => StatusCode::NOT_IMPLEMENTED,
            CommandError::Refused { .. } => StatusCode::INTERNAL_SERVER_ERROR,
            CommandError::BadAnswer { .. } => StatusCode::BAD_GATEWAY,
        };
        Self::new(status, chain(&error))
    }
}

/// The word for a status that Kubernetes' clients decide by.
fn reason(status: StatusCode) -> &'static str {
    match status {
        StatusCode::BAD_REQUEST => "BadRequest",
        StatusCode::UNAUTHORIZED => "Unauthorized",
        StatusCode::NOT_FOUND => "NotFound",
        StatusCode::METHOD_NOT_ALLOWED => "MethodNotAllowed",
        StatusCode::CONFLICT => "Conflict",
        StatusCode::PAYLOAD_TOO_LARGE => "RequestEntityTooLarge",
        StatusCode::TOO_MANY_REQUESTS => "TooManyRequests",
        StatusCode::NOT_IMPLEMENTED => "NotImplemented",
        StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => "Timeout",
        _ => "InternalError",
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": reason(self.status),
            "code": self.status.as_u16(),
        });
        let mut response = Response::new(Body::from(status.to_string()));
        *response.status_mut() = self.status;
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        response
    }
}

/// Makes unknown paths and methods be answered as all else is.
pub(crate) fn fall_back<S: Clone + Send + Sync + 'static>(router: Router<S>) -> Router<S> {
    router
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
}

async fn unknown_path() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "there is nothing at this path")
}

async fn wrong_method() -> Refusal {
    let message = "this path does not take this method";
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, message)
}
