//! Paths that are about no resource: health, version, metrics, discovery, OpenAPI.

use axum::body::Body;
use http::header::ACCEPT;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use serde_json::{Value, json};

use super::ApiServer;
use crate::access::User;
use crate::answer::{self, Accept};
use crate::discovery;
use crate::failure::Failure;
use crate::openapi;
use crate::proxy::{self, ApiService};
use crate::verbs::{self, BODY_MAX_BYTES};

pub(super) async fn answer(
    server: &ApiServer,
    request: Request<Body>,
    user: &User,
) -> Result<Response<Body>, Failure> {
    if !matches!(request.method().as_str(), "GET" | "HEAD") {
        return Err(verbs::not_allowed());
    }
    let (parts, _) = request.into_parts();
    let path = parts.uri.path().trim_end_matches('/');
    match path {
        "/healthz" | "/livez" | "/readyz" => return Ok(answer::plain(StatusCode::OK, "ok")),
        "/metrics" => {
            return Ok(answer::plain(
                StatusCode::OK,
                server.metrics().text(server.store()),
            ));
        }
        "" => return Ok(json_answer(&json!({"paths": PATHS}))),
        "/version" => return Ok(json_answer(&version())),
        _ => {}
    }
    let accept = parts
        .headers
        .get(ACCEPT)
        .and_then(|it| it.to_str().ok())
        .unwrap_or_default();
    if path == "/openapi/v2" {
        let (media, document) = openapi::version_2(accept);
        return Ok(answer::bytes(StatusCode::OK, media, document));
    }
    if path.starts_with("/openapi/") {
        let document =
            openapi::answer(&server.registry().catalog(), path).ok_or_else(verbs::no_such_path)?;
        return Ok(json_answer(&document));
    }
    discover(server, user, path, accept).await
}

const PATHS: [&str; 9] = [
    "/api",
    "/api/v1",
    "/apis",
    "/healthz",
    "/livez",
    "/metrics",
    "/openapi/v3",
    "/readyz",
    "/version",
];

fn json_answer(value: &Value) -> Response<Body> {
    answer::value(StatusCode::OK, &Accept::default(), value)
}

/// Returns what `kubectl version` shows: the version of Kubernetes whose API this is, and ours.
fn version() -> Value {
    json!({
        "major": "1", "minor": "33", "gitVersion": format!("v1.33.0+ferrovirt-{}", env!("CARGO_PKG_VERSION")),
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "", "compiler": "rustc", "platform": "linux/amd64",
    })
}

async fn discover(
    server: &ApiServer,
    user: &User,
    path: &str,
    accept: &str,
) -> Result<Response<Body>, Failure> {
    let mut extra = Vec::new();
    for api in proxy::api_services(server.store()) {
        extra.push(discovery::ApiService {
            resources: resources_of(server, &api, user).await,
            group: api.group,
            version: api.version,
        });
    }
    let catalog = server.registry().catalog();
    let (media, document) =
        discovery::answer(&catalog, &extra, path, accept).ok_or_else(verbs::no_such_path)?;
    Ok(answer::bytes(
        StatusCode::OK,
        media,
        answer::to_bytes(&document),
    ))
}

/// Asks an aggregated API for its resources; nothing when it does not answer.
async fn resources_of(server: &ApiServer, api: &ApiService, user: &User) -> Option<Value> {
    let path = format!("/apis/{}/{}", api.group, api.version);
    let mut request = Request::builder().uri(path).body(Body::empty()).ok()?;
    request
        .headers_mut()
        .insert(ACCEPT, HeaderValue::from_static("application/json"));
    let response = proxy::aggregate(server.services(), api, user, request)
        .await
        .ok()?;
    let is_fine = response.status().is_success();
    let whole = Limited::new(response.into_body(), BODY_MAX_BYTES)
        .collect()
        .await
        .ok()?;
    is_fine.then(|| serde_json::from_slice(&whole.to_bytes()).ok())?
}
