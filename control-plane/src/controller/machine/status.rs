//! What the status of a virtual machine is to be.

use api::condition::{Condition, ConditionStatus, kind, message, reason};
use api::vm::{RunStrategy, StateChangeAction, StateChangeRequest, condition};
use serde_json::{Value, json};

use super::strategy::{self, Decision};
use super::{Case, printable, requests, start, update};
use crate::controller::cache::uid;
use crate::controller::change::{entry, is_deleted, remove, set, text};
use crate::controller::conditions;
use crate::controller::time::rfc3339;

/// Kinds of conditions that are not the instance's.
const OWN: [&str; 4] = [
    condition::FAILURE,
    condition::READY,
    condition::RESTART_REQUIRED,
    condition::MANUAL_RECOVERY_REQUIRED,
];

/// Returns the virtual machine with its new status.
pub(super) fn next(case: &Case<'_>, decision: &Decision<'_>) -> Value {
    let mut next = case.raw.clone();
    let instance = case.instance;
    set(&mut next, &["status", "created"], instance.is_some());
    let is_ready = instance.is_some_and(|instance| conditions::is_true(instance, kind::READY));
    set(&mut next, &["status", "ready"], is_ready);
    mirror(&mut next, instance);
    own(&mut next, case, decision);
    start_failure(&mut next, case);
    set_requests(&mut next, case);
    set_strategy(&mut next, case, decision);
    let generation = start::generation(case.raw);
    set(&mut next, &["status", "desiredGeneration"], generation);
    let observed = instance.and_then(start::generation_of);
    let observed = observed.unwrap_or(generation);
    set(&mut next, &["status", "observedGeneration"], observed);
    let word = printable::status(case, decision);
    set(&mut next, &["status", "printableStatus"], word.as_str());
    next
}

/// Takes over the conditions of the instance.
fn mirror(next: &mut Value, instance: Option<&Value>) {
    let mirrored = instance.and_then(|instance| instance.pointer("/status/conditions"));
    let mirrored: Vec<Value> = mirrored
        .and_then(Value::as_array)
        .map_or_else(Vec::new, |all| {
            let all = all.iter().filter(|known| !is_own(known));
            all.cloned().collect()
        });
    let conditions = entry(next, &["status", "conditions"]);
    if !conditions.is_array() {
        *conditions = json!([]);
    }
    if let Some(conditions) = conditions.as_array_mut() {
        conditions.retain(is_own);
        conditions.extend(mirrored);
    }
}

fn is_own(known: &Value) -> bool {
    OWN.iter().any(|kind| known["type"] == *kind)
}

fn own(next: &mut Value, case: &Case<'_>, decision: &Decision<'_>) {
    let at = rfc3339(case.now);
    let ready = case
        .instance
        .map(|instance| conditions::find(instance, kind::READY));
    let ready = match ready {
        Some(Some(ready)) => ready,
        Some(None) => Condition::new(condition::READY, ConditionStatus::False, &at)
            .because(reason::GUEST_NOT_RUNNING, message::GUEST_NOT_RUNNING),
        None => Condition::new(condition::READY, false, &at)
            .because(condition::REASON_VMI_NOT_EXISTS, "VMI does not exist"),
    };
    conditions::set(next, ready);
    let failure = failure(case, decision);
    put(
        next,
        condition::FAILURE,
        failure.map(|(why, text)| Condition::new(condition::FAILURE, true, &at).because(why, text)),
    );
    let pending = update::is_pending(case).then(|| {
        Condition::new(condition::RESTART_REQUIRED, true, &at).because(
            "RestartRequired",
            "a non-live-updatable field was changed in the template spec; restart the virtual machine to apply it",
        )
    });
    put(next, condition::RESTART_REQUIRED, pending);
}

fn put(next: &mut Value, kind: &str, condition: Option<Condition>) {
    match condition {
        Some(condition) => conditions::set(next, condition),
        None => conditions::remove(next, kind),
    }
}

/// Why what is wanted cannot be done.
fn failure(case: &Case<'_>, decision: &Decision<'_>) -> Option<(&'static str, String)> {
    if !matches!(decision, Decision::Start { .. }) {
        return None;
    }
    if let Some(obstacle) = case.obstacle() {
        return Some(obstacle);
    }
    let trouble = case.observed.trouble?;
    Some((condition::REASON_FAILED_CREATE, trouble.to_owned()))
}

/// Counts starts that failed in a row: instances that never ran.
fn start_failure(next: &mut Value, case: &Case<'_>) {
    let Some(instance) = case.instance else {
        return;
    };
    let noted = instance.pointer("/status/phaseTransitionTimestamps");
    let mut noted = noted.and_then(Value::as_array).into_iter().flatten();
    let phase = text(instance, "/status/phase");
    let has_run = phase == "Running" || noted.any(|known| known["phase"] == "Running");
    if has_run {
        return remove(next, &["status", "startFailure"]);
    }
    let known = "/status/startFailure/lastFailedVMIUID";
    if phase != "Failed" || text(case.raw, known) == uid(instance) {
        return;
    }
    // An instance that somebody deleted before it ran has not failed by itself.
    if strategy::of(case.raw) == Some(RunStrategy::Halted) || is_deleted(instance) {
        return;
    }
    let count = case
        .raw
        .pointer("/status/startFailure/consecutiveFailCount");
    let count = count.and_then(Value::as_i64).unwrap_or_default() + 1;
    let retry_at = case.now + strategy::backoff(count, instance);
    let failure = json!({
        "consecutiveFailCount": count,
        "lastFailedVMIUID": uid(instance),
        "retryAfterTimestamp": rfc3339(retry_at),
    });
    set(next, &["status", "startFailure"], failure);
}

fn set_requests(next: &mut Value, case: &Case<'_>) {
    let mut open = requests::open(case.raw, case.instance);
    let strategy = strategy::of(case.raw);
    if let Some(instance) = case.instance {
        let failed = text(instance, "/status/phase") == "Failed";
        // With the instance its failure is forgotten: what remembers it is the wish for another one.
        if failed && strategy == Some(RunStrategy::RerunOnFailure) && open.is_empty() {
            open.push(StateChangeRequest {
                action: StateChangeAction::Start,
                ..StateChangeRequest::default()
            });
        }
        let restarts = update::restarts(case, instance);
        if restarts && strategy != Some(RunStrategy::Halted) && !requests::stops(&open) {
            open = requests::restart(instance);
        }
    }
    if open.is_empty() {
        remove(next, &["status", "stateChangeRequests"]);
    } else {
        let requests = serde_json::to_value(open).unwrap_or_default();
        set(next, &["status", "stateChangeRequests"], requests);
    }
}

/// Remembers the strategy that was acted on, which tells a first start from others.
fn set_strategy(next: &mut Value, case: &Case<'_>, decision: &Decision<'_>) {
    let Some(strategy) = strategy::of(case.raw) else {
        return;
    };
    // Where a start is still to come, the strategy isn't acted on yet.
    let is_acted_on = !matches!(decision, Decision::Start { .. } | Decision::Wait(_));
    if is_acted_on || strategy == RunStrategy::Always {
        set(next, &["status", "runStrategy"], strategy.as_str());
    }
}
