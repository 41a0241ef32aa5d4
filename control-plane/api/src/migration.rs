//! `VirtualMachineInstanceMigration`: the wish to move an instance to another node; live migration as it
//! shows in an instance's status; and its settings.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::condition::Condition;
use crate::metadata::ObjectMeta;
use crate::object::object;
use crate::quantity::Quantity;

mod phase;

pub use phase::MigrationPhase;

/// Kind of [`Migration`].
pub const MIGRATION_KIND: &str = "VirtualMachineInstanceMigration";

/// Priorities of migrations.
pub mod priority {
    /// Of the drain of a node.
    pub const SYSTEM_CRITICAL: &str = "system-critical";
    /// Of a user's wish.
    pub const USER_TRIGGERED: &str = "user-triggered";
    /// Of updates and rebalancing.
    pub const SYSTEM_MAINTENANCE: &str = "system-maintenance";
    /// All of them.
    pub const ALL: [&str; 3] = [SYSTEM_CRITICAL, USER_TRIGGERED, SYSTEM_MAINTENANCE];
}

/// Kinds and reasons of conditions of a migration.
pub mod condition {
    /// Somebody asked to give it up.
    pub const ABORT_REQUESTED: &str = "migrationAbortRequested";
    /// The namespace's quota has no room for the target's pod.
    pub const REJECTED_BY_RESOURCE_QUOTA: &str = "migrationRejectedByResourceQuota";
}

object! {
    /// The wish to move an instance to another node.
    pub struct Migration {
        /// Group and version, `kubevirt.io/v1`.
        pub api_version: String,
        /// `VirtualMachineInstanceMigration`.
        pub kind: String,
        /// Name, labels, identity.
        pub metadata: ObjectMeta,
        /// What is wanted.
        pub spec: MigrationSpec,
        /// What is.
        pub status: MigrationStatus,
    }

    /// What is wanted of a migration.
    pub struct MigrationSpec {
        /// Name of the instance.
        pub vmi_name: String,
        /// Labels that the new node must have beside those that the instance asks for.
        pub added_node_selector: BTreeMap<String, String>,
        /// Where the instance goes to, in another cluster or namespace.
        pub send_to: Option<MigrationDestination>,
        /// What comes in from another cluster or namespace.
        pub receive: Option<MigrationOrigin>,
        /// `system-critical`, `user-triggered` or `system-maintenance`.
        pub priority: Option<String>,
    }

    /// Where an instance goes to.
    pub struct MigrationDestination {
        /// Name of the migration, the same on both sides.
        #[serde(rename = "migrationID")]
        pub migration_id: String,
        /// Address of the other side.
        #[serde(rename = "connectURL")]
        pub connect_url: String,
    }

    /// What comes in.
    pub struct MigrationOrigin {
        /// Name of the migration, the same on both sides.
        #[serde(rename = "migrationID")]
        pub migration_id: String,
    }

    /// What a migration is.
    pub struct MigrationStatus {
        /// How far it is.
        pub phase: MigrationPhase,
        /// Statements about it.
        pub conditions: Vec<Condition>,
        /// When each phase began.
        pub phase_transition_timestamps: Vec<MigrationPhaseTransition>,
        /// How it went.
        pub migration_state: Option<MigrationState>,
        /// Addresses for migrations between clusters.
        pub synchronization_addresses: Vec<String>,
    }

    /// When a phase of a migration began.
    pub struct MigrationPhaseTransition {
        /// The phase.
        pub phase: MigrationPhase,
        /// Its beginning (RFC 3339).
        pub phase_transition_timestamp: Option<String>,
    }

    /// The migration under way, or the last one.
    pub struct MigrationState {
        /// When it began (RFC 3339).
        pub start_timestamp: Option<String>,
        /// When it ended (RFC 3339).
        pub end_timestamp: Option<String>,
        /// When the target's machine was ready (RFC 3339).
        pub target_node_domain_ready_timestamp: Option<String>,
        /// Whether the target node has seen its machine.
        pub target_node_domain_detected: Option<bool>,
        /// Address of the target node.
        pub target_node_address: String,
        /// Ports of the target node and the local ports that they lead to.
        pub target_direct_migration_node_ports: BTreeMap<String, i32>,
        /// Node it goes to.
        pub target_node: String,
        /// Pod it goes to.
        pub target_pod: String,
        /// Uid of the pod that holds the target's plugged volumes.
        #[serde(rename = "targetAttachmentPodUID")]
        pub target_attachment_pod_uid: String,
        /// Node it comes from.
        pub source_node: String,
        /// Pod it comes from.
        pub source_pod: String,
        /// Whether it is over.
        pub completed: Option<bool>,
        /// Whether it failed.
        pub failed: Option<bool>,
        /// Whether somebody asked to give it up.
        pub abort_requested: Option<bool>,
        /// How giving up went: `Succeeded`, `Failed` or `Aborting`.
        pub abort_status: String,
        /// Why it failed.
        pub failure_reason: String,
        /// Uid of the migration object.
        pub migration_uid: String,
        /// `PreCopy`, `PostCopy` or `Paused`.
        pub mode: String,
        /// Policy whose settings apply.
        pub migration_policy_name: Option<String>,
        /// Settings in force.
        pub migration_configuration: Option<MigrationConfiguration>,
        /// Host processors set aside on the target node.
        #[serde(rename = "targetCPUSet")]
        pub target_cpu_set: Vec<i32>,
        /// NUMA topology of the target node, JSON.
        pub target_node_topology: String,
        /// Claim with the source's TPM and firmware variables.
        #[serde(rename = "sourcePersistentStatePVCName")]
        pub source_persistent_state_pvc_name: String,
        /// Claim with the target's TPM and firmware variables.
        #[serde(rename = "targetPersistentStatePVCName")]
        pub target_persistent_state_pvc_name: String,
        /// The source's side.
        pub source_state: Option<MigrationEnd>,
        /// The target's side.
        pub target_state: Option<MigrationEnd>,
        /// Network that carries it.
        pub migration_network_type: String,
        /// Memory of the target's pod beside the guest's.
        pub target_memory_overhead: Option<Quantity>,
    }

    /// One side of a migration. The fields from `domain_ready_timestamp` on are the target's only.
    pub struct MigrationEnd {
        /// Node.
        pub node: String,
        /// Pod.
        pub pod: String,
        /// Uid of the migration object.
        #[serde(rename = "migrationUID")]
        pub migration_uid: String,
        /// Name of the instance.
        pub domain_name: String,
        /// Namespace of the instance.
        pub domain_namespace: String,
        /// Address for migrations between clusters.
        pub sync_address: Option<String>,
        /// Claim with TPM and firmware variables.
        #[serde(rename = "persistentStatePVCName")]
        pub persistent_state_pvc_name: String,
        /// SELinux context of the launcher.
        pub selinux_context: String,
        /// Uid of the instance.
        #[serde(rename = "virtualMachineInstanceUID")]
        pub virtual_machine_instance_uid: String,
        /// Labels that a target node must have (source only).
        pub node_selectors: BTreeMap<String, String>,
        /// When the machine was ready (RFC 3339).
        pub domain_ready_timestamp: Option<String>,
        /// Whether the node has seen its machine.
        pub domain_detected: Option<bool>,
        /// Address of the node.
        pub node_address: String,
        /// Ports of the node and the local ports that they lead to.
        pub direct_migration_node_ports: BTreeMap<String, i32>,
        /// Uid of the pod that holds plugged volumes.
        #[serde(rename = "attachmentPodUID")]
        pub attachment_pod_uid: String,
        /// Host processors set aside.
        pub cpu_set: Vec<i32>,
        /// NUMA topology of the node, JSON.
        pub node_topology: String,
    }

    /// Settings of migrations.
    pub struct MigrationConfiguration {
        /// Taint that means a node is being drained.
        pub node_drain_taint_key: Option<String>,
        /// Most migrations that leave a node at once.
        pub parallel_outbound_migrations_per_node: Option<u32>,
        /// Most migrations at once.
        pub parallel_migrations_per_cluster: Option<u32>,
        /// Whether a guest that writes too fast is slowed down.
        pub allow_auto_converge: Option<bool>,
        /// Bytes per second; zero is no limit.
        pub bandwidth_per_migration: Option<Quantity>,
        /// Seconds per GiB after which a migration is given up.
        #[serde(rename = "completionTimeoutPerGiB")]
        pub completion_timeout_per_gib: Option<i64>,
        /// Longest stop of the guest, milliseconds.
        pub max_downtime_ms: Option<u64>,
        /// Seconds without progress after which a migration is given up.
        pub progress_timeout: Option<i64>,
        /// Seconds to wait for volumes that are no disks.
        pub utility_volumes_timeout: Option<i64>,
        /// Whether a machine moves although its disks may suffer.
        pub unsafe_migration_override: Option<bool>,
        /// Whether the guest may run before its memory is there.
        pub allow_post_copy: Option<bool>,
        /// Whether the guest may be stopped to get done.
        pub allow_workload_disruption: Option<bool>,
        /// Whether the way is unencrypted.
        #[serde(rename = "disableTLS")]
        pub disable_tls: Option<bool>,
        /// Network that carries migrations.
        pub network: Option<String>,
        /// Whether the target's SELinux level follows the source's.
        #[serde(rename = "matchSELinuxLevelOnMigration")]
        pub match_selinux_level_on_migration: Option<bool>,
        /// Settings on trial (untyped).
        pub experimental: Option<Value>,
    }
}
