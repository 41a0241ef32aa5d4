//! The state of a virtual machine in a word.

use api::condition::{kind, reason};
use api::vm::PrintableStatus;
use serde_json::Value;

use super::strategy::{Decision, is_final};
use super::{Case, storage};
use crate::controller::change::{is_deleted, text};
use crate::controller::conditions;

/// Returns the state; the first that holds, in this order.
pub(super) fn status(case: &Case<'_>, decision: &Decision<'_>) -> PrintableStatus {
    if is_deleted(case.raw) {
        return PrintableStatus::Terminating;
    }
    match case.instance.filter(|instance| !is_final(instance)) {
        Some(instance) => of_instance(instance),
        None => without(case, decision),
    }
}

fn of_instance(instance: &Value) -> PrintableStatus {
    let is_true = |kind: &str| conditions::is_true(instance, kind);
    if is_deleted(instance) {
        return PrintableStatus::Stopping;
    }
    let migration = instance.pointer("/status/migrationState");
    let migrates = migration.is_some_and(|migration| {
        !text(migration, "/startTimestamp").is_empty() && migration["completed"] != true
    });
    if migrates {
        return PrintableStatus::Migrating;
    }
    if is_true(kind::PAUSED) {
        return PrintableStatus::Paused;
    }
    match text(instance, "/status/phase") {
        "Running" => PrintableStatus::Running,
        "WaitingForSync" => PrintableStatus::WaitingForReceiver,
        "Unknown" => PrintableStatus::Unknown,
        _ => starting(instance),
    }
}

/// What keeps an instance from starting.
fn starting(instance: &Value) -> PrintableStatus {
    let why = |kind: &str| {
        conditions::find(instance, kind)
            .filter(|condition| !condition.is_true())
            .map(|condition| condition.reason)
    };
    match why(kind::SYNCHRONIZED).as_deref() {
        Some("FailedPvcNotFound" | "PvcLost") => return PrintableStatus::ErrorPvcNotFound,
        Some("FailedDataVolumeNotFound") => return PrintableStatus::Provisioning,
        Some("ErrImagePull" | "InvalidImageName" | "ErrImageNeverPull") => {
            return PrintableStatus::ErrImagePull;
        }
        Some("ImagePullBackOff") => return PrintableStatus::ImagePullBackOff,
        _ => {}
    }
    if why(kind::POD_SCHEDULED).as_deref() == Some("Unschedulable") {
        return PrintableStatus::ErrorUnschedulable;
    }
    if why(kind::DATA_VOLUMES_READY).as_deref() == Some(reason::NOT_ALL_DVS_READY) {
        return PrintableStatus::Provisioning;
    }
    PrintableStatus::Starting
}

fn without(case: &Case<'_>, decision: &Decision<'_>) -> PrintableStatus {
    match decision {
        Decision::Wait(_) => PrintableStatus::CrashLoopBackOff,
        Decision::Start { .. } if storage::waiting(case).is_some() => PrintableStatus::Provisioning,
        Decision::Start { .. } => PrintableStatus::Starting,
        _ => PrintableStatus::Stopped,
    }
}
