//! Admission of KubeVirt's objects: what they mean where they say nothing, and whether they can be (`AdmissionReview`
//! of `admission.k8s.io/v1` in and out).
//!
//! The rules are in [`api::admission`] and [`api::defaulting::admission`]; here are their questions and answers as API
//! servers put them. All of it is pure: the review, what is known of the cluster, and the answer. [`Facts`] says which
//! objects an answer depends on beside the reviewed one; whoever asks reads them before.

mod answer;
mod eviction;
mod facts;
mod mutation;
mod presets;
mod request;
mod validation;

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
    /// New installations.
    pub const INSTALLATION_CREATE_VALIDATE: &str = "/kubevirt-validate-create";
    /// Changed installations.
    pub const INSTALLATION_UPDATE_VALIDATE: &str = "/kubevirt-validate-update";
    /// Removals of installations.
    pub const INSTALLATION_DELETE_VALIDATE: &str = "/kubevirt-validate-delete";
}

/// Who decides at which path.
type Reviewer = fn(&Request<'_>, &ClusterConfig) -> Answer;

/// The webhooks.
const REVIEWERS: [(&str, Reviewer); 16] = [
    (path::MACHINE_MUTATE, mutation::machine),
    (path::INSTANCE_MUTATE, mutation::instance),
    (path::MIGRATION_MUTATE, mutation::migration),
    (path::LAUNCHER_MUTATE, |_, _| Answer::allow()),
    (path::MACHINE_VALIDATE, validation::machine),
    (path::INSTANCE_CREATE_VALIDATE, validation::new_instance),
    (path::INSTANCE_UPDATE_VALIDATE, validation::changed_instance),
    (path::REPLICA_SET_VALIDATE, validation::replica_set),
    (path::PRESET_VALIDATE, validation::preset),
    (path::MIGRATION_CREATE_VALIDATE, validation::new_migration),
    (
        path::MIGRATION_UPDATE_VALIDATE,
        validation::changed_migration,
    ),
    (path::STATUS_VALIDATE, validation::machine_status),
    (path::EVICTION_VALIDATE, eviction::review),
    (
        path::INSTALLATION_CREATE_VALIDATE,
        validation::new_installation,
    ),
    (
        path::INSTALLATION_UPDATE_VALIDATE,
        validation::changed_installation,
    ),
    (
        path::INSTALLATION_DELETE_VALIDATE,
        validation::removed_installation,
    ),
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
