//! Reading what clients send.

use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::Call;
use crate::failure::Failure;
use crate::protobuf;
use crate::request::api_version;

/// Longest body, as in Kubernetes.
pub(crate) const BODY_MAX_BYTES: usize = 3 << 20;
/// Values of one YAML document, and how deep they may be; JSON's depth is bounded by its reader.
const YAML_NODES_MAX: usize = 500_000;
const YAML_DEPTH_MAX: usize = 128;

/// Memory for bodies that are being read, which slow clients hold; handed out in units.
const BUDGET_UNITS: usize = 512;
const UNIT_BYTES: usize = 64 << 10;
/// Time to send a body, and to wait for memory for it.
const SLOWEST: Duration = Duration::from_secs(30);

/// Memory for bodies that are being read.
#[derive(Debug)]
pub(crate) struct Budget(Semaphore);

impl Default for Budget {
    fn default() -> Self {
        Self(Semaphore::new(BUDGET_UNITS))
    }
}

/// Reads a body as a whole.
///
/// # Errors
///
/// 413 when it is too long, 400 when the client stops in the middle, 504 when it is too slow.
pub(super) async fn read(call: &Call, body: Body) -> Result<Bytes, Failure> {
    let longest = body
        .size_hint()
        .upper()
        .and_then(|it| usize::try_from(it).ok());
    let longest = longest.unwrap_or(BODY_MAX_BYTES).min(BODY_MAX_BYTES);
    let units = u32::try_from(longest.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX);
    let whole = async {
        let memory = call.server.bodies().0.acquire_many(units).await;
        let whole = Limited::new(body, BODY_MAX_BYTES).collect().await;
        drop(memory);
        whole
    };
    match timeout(SLOWEST, whole).await {
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Failure::new(
            413,
            "RequestEntityTooLarge",
            format!("Request entity too large: limit is {BODY_MAX_BYTES}"),
        )),
        Ok(Err(error)) => Err(Failure::bad_request(format!("read the body: {error}"))),
        Err(_) => Err(Failure::new(
            504,
            "Timeout",
            "the body did not come in time",
        )),
    }
}

/// Returns the media type of a body, without parameters.
pub(crate) fn media_type(headers: &HeaderMap) -> &str {
    let header = headers.get(CONTENT_TYPE).and_then(|it| it.to_str().ok());
    let media = header
        .and_then(|it| it.split(';').next())
        .unwrap_or_default()
        .trim();
    if media.is_empty() {
        "application/json"
    } else {
        media
    }
}

/// Reads an object in any form that clients send.
///
/// # Errors
///
/// 400 when it is malformed, 415 when the form is none of ours.
pub(crate) fn decode(media: &str, bytes: &[u8]) -> Result<Value, Failure> {
    match media {
        "application/json" => json(bytes),
        "application/yaml" => yaml(bytes),
        "application/vnd.kubernetes.protobuf" => protobuf::decode(bytes),
        other => Err(unsupported(
            other,
            &[
                "application/json",
                "application/yaml",
                "application/vnd.kubernetes.protobuf",
            ],
        )),
    }
}

/// 415: the media type is none of those.
pub(crate) fn unsupported(media: &str, known: &[&str]) -> Failure {
    let message = format!(
        "the body of the request was in an unknown format ({media}) - accepted media types include: {}",
        known.join(", ")
    );
    Failure::new(415, "UnsupportedMediaType", message)
}

pub(crate) fn json(bytes: &[u8]) -> Result<Value, Failure> {
    serde_json::from_slice(bytes).map_err(|error| {
        Failure::bad_request(format!("the body is not the JSON of one value: {error}"))
    })
}

pub(crate) fn yaml(bytes: &[u8]) -> Result<Value, Failure> {
    if let Ok(value) = serde_json::from_slice(bytes) {
        return Ok(value);
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Failure::bad_request(format!("the body is not UTF-8: {error}")))?;
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! { max_nodes: YAML_NODES_MAX, max_documents: 1, max_depth: YAML_DEPTH_MAX },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: YAML_NODES_MAX },
        with_snippet: false,
    };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        Failure::bad_request(format!("the body is not YAML of one document: {error}"))
    })
}

/// Reads the object of a request: of its kind and version, which may be left out.
pub(super) async fn object(call: &Call, body: Body) -> Result<Value, Failure> {
    let bytes = read(call, body).await?;
    let mut object = decode(media_type(&call.headers), &bytes)?;
    check_kind(&mut object, &call.target.api_version(), &call.resource.kind)?;
    Ok(object)
}

/// Checks that an object is of a kind, and fills in the kind where it is left out.
pub(super) fn check_kind(object: &mut Value, version: &str, kind: &str) -> Result<(), Failure> {
    let Some(fields) = object.as_object_mut() else {
        return Err(Failure::bad_request("the body must be an object"));
    };
    for (name, expected) in [("apiVersion", version), ("kind", kind)] {
        let found = fields.entry(name).or_insert(Value::Null);
        match found {
            Value::Null => *found = expected.into(),
            Value::String(text) if text.is_empty() => *found = expected.into(),
            Value::String(text) if text == expected => {}
            Value::String(text) if name == "apiVersion" => {
                return Err(Failure::bad_request(format!(
                    "the API version in the data ({text}) does not match the expected API version ({expected})"
                )));
            }
            other => {
                return Err(Failure::bad_request(format!(
                    "{kind} in version {version:?} cannot be handled as a {kind}: its {name} is {other}"
                )));
            }
        }
    }
    Ok(())
}

/// Reads the object of a subresource, of a kind that may be left out with the whole body.
pub(super) async fn part(
    call: &Call,
    body: Body,
    group_version: (&str, &str),
    kind: &str,
) -> Result<Value, Failure> {
    let bytes = read(call, body).await?;
    let mut object = if bytes.is_empty() {
        Value::Object(serde_json::Map::new())
    } else {
        decode(media_type(&call.headers), &bytes)?
    };
    check_kind(
        &mut object,
        &api_version(group_version.0, group_version.1),
        kind,
    )?;
    Ok(object)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bodies_are_json_or_yaml() {
        let expected = json!({"a": {"b": [1, "x"]}});
        assert_eq!(
            decode("application/json", br#"{"a":{"b":[1,"x"]}}"#).unwrap(),
            expected
        );
        assert_eq!(
            decode("application/yaml", b"a:\n  b:\n  - 1\n  - x\n").unwrap(),
            expected
        );
        assert_eq!(decode("text/html", b"").unwrap_err().code, 415);
        assert_eq!(decode("application/json", b"{").unwrap_err().code, 400);
        assert_eq!(decode("application/yaml", b"a: [").unwrap_err().code, 400);
    }

    #[test]
    fn deep_and_multiplying_bodies_are_refused() {
        let deep = "[".repeat(100_000);
        assert_eq!(
            decode("application/json", deep.as_bytes())
                .unwrap_err()
                .code,
            400
        );
        assert_eq!(
            decode("application/yaml", deep.as_bytes())
                .unwrap_err()
                .code,
            400
        );
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..10 {
            let below = format!("*a{}, ", level - 1).repeat(10);
            bomb += &format!("a{level}: &a{level} [{below}]\n");
        }
        assert_eq!(
            decode("application/yaml", bomb.as_bytes())
                .unwrap_err()
                .code,
            400
        );
    }

    #[test]
    fn an_object_of_another_kind_is_refused() {
        let mut object = json!({"metadata": {}});
        check_kind(&mut object, "v1", "Pod").unwrap();
        assert_eq!(object["kind"], "Pod");
        let error = check_kind(&mut json!({"apiVersion": "v2"}), "v1", "Pod").unwrap_err();
        assert!(
            error
                .message
                .contains("does not match the expected API version (v1)")
        );
        assert_eq!(
            check_kind(&mut json!({"kind": "Node"}), "v1", "Pod")
                .unwrap_err()
                .code,
            400
        );
        assert_eq!(
            check_kind(&mut json!([]), "v1", "Pod").unwrap_err().code,
            400
        );
    }
}
