//! A machine's specification with its instance type and preference written out.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::{MethodRouter, get, put};
use http::StatusCode;
use serde_json::{Value, json};

use super::answer::{Refusal, json_response};
use super::objects::{Kind, text};
use super::patches::is_set;
use super::request::{Desk, Named, Route, bytes};

/// Bytes of a machine that are read; API servers store no more.
const MACHINE_LEN_MAX_BYTES: usize = 3 << 20;

/// Returns who answers which path below a namespace.
pub(super) fn routes() -> Vec<(&'static str, MethodRouter<Desk>)> {
    vec![("expand-vm-spec", put(given))]
}

/// Returns who answers which action of machines.
pub(super) fn machine_routes() -> Vec<Route> {
    vec![("expand-spec", get(stored))]
}

async fn stored(State(desk): State<Desk>, named: Named) -> Result<Response, Refusal> {
    let vm = desk.objects.get(&named.object(Kind::Machine)).await?;
    Ok(json_response(StatusCode::OK, &expand(vm)?))
}

async fn given(Path(namespace): Path<String>, body: Body) -> Result<Response, Refusal> {
    let body = bytes(body, MACHINE_LEN_MAX_BYTES).await?;
    let mut vm: Value = serde_json::from_slice(&body).map_err(|error| {
        Refusal::bad_request(format!("the body is no VirtualMachine in JSON: {error}"))
    })?;
    if !vm["spec"].is_object() {
        return Err(Refusal::bad_request(
            "spec: required in the body, a VirtualMachine",
        ));
    }
    match text(&vm, "/metadata/namespace") {
        "" => {}
        given if given == namespace => {}
        _ => {
            let message = format!("VM namespace must be empty or {namespace}");
            return Err(Refusal::bad_request(message));
        }
    }
    if !vm["metadata"].is_object() {
        vm["metadata"] = json!({});
    }
    vm["metadata"]["namespace"] = json!(namespace);
    Ok(json_response(StatusCode::OK, &expand(vm)?))
}

/// Returns a machine as it is without instance type and preference.
fn expand(vm: Value) -> Result<Value, Refusal> {
    for field in ["instancetype", "preference"] {
        if is_set(&vm, &format!("/spec/{field}")) {
            return Err(Refusal::bad_request(format!(
                "spec.{field}: instance types and preferences are not supported: \
                 write cpu and memory into spec.template.spec.domain"
            )));
        }
    }
    Ok(vm)
}
