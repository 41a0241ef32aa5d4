//! A cluster in memory: objects, patches, and reviews of access whose answers are scripted.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use http::{Method, Request, Response, StatusCode};
use kube::Client;
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::virt_api::node::{HandlerAddress, HandlerPlace, Identity, Nodes, Pem};
use crate::virt_api::objects::Objects;
use crate::virt_api::request::Desk;
use crate::virt_api::served;
use crate::virt_api::stream::Pulse;

/// A request that changed something: method, path and query, body.
pub(super) type WriteRequest = (Method, String, Value);

#[derive(Default)]
struct Kept {
    /// Objects by resource and name.
    objects: BTreeMap<(String, String), Value>,
    writes: Vec<WriteRequest>,
    /// What happens to objects before the next patches.
    surprises: Vec<fn(&mut Value)>,
    /// Refuses patches of this path with a status.
    refused: Option<(&'static str, u16)>,
    denies_access: bool,
}

#[derive(Clone, Default)]
pub(super) struct Cluster(Arc<Mutex<Kept>>);

impl Cluster {
    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.0.lock().unwrap()
    }

    pub(super) fn put(&self, resource: &str, object: Value) {
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        self.kept()
            .objects
            .insert((resource.to_owned(), name), object);
    }

    pub(super) fn get(&self, resource: &str, name: &str) -> Value {
        let key = (resource.to_owned(), name.to_owned());
        self.kept().objects.get(&key).cloned().unwrap_or_default()
    }

    /// Lets somebody else change an object before the next patch of it.
    pub(super) fn surprise(&self, change: fn(&mut Value)) {
        self.kept().surprises.push(change);
    }

    pub(super) fn refuse(&self, path_end: &'static str, code: u16) {
        self.kept().refused = Some((path_end, code));
    }

    pub(super) fn deny_access(&self) {
        self.kept().denies_access = true;
    }

    pub(super) fn writes(&self) -> Vec<WriteRequest> {
        self.kept().writes.clone()
    }

    pub(super) fn client(&self) -> Client {
        let cluster = self.clone();
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let cluster = cluster.clone();
            async move { Ok::<_, Infallible>(cluster.answer(request).await) }
        });
        Client::new(service, "default")
    }

    /// Returns what requests are answered with; no node agent is to be reached.
    pub(super) fn desk(&self) -> Desk {
        let nowhere = Pem::Text("".into());
        let identity = Identity::new(nowhere.clone(), nowhere.clone(), nowhere);
        let place = HandlerPlace::Fixed(([127, 0, 0, 1], 1).into());
        self.desk_with(HandlerAddress { place, identity })
    }

    pub(super) fn desk_with(&self, handler: HandlerAddress) -> Desk {
        let objects = Objects::new(self.client());
        Desk {
            nodes: Nodes::new(objects.clone(), "kubevirt".into(), handler),
            objects,
            namespace: "kubevirt".into(),
            pulse: Pulse::default(),
            reaches_loopback: true,
        }
    }

    pub(super) fn router(&self, authorize: bool) -> Router {
        served(self.desk(), authorize)
    }

    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        let body = body.map_or_else(Body::empty, |body| Body::from(body.to_string()));
        let request = Request::builder().method(method).uri(path);
        self.send(request.body(body).unwrap()).await
    }

    pub(super) async fn send(&self, request: Request<Body>) -> (StatusCode, Value) {
        let response = self.router(false).oneshot(request).await.unwrap();
        read(response).await
    }

    async fn answer(&self, request: Request<kube::client::Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = to_bytes(Body::new(body), 1 << 20).await.unwrap();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let path = parts.uri.path().to_owned();
        if parts.method != Method::GET {
            let uri = parts.uri.to_string();
            self.kept()
                .writes
                .push((parts.method.clone(), uri, body.clone()));
        }
        let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
        let at = segments.iter().position(|part| *part == "namespaces");
        let rest = match at {
            Some(at) => &segments[at + 2..],
            None => &segments[segments.len() - 1..],
        };
        match (parts.method, rest) {
            (Method::POST, ["subjectaccessreviews"]) => {
                let allowed = !self.kept().denies_access;
                reply(
                    201,
                    &json!({"status": {"allowed": allowed, "reason": "no such rule"}}),
                )
            }
            (Method::POST, [_]) => reply(201, &body),
            (Method::GET, [resource]) => self.list(resource),
            (Method::GET, [resource, name]) => match self.get(resource, name) {
                Value::Null => failure(404, "not found"),
                object => reply(200, &object),
            },
            (Method::PATCH, [resource, name, ..]) => self.patch(resource, name, &path, &body),
            _ => failure(405, "no such verb"),
        }
    }

    fn list(&self, resource: &str) -> Response<Body> {
        let kept = self.kept();
        let objects = kept.objects.iter().filter(|((of, _), _)| of == resource);
        let items: Vec<&Value> = objects.map(|(_, object)| object).collect();
        reply(
            200,
            &json!({"kind": "List", "metadata": {}, "items": items}),
        )
    }

    fn patch(&self, resource: &str, name: &str, path: &str, patch: &Value) -> Response<Body> {
        let mut kept = self.kept();
        if let Some((end, code)) = kept.refused
            && path.ends_with(end)
        {
            return failure(code, "the test refuses");
        }
        let surprise = (!kept.surprises.is_empty()).then(|| kept.surprises.remove(0));
        let Some(object) = kept
            .objects
            .get_mut(&(resource.to_owned(), name.to_owned()))
        else {
            return failure(404, "not found");
        };
        if let Some(surprise) = surprise {
            surprise(object);
        }
        let patch: json_patch::Patch = serde_json::from_value(patch.clone()).unwrap();
        match json_patch::patch(object, &patch) {
            Ok(()) => reply(200, object),
            Err(error) => failure(422, &error.to_string()),
        }
    }
}

/// Reads a response of JSON.
pub(super) async fn read(response: Response<Body>) -> (StatusCode, Value) {
    let status = response.status();
    let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

fn failure(code: u16, message: &str) -> Response<Body> {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code,
        "message": message, "reason": if code == 404 { "NotFound" } else { "Invalid" },
    });
    reply(code, &status)
}

fn reply(code: u16, body: &Value) -> Response<Body> {
    let response = Response::builder().status(code);
    response.body(Body::from(body.to_string())).unwrap()
}
