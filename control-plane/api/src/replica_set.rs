//! `VirtualMachineInstanceReplicaSet`: a number of equal instances.

use crate::condition::Condition;
use crate::metadata::ObjectMeta;
use crate::object::object;
use crate::selector::LabelSelector;
use crate::vm::VmiTemplate;

/// Kind of [`ReplicaSet`].
pub const REPLICA_SET_KIND: &str = "VirtualMachineInstanceReplicaSet";
/// Instances of a replica set that names no number.
pub const DEFAULT_REPLICAS: i32 = 1;

object! {
    /// A number of equal instances.
    pub struct ReplicaSet {
        /// Group and version, `kubevirt.io/v1`.
        pub api_version: String,
        /// `VirtualMachineInstanceReplicaSet`.
        pub kind: String,
        /// Name, labels, identity.
        pub metadata: ObjectMeta,
        /// What is wanted.
        pub spec: ReplicaSetSpec,
        /// What is.
        pub status: ReplicaSetStatus,
    }

    /// What is wanted of a replica set.
    pub struct ReplicaSetSpec {
        /// How many instances; 1 when unset.
        pub replicas: Option<i32>,
        /// Which instances belong to it.
        pub selector: Option<LabelSelector>,
        /// The instances to make.
        pub template: VmiTemplate,
        /// Whether it is left alone.
        pub paused: Option<bool>,
    }

    /// What a replica set is.
    pub struct ReplicaSetStatus {
        /// How many instances are there.
        pub replicas: Option<i32>,
        /// How many of them are ready.
        pub ready_replicas: Option<i32>,
        /// Statements about it.
        pub conditions: Vec<Condition>,
        /// The selector as text, for autoscalers.
        pub label_selector: String,
    }
}

/// Kinds and reasons of conditions of a replica set.
pub mod condition {
    /// It is left alone because the specification says so.
    pub const PAUSED: &str = "ReplicaPaused";
    /// An instance could not be made or removed.
    pub const REPLICA_FAILURE: &str = "ReplicaFailure";

    /// `ReplicaFailure`: an instance could not be made.
    pub const REASON_FAILED_CREATE: &str = "FailedCreate";
    /// `ReplicaFailure`: an instance could not be removed.
    pub const REASON_FAILED_DELETE: &str = "FailedDelete";
    /// `ReplicaPaused`: the specification says so.
    pub const REASON_PAUSED: &str = "Paused";
    /// `ReplicaPaused`: the specification no longer says so.
    pub const REASON_RESUMED: &str = "Resumed";
}

impl ReplicaSetSpec {
    /// Returns how many instances are wanted; 1 when unset, none when negative.
    pub fn replicas(&self) -> i32 {
        self.replicas.unwrap_or(DEFAULT_REPLICAS).max(0)
    }
}
