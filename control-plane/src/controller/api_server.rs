//! Reads and writes at the API server, with objects as JSON.

use std::time::Duration;

use http::{Method, Request};
use json_patch::Patch;
use kube::Client;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::key::{Key, Kind};

/// Time for an answer of the API server; admission by webhooks takes up to 10 s.
const ANSWER: Duration = Duration::from_secs(20);

/// Who writes, in the fields that API servers keep about it.
const FIELD_MANAGER: &str = api::components::VIRT_CONTROLLER;

/// The API server.
#[derive(Clone)]
pub(crate) struct ApiServer {
    client: Client,
}

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiServer").finish_non_exhaustive()
    }
}

/// Why something could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApiError {
    /// Somebody else wrote in between.
    #[error("write {0}: it is no longer what the change was made from")]
    Outdated(Key),
    /// There is no such object any more, or no such kind.
    #[error("find {0}: there is none")]
    Gone(Key),
    /// There is one already.
    #[error("create {0}: there is one already")]
    Exists(Key),
    /// The API server says no.
    #[error("write {key}: {message}")]
    Refused {
        /// The object.
        key: Key,
        /// What the API server says.
        message: String,
    },
    /// The API server isn't reached.
    #[error("ask the API server for {key}")]
    Unreachable {
        /// The object.
        key: Key,
        /// Why.
        source: Box<kube::Error>,
    },
    /// The API server takes too long.
    #[error("ask the API server for {0}: no answer within {within} s", within = ANSWER.as_secs())]
    TimedOut(Key),
    /// The request cannot be made.
    #[error("ask the API server for {0}: its name makes no address")]
    Name(Key),
}

impl ApiServer {
    /// Makes it from a client.
    pub(crate) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Reads an object; `None` when there is none.
    pub(crate) async fn get(&self, key: &Key) -> Result<Option<Value>, ApiError> {
        match self.ask(key, Method::GET, key.path(None), "", None).await {
            Ok(object) => Ok(Some(object)),
            Err(ApiError::Gone(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Creates an object and returns it as it is then.
    pub(crate) async fn create(&self, key: &Key, object: &Value) -> Result<Value, ApiError> {
        let path = format!(
            "{}?fieldManager={FIELD_MANAGER}",
            key.kind.path(&key.namespace)
        );
        let kind = "application/json";
        self.ask(key, Method::POST, path, kind, Some(object)).await
    }

    /// Patches an object and returns it as it is then.
    pub(crate) async fn patch(
        &self,
        key: &Key,
        part: Option<&str>,
        patch: &Patch,
    ) -> Result<Value, ApiError> {
        let path = format!("{}?fieldManager={FIELD_MANAGER}", key.path(part));
        let patch = serde_json::to_value(patch).unwrap_or_default();
        let kind = "application/json-patch+json";
        self.ask(key, Method::PATCH, path, kind, Some(&patch)).await
    }

    /// Merges fields into an object and returns it as it is then.
    pub(crate) async fn merge(&self, key: &Key, fields: &Value) -> Result<Value, ApiError> {
        let path = format!("{}?fieldManager={FIELD_MANAGER}", key.path(None));
        let kind = "application/merge-patch+json";
        self.ask(key, Method::PATCH, path, kind, Some(fields)).await
    }

    /// Deletes the object with a uid. Returns the object, or what the API server says of its deletion.
    pub(crate) async fn delete(
        &self,
        key: &Key,
        uid: &str,
        grace_seconds: Option<u64>,
    ) -> Result<Value, ApiError> {
        let mut options = json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background",
        });
        if !uid.is_empty() {
            options["preconditions"] = json!({ "uid": uid });
        }
        if let Some(seconds) = grace_seconds {
            options["gracePeriodSeconds"] = json!(seconds);
        }
        let kind = "application/json";
        self.ask(key, Method::DELETE, key.path(None), kind, Some(&options))
            .await
    }

    /// Whether the API server serves a group and version.
    pub(crate) async fn serves(&self, kind: Kind) -> Result<bool, ApiError> {
        let key = Key::new(kind, "", "");
        let path = format!("/apis/{}", kind.api_version());
        match self.ask(&key, Method::GET, path, "", None).await {
            Ok(_) => Ok(true),
            Err(ApiError::Gone(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn ask(
        &self,
        key: &Key,
        method: Method,
        path: String,
        content: &str,
        body: Option<&Value>,
    ) -> Result<Value, ApiError> {
        let mut request = Request::builder().method(method).uri(path);
        if body.is_some() {
            request = request.header(http::header::CONTENT_TYPE, content);
        }
        let body = body.map_or_else(Vec::new, |body| body.to_string().into_bytes());
        let request = request.body(body);
        let request = request.map_err(|_| ApiError::Name(key.clone()))?;
        match timeout(ANSWER, Box::pin(self.client.request::<Value>(request))).await {
            Err(_) => Err(ApiError::TimedOut(key.clone())),
            Ok(Err(error)) => Err(failure(key, error)),
            Ok(Ok(answer)) => Ok(answer),
        }
    }
}

fn failure(key: &Key, error: kube::Error) -> ApiError {
    let kube::Error::Api(status) = error else {
        return ApiError::Unreachable {
            key: key.clone(),
            source: Box::new(error),
        };
    };
    match (status.code, status.reason.as_str()) {
        (404, _) => ApiError::Gone(key.clone()),
        (409, "AlreadyExists") => ApiError::Exists(key.clone()),
        (409, _) => ApiError::Outdated(key.clone()),
        _ => ApiError::Refused {
            key: key.clone(),
            message: status.message,
        },
    }
}
