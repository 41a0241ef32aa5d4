//! The parts of an instance's status that the controller writes (KubeVirt §2.5, §2.6).

use api::Vmi;
use api::condition::{Condition, ConditionStatus, kind, message, reason};
use api::status::{MIGRATION_TRANSPORT_UNIX, Phase};
use api::{labels, volumes::Volume};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::claims::Waiting;
use super::pods::PodView;
use crate::controller::change::{entry, remove, set, text};
use crate::controller::conditions;
use crate::controller::configuration::Config;
use crate::controller::events::bounded;
use crate::controller::pod::{self, Claims, claim_of};
use crate::controller::time::rfc3339;

/// Enters a phase and notes the time, once for each phase.
pub(super) fn enter(next: &mut Value, phase: Phase, at: Timestamp) {
    let name = phase.as_str();
    if text(next, "/status/phase") == name {
        return;
    }
    set(next, &["status", "phase"], name);
    let noted = entry(next, &["status", "phaseTransitionTimestamps"]);
    if !noted.is_array() {
        *noted = Value::Array(Vec::new());
    }
    if let Some(noted) = noted.as_array_mut()
        && !noted.iter().any(|known| known["phase"] == name)
    {
        noted.push(json!({ "phase": name, "phaseTransitionTimestamp": rfc3339(at) }));
    }
}

/// Says why the instance isn't as it should be.
pub(super) fn not_synchronized(next: &mut Value, why: &str, text: &str, now: Timestamp) {
    let condition = Condition::new(kind::SYNCHRONIZED, false, &rfc3339(now));
    conditions::set(next, condition.because(why, bounded(text.to_owned())));
}

/// Says what the instance waits for.
pub(super) fn waiting(next: &mut Value, waiting: &Waiting, now: Timestamp) {
    let at = rfc3339(now);
    if matches!(
        waiting,
        Waiting::Filling { .. } | Waiting::NoDataVolume { .. }
    ) {
        let unready = Condition::new(kind::DATA_VOLUMES_READY, false, &at);
        conditions::set(
            next,
            unready.because(reason::NOT_ALL_DVS_READY, waiting.to_string()),
        );
    }
    if waiting.is_missing() {
        not_synchronized(next, waiting.reason(), &waiting.to_string(), now);
    } else {
        conditions::remove(next, kind::SYNCHRONIZED);
    }
    without_pod(next, now);
}

/// Says that there is no pod yet.
pub(super) fn without_pod(next: &mut Value, now: Timestamp) {
    let ready = Condition::new(kind::READY, false, &rfc3339(now));
    let text = "virt-launcher pod has not yet been scheduled";
    conditions::set(next, ready.because(reason::POD_NOT_EXISTS, text));
}

/// Mirrors the pods: readiness, scheduling, images, which pods there are. `was` is the phase before: once the instance was
/// handed over, whether it is synchronized is the node agent's to say.
pub(super) fn mirror(
    next: &mut Value,
    was: Phase,
    current: Option<&PodView<'_>>,
    pods: &[PodView<'_>],
    now: Timestamp,
) {
    conditions::set(next, ready(next, current, now));
    if let Some(current) = current {
        scheduled(next, current, now);
        if matches!(was, Phase::Unset | Phase::Pending | Phase::Scheduling) {
            synchronized(next, current, now);
        }
    }
    let active: Map<String, Value> = pods
        .iter()
        .filter(|pod| !pod.is_ended())
        .map(|pod| (pod.uid().to_owned(), json!(pod.node())))
        .collect();
    if active.is_empty() {
        remove(next, &["status", "activePods"]);
    } else {
        set(next, &["status", "activePods"], Value::Object(active));
    }
}

fn ready(instance: &Value, current: Option<&PodView<'_>>, now: Timestamp) -> Condition {
    let at = rfc3339(now);
    let not = |why: &str, text: &str| Condition::new(kind::READY, false, &at).because(why, text);
    let Some(pod) = current else {
        let text = "virt-launcher pod has not yet been scheduled";
        return not(reason::POD_NOT_EXISTS, text);
    };
    if pod.is_going() || pod.is_ended() {
        return not(reason::POD_TERMINATING, "virt-launcher pod is terminating");
    }
    if text(instance, "/status/phase") != Phase::Running.as_str() {
        return not(reason::GUEST_NOT_RUNNING, message::GUEST_NOT_RUNNING);
    }
    let Some(told) = pod.condition("Ready") else {
        let text = "virt-launcher pod is missing the Ready condition";
        return not(reason::POD_CONDITION_MISSING, text);
    };
    let status = match text(told, "/status") {
        "True" => ConditionStatus::True,
        "False" => ConditionStatus::False,
        _ => ConditionStatus::Unknown,
    };
    let condition = Condition::new(kind::READY, status, &at);
    if condition.is_true() {
        // Why it wasn't is of no more interest.
        return condition;
    }
    condition.because(text(told, "/reason"), text(told, "/message"))
}

fn scheduled(next: &mut Value, pod: &PodView<'_>, now: Timestamp) {
    let told = pod.condition(kind::POD_SCHEDULED);
    match told.filter(|told| told["status"] == "False") {
        Some(told) => {
            let condition = Condition::new(kind::POD_SCHEDULED, false, &rfc3339(now));
            let message = bounded(text(told, "/message").to_owned());
            let condition = condition.because(text(told, "/reason"), message);
            conditions::set(next, condition);
        }
        None => conditions::remove(next, kind::POD_SCHEDULED),
    }
}

/// A pod that is there answers all that was wrong before, unless something is wrong with it.
fn synchronized(next: &mut Value, pod: &PodView<'_>, now: Timestamp) {
    let trouble = pod
        .trouble()
        .filter(|trouble| trouble.reason != "Unschedulable");
    match trouble {
        Some(trouble) => not_synchronized(next, &trouble.reason, &trouble.message, now),
        None => conditions::remove(next, kind::SYNCHRONIZED),
    }
    if conditions::find(next, kind::DATA_VOLUMES_READY).is_some() {
        let ready = Condition::new(kind::DATA_VOLUMES_READY, true, &rfc3339(now));
        let text = "All of the VMI's DVs are bound and not running";
        conditions::set(next, ready.because(reason::ALL_DVS_READY, text));
    }
}

/// All that an instance gets when its pod runs: from here on the node agent looks after it.
pub(super) fn hand_over(
    next: &mut Value,
    vmi: &Vmi,
    pod: &PodView<'_>,
    claims: &Claims,
    config: &Config,
    now: Timestamp,
) {
    enter(next, Phase::Scheduled, now);
    set(next, &["metadata", "labels", labels::NODE_NAME], pod.node());
    set(next, &["status", "nodeName"], pod.node());
    let transport = ["status", "migrationTransport"];
    set(next, &transport, MIGRATION_TRANSPORT_UNIX);
    let image = ["status", "launcherContainerImageVersion"];
    set(next, &image, pod.launcher_image());
    let class = text(pod.0, "/status/qosClass");
    if !class.is_empty() {
        set(next, &["status", "qosClass"], class);
    }
    let overhead = pod::overhead_bytes(vmi, config).to_string();
    set(next, &["status", "memory", "memoryOverhead"], overhead);
    let volumes = vmi.spec.volumes.iter();
    let volumes: Vec<Value> = volumes
        .map(|volume| volume_status(volume, claims))
        .collect();
    if !volumes.is_empty() {
        set(next, &["status", "volumeStatus"], volumes);
    }
    remove(next, &["status", "reason"]);
}

fn volume_status(volume: &Volume, claims: &Claims) -> Value {
    let mut status = json!({ "name": volume.name, "target": "" });
    let claim = claim_of(volume);
    let claim = claim.and_then(|claim| claims.get(&claim.name).map(|known| (claim.name, known)));
    if let Some((name, claim)) = claim {
        let mut info = json!({ "claimName": name });
        for (field, pointer) in [
            ("accessModes", "/spec/accessModes"),
            ("volumeMode", "/spec/volumeMode"),
            ("capacity", "/status/capacity"),
            ("requests", "/spec/resources/requests"),
        ] {
            if let Some(value) = claim.pointer(pointer) {
                info[field] = value.clone();
            }
        }
        let annotations = claim.pointer("/metadata/annotations");
        let preallocated = annotations.and_then(|a| a.get("cdi.kubevirt.io/storage.preallocation"));
        if preallocated.is_some_and(|value| value == "true") {
            info["preallocated"] = json!(true);
        }
        status["persistentVolumeClaimInfo"] = info;
    }
    status
}
