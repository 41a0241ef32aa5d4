//! Whether an instance should be there, by the run strategy.

use std::time::Duration;

use api::vm::{RunStrategy, StateChangeRequest};
use jiff::Timestamp;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{Case, requests, update};
use crate::controller::cache::uid;
use crate::controller::change::{is_deleted, text};
use crate::controller::time::parse;

/// Wait after the first of several starts that fail in a row; the nth is n² times that.
const WAIT: Duration = Duration::from_secs(10);
/// Longest wait after a start that failed.
const WAIT_MAX: Duration = Duration::from_secs(300);

/// What is to become of the instance.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Decision<'a> {
    /// All is as it should be.
    Stay,
    /// The machine is no longer halted.
    Run,
    /// An instance is made.
    Start {
        /// Whether its processors stay stopped.
        is_paused: bool,
    },
    /// The instance ends; whether another one follows is decided when it has gone.
    Stop(&'a Value),
    /// An instance is made at this time.
    Wait(Timestamp),
}

/// Returns the run strategy; what cannot be understood is left as it is.
pub(super) fn of(machine: &Value) -> Option<RunStrategy> {
    let spec = machine.get("spec")?;
    let running = spec.get("running").and_then(Value::as_bool);
    let strategy = spec.get("runStrategy").and_then(Value::as_str);
    RunStrategy::resolve(running, strategy).ok()
}

/// Whether an instance has ended.
pub(super) fn is_final(instance: &Value) -> bool {
    matches!(text(instance, "/status/phase"), "Succeeded" | "Failed")
}

/// Decides what is to become of the instance.
pub(super) fn decide<'c>(case: &'c Case<'_>) -> Decision<'c> {
    let Some(strategy) = of(case.raw) else {
        return Decision::Stay;
    };
    let open = requests::open(case.raw, case.instance);
    match case.instance {
        Some(instance) if is_deleted(instance) => Decision::Stay,
        Some(instance) => with_instance(case, strategy, instance, &open),
        None => without_instance(case, strategy, &open),
    }
}

fn with_instance<'c>(
    case: &Case<'_>,
    strategy: RunStrategy,
    instance: &'c Value,
    open: &[StateChangeRequest],
) -> Decision<'c> {
    let failed = text(instance, "/status/phase") == "Failed";
    let ends = match strategy {
        RunStrategy::Halted => true,
        RunStrategy::Always => requests::stops(open) || is_final(instance),
        RunStrategy::RerunOnFailure => requests::stops(open) || failed,
        RunStrategy::Manual | RunStrategy::Once | RunStrategy::WaitAsReceiver => {
            requests::stops(open)
        }
    };
    if ends || update::restarts(case, instance) {
        Decision::Stop(instance)
    } else {
        Decision::Stay
    }
}

fn without_instance<'c>(
    case: &Case<'_>,
    strategy: RunStrategy,
    open: &[StateChangeRequest],
) -> Decision<'c> {
    let request = requests::starts(open);
    let starts = match strategy {
        RunStrategy::Always => true,
        // Only the first time, or where somebody or a failure asks for it.
        RunStrategy::RerunOnFailure | RunStrategy::Once => {
            request.is_some() || text(case.raw, "/status/runStrategy") != strategy.as_str()
        }
        RunStrategy::Manual => request.is_some(),
        RunStrategy::Halted if request.is_some() => return Decision::Run,
        RunStrategy::Halted | RunStrategy::WaitAsReceiver => false,
    };
    let retry_at = parse(text(case.raw, "/status/startFailure/retryAfterTimestamp"));
    match retry_at.filter(|at| *at > case.now) {
        _ if !starts => Decision::Stay,
        Some(at) => Decision::Wait(at),
        None => Decision::Start {
            is_paused: requests::is_paused(request),
        },
    }
}

/// Returns how long the next start waits after `times` of them failed in a row, the last with `instance`.
pub(super) fn backoff(times: i64, instance: &Value) -> Duration {
    let times = u32::try_from(times.clamp(1, 100)).unwrap_or(1);
    let digest = Sha256::digest(uid(instance).as_bytes());
    let spread = WAIT * u32::from(digest[0]) / 512;
    (WAIT * times * times + spread).min(WAIT_MAX)
}
