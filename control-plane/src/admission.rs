//! Admission of KubeVirt's objects: what they mean where they say nothing, and whether they can be (`AdmissionReview`
//! of `admission.k8s.io/v1` in and out).
//!
//! All of it is pure: the review, what is known of the cluster, and the answer. [`Facts`] says which objects an answer
//! depends on beside the reviewed one; whoever asks reads them before.

mod answer;
mod eviction;
mod facts;
mod instance;
mod machine;
mod migration;
mod overlay;
mod presets;
mod read;
mod request;
mod sets;

use serde_json::Value;

pub use self::eviction::{EvictionPlan, plan_eviction};
pub use self::facts::{ClusterConfig, Facts, RequiredFacts, required_facts};
use answer::Answer;
use request::Request;

/// Paths of the webhooks, as upstream's configurations have them.
pub mod path {
    /// Defaults of virtual machines.
    pub const MACHINE_MUTATE: &str = "/virtualmachines-mutate";
    /// Defaults and presets of instances.
    pub const INSTANCE_MUTATE: &str = "/virtualmachineinstances-mutate";
    /// Label and finalizer of migrations.
    pub const MIGRATION_MUTATE: &str = "/migration-mutate-create";
    /// Launchers' pods, which stay as they are.
    pub const LAUNCHER_MUTATE: &str = "/virt-launcher-pod-mutate";
    /// Virtual machines.
    pub const MACHINE_VALIDATE: &str = "/virtualmachines-validate";
    /// New instances.
    pub const INSTANCE_CREATE_VALIDATE: &str = "/virtualmachineinstances-validate-create";
    /// Changed instances.
    pub const INSTANCE_UPDATE_VALIDATE: &str = "/virtualmachineinstances-validate-update";
    /// Replica sets.
    pub const REPLICA_SET_VALIDATE: &str = "/virtualmachinereplicaset-validate";
    /// Presets.
    pub const PRESET_VALIDATE: &str = "/vmipreset-validate";
    /// New migrations.
    pub const MIGRATION_CREATE_VALIDATE: &str = "/migration-validate-create";
    /// Changed migrations.
    pub const MIGRATION_UPDATE_VALIDATE: &str = "/migration-validate-update";
    /// Status of virtual machines.
    pub const STATUS_VALIDATE: &str = "/status-validate";
    /// Evictions of pods.
    pub const EVICTION_VALIDATE: &str = "/pod-eviction-validate";
}

/// Who decides at which path.
type Reviewer = fn(&Request<'_>, &ClusterConfig) -> Answer;

/// The webhooks.
const REVIEWERS: [(&str, Reviewer); 13] = [
    (path::MACHINE_MUTATE, machine::mutate),
    (path::INSTANCE_MUTATE, instance::mutate),
    (path::MIGRATION_MUTATE, migration::mutate),
    (path::LAUNCHER_MUTATE, |_, _| Answer::allow()),
    (path::MACHINE_VALIDATE, machine::validate),
    (path::INSTANCE_CREATE_VALIDATE, instance::validate_create),
    (path::INSTANCE_UPDATE_VALIDATE, instance::validate_update),
    (path::REPLICA_SET_VALIDATE, sets::validate_replica_set),
    (path::PRESET_VALIDATE, sets::validate_preset),
    (path::MIGRATION_CREATE_VALIDATE, migration::validate_create),
    (path::MIGRATION_UPDATE_VALIDATE, migration::validate_update),
    (path::STATUS_VALIDATE, machine::validate_status),
    (path::EVICTION_VALIDATE, eviction::review),
];

/// Returns the paths at which reviews are answered.
pub fn paths() -> impl Iterator<Item = &'static str> {
    REVIEWERS.iter().map(|(path, _)| *path)
}

/// Answers an `AdmissionReview` with an `AdmissionReview`.
///
/// What makes no sense is denied with status 400; nothing panics or fails.
#[must_use]
pub fn review(path: &str, review: &Value, cluster: &ClusterConfig) -> Value {
    let request = match Request::read(review) {
        Ok(request) => request,
        Err(message) => return Answer::deny(400, "BadRequest", message).review(review),
    };
    let reviewer = REVIEWERS.iter().find(|(known, _)| *known == path);
    let answer = match reviewer {
        Some((_, decide)) => decide(&request, cluster),
        None => Answer::deny(404, "NotFound", format!("no webhook is at {path:?}")),
    };
    answer.review(review)
}

#[cfg(test)]
mod tests;
