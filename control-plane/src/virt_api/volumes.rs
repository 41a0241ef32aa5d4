//! Plugging and unplugging volumes while a machine runs: requests are checked, and then refused, because the machine
//! monitor cannot do it yet.

use api::field::{FieldError, FieldPath};
use api::options::{AddVolumeOptions, RemoveVolumeOptions};
use axum::body::Body;
use axum::extract::State;
use axum::routing::put;
use http::StatusCode;
use serde_json::Value;

use super::answer::Refusal;
use super::objects::{Kind, text};
use super::request::{Desk, Named, Route, options};

const UNSUPPORTED: &str = "volumes cannot be plugged or unplugged while a machine runs: \
    change spec.template of the VirtualMachine and restart it";

/// Returns who answers which action of machines.
pub(super) fn machine_routes() -> Vec<Route> {
    routes(Kind::Machine)
}

/// Returns who answers which action of instances.
pub(super) fn instance_routes() -> Vec<Route> {
    routes(Kind::Instance)
}

fn routes(kind: Kind) -> Vec<Route> {
    let add = move |State(desk): State<Desk>, named: Named, body: Body| async move {
        add(&desk, &named, kind, body).await
    };
    let remove = move |State(desk): State<Desk>, named: Named, body: Body| async move {
        remove(&desk, &named, kind, body).await
    };
    vec![("addvolume", put(add)), ("removevolume", put(remove))]
}

async fn add(desk: &Desk, named: &Named, kind: Kind, body: Body) -> Result<StatusCode, Refusal> {
    let (options, _) = options::<AddVolumeOptions>(body).await?;
    let wrong = wrong_addition(&options);
    if !wrong.is_empty() {
        return Err(Refusal::invalid(StatusCode::BAD_REQUEST, &wrong));
    }
    let object = desk.objects.get(&named.object(kind)).await?;
    check_running(kind, &object)?;
    if volume_names(kind, &object).any(|name| name == options.name) {
        let why = format!("there is a volume {:?} already", options.name);
        return Err(Refusal::conflict(kind, &named.name, &why));
    }
    Err(Refusal::unsupported(UNSUPPORTED).about(kind, &named.name))
}

async fn remove(desk: &Desk, named: &Named, kind: Kind, body: Body) -> Result<StatusCode, Refusal> {
    let (options, _) = options::<RemoveVolumeOptions>(body).await?;
    if options.name.is_empty() {
        return Err(required("name", "name the volume").into());
    }
    let object = desk.objects.get(&named.object(kind)).await?;
    check_running(kind, &object)?;
    if !volume_names(kind, &object).any(|name| name == options.name) {
        let why = format!("there is no volume {:?}", options.name);
        return Err(Refusal::conflict(kind, &named.name, &why));
    }
    Err(Refusal::unsupported(UNSUPPORTED).about(kind, &named.name))
}

fn required(field: &str, message: &str) -> FieldError {
    FieldError::required(FieldPath::new(field), message)
}

/// Returns what is wrong with a volume to plug.
fn wrong_addition(options: &AddVolumeOptions) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if options.name.is_empty() {
        errors.push(required("name", "name the volume"));
    }
    if options.disk.is_none() {
        errors.push(required("disk", "say how the guest sees the volume"));
    }
    let source = options.volume_source.as_ref();
    let sources = source.map_or(0, |source| {
        usize::from(source.persistent_volume_claim.is_some())
            + usize::from(source.data_volume.is_some())
    });
    if sources != 1 {
        let message = "give one of persistentVolumeClaim and dataVolume";
        errors.push(required("volumeSource", message));
    }
    errors
}

fn check_running(kind: Kind, object: &Value) -> Result<(), Refusal> {
    if kind == Kind::Instance && text(object, "/status/phase") != "Running" {
        let name = text(object, "/metadata/name");
        return Err(Refusal::conflict(kind, name, "VMI is not running"));
    }
    Ok(())
}

fn volume_names(kind: Kind, object: &Value) -> impl Iterator<Item = &str> {
    let pointer = match kind {
        Kind::Machine => "/spec/template/spec/volumes",
        _ => "/spec/volumes",
    };
    let volumes = object.pointer(pointer).and_then(Value::as_array);
    let volumes = volumes.into_iter().flatten();
    volumes.filter_map(|volume| volume["name"].as_str())
}
