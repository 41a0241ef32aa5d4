//! Requests that change a machine, and that ask about its guest.

use std::time::Duration;

use api::duration::{self, DurationError};
use api::events::{message, reason};
use api::guest_agent::{Filesystem, FilesystemList, GuestUser, GuestUserList};
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::routing::{get, put};
use http::StatusCode;
use proto::domain::LifeCycle;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::answer::Refusal;
use super::requests::{Desk, Named, Present, Route, json};
use crate::cluster::Event;
use crate::key::VmiKey;
use crate::launchers::Launcher;

/// A change of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Pause,
    Unpause,
    Freeze,
    Unfreeze,
    Reset,
    SoftReboot,
}

/// What a machine does, as far as changes depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Doing {
    Runs,
    IsPaused,
    Nothing,
}

/// Returns who answers which action.
pub(super) fn routes() -> Vec<Route> {
    let change = |change| {
        put(
            move |State(desk): State<Desk>, Named(key): Named, body: Body| {
                apply(desk, key, change, body)
            },
        )
    };
    vec![
        ("pause", change(Change::Pause)),
        ("unpause", change(Change::Unpause)),
        ("freeze", change(Change::Freeze)),
        ("unfreeze", change(Change::Unfreeze)),
        ("reset", change(Change::Reset)),
        ("softreboot", change(Change::SoftReboot)),
        ("guestosinfo", get(guest_info)),
        ("userlist", get(users)),
        ("filesystemlist", get(filesystems)),
    ]
}

/// Returns why a machine that does this cannot be changed so.
fn obstacle(change: Change, doing: Doing) -> Option<&'static str> {
    match (change, doing) {
        (_, Doing::Nothing) => Some("VMI is not running"),
        (Change::Pause, Doing::IsPaused) => Some("VMI is already paused"),
        (Change::Unpause, Doing::Runs) => Some("VMI is not paused"),
        (Change::Freeze | Change::Unfreeze | Change::SoftReboot, Doing::IsPaused) => {
            Some("VMI is paused: unpause it first")
        }
        _ => None,
    }
}

async fn apply(desk: Desk, key: VmiKey, change: Change, body: Body) -> Result<StatusCode, Refusal> {
    let present = desk.present(&key)?;
    let options = json(body).await?;
    if let Some(obstacle) = obstacle(change, doing(&present.launcher).await?) {
        return Err(Refusal::conflict(obstacle));
    }
    if is_rehearsal(&options) {
        return Ok(StatusCode::ACCEPTED);
    }
    carry_out(&present, change, &options).await?;
    if change == Change::SoftReboot {
        let (uid, reason, text) = (
            present.stored.uid(),
            reason::SOFT_REBOOTED,
            message::SOFT_REBOOTED,
        );
        desk.recorder.record(Event::normal(&key, uid, reason, text));
    }
    tracing::info!(vmi = %key, ?change, "machine is changed on request");
    Ok(StatusCode::ACCEPTED)
}

async fn carry_out(present: &Present, change: Change, options: &Value) -> Result<(), Refusal> {
    let launcher = &present.launcher;
    let vmi = present.stored.raw.json().to_vec();
    match change {
        Change::Pause => launcher.pause(vmi).await,
        Change::Unpause => launcher.unpause(vmi).await,
        Change::Freeze => launcher.freeze(vmi, unfreeze_timeout(options)?).await,
        Change::Unfreeze => launcher.unfreeze(vmi).await,
        Change::Reset => launcher.reset(vmi).await,
        Change::SoftReboot => launcher.soft_reboot(vmi).await,
    }?;
    Ok(())
}

/// Asks the launcher, which knows what a change a moment ago has done.
async fn doing(launcher: &Launcher) -> Result<Doing, Refusal> {
    let domain = launcher.domain().await?;
    Ok(match domain.map(|domain| domain.status.status) {
        Some(LifeCycle::Paused) => Doing::IsPaused,
        Some(LifeCycle::Running | LifeCycle::Blocked) => Doing::Runs,
        _ => Doing::Nothing,
    })
}

/// Whether a request only asks if it would be carried out (`dryRun: ["All"]`).
fn is_rehearsal(options: &Value) -> bool {
    let parts = options["dryRun"].as_array();
    parts.is_some_and(|parts| parts.iter().any(|part| part == "All"))
}

/// Reads after how long a frozen guest thaws by itself; 0 for never.
fn unfreeze_timeout(options: &Value) -> Result<Duration, Refusal> {
    let text = options["unfreezeTimeout"].as_str();
    let text = text.ok_or_else(|| Refusal::bad_request("unfreezeTimeout: give a duration"))?;
    let wrong = |error: DurationError| Refusal::bad_request(format!("unfreezeTimeout: {error}"));
    duration::parse(text).map_err(wrong)
}

async fn guest_info(State(desk): State<Desk>, Named(key): Named) -> Result<Json<Value>, Refusal> {
    Ok(Json(desk.present(&key)?.launcher.guest_info().await?))
}

async fn users(
    State(desk): State<Desk>,
    Named(key): Named,
) -> Result<Json<GuestUserList>, Refusal> {
    let users = desk.present(&key)?.launcher.users().await?;
    list::<GuestUser, _>(users)
}

async fn filesystems(
    State(desk): State<Desk>,
    Named(key): Named,
) -> Result<Json<FilesystemList>, Refusal> {
    let filesystems = desk.present(&key)?.launcher.filesystems().await?;
    list::<Filesystem, _>(filesystems)
}

/// Makes a Kubernetes list of a launcher's bare one.
fn list<T: DeserializeOwned, L: From<Vec<T>> + Serialize>(told: Value) -> Result<Json<L>, Refusal> {
    let items: Option<Vec<T>> = serde_json::from_value(told).map_err(|error| {
        let message = format!("the launcher's list makes no sense: {error}");
        Refusal::new(StatusCode::BAD_GATEWAY, message)
    })?;
    Ok(Json(items.unwrap_or_default().into()))
}
