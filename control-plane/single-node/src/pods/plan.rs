//! What is to be done for a pod: decided from what it should be and what is known of it, and nothing else.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use super::observed::{Observed, Refusal, Runs};
use super::options::Timing;

/// Grace of pods that do not name one.
const GRACE_DEFAULT_S: i64 = 30;
/// How long a container may take that was told to end before this program restarted.
const GRACE_LEAST: Duration = Duration::from_secs(1);

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// The pod cannot run here.
    Refuse(Refusal),
    /// Make volumes and namespaces.
    Prepare,
    /// Start a container.
    Start {
        /// Its name.
        container: String,
    },
    /// Ask a container to end.
    Stop {
        /// Its name.
        container: String,
        /// When it is killed if it has not ended.
        kill_at: Timestamp,
        /// Why, for people.
        why: String,
    },
    /// Kill a container.
    Kill {
        /// Its name.
        container: String,
    },
    /// Let volumes, namespaces and control groups go.
    Release,
    /// Tell the API that the pod is gone, and remove its files.
    Delete,
}

/// What to do now, and when to look again if nothing happens before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// In this order.
    pub actions: Vec<Action>,
    /// When time alone changes the plan.
    pub wake: Option<Timestamp>,
}

impl Plan {
    fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }
}

/// Decides what is to be done.
#[must_use]
pub fn plan(pod: &Pod, observed: &Observed, now: Timestamp, timing: &Timing) -> Plan {
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let mut plan = Plan::default();
    if pod.metadata.deletion_timestamp.is_some() {
        end_pod(&mut plan, pod, observed, now);
        return plan;
    }
    if is_over(pod) || observed.refused.is_some() {
        finish_pod(&mut plan, spec, observed, now);
        return plan;
    }
    if let Some(refusal) = past_deadline(spec, observed, now) {
        plan.actions.push(Action::Refuse(refusal));
        return plan;
    }
    if let Some(seconds) = spec.active_deadline_seconds {
        plan.wake_at(after(
            observed.since,
            Duration::from_secs(seconds.unsigned_abs()),
        ));
    }
    if has_ended(spec, observed) {
        finish_pod(&mut plan, spec, observed, now);
    } else if observed.is_prepared {
        run_containers(&mut plan, spec, observed, now, timing);
    } else {
        match &observed.unprepared {
            Some(setback) if setback.until > now => plan.wake_at(setback.until),
            _ => plan.actions.push(Action::Prepare),
        }
    }
    plan
}

/// Whether the API has the pod as ended.
fn is_over(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

fn past_deadline(spec: &PodSpec, observed: &Observed, now: Timestamp) -> Option<Refusal> {
    let deadline = Duration::from_secs(spec.active_deadline_seconds?.unsigned_abs());
    (after(observed.since, deadline) <= now).then(|| Refusal {
        reason: "DeadlineExceeded".to_owned(),
        message: "Pod was active on the node longer than the specified deadline".to_owned(),
    })
}

/// Adds a duration; times beyond the calendar are its end.
pub(super) fn after(at: Timestamp, duration: Duration) -> Timestamp {
    at.saturating_add(duration).unwrap_or(Timestamp::MAX)
}

/// How a pod's containers are treated when they end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Restart {
    Always,
    OnFailure,
    Never,
}

fn pod_restart(spec: &PodSpec) -> Restart {
    match spec.restart_policy.as_deref() {
        Some("Never") => Restart::Never,
        Some("OnFailure") => Restart::OnFailure,
        _ => Restart::Always,
    }
}

/// Whether an init container runs beside the others.
#[must_use]
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Returns the init containers.
#[must_use]
pub fn init_containers(spec: &PodSpec) -> &[Container] {
    spec.init_containers.as_deref().unwrap_or_default()
}

/// Whether a container will not run again.
fn is_done(runs: &Runs, restart: Restart) -> bool {
    match restart {
        Restart::Always => false,
        Restart::OnFailure => runs.has_succeeded(),
        Restart::Never => runs.finished().is_some(),
    }
}

/// Whether the pod's work is over: all its containers, sidecars aside, or an init container that is not tried again.
#[must_use]
pub fn has_ended(spec: &PodSpec, observed: &Observed) -> bool {
    let restart = pod_restart(spec);
    let ordinary = init_containers(spec)
        .iter()
        .filter(|container| !is_sidecar(container));
    let init_failed = restart == Restart::Never
        && ordinary
            .map(|container| observed.runs(&container.name))
            .any(|runs| runs.finished().is_some() && !runs.has_succeeded());
    let all_done = spec
        .containers
        .iter()
        .all(|container| is_done(observed.runs(&container.name), restart));
    init_failed || (all_done && !spec.containers.is_empty())
}

/// Whether the init containers have done their part.
#[must_use]
pub fn is_initialized(spec: &PodSpec, observed: &Observed) -> bool {
    // Once a container was started, they had.
    let has_begun = spec
        .containers
        .iter()
        .any(|container| observed.runs(&container.name).count > 0);
    has_begun
        || init_containers(spec)
            .iter()
            .all(|container| lets_next_begin(container, observed))
}

fn lets_next_begin(container: &Container, observed: &Observed) -> bool {
    let runs = observed.runs(&container.name);
    if is_sidecar(container) {
        return runs.started().is_some() && runs.probed.has_started;
    }
    runs.has_succeeded()
}

fn run_containers(
    plan: &mut Plan,
    spec: &PodSpec,
    observed: &Observed,
    now: Timestamp,
    timing: &Timing,
) {
    let restart = pod_restart(spec);
    let initialized = is_initialized(spec, observed);
    for container in init_containers(spec) {
        let sidecar = is_sidecar(container);
        if sidecar || !initialized {
            let again = if sidecar {
                Restart::Always
            } else {
                init_restart(restart)
            };
            run_container(plan, spec, container, again, observed, now, timing);
        }
        if !initialized && !lets_next_begin(container, observed) {
            return;
        }
    }
    for container in &spec.containers {
        run_container(plan, spec, container, restart, observed, now, timing);
    }
}

/// Init containers that succeeded are done whatever the policy.
fn init_restart(restart: Restart) -> Restart {
    if restart == Restart::Never {
        Restart::Never
    } else {
        Restart::OnFailure
    }
}

fn run_container(
    plan: &mut Plan,
    spec: &PodSpec,
    container: &Container,
    restart: Restart,
    observed: &Observed,
    now: Timestamp,
    timing: &Timing,
) {
    let runs = observed.runs(&container.name);
    if runs.started().is_some() {
        keep_container(plan, spec, container, runs, now);
        return;
    }
    if runs.finished().is_some() && is_done(runs, restart) {
        return;
    }
    match start_time(runs, timing) {
        Some(at) if at > now => plan.wake_at(at),
        _ => plan.actions.push(Action::Start {
            container: container.name.clone(),
        }),
    }
}

/// Looks after a container that runs.
fn keep_container(
    plan: &mut Plan,
    spec: &PodSpec,
    container: &Container,
    runs: &Runs,
    now: Timestamp,
) {
    match runs.stopping {
        Some(stopping) if stopping.is_killed => {}
        Some(stopping) if stopping.kill_at <= now => plan.actions.push(Action::Kill {
            container: container.name.clone(),
        }),
        Some(stopping) => plan.wake_at(stopping.kill_at),
        None if runs.probed.is_unhealthy => plan.actions.push(Action::Stop {
            container: container.name.clone(),
            kill_at: after(now, probe_grace(spec, container)),
            why: format!(
                "Container {} failed liveness probe, will be restarted",
                container.name
            ),
        }),
        None => {}
    }
}

/// The grace that a failed probe leaves.
fn probe_grace(spec: &PodSpec, container: &Container) -> Duration {
    let probes = [&container.liveness_probe, &container.startup_probe];
    let own = probes
        .into_iter()
        .flatten()
        .find_map(|probe| probe.termination_grace_period_seconds);
    let seconds = own
        .or(spec.termination_grace_period_seconds)
        .unwrap_or(GRACE_DEFAULT_S);
    Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// When a container may be started; `None` for at once. The second run follows the first at once, later ones after waits
/// that double.
#[must_use]
pub fn start_time(runs: &Runs, timing: &Timing) -> Option<Timestamp> {
    if let Some(setback) = &runs.setback {
        return Some(setback.until);
    }
    let finished = runs.finished()?;
    let doublings = runs.crashes.checked_sub(2)?;
    let wait = timing
        .backoff
        .saturating_mul(2_u32.saturating_pow(doublings))
        .min(timing.backoff_max);
    Some(after(finished.ended.at, wait))
}

/// Ends a pod that was asked to go.
fn end_pod(plan: &mut Plan, pod: &Pod, observed: &Observed, now: Timestamp) {
    let spec = pod.spec.clone().unwrap_or_default();
    let deadline = pod
        .metadata
        .deletion_timestamp
        .as_ref()
        .map_or(now, |at| at.0);
    let grace = pod.metadata.deletion_grace_period_seconds;
    // Without grace the container dies at once; after a restart of this program it has a moment still.
    let kill_at = if grace == Some(0) {
        now
    } else {
        deadline.max(after(now, GRACE_LEAST))
    };
    if stop_all(plan, &spec, observed, now, kill_at, true) {
        return;
    }
    if observed.is_released {
        if !observed.is_deleted {
            plan.actions.push(Action::Delete);
        }
    } else {
        plan.actions.push(Action::Release);
    }
}

/// Ends what still runs of a pod whose work is over, and lets go what it held.
fn finish_pod(plan: &mut Plan, spec: &PodSpec, observed: &Observed, now: Timestamp) {
    let seconds = spec
        .termination_grace_period_seconds
        .unwrap_or(GRACE_DEFAULT_S);
    let kill_at = after(
        now,
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0)),
    );
    if !stop_all(plan, spec, observed, now, kill_at, false) && !observed.is_released {
        plan.actions.push(Action::Release);
    }
}

/// Stops all containers, sidecars after the others and in reverse order. Returns whether any still runs.
fn stop_all(
    plan: &mut Plan,
    spec: &PodSpec,
    observed: &Observed,
    now: Timestamp,
    kill_at: Timestamp,
    is_shortened: bool,
) -> bool {
    let mut runs_still = false;
    for container in &spec.containers {
        runs_still |= stop(plan, &container.name, observed, now, kill_at, is_shortened);
    }
    for container in init_containers(spec).iter().rev() {
        if runs_still && is_sidecar(container) && kill_at > now {
            return true;
        }
        runs_still |= stop(plan, &container.name, observed, now, kill_at, is_shortened);
    }
    runs_still
}

fn stop(
    plan: &mut Plan,
    container: &str,
    observed: &Observed,
    now: Timestamp,
    kill_at: Timestamp,
    is_shortened: bool,
) -> bool {
    let runs = observed.runs(container);
    if runs.started().is_none() {
        return false;
    }
    let container = container.to_owned();
    match runs.stopping {
        None if kill_at <= now => plan.actions.push(Action::Kill { container }),
        None => {
            let why = format!("Stopping container {container}");
            plan.actions.push(Action::Stop {
                container,
                kill_at,
                why,
            });
        }
        Some(stopping) if stopping.is_killed => {}
        Some(stopping) => {
            let kill_at = if is_shortened {
                stopping.kill_at.min(kill_at)
            } else {
                stopping.kill_at
            };
            if kill_at <= now {
                plan.actions.push(Action::Kill { container });
            } else {
                plan.wake_at(kill_at);
            }
        }
    }
    true
}

#[cfg(test)]
mod tests;
