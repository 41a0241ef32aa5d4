//! What start, stop and restart of a virtual machine mean, by its run strategy.
//!
//! ```text
//!                  start                       stop                          restart
//!   Halted         Always (paused: a request)  a request, with a shorter     refused
//!                                              grace period only
//!   Manual         a request                   a request                     both requests
//!   RerunOnFailure a request, unless failed    a request                     both requests
//!   Always         refused                     Halted                        both requests
//!   Once           refused                     Halted                        refused
//! ```
//!
//! A request goes into `status.stateChangeRequests`, which the controller works through.

use api::options::{RestartOptions, StartOptions, StopOptions};
use api::vm::{RunStrategy, condition as vm_condition, start_request};
use json_patch::Patch;
use serde_json::{Value, json};

use crate::virt_api::answer::Refusal;
use crate::virt_api::objects::{Kind, condition, text};
use crate::virt_api::patches::{Operations, is_set};

/// Why something cannot be done to a machine without an instance.
pub(super) const NOT_RUNNING: &str = "VM is not running";
const RECOVERY_REQUIRED: &str = "VM recovery required: a volume migration failed and left volumes \
    that point to inconsistent targets; set the volumes back to their sources by hand";
/// Condition of a machine whose volumes are on the way to other claims.
const VOLUMES_CHANGE: &str = "VolumesChange";
const GRACE_POINTER: &str = "/spec/terminationGracePeriodSeconds";
const REQUESTS_POINTER: &str = "/status/stateChangeRequests";
/// Shortest grace period with which an instance still ends in order, seconds.
const SHORTEST_GRACE_SECONDS: i64 = 1;

/// What to write, or why not.
pub(super) type Plan = Result<Vec<Write>, Refusal>;

/// Which object is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    Machine,
    MachineStatus,
    Instance,
}

/// A change, and how it is taken back when a later one fails.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Write {
    pub(super) target: Target,
    pub(super) patch: Patch,
    pub(super) undo: Option<Patch>,
}

impl Write {
    fn new(target: Target, operations: Operations<'_>) -> Self {
        Self {
            target,
            patch: operations.patch(),
            undo: None,
        }
    }
}

/// Plans a start.
pub(super) fn start(vm: &Value, vmi: Option<&Value>, options: &StartOptions) -> Plan {
    if vmi.is_some_and(is_alive) {
        return Err(conflict(vm, "VM is already running"));
    }
    if condition(vm, vm_condition::MANUAL_RECOVERY_REQUIRED) == Some("True") {
        return Err(conflict(vm, RECOVERY_REQUIRED));
    }
    let is_paused = options.paused == Some(true);
    let strategy = strategy(vm)?;
    match strategy {
        RunStrategy::Halted if is_paused => request(vm, &[start_request(true)]),
        RunStrategy::Halted => Ok(vec![run(vm, true)]),
        RunStrategy::Manual | RunStrategy::RerunOnFailure => {
            start_by_request(vm, vmi, strategy, is_paused)
        }
        RunStrategy::Always | RunStrategy::Once | RunStrategy::WaitAsReceiver => {
            let why = format!("{strategy} does not support manual start requests");
            Err(conflict(vm, &why))
        }
    }
}

fn start_by_request(
    vm: &Value,
    vmi: Option<&Value>,
    strategy: RunStrategy,
    is_paused: bool,
) -> Plan {
    let phase = vmi.map(|vmi| text(vmi, "/status/phase"));
    let start = start_request(is_paused);
    match (strategy, vmi, phase) {
        (RunStrategy::RerunOnFailure, _, Some("Failed")) => {
            let why = format!("{strategy} does not support starting VM from failed state");
            Err(conflict(vm, &why))
        }
        (_, Some(vmi), Some("Succeeded" | "Failed")) => request(vm, &[stop_request(vmi), start]),
        _ => request(vm, &[start]),
    }
}

/// Plans a stop.
pub(super) fn stop(vm: &Value, vmi: Option<&Value>, options: &StopOptions) -> Plan {
    let strategy = strategy(vm)?;
    let alive = vmi.filter(|vmi| !is_final(vmi));
    let mut writes = Vec::new();
    if let (Some(vmi), Some(seconds)) = (alive, options.grace_period) {
        if seconds < 0 {
            let text = "gracePeriod has to be greater or equal to 0";
            return Err(Refusal::bad_request(text));
        }
        writes.push(shorten_grace(vmi, seconds));
    }
    match (strategy, alive) {
        (RunStrategy::Always | RunStrategy::Once, _) => writes.push(run(vm, false)),
        (_, None) => return Err(conflict(vm, NOT_RUNNING)),
        (RunStrategy::Halted, Some(vmi)) if !is_shorter(vmi, options.grace_period) => {
            let why =
                format!("{strategy} only supports manual stop requests with a shorter graceperiod");
            return Err(conflict(vm, &why));
        }
        (RunStrategy::WaitAsReceiver, Some(_)) => {
            let why = format!("{strategy} does not support manual stop requests");
            return Err(conflict(vm, &why));
        }
        (_, Some(vmi)) => writes.extend(request(vm, &[stop_request(vmi)])?),
    }
    Ok(writes)
}

/// Refuses grace periods that a restart cannot have.
pub(super) fn check_restart(options: &RestartOptions) -> Result<(), Refusal> {
    match options.grace_period_seconds {
        None | Some(0) => Ok(()),
        Some(..0) => Err(Refusal::bad_request(
            "gracePeriod has to be greater or equal to 0",
        )),
        Some(_) => Err(Refusal::bad_request(
            "For force restart, only gracePeriod=0 is supported for now",
        )),
    }
}

/// Plans a restart.
pub(super) fn restart(vm: &Value, vmi: Option<&Value>, options: &RestartOptions) -> Plan {
    if condition(vm, VOLUMES_CHANGE) == Some("True") {
        return Err(conflict(vm, RECOVERY_REQUIRED));
    }
    let strategy = strategy(vm)?;
    if matches!(
        strategy,
        RunStrategy::Halted | RunStrategy::Once | RunStrategy::WaitAsReceiver
    ) {
        let why = format!("RunStategy {strategy} does not support manual restart requests");
        return Err(conflict(vm, &why));
    }
    let Some(vmi) = vmi else {
        return Err(conflict(vm, NOT_RUNNING));
    };
    let mut writes = Vec::new();
    if options.grace_period_seconds == Some(0) {
        writes.push(shorten_grace(vmi, SHORTEST_GRACE_SECONDS));
    }
    writes.extend(request(vm, &[stop_request(vmi), start_request(false)])?);
    Ok(writes)
}

fn conflict(vm: &Value, why: &str) -> Refusal {
    Refusal::conflict(Kind::Machine, text(vm, "/metadata/name"), why)
}

fn strategy(vm: &Value) -> Result<RunStrategy, Refusal> {
    let spec = &vm["spec"];
    RunStrategy::resolve(spec["running"].as_bool(), spec["runStrategy"].as_str())
        .map_err(|error| conflict(vm, &error.to_string()))
}

fn is_final(vmi: &Value) -> bool {
    matches!(text(vmi, "/status/phase"), "Succeeded" | "Failed")
}

/// Whether an instance is under way or running, as far as anybody knows.
fn is_alive(vmi: &Value) -> bool {
    !is_final(vmi) && !matches!(text(vmi, "/status/phase"), "" | "Unknown")
}

fn is_shorter(vmi: &Value, seconds: Option<i64>) -> bool {
    let old = vmi.pointer(GRACE_POINTER).and_then(Value::as_i64);
    seconds.is_some_and(|seconds| old.is_none_or(|old| seconds < old))
}

fn start_request(is_paused: bool) -> Value {
    let mut request = json!({"action": "Start"});
    if is_paused {
        request["data"] = json!({start_request::PAUSED_KEY: start_request::PAUSED_TRUE});
    }
    request
}

fn stop_request(vmi: &Value) -> Value {
    json!({"action": "Stop", "uid": text(vmi, "/metadata/uid")})
}

/// Changes what is wanted of a machine.
fn run(vm: &Value, is_wanted: bool) -> Write {
    let operations = if is_set(vm, "/spec/runStrategy") {
        let strategy = if is_wanted {
            RunStrategy::Always
        } else {
            RunStrategy::Halted
        };
        Operations::on(vm).change("/spec/runStrategy", json!(strategy.as_str()))
    } else {
        Operations::on(vm).change("/spec/running", json!(is_wanted))
    };
    Write::new(Target::Machine, operations)
}

/// Hands requests to the controller. A stop takes the place of what is under way; all else waits for it.
fn request(vm: &Value, requests: &[Value]) -> Plan {
    let operations = Operations::on(vm);
    if !is_set(vm, "/status") {
        let status = json!({"stateChangeRequests": requests});
        return Ok(vec![Write::new(
            Target::MachineStatus,
            operations.change("/status", status),
        )]);
    }
    let waiting = vm.pointer(REQUESTS_POINTER).and_then(Value::as_array);
    let is_stop = matches!(requests, [one] if one["action"] == "Stop");
    if waiting.is_some_and(|waiting| !waiting.is_empty()) && !is_stop {
        let why = "unable to complete request: stop/start already underway";
        return Err(conflict(vm, why));
    }
    let mut operations = operations.change(REQUESTS_POINTER, json!(requests));
    if is_set(vm, "/status/startFailure") {
        operations = operations.remove("/status/startFailure");
    }
    Ok(vec![Write::new(Target::MachineStatus, operations)])
}

/// Changes the seconds between the power button and the pulled plug.
fn shorten_grace(vmi: &Value, seconds: i64) -> Write {
    let undo = vmi.pointer(GRACE_POINTER).map(|old| {
        let mut changed = vmi.clone();
        changed["spec"]["terminationGracePeriodSeconds"] = json!(seconds);
        Operations::on(&changed)
            .change(GRACE_POINTER, old.clone())
            .patch()
    });
    let operations = Operations::on(vmi).change(GRACE_POINTER, json!(seconds));
    Write {
        undo,
        ..Write::new(Target::Instance, operations)
    }
}

#[cfg(test)]
mod tests;
