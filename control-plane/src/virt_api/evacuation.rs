//! Giving up an evacuation that has not moved an instance yet.

use api::options::EvacuateCancelOptions;
use axum::body::Body;
use axum::extract::State;
use axum::routing::put;
use http::StatusCode;
use serde_json::{Value, json};

use super::answer::Refusal;
use super::objects::{Kind, text};
use super::patches::Operations;
use super::request::{Desk, Named, Route, options};

const POINTER: &str = "/status/evacuationNodeName";

/// Returns who answers which action of machines.
pub(super) fn machine_routes() -> Vec<Route> {
    vec![("evacuate/cancel", put(machine))]
}

/// Returns who answers which action of instances.
pub(super) fn instance_routes() -> Vec<Route> {
    vec![("evacuate/cancel", put(instance))]
}

async fn instance(
    State(desk): State<Desk>,
    named: Named,
    body: Body,
) -> Result<StatusCode, Refusal> {
    let vmi = desk.objects.get(&named.object(Kind::Instance)).await?;
    cancel(&desk, &named, &vmi, body).await
}

async fn machine(
    State(desk): State<Desk>,
    named: Named,
    body: Body,
) -> Result<StatusCode, Refusal> {
    let vmi = desk.instance_of_machine(&named).await?;
    cancel(&desk, &named, &vmi, body).await
}

async fn cancel(
    desk: &Desk,
    named: &Named,
    vmi: &Value,
    body: Body,
) -> Result<StatusCode, Refusal> {
    let (options, is_dry) = options::<EvacuateCancelOptions>(body).await?;
    let marked = text(vmi, POINTER);
    if marked.is_empty() {
        return Ok(StatusCode::OK);
    }
    let meant = match options.evacuation_node_name.as_str() {
        "" => marked,
        node => node,
    };
    let mut operations = Operations::on(vmi);
    operations.test(POINTER, json!(meant));
    let patch = operations.remove(POINTER).patch();
    let object = named.object(Kind::Instance);
    match desk.objects.patch(&object, "", &patch, is_dry).await {
        Ok(_) => Ok(StatusCode::OK),
        Err(refusal) if refusal.is_outdated() => {
            let why = format!("it is not (or no longer) marked to leave node {meant:?}");
            Err(Refusal::conflict(Kind::Instance, &named.name, &why))
        }
        Err(refusal) => Err(refusal),
    }
}
