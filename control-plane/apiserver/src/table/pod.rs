//! What `kubectl get pods` shows.

use jiff::Timestamp;
use serde_json::Value;

use super::age;
use super::cells::{condition, list, number, or_none, text};

/// What the containers of a pod add up to.
#[derive(Default)]
struct Summary {
    ready: usize,
    total: usize,
    restarts: i64,
    last_restart: String,
    reason: String,
}

/// `1/2`.
pub(super) fn ready(pod: &Value, _: Timestamp) -> Value {
    let summary = Summary::of(pod);
    format!("{}/{}", summary.ready, summary.total).into()
}

/// `Running`, `Init:0/1`, `CrashLoopBackOff`.
pub(super) fn status(pod: &Value, _: Timestamp) -> Value {
    Summary::of(pod).reason.into()
}

/// `3 (5m ago)`.
pub(super) fn restarts(pod: &Value, now: Timestamp) -> Value {
    let summary = Summary::of(pod);
    if summary.restarts == 0 || summary.last_restart.is_empty() {
        return summary.restarts.to_string().into();
    }
    let ago = age::since(&summary.last_restart.into(), now);
    format!("{} ({ago} ago)", summary.restarts).into()
}

/// The first address.
pub(super) fn ip(pod: &Value, _: Timestamp) -> Value {
    let first = text(pod, "/status/podIPs/0/ip");
    or_none(if first.is_empty() {
        text(pod, "/status/podIP")
    } else {
        first
    })
}

/// How many readiness gates are open.
pub(super) fn readiness_gates(pod: &Value, _: Timestamp) -> Value {
    let gates = list(pod, "/spec/readinessGates");
    if gates.is_empty() {
        return or_none("");
    }
    let is_open = |gate: &&Value| {
        let condition = condition(pod, text(gate, "/conditionType"));
        condition.is_some_and(|it| it["status"] == "True")
    };
    format!("{}/{}", gates.iter().filter(is_open).count(), gates.len()).into()
}

impl Summary {
    fn of(pod: &Value) -> Self {
        let phase = text(pod, "/status/phase");
        let reason = text(pod, "/status/reason");
        let sidecars = list(pod, "/spec/initContainers").iter();
        let mut summary = Self {
            total: list(pod, "/spec/containers").len()
                + sidecars.filter(|it| is_sidecar(it)).count(),
            reason: if reason.is_empty() { phase } else { reason }.to_owned(),
            ..Self::default()
        };
        if condition(pod, "PodScheduled").is_some_and(|it| it["reason"] == "SchedulingGated") {
            summary.reason = "SchedulingGated".to_owned();
        }
        let is_beginning = summary.begin(pod);
        let is_begun = condition(pod, "Initialized").is_some_and(|it| it["status"] == "True");
        if !is_beginning || is_begun {
            summary.run(pod);
        }
        let is_deleted = !pod["metadata"]["deletionTimestamp"].is_null();
        if is_deleted && reason == "NodeLost" {
            summary.reason = "Unknown".to_owned();
        } else if is_deleted && !matches!(phase, "Succeeded" | "Failed") {
            summary.reason = "Terminating".to_owned();
        }
        summary
    }

    /// Adds the init containers; returns whether they still run.
    fn begin(&mut self, pod: &Value) -> bool {
        let init = list(pod, "/spec/initContainers");
        for (index, status) in list(pod, "/status/initContainerStatuses")
            .iter()
            .enumerate()
        {
            self.restarted(status);
            let sidecar = init.iter().find(|it| it["name"] == status["name"]);
            let state = &status["state"];
            let ended = &state["terminated"];
            if ended["exitCode"] == 0 {
                continue;
            }
            if sidecar.is_some_and(is_sidecar) && status["started"] == true {
                self.ready += usize::from(status["ready"] == true);
                continue;
            }
            let waits_for = text(state, "/waiting/reason");
            self.reason = if ended.is_object() {
                format!("Init:{}", end(ended))
            } else if !matches!(waits_for, "" | "PodInitializing") {
                format!("Init:{waits_for}")
            } else {
                format!("Init:{index}/{}", init.len())
            };
            return true;
        }
        false
    }

    /// Adds the containers.
    fn run(&mut self, pod: &Value) {
        self.restarts = 0;
        self.last_restart.clear();
        let init = list(pod, "/spec/initContainers");
        for status in list(pod, "/status/initContainerStatuses") {
            let sidecar = init.iter().find(|it| it["name"] == status["name"]);
            if sidecar.is_some_and(is_sidecar) {
                self.restarted(status);
            }
        }
        let mut has_running = false;
        for status in list(pod, "/status/containerStatuses").iter().rev() {
            self.restarted(status);
            let state = &status["state"];
            let waits_for = text(state, "/waiting/reason");
            if !waits_for.is_empty() {
                self.reason = waits_for.to_owned();
            } else if state["terminated"].is_object() {
                self.reason = end(&state["terminated"]);
            } else if status["ready"] == true && state["running"].is_object() {
                has_running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" && has_running {
            let is_ready = condition(pod, "Ready").is_some_and(|it| it["status"] == "True");
            self.reason = if is_ready { "Running" } else { "NotReady" }.to_owned();
        }
    }

    fn restarted(&mut self, status: &Value) {
        self.restarts = self
            .restarts
            .saturating_add(number(status, "/restartCount"));
        let ended = text(status, "/lastState/terminated/finishedAt");
        if ended > self.last_restart.as_str() {
            self.last_restart = ended.to_owned();
        }
    }
}

fn is_sidecar(container: &Value) -> bool {
    container["restartPolicy"] == "Always"
}

fn end(ended: &Value) -> String {
    let (reason, signal) = (text(ended, "/reason"), number(ended, "/signal"));
    if !reason.is_empty() {
        reason.to_owned()
    } else if signal != 0 {
        format!("Signal:{signal}")
    } else {
        format!("ExitCode:{}", number(ended, "/exitCode"))
    }
}
