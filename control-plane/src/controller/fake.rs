//! An API server for tests: objects in a map, versions, conflicts.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::api_server::ApiServer;

/// The server; clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fake {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, Value>,
    version: u64,
    writes: Vec<String>,
}

impl Fake {
    /// Returns a client of it.
    pub(crate) fn server(&self) -> ApiServer {
        let fake = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let fake = fake.clone();
            async move { Ok::<_, Infallible>(fake.answer(request).await) }
        });
        ApiServer::new(kube::Client::new(service, "default"))
    }

    /// Puts an object there, and returns it as it is then.
    pub(crate) fn put(&self, path: &str, object: Value) -> Value {
        self.state.lock().unwrap().put(path, object)
    }

    /// Returns an object.
    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.state.lock().unwrap().objects.get(path).cloned()
    }

    /// Returns the writes so far, and forgets them.
    pub(crate) fn writes(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().writes)
    }

    async fn answer(&self, request: Request<kube::client::Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let (code, answer) =
            self.state
                .lock()
                .unwrap()
                .answer(&parts.method, parts.uri.path(), body);
        let response = Response::builder()
            .status(code)
            .header("content-type", "application/json");
        response.body(Body::from(answer.to_string())).unwrap()
    }
}

impl State {
    fn put(&mut self, path: &str, mut object: Value) -> Value {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(format!("uid-{}", self.version));
        }
        self.objects.insert(path.to_owned(), object.clone());
        object
    }

    fn answer(&mut self, method: &Method, path: &str, body: Value) -> (u16, Value) {
        let path = path.strip_suffix("/status").unwrap_or(path);
        if *method != Method::GET {
            self.writes.push(format!("{method} {path}"));
        }
        let known = self.objects.get(path).cloned();
        match (method.as_str(), known) {
            ("POST", _) => {
                let path = format!(
                    "{path}/{}",
                    body["metadata"]["name"].as_str().unwrap_or_default()
                );
                if self.objects.contains_key(&path) {
                    return failure(409, "AlreadyExists");
                }
                (201, self.put(&path, body))
            }
            (_, None) => failure(404, "NotFound"),
            ("PATCH", Some(mut object)) => {
                let patch: json_patch::Patch = serde_json::from_value(body).unwrap();
                match json_patch::patch(&mut object, &patch) {
                    Ok(()) => (200, self.put(path, object)),
                    Err(_) => failure(422, "Invalid"),
                }
            }
            ("DELETE", Some(_)) => {
                self.objects.remove(path);
                (200, json!({"kind": "Status", "status": "Success"}))
            }
            (_, Some(object)) => (200, object),
        }
    }
}

fn failure(code: u16, reason: &str) -> (u16, Value) {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": reason,
    });
    (code, status)
}
