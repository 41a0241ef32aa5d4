//! A pod's status as the API has it, from what is known of the pod.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, HostIP, Pod, PodCondition, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::observed::{Current, Finished, Observed, Runs};
use super::options::Timing;
use super::plan::{has_ended, init_containers, is_initialized, is_sidecar, start_time};

/// Phase of a pod that ended badly.
const FAILED: &str = "Failed";

/// Where a pod runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// Address of the host.
    pub host_ip: Option<&'a str>,
    /// Patience, which tells when containers wait.
    pub timing: &'a Timing,
}

/// Returns the status. Conditions of others in the pod's present status are read for readiness gates and left alone;
/// times of conditions that do not change stay.
#[must_use]
pub fn status(pod: &Pod, observed: &Observed, now: Timestamp, place: Place<'_>) -> PodStatus {
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let phase = phase(pod, spec, observed);
    let refusal = observed.refused.as_ref();
    let host_ip = place.host_ip.map(str::to_owned);
    let shares_address = spec.host_network == Some(true);
    let described = |containers: &[Container]| {
        let uid = pod.metadata.uid.as_deref().unwrap_or_default();
        let of = |container: &Container| {
            container_status(uid, container, spec, observed, now, place.timing)
        };
        let found: Vec<_> = containers.iter().map(of).collect();
        (!found.is_empty()).then_some(found)
    };
    PodStatus {
        conditions: Some(conditions(pod, spec, observed, now, phase)),
        container_statuses: described(&spec.containers),
        init_container_statuses: described(init_containers(spec)),
        host_ips: host_ip.clone().map(|ip| vec![HostIP { ip }]),
        pod_ip: host_ip.clone().filter(|_| shares_address),
        host_ip,
        message: refusal.map(|refusal| refusal.message.clone()),
        reason: refusal.map(|refusal| refusal.reason.clone()),
        phase: Some(phase.to_owned()),
        qos_class: Some(qos_class(spec).to_owned()),
        start_time: Some(Time(pod_start(pod, observed))),
        ..PodStatus::default()
    }
}

fn pod_start(pod: &Pod, observed: &Observed) -> Timestamp {
    let told = pod
        .status
        .as_ref()
        .and_then(|status| status.start_time.as_ref());
    told.map_or(seconds(observed.since), |time| time.0)
}

/// The API's times have no fractions.
fn seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

fn phase(pod: &Pod, spec: &PodSpec, observed: &Observed) -> &'static str {
    if observed.refused.is_some() {
        return FAILED;
    }
    match pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref())
    {
        Some("Succeeded") => return "Succeeded",
        Some(FAILED) => return FAILED,
        _ => {}
    }
    let all_succeeded = spec
        .containers
        .iter()
        .all(|container| observed.runs(&container.name).has_succeeded());
    let has_begun = spec
        .containers
        .iter()
        .any(|container| observed.runs(&container.name).count > 0);
    let is_over =
        has_ended(spec, observed) || (pod.metadata.deletion_timestamp.is_some() && has_begun);
    match (
        is_over && !observed.has_running(),
        all_succeeded && has_begun,
    ) {
        (true, true) => "Succeeded",
        (true, false) => FAILED,
        (false, _) if has_begun && is_initialized(spec, observed) => "Running",
        (false, _) => "Pending",
    }
}

fn conditions(
    pod: &Pod,
    spec: &PodSpec,
    observed: &Observed,
    now: Timestamp,
    phase: &str,
) -> Vec<PodCondition> {
    let is_over = phase == "Succeeded" || phase == FAILED;
    let why_over = if phase == FAILED {
        "PodFailed"
    } else {
        "PodCompleted"
    };
    let unready = unready_containers(spec, observed);
    let gates = unready_gates(pod, spec);
    let containers_ready = if is_over {
        Err(why_over.to_owned())
    } else if unready.is_empty() {
        Ok(())
    } else {
        Err("ContainersNotReady".to_owned())
    };
    let ready = match (&containers_ready, gates.is_empty()) {
        (Ok(()), false) => Err("ReadinessGatesNotReady".to_owned()),
        (other, _) => other.clone(),
    };
    let unready_text = (!unready.is_empty() && !is_over)
        .then(|| format!("containers with unready status: [{}]", unready.join(" ")));
    let gates_text = (!gates.is_empty()).then(|| gates.join(", "));
    let initialized = if is_initialized(spec, observed) || phase == "Succeeded" {
        Ok(())
    } else {
        Err("ContainersNotInitialized".to_owned())
    };
    let has_sandbox = if observed.is_prepared && !observed.is_released {
        Ok(())
    } else {
        Err(String::new())
    };
    vec![
        condition(pod, "PodReadyToStartContainers", has_sandbox, None, now),
        condition(pod, "Initialized", initialized, None, now),
        condition(
            pod,
            "Ready",
            ready,
            unready_text.clone().or(gates_text),
            now,
        ),
        condition(pod, "ContainersReady", containers_ready, unready_text, now),
        condition(pod, "PodScheduled", Ok(()), None, now),
    ]
}

fn condition(
    pod: &Pod,
    kind: &str,
    state: Result<(), String>,
    message: Option<String>,
    now: Timestamp,
) -> PodCondition {
    let status = if state.is_ok() { "True" } else { "False" };
    let before = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .find(|condition| condition.type_ == kind);
    let since = before
        .filter(|condition| condition.status == status)
        .and_then(|condition| condition.last_transition_time.clone());
    PodCondition {
        last_transition_time: Some(since.unwrap_or_else(|| Time(seconds(now)))),
        message: message.filter(|_| state.is_err()),
        reason: state.err().filter(|reason| !reason.is_empty()),
        status: status.to_owned(),
        type_: kind.to_owned(),
        ..PodCondition::default()
    }
}

fn unready_containers<'a>(spec: &'a PodSpec, observed: &Observed) -> Vec<&'a str> {
    let sidecars = init_containers(spec)
        .iter()
        .filter(|container| is_sidecar(container));
    let all = sidecars.chain(&spec.containers);
    let unready = all.filter(|container| !is_ready(observed.runs(&container.name)));
    unready.map(|container| container.name.as_str()).collect()
}

fn is_ready(runs: &Runs) -> bool {
    runs.started().is_some() && runs.probed.is_ready
}

/// Says which of the conditions that the pod waits for are not true.
fn unready_gates(pod: &Pod, spec: &PodSpec) -> Vec<String> {
    let conditions = || {
        pod.status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten())
    };
    let told = |kind: &str| {
        let state = conditions()
            .find(|condition| condition.type_ == kind)
            .map(|condition| condition.status.as_str());
        match state {
            Some("True") => None,
            Some(_) => Some(format!(
                "the status of pod readiness gate \"{kind}\" is not \"True\""
            )),
            None => Some(format!(
                "corresponding condition of pod readiness gate \"{kind}\" does not exist."
            )),
        }
    };
    spec.readiness_gates
        .iter()
        .flatten()
        .filter_map(|gate| told(&gate.condition_type))
        .collect()
}

fn container_status(
    uid: &str,
    container: &Container,
    spec: &PodSpec,
    observed: &Observed,
    now: Timestamp,
    timing: &Timing,
) -> ContainerStatus {
    let runs = observed.runs(&container.name);
    let runs_again = runs.finished().is_some()
        && start_time(runs, timing).is_some_and(|at| at > now)
        && will_run(container, spec, observed);
    let id =
        |run: u32| (runs.count > 0).then(|| format!("ferrovirt://{uid}/{}/{run}", container.name));
    let current = id(runs.count.saturating_sub(1));
    let last = id(runs.count.saturating_sub(2));
    let (state, last_state) = match &runs.current {
        Current::None => (waiting(spec, runs, container, observed), None),
        Current::Running(started) => (
            running(started.at),
            runs.last
                .as_ref()
                .map(|finished| terminated(finished, last.as_ref())),
        ),
        Current::Ended(finished) if runs_again => (
            crash_loop(runs, container, now, timing),
            Some(terminated(finished, current.as_ref())),
        ),
        Current::Ended(finished) => (
            terminated(finished, current.as_ref()),
            runs.last
                .as_ref()
                .map(|finished| terminated(finished, last.as_ref())),
        ),
    };
    let is_running = runs.started().is_some();
    let is_init_done = runs.has_succeeded()
        && init_containers(spec)
            .iter()
            .any(|init| init.name == container.name);
    ContainerStatus {
        container_id: current,
        image: container.image.clone().unwrap_or_default(),
        image_id: runs.image_id.clone(),
        last_state,
        name: container.name.clone(),
        ready: is_ready(runs) || is_init_done,
        restart_count: i32::try_from(runs.count.saturating_sub(1)).unwrap_or(i32::MAX),
        started: Some(is_running && runs.probed.has_started),
        state: Some(state),
        ..ContainerStatus::default()
    }
}

/// Whether a container that has ended is to run again.
fn will_run(container: &Container, spec: &PodSpec, observed: &Observed) -> bool {
    let runs = observed.runs(&container.name);
    let is_init = init_containers(spec)
        .iter()
        .any(|init| init.name == container.name);
    let wanted = match spec.restart_policy.as_deref() {
        _ if is_sidecar(container) => true,
        Some("Never") => false,
        Some("OnFailure") => !runs.has_succeeded(),
        _ => !is_init || !runs.has_succeeded(),
    };
    wanted && observed.refused.is_none() && !has_ended(spec, observed)
}

fn waiting(
    spec: &PodSpec,
    runs: &Runs,
    container: &Container,
    observed: &Observed,
) -> ContainerState {
    let is_main = spec
        .containers
        .iter()
        .any(|main| main.name == container.name);
    let (reason, message) = match (&runs.setback, &observed.unprepared) {
        (Some(setback), _) => (setback.reason.clone(), Some(setback.message.clone())),
        (None, Some(setback)) if is_image_reason(&setback.reason) => {
            (setback.reason.clone(), Some(setback.message.clone()))
        }
        (None, Some(setback)) => (
            "ContainerCreating".to_owned(),
            Some(setback.message.clone()),
        ),
        (None, None) if is_main && !is_initialized(spec, observed) => {
            ("PodInitializing".to_owned(), None)
        }
        (None, None) => ("ContainerCreating".to_owned(), None),
    };
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            message,
            reason: Some(reason),
        }),
        ..ContainerState::default()
    }
}

/// Whether a reason to wait is about an image.
#[must_use]
pub fn is_image_reason(reason: &str) -> bool {
    matches!(
        reason,
        "ErrImagePull" | "ErrImageNeverPull" | "ImagePullBackOff" | "InvalidImageName"
    )
}

fn running(at: Timestamp) -> ContainerState {
    let started_at = Some(Time(seconds(at)));
    ContainerState {
        running: Some(ContainerStateRunning { started_at }),
        ..ContainerState::default()
    }
}

fn crash_loop(
    runs: &Runs,
    container: &Container,
    now: Timestamp,
    timing: &Timing,
) -> ContainerState {
    let (reason, message) = match &runs.setback {
        Some(setback) => (setback.reason.clone(), setback.message.clone()),
        None => {
            let until = start_time(runs, timing).unwrap_or(now);
            let ended = runs.finished().map_or(now, |finished| finished.ended.at);
            let wait = until.duration_since(ended).as_secs();
            (
                "CrashLoopBackOff".to_owned(),
                format!(
                    "back-off {wait}s restarting failed container={}",
                    container.name
                ),
            )
        }
    };
    ContainerState {
        waiting: Some(ContainerStateWaiting {
            message: Some(message),
            reason: Some(reason),
        }),
        ..ContainerState::default()
    }
}

fn terminated(finished: &Finished, container_id: Option<&String>) -> ContainerState {
    let ended = &finished.ended;
    let reason = match ended {
        _ if ended.failure.is_some() => "StartError",
        _ if ended.is_out_of_memory => "OOMKilled",
        _ if ended.code == 0 => "Completed",
        _ => "Error",
    };
    let finished_at = seconds(ended.at);
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            container_id: container_id.cloned(),
            exit_code: ended.code,
            finished_at: Some(Time(finished_at)),
            message: ended.failure.clone().or_else(|| finished.message.clone()),
            reason: Some(reason.to_owned()),
            signal: ended.signal,
            started_at: Some(Time(finished.started_at.map_or(finished_at, seconds))),
        }),
        ..ContainerState::default()
    }
}

/// The class that tells who is killed first for want of memory (Kubernetes "Quality of Service").
#[must_use]
pub fn qos_class(spec: &PodSpec) -> &'static str {
    let amounts = |container: &Container, name: &str| {
        let resources = container.resources.as_ref();
        let limit = resources
            .and_then(|resources| resources.limits.as_ref()?.get(name))
            .map(|amount| amount.0.clone());
        let request = resources
            .and_then(|resources| resources.requests.as_ref()?.get(name))
            .map(|amount| amount.0.clone());
        (limit.clone(), request.or(limit))
    };
    let all = || init_containers(spec).iter().chain(&spec.containers);
    let all_amounts =
        || all().flat_map(move |container| ["cpu", "memory"].map(|name| amounts(container, name)));
    if all_amounts().all(|(limit, request)| limit.is_none() && request.is_none()) {
        return "BestEffort";
    }
    if all_amounts().all(|(limit, request)| limit.is_some() && limit == request) {
        return "Guaranteed";
    }
    "Burstable"
}

/// Returns how readily the kernel kills a container for want of memory: the kubelet's figures.
#[must_use]
pub fn oom_score_adj(class: &str, memory_request_bytes: u64, host_memory_bytes: u64) -> i32 {
    match class {
        "Guaranteed" => -997,
        "BestEffort" => 1000,
        _ => {
            let share = memory_request_bytes.saturating_mul(1000) / host_memory_bytes.max(1);
            i32::try_from(share.min(1000)).map_or(3, |share| (1000 - share).clamp(3, 999))
        }
    }
}

/// Whether the pod's phase is its last.
#[must_use]
pub fn is_last(status: &PodStatus) -> bool {
    matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"))
}

#[cfg(test)]
mod tests;
