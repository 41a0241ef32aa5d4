//! Whether a user may do what is asked: a `SubjectAccessReview` for each request, of the user that the API server
//! names in the headers `X-Remote-*` (front proxy authentication).

use std::collections::BTreeMap;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, Method, StatusCode};
use serde_json::{Value, json};

use super::answer::Refusal;
use super::objects::Kind;
use super::request::Desk;
use super::{GROUP, VERSIONS};

const USER: &str = "x-remote-user";
const USER_UID: &str = "x-remote-uid";
const USER_GROUP: &str = "x-remote-group";
const USER_EXTRA_PREFIX: &str = "x-remote-extra-";
/// Paths below a version of the group that everybody may ask for.
const OPEN: [&str; 7] = [
    "",
    "version",
    "healthz",
    "guestfs",
    "start-cluster-profiler",
    "stop-cluster-profiler",
    "dump-cluster-profiler",
];

/// Lets a request through when its user may do what it asks.
pub(super) async fn review(
    State(desk): State<Desk>,
    request: Request<Body>,
    next: Next,
) -> Response {
    let wish = wish(&request);
    match check(&desk, wish).await {
        Ok(()) => next.run(request).await,
        Err(refusal) => refusal.into_response(),
    }
}

/// Returns the review that a request needs; `None` where everybody may.
fn wish(request: &Request<Body>) -> Result<Option<Value>, Refusal> {
    let attributes = attributes(request.method(), request.uri().path())?;
    attributes
        .map(|attributes| access_review(request.headers(), &attributes))
        .transpose()
}

async fn check(desk: &Desk, wish: Result<Option<Value>, Refusal>) -> Result<(), Refusal> {
    let Some(review) = wish? else {
        return Ok(());
    };
    let answer = desk
        .objects
        .create(Kind::AccessReview, "", &review, false)
        .await;
    let answer = answer.map_err(|refusal| {
        let message = format!("the review of access failed: {}", refusal.message());
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    })?;
    if answer["status"]["allowed"] == true {
        return Ok(());
    }
    Err(forbidden(&review["spec"], &answer["status"]))
}

fn forbidden(asked: &Value, status: &Value) -> Refusal {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let what = &asked["resourceAttributes"];
    let resource = match text(&what["subresource"]).as_str() {
        "" => text(&what["resource"]),
        part => format!("{}/{part}", text(&what["resource"])),
    };
    let mut message = format!(
        "{resource}.{GROUP} {:?} is forbidden: User {:?} cannot {} resource {resource:?} in API group {GROUP:?} in the namespace {:?}",
        text(&what["name"]),
        text(&asked["user"]),
        text(&what["verb"]),
        text(&what["namespace"]),
    );
    let why = text(&status["reason"]);
    if !why.is_empty() {
        message = format!("{message}: {why}");
    }
    Refusal::new(StatusCode::FORBIDDEN, message)
}

/// Returns what is asked for; `None` where everybody may.
fn attributes(method: &Method, path: &str) -> Result<Option<Value>, Refusal> {
    let Some(path) = path.strip_prefix("/apis/") else {
        return Ok(None);
    };
    let parts: Vec<&str> = path.trim_end_matches('/').split('/').collect();
    let (version, rest) = match parts.as_slice() {
        [] | [_] => return Ok(None),
        [group, version, rest @ ..] if *group == GROUP && VERSIONS.contains(version) => {
            (*version, rest)
        }
        _ => return Err(unknown(path)),
    };
    if OPEN.contains(&rest.join("/").as_str()) {
        return Ok(None);
    }
    let (namespace, resource, name, subresource) = match rest {
        ["namespaces", namespace, "expand-vm-spec"] => (namespace, &"expand-vm-spec", "", None),
        ["namespaces", namespace, resource, name, action @ ..] if !action.is_empty() => {
            // Port and protocol are no affair of rules.
            let subresource = match action {
                ["portforward", ..] => "portforward".to_owned(),
                action => action.join("/"),
            };
            (namespace, resource, *name, Some(subresource))
        }
        _ => return Err(unknown(path)),
    };
    if ![
        "virtualmachines",
        "virtualmachineinstances",
        "expand-vm-spec",
    ]
    .contains(resource)
    {
        return Err(unknown(path));
    }
    let mut attributes = json!({
        "group": GROUP, "version": version, "namespace": namespace, "resource": resource,
        "verb": verb(method, name)?,
    });
    if let Some(subresource) = subresource {
        attributes["name"] = json!(name);
        attributes["subresource"] = json!(subresource);
    }
    Ok(Some(attributes))
}

fn unknown(path: &str) -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        format!("there is nothing at /apis/{path}"),
    )
}

fn verb(method: &Method, name: &str) -> Result<&'static str, Refusal> {
    match (method, name) {
        (&Method::GET | &Method::HEAD, "") => Ok("list"),
        (&Method::GET | &Method::HEAD, _) => Ok("get"),
        (&Method::PUT, _) => Ok("update"),
        (&Method::POST, _) => Ok("create"),
        (&Method::PATCH, _) => Ok("patch"),
        (&Method::DELETE, _) => Ok("delete"),
        _ => Err(Refusal::new(
            StatusCode::METHOD_NOT_ALLOWED,
            format!("{method} is no method of this API"),
        )),
    }
}

/// Returns the review of a request.
fn access_review(headers: &HeaderMap, attributes: &Value) -> Result<Value, Refusal> {
    let values = |name: &str| -> Vec<String> {
        let values = headers.get_all(name).iter();
        let texts = values.filter_map(|value| value.to_str().ok());
        texts.map(str::to_owned).collect()
    };
    let user = values(USER)
        .into_iter()
        .next()
        .filter(|user| !user.is_empty());
    let user = user.ok_or_else(|| {
        let message = "the request is not authenticated: ask by way of the Kubernetes API server";
        Refusal::new(StatusCode::UNAUTHORIZED, message)
    })?;
    let extra: BTreeMap<String, Vec<String>> = headers
        .keys()
        .filter_map(|name| {
            let key = name.as_str().strip_prefix(USER_EXTRA_PREFIX)?;
            Some((unescape(key), values(name.as_str())))
        })
        .collect();
    let mut spec = json!({
        "user": user, "groups": values(USER_GROUP), "resourceAttributes": attributes,
    });
    if let Some(uid) = values(USER_UID).into_iter().next() {
        spec["uid"] = json!(uid);
    }
    if !extra.is_empty() {
        spec["extra"] = json!(extra);
    }
    Ok(json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec,
    }))
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
        bytes.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests;
