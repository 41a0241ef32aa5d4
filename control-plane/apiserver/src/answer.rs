//! What is sent back: negotiated forms of objects and lists, warnings, failures.

mod accept;

use std::sync::{Mutex, PoisonError};

use axum::body::{Body, Bytes};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use serde_json::{Value, json};

pub(crate) use self::accept::{Accept, Projection};

use crate::catalog::{Resource, Version};
use crate::failure::Failure;
use crate::table;

/// Warnings of one answer, as many as Kubernetes sends, and the length of each.
const WARNINGS_MAX: usize = 64;
const WARNING_MAX_BYTES: usize = 1024;

/// What a client is warned of while its request is answered.
#[derive(Debug, Default)]
pub(crate) struct Warnings(Mutex<Vec<String>>);

impl Warnings {
    pub(crate) fn add(&self, text: impl Into<String>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let text = text.into();
        if all.len() < WARNINGS_MAX && !all.contains(&text) {
            all.push(text);
        }
    }

    /// Puts the warnings in headers (RFC 7234 §5.5, code 299).
    pub(crate) fn put(&self, response: &mut Response<Body>) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for text in all.iter() {
            if let Ok(value) = HeaderValue::try_from(format!("299 - \"{}\"", quoted(text))) {
                response
                    .headers_mut()
                    .append(HeaderName::from_static("warning"), value);
            }
        }
    }
}

/// Escapes what a quoted string may not have, and shortens it.
fn quoted(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for it in text.chars() {
        match it {
            '"' | '\\' => plain.extend(['\\', it]),
            it if it.is_control() => plain.push(' '),
            it => plain.push(it),
        }
        if plain.len() > WARNING_MAX_BYTES {
            plain.push('…');
            break;
        }
    }
    plain
}

/// Returns an answer of JSON bytes.
pub(crate) fn bytes(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Body>,
) -> Response<Body> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

/// Returns a value as the client wants it written.
pub(crate) fn value(status: StatusCode, accept: &Accept, value: &Value) -> Response<Body> {
    bytes(status, accept.content_type(), text(accept, value))
}

/// Returns plain text.
pub(crate) fn plain(status: StatusCode, text: impl Into<Body>) -> Response<Body> {
    bytes(status, "text/plain; charset=utf-8", text)
}

/// Returns the answer of a request that failed.
pub(crate) fn failure(failure: &Failure) -> Response<Body> {
    let status = StatusCode::from_u16(failure.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = bytes(status, "application/json", to_bytes(&failure.status()));
    if let Some(seconds) = failure.retry_after {
        response
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Returns a `Status` of success about an object.
pub(crate) fn success(resource: &Resource, name: &str, uid: &str) -> Value {
    let mut details = json!({"name": name, "kind": resource.plural, "uid": uid});
    if !resource.group.is_empty() {
        details["group"] = json!(resource.group);
    }
    json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})
}

/// Returns the body of an object of which the whole is given as JSON in the version that was asked for.
pub(crate) fn object(
    status: StatusCode,
    accept: &Accept,
    kind: (&Resource, &Version),
    json: Bytes,
) -> Response<Body> {
    if accept.is_verbatim() {
        return bytes(status, accept.content_type(), json);
    }
    match serde_json::from_slice(&json) {
        Ok(whole) => value(status, accept, &project(accept, kind, whole)),
        Err(error) => failure(&Failure::new(500, "InternalError", error.to_string())),
    }
}

/// Returns an object in the form that was asked for.
pub(crate) fn project(accept: &Accept, kind: (&Resource, &Version), object: Value) -> Value {
    match accept.projection {
        Projection::Whole => object,
        Projection::Metadata => partial(&object),
        Projection::Table(include) => {
            let meta = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
            let now = jiff::Timestamp::now();
            table::render(kind.0, kind.1, &[&object], include, &meta, now)
        }
    }
}

/// Returns `PartialObjectMetadata` of an object.
pub(crate) fn partial(object: &Value) -> Value {
    json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": object["metadata"]})
}

/// Writes a value; JSON is YAML too.
pub(crate) fn text(accept: &Accept, value: &Value) -> Bytes {
    if accept.is_pretty {
        let mut text = serde_json::to_vec_pretty(value).unwrap_or_default();
        text.push(b'\n');
        return text.into();
    }
    to_bytes(value)
}

/// Writes a value compactly.
pub(crate) fn to_bytes(value: &Value) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}

/// Returns a stored object's JSON with `apiVersion` as asked for.
pub(crate) fn in_version(json: &Bytes, api_version: &str) -> Bytes {
    const HEAD: &[u8] = br#"{"apiVersion":""#;
    let Some(rest) = json.strip_prefix(HEAD) else {
        return in_version_slowly(json, api_version);
    };
    match rest.strip_prefix(api_version.as_bytes()) {
        Some([b'"', ..]) => json.clone(),
        _ => {
            let end = rest.iter().position(|it| *it == b'"').unwrap_or_default();
            [HEAD, api_version.as_bytes(), &rest[end..]].concat().into()
        }
    }
}

/// Changes `apiVersion` where another field comes before it.
fn in_version_slowly(json: &Bytes, api_version: &str) -> Bytes {
    match serde_json::from_slice::<Value>(json) {
        Ok(mut value) if value["apiVersion"] != api_version => {
            value["apiVersion"] = api_version.into();
            to_bytes(&value)
        }
        _ => json.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_rewritten_in_place() {
        let check = |json: &'static str, expected: &str| {
            let found = in_version(&Bytes::from_static(json.as_bytes()), "kubevirt.io/v1");
            assert_eq!(std::str::from_utf8(&found).unwrap(), expected);
        };
        check(
            r#"{"apiVersion":"kubevirt.io/v1","kind":"A"}"#,
            r#"{"apiVersion":"kubevirt.io/v1","kind":"A"}"#,
        );
        check(
            r#"{"apiVersion":"kubevirt.io/v1alpha3","kind":"A"}"#,
            r#"{"apiVersion":"kubevirt.io/v1","kind":"A"}"#,
        );
        check(
            r#"{"a":1,"apiVersion":"kubevirt.io/v1alpha3"}"#,
            r#"{"a":1,"apiVersion":"kubevirt.io/v1"}"#,
        );
    }

    #[test]
    fn warnings_are_quoted_and_said_once() {
        let warnings = Warnings::default();
        warnings.add("unknown field \"spec.a\"\n");
        warnings.add("unknown field \"spec.a\"\n");
        let mut response = plain(StatusCode::OK, "");
        warnings.put(&mut response);
        let found: Vec<_> = response.headers().get_all("warning").iter().collect();
        assert_eq!(found, [r#"299 - "unknown field \"spec.a\" ""#]);
    }
}
