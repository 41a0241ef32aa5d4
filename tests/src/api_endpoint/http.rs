//! The endpoint's HTTP: paths, lists, watches, patches.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::{Body, to_bytes};
use http::{Method, Request, Response, header};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::Shared;
use super::store::{Change, ObjectKey, Resource};

/// Longest body that is read.
const BODY_MAX: usize = 8 << 20;

/// Where a request goes.
struct Target {
    resource: Resource,
    namespace: String,
    name: Option<String>,
    query: BTreeMap<String, String>,
}

/// Answers one request.
pub(super) async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let is_write = !matches!(*request.method(), Method::GET | Method::HEAD);
    shared.requests.fetch_add(1, Ordering::Relaxed);
    shared
        .writes
        .fetch_add(u64::from(is_write), Ordering::Relaxed);
    if let Some(code) = shared.fault(is_write) {
        return Ok(failure(code, "the test wants this answer"));
    }
    let Some(target) = target(request.uri()) else {
        return Ok(failure(404, "no such path"));
    };
    let method = request.method().clone();
    let kind = content_type(&request);
    let body = to_bytes(Body::new(request.into_body()), BODY_MAX).await;
    let body = body.unwrap_or_default();
    Ok(act(&shared, &method, target, &kind, &body))
}

fn content_type(request: &Request<Incoming>) -> String {
    let value = request.headers().get(header::CONTENT_TYPE);
    let text = value.and_then(|value| value.to_str().ok());
    text.unwrap_or_default().to_owned()
}

fn act(
    shared: &Arc<Shared>,
    method: &Method,
    target: Target,
    kind: &str,
    body: &[u8],
) -> Response<Body> {
    let key = target
        .name
        .as_deref()
        .map(|name| target.resource.key(&target.namespace, name));
    let object = || serde_json::from_slice::<Value>(body).unwrap_or_default();
    match (method, key) {
        (&Method::GET, None)
            if target
                .query
                .get("watch")
                .is_some_and(|w| w == "true" || w == "1") =>
        {
            watch(shared, target)
        }
        (&Method::GET, None) => list(shared, &target),
        (&Method::GET, Some(key)) => found(shared.store.get(&key)),
        (&Method::POST, None) => create(shared, &target, object()),
        (&Method::PUT, Some(key)) => replace(shared, &key, object()),
        (&Method::PATCH, Some(key)) => patch(shared, &key, kind, &object()),
        (&Method::DELETE, Some(key)) => delete(shared, &key),
        _ => failure(405, "no such verb here"),
    }
}

/// `/api/v1/…` and `/apis/GROUP/VERSION/…`, then `[namespaces/NS/]PLURAL[/NAME[/SUBRESOURCE]]`.
fn target(uri: &http::Uri) -> Option<Target> {
    let mut parts: Vec<&str> = uri.path().trim_matches('/').split('/').collect();
    let api_version = match *parts.first()? {
        "api" => (*parts.get(1)?).to_owned(),
        "apis" => format!("{}/{}", parts.get(1)?, parts.get(2)?),
        _ => return None,
    };
    parts.drain(..if parts[0] == "api" { 2 } else { 3 });
    let mut namespace = String::new();
    if parts.len() > 2 && parts[0] == "namespaces" {
        parts[1].clone_into(&mut namespace);
        parts.drain(..2);
    }
    Some(Target {
        resource: Resource::new(&api_version, parts.first()?),
        namespace,
        name: parts.get(1).map(|name| (*name).to_owned()),
        query: query(uri.query().unwrap_or_default()),
    })
}

fn query(text: &str) -> BTreeMap<String, String> {
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(name, value)| (name.to_owned(), unescape(value)))
        .collect()
}

/// Undoes percent encoding; what is no encoding stays.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = tail.get(..2).filter(|_| *first == b'%');
        let byte = hex
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(byte.unwrap_or(if *first == b'+' { b' ' } else { *first }));
        rest = if byte.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

impl Target {
    /// Whether an object is one of those asked for.
    fn selects(&self, object: &Value) -> bool {
        let metadata = &object["metadata"];
        let namespace_fits = self.namespace.is_empty() || metadata["namespace"] == self.namespace;
        namespace_fits && self.label_fits(&metadata["labels"]) && self.field_fits(metadata)
    }

    fn label_fits(&self, labels: &Value) -> bool {
        let selector = self.query.get("labelSelector").map_or("", String::as_str);
        selector
            .split(',')
            .filter(|term| !term.is_empty())
            .all(|term| match term.split_once('=') {
                Some((name, value)) => labels[name] == value.trim_start_matches('='),
                None => labels.get(term).is_some(),
            })
    }

    fn field_fits(&self, metadata: &Value) -> bool {
        let selector = self.query.get("fieldSelector").map_or("", String::as_str);
        selector
            .strip_prefix("metadata.name=")
            .is_none_or(|name| metadata["name"] == name.trim_start_matches('='))
    }
}

fn list(shared: &Shared, target: &Target) -> Response<Body> {
    let revision = shared.store.revision();
    let objects = shared.store.list(&target.resource).into_iter();
    let items: Vec<Value> = objects.filter(|object| target.selects(object)).collect();
    reply(
        200,
        &json!({
            "apiVersion": target.resource.api_version, "kind": "List",
            "metadata": {"resourceVersion": revision.to_string()}, "items": items,
        }),
    )
}

fn found(object: Option<Value>) -> Response<Body> {
    object.map_or_else(
        || failure(404, "no such object"),
        |object| reply(200, &object),
    )
}

fn create(shared: &Shared, target: &Target, mut object: Value) -> Response<Body> {
    if !object.is_object() {
        return failure(400, "the body is no object");
    }
    if object["metadata"]["name"]
        .as_str()
        .is_none_or(str::is_empty)
    {
        let prefix = object["metadata"]["generateName"].as_str();
        let prefix = prefix.unwrap_or_default().to_owned();
        let name = format!("{prefix}{:06x}", shared.store.revision() + 1);
        object["metadata"]["name"] = json!(name);
    }
    if !target.namespace.is_empty() {
        object["metadata"]["namespace"] = json!(target.namespace);
    }
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    if shared
        .store
        .get(&target.resource.key(&target.namespace, name))
        .is_some()
    {
        return failure(409, "the object exists");
    }
    reply(201, &shared.store.put(&target.resource, object))
}

fn replace(shared: &Shared, key: &ObjectKey, object: Value) -> Response<Body> {
    let replaced = shared.store.try_change(key, |old| {
        let version = object["metadata"]["resourceVersion"].as_str();
        if version.is_some_and(|version| old["metadata"]["resourceVersion"] != version) {
            return Err((409, "the object was changed meanwhile".to_owned()));
        }
        *old = object;
        Ok(())
    });
    outcome(replaced)
}

fn patch(shared: &Shared, key: &ObjectKey, kind: &str, patch: &Value) -> Response<Body> {
    let patched = shared.store.try_change(key, |object| {
        if kind.starts_with("application/json-patch") {
            let patch: json_patch::Patch =
                serde_json::from_value(patch.clone()).map_err(|error| (400, error.to_string()))?;
            return json_patch::patch(object, &patch).map_err(|error| (422, error.to_string()));
        }
        json_patch::merge(object, patch);
        Ok(())
    });
    outcome(patched)
}

/// A refusal is a status code and its message.
fn outcome(done: Option<Result<Value, (u16, String)>>) -> Response<Body> {
    match done {
        None => failure(404, "no such object"),
        Some(Ok(object)) => reply(200, &object),
        Some(Err((code, message))) => failure(code, &message),
    }
}

/// Removes an object, or marks it while it has finalizers.
fn delete(shared: &Shared, key: &ObjectKey) -> Response<Body> {
    let marked = shared.store.change(key, |object| {
        let now = "2026-01-01T00:00:00Z";
        object["metadata"]["deletionTimestamp"] = json!(now);
    });
    found(marked)
}

fn watch(shared: &Arc<Shared>, target: Target) -> Response<Body> {
    let from = target
        .query
        .get("resourceVersion")
        .map_or("", String::as_str);
    let from: u64 = from.parse().unwrap_or(0);
    let (mut sender, body) = channel();
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let mut round = shared.watch_round.subscribe();
        tokio::select! {
            () = follow(&shared, &target, from, &mut sender) => {}
            _ = round.changed() => {}
        }
    });
    response(200).body(body).unwrap_or_default()
}

type Lines = tokio::sync::mpsc::Sender<Result<String, Infallible>>;

fn channel() -> (Lines, Body) {
    let (sender, receiver) = tokio::sync::mpsc::channel(64);
    let lines = futures::stream::unfold(receiver, |mut receiver| async move {
        Some((receiver.recv().await?, receiver))
    });
    (sender, Body::from_stream(lines))
}

/// Writes what changes until the client is gone.
async fn follow(shared: &Shared, target: &Target, mut from: u64, lines: &mut Lines) {
    if from == 0 {
        from = shared.store.revision();
        for object in shared.store.list(&target.resource) {
            if target.selects(&object) && !send(lines, "ADDED", &object).await {
                return;
            }
        }
    }
    loop {
        let news = shared.store.news();
        tokio::pin!(news);
        news.as_mut().enable();
        let Some(changes) = shared.store.changes_since(from) else {
            send(lines, "ERROR", &status(410, "too old resource version")).await;
            return;
        };
        for change in changes {
            from = change.revision;
            if let Some((kind, object)) = seen_as(target, &change)
                && !send(lines, kind, object).await
            {
                return;
            }
        }
        tokio::select! {
            () = news => {}
            () = lines.closed() => return,
        }
    }
}

/// What a change is for those who watch a selection.
fn seen_as<'a>(target: &Target, change: &'a Change) -> Option<(&'static str, &'a Value)> {
    if change.resource != target.resource {
        return None;
    }
    let selected = |object: &&Value| target.selects(object);
    let before = change.before.as_ref().filter(selected);
    let after = change.after.as_ref().filter(selected);
    match (before, after) {
        (None, Some(after)) => Some(("ADDED", after)),
        (Some(_), Some(after)) => Some(("MODIFIED", after)),
        (Some(before), None) => Some(("DELETED", change.after.as_ref().unwrap_or(before))),
        (None, None) => None,
    }
}

async fn send(lines: &Lines, kind: &str, object: &Value) -> bool {
    let line = format!("{}\n", json!({"type": kind, "object": object}));
    lines.send(Ok(line)).await.is_ok()
}

fn status(code: u16, message: &str) -> Value {
    let reason = match code {
        404 => "NotFound",
        409 => "Conflict",
        410 => "Expired",
        422 => "Invalid",
        429 => "TooManyRequests",
        _ => "InternalError",
    };
    json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure",
        "message": message, "reason": reason, "code": code, "metadata": {},
    })
}

fn failure(code: u16, message: &str) -> Response<Body> {
    reply(code, &status(code, message))
}

fn response(code: u16) -> http::response::Builder {
    Response::builder()
        .status(code)
        .header(header::CONTENT_TYPE, "application/json")
}

fn reply(code: u16, body: &Value) -> Response<Body> {
    let body = Body::from(body.to_string());
    response(code).body(body).unwrap_or_default()
}
