//! What machines of ours don't have, with the word for clients.

use axum::extract::State;
use axum::routing::{get, put};

use super::answer::Refusal;
use super::objects::Kind;
use super::request::{Desk, Named, Route};

const MEMORY_DUMP: &str = "dumps of guest memory are not supported";
const ENCRYPTION: &str =
    "encrypted machines (AMD SEV) are not supported: this machine monitor cannot start them";
const BACKUP: &str = "backups of running machines are not supported: stop the machine first";
const USB: &str =
    "redirection of USB devices is not supported: use hostDevices for devices of the node";
const VSOCK: &str = "vsock is not supported: use port-forward to reach the guest";

/// Returns who answers which action of machines.
pub(super) fn machine_routes() -> Vec<Route> {
    let refuse = |why: &'static str| {
        put(move |State(desk): State<Desk>, named: Named| async move {
            refuse(&desk, &named, Kind::Machine, why).await
        })
    };
    vec![
        ("memorydump", refuse(MEMORY_DUMP)),
        ("removememorydump", refuse(MEMORY_DUMP)),
    ]
}

/// Returns who answers which action of instances.
pub(super) fn instance_routes() -> Vec<Route> {
    let answer = |why: &'static str| {
        move |State(desk): State<Desk>, named: Named| async move {
            refuse(&desk, &named, Kind::Instance, why).await
        }
    };
    vec![
        ("usbredir", get(answer(USB))),
        ("vsock", get(answer(VSOCK))),
        ("sev/fetchcertchain", get(answer(ENCRYPTION))),
        ("sev/querylaunchmeasurement", get(answer(ENCRYPTION))),
        ("sev/setupsession", put(answer(ENCRYPTION))),
        ("sev/injectlaunchsecret", put(answer(ENCRYPTION))),
        ("backup", put(answer(BACKUP))),
        ("redefine-checkpoint", put(answer(BACKUP))),
    ]
}

async fn refuse(desk: &Desk, named: &Named, kind: Kind, why: &str) -> Refusal {
    match desk.objects.get(&named.object(kind)).await {
        Ok(_) => Refusal::unsupported(why).about(kind, &named.name),
        Err(refusal) => refusal,
    }
}
