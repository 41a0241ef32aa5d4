//! `status` of a virtual machine.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::condition::Condition;
use crate::object::{Unset, object};
use crate::options::{AddVolumeOptions, RemoveVolumeOptions};
use crate::status::{ChangedBlockTrackingStatus, MigratedVolume};

object! {
    /// What a virtual machine is at the moment.
    pub struct VirtualMachineStatus {
        /// Snapshot that is being taken.
        pub snapshot_in_progress: Option<String>,
        /// Restore that is under way.
        pub restore_in_progress: Option<String>,
        /// Whether an instance is there.
        pub created: Option<bool>,
        /// Whether the instance runs and is ready.
        pub ready: Option<bool>,
        /// The state in a word, for people.
        pub printable_status: PrintableStatus,
        /// Statements about it.
        pub conditions: Vec<Condition>,
        /// Starts and stops that are still to be done.
        pub state_change_requests: Vec<StateChangeRequest>,
        /// Volumes that are still to be plugged or unplugged.
        pub volume_requests: Vec<VolumeRequest>,
        /// Which volumes snapshots can be taken of.
        pub volume_snapshot_statuses: Vec<VolumeSnapshotStatus>,
        /// Starts that failed in a row.
        pub start_failure: Option<StartFailure>,
        /// A dump of guest memory that is wanted.
        pub memory_dump_request: Option<MemoryDumpRequest>,
        /// Generation of the specification that the instance was made from.
        pub observed_generation: Option<i64>,
        /// Generation of the specification.
        pub desired_generation: Option<i64>,
        /// Run strategy that was last acted on.
        pub run_strategy: String,
        /// Volumes that changed.
        pub volume_update_state: Option<VolumeUpdateState>,
        /// Changed block tracking.
        pub changed_block_tracking: Option<ChangedBlockTrackingStatus>,
        /// Instance type that was used.
        pub instancetype_ref: Option<InstancetypeStatusRef>,
        /// Preference that was used.
        pub preference_ref: Option<InstancetypeStatusRef>,
    }

    /// A start or a stop that is to be done.
    pub struct StateChangeRequest {
        /// What to do.
        pub action: StateChangeAction,
        /// How, by the names of [`start_request`].
        pub data: BTreeMap<String, String>,
        /// Instance that is meant.
        pub uid: Option<String>,
    }

    /// A volume that is to be plugged or unplugged.
    pub struct VolumeRequest {
        /// To be plugged.
        pub add_volume_options: Option<AddVolumeOptions>,
        /// To be unplugged.
        pub remove_volume_options: Option<RemoveVolumeOptions>,
    }

    /// Whether snapshots can be taken of a volume.
    pub struct VolumeSnapshotStatus {
        /// Name of the volume.
        pub name: String,
        /// Whether they can.
        pub enabled: bool,
        /// Why not.
        pub reason: String,
    }

    /// Starts that failed in a row.
    pub struct StartFailure {
        /// How many.
        pub consecutive_fail_count: Option<i64>,
        /// Instance that failed last.
        #[serde(rename = "lastFailedVMIUID")]
        pub last_failed_vmi_uid: String,
        /// When the next start may be tried (RFC 3339).
        pub retry_after_timestamp: Option<String>,
    }

    /// A dump of guest memory that is wanted.
    pub struct MemoryDumpRequest {
        /// Claim that takes it.
        pub claim_name: String,
        /// `Associating`, `InProgress`, `Unmounting`, `Completed`, `Dissociating` or `Failed`.
        pub phase: String,
        /// Whether the claim is to be given back.
        pub remove: Option<bool>,
        /// When it began (RFC 3339).
        pub start_timestamp: Option<String>,
        /// When it ended (RFC 3339).
        pub end_timestamp: Option<String>,
        /// File in the claim.
        pub file_name: Option<String>,
        /// Why it failed.
        pub message: String,
    }

    /// Volumes that changed.
    pub struct VolumeUpdateState {
        /// Those that move to other claims.
        pub volume_migration_state: Option<VolumeMigrationState>,
    }

    /// Volumes that move to other claims.
    pub struct VolumeMigrationState {
        /// The volumes.
        pub migrated_volumes: Vec<MigratedVolume>,
    }

    /// An instance type or a preference that was used.
    pub struct InstancetypeStatusRef {
        /// Its name.
        pub name: String,
        /// Its kind.
        pub kind: String,
        /// Copy of it.
        pub controller_revision_ref: Option<ControllerRevisionRef>,
        /// Volume whose source named it.
        pub infer_from_volume: String,
        /// What would have happened if the volume hadn't.
        pub infer_from_volume_failure_policy: Option<String>,
    }

    /// A controller revision.
    pub struct ControllerRevisionRef {
        /// Its name.
        pub name: String,
    }
}

/// What is to be done with an instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum StateChangeAction {
    /// Make one.
    Start,
    /// End it.
    Stop,
    /// A name that we don't know.
    #[default]
    #[serde(other)]
    Unknown,
}

impl Unset for StateChangeAction {
    fn is_unset(&self) -> bool {
        false
    }
}

/// Keys and values of [`StateChangeRequest::data`] of a start.
pub mod start_request {
    /// Whether the instance starts with its processors stopped, `true`.
    pub const PAUSED_KEY: &str = "paused";
    /// Value of [`PAUSED_KEY`].
    pub const PAUSED_TRUE: &str = "true";
}

/// Kinds of conditions that are a virtual machine's own; it mirrors the others from its instance.
pub mod condition {
    /// Something that was asked for could not be done.
    pub const FAILURE: &str = "Failure";
    /// The instance runs and is ready.
    pub const READY: &str = "Ready";
    /// The instance's processors are stopped.
    pub const PAUSED: &str = "Paused";
    /// A change of the specification waits for a restart.
    pub const RESTART_REQUIRED: &str = "RestartRequired";
    /// Somebody must set the virtual machine right by hand.
    pub const MANUAL_RECOVERY_REQUIRED: &str = "ManualRecoveryRequired";

    /// `Ready`: there is no instance.
    pub const REASON_VMI_NOT_EXISTS: &str = "VMINotExists";
    /// `Failure`: the instance could not be made.
    pub const REASON_FAILED_CREATE: &str = "FailedCreate";
    /// `Failure`: the instance could not be removed.
    pub const REASON_FAILED_DELETE: &str = "FailedDelete";
}

/// The state of a virtual machine in a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum PrintableStatus {
    /// Nobody has looked yet.
    #[default]
    #[serde(rename = "")]
    Unset,
    /// No instance, and none wanted.
    Stopped,
    /// Data volumes are being filled.
    Provisioning,
    /// An instance is being started.
    Starting,
    /// The instance runs.
    Running,
    /// The instance's processors are stopped.
    Paused,
    /// The instance is being ended.
    Stopping,
    /// The virtual machine is being removed.
    Terminating,
    /// Instances fail; the next one waits.
    CrashLoopBackOff,
    /// The instance moves to another node.
    Migrating,
    /// The instance waits for its state from another cluster.
    WaitingForReceiver,
    /// The node doesn't give signs of life.
    Unknown,
    /// No node takes the pod.
    ErrorUnschedulable,
    /// An image could not be fetched.
    ErrImagePull,
    /// An image could not be fetched; the next try waits.
    ImagePullBackOff,
    /// A claim isn't there.
    ErrorPvcNotFound,
    /// A data volume cannot be filled.
    DataVolumeError,
    /// A claim waits for its volume.
    WaitingForVolumeBinding,
    /// A name that we don't know.
    #[serde(other, skip_serializing)]
    Other,
}

impl PrintableStatus {
    /// Returns the name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unset | Self::Other => "",
            Self::Stopped => "Stopped",
            Self::Provisioning => "Provisioning",
            Self::Starting => "Starting",
            Self::Running => "Running",
            Self::Paused => "Paused",
            Self::Stopping => "Stopping",
            Self::Terminating => "Terminating",
            Self::CrashLoopBackOff => "CrashLoopBackOff",
            Self::Migrating => "Migrating",
            Self::WaitingForReceiver => "WaitingForReceiver",
            Self::Unknown => "Unknown",
            Self::ErrorUnschedulable => "ErrorUnschedulable",
            Self::ErrImagePull => "ErrImagePull",
            Self::ImagePullBackOff => "ImagePullBackOff",
            Self::ErrorPvcNotFound => "ErrorPvcNotFound",
            Self::DataVolumeError => "DataVolumeError",
            Self::WaitingForVolumeBinding => "WaitingForVolumeBinding",
        }
    }
}

impl fmt::Display for PrintableStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Unset for PrintableStatus {
    fn is_unset(&self) -> bool {
        matches!(self, Self::Unset | Self::Other)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{PrintableStatus, VirtualMachineStatus};

    #[test]
    fn every_field_of_a_status_keeps_its_name() {
        let claim = json!({"claimName": "c", "accessModes": ["ReadWriteOnce"]});
        let moved = json!({"volumeName": "v", "sourcePVCInfo": claim, "destinationPVCInfo": claim});
        let reference = json!({"name": "i", "kind": "k", "controllerRevisionRef": {"name": "r"}});
        let add = json!({"name": "v", "disk": {"name": "v", "disk": {"bus": "scsi"}},
            "volumeSource": {"dataVolume": {"name": "d", "hotpluggable": true}}});
        let full = json!({
            "snapshotInProgress": "s", "restoreInProgress": "r", "created": true, "ready": false,
            "printableStatus": "CrashLoopBackOff",
            "conditions": [{"type": "Ready", "status": "False", "reason": "VMINotExists"}],
            "stateChangeRequests": [
                {"action": "Stop", "uid": "u"}, {"action": "Start", "data": {"paused": "true"}}],
            "volumeRequests": [{"addVolumeOptions": add}, {"removeVolumeOptions": {"name": "v"}}],
            "volumeSnapshotStatuses": [{"name": "v", "enabled": false, "reason": "no class"}],
            "startFailure": {"consecutiveFailCount": 2, "lastFailedVMIUID": "u", "retryAfterTimestamp": "t"},
            "memoryDumpRequest": {"claimName": "c", "phase": "InProgress", "remove": true, "fileName": "f"},
            "observedGeneration": 1, "desiredGeneration": 2, "runStrategy": "Always",
            "volumeUpdateState": {"volumeMigrationState": {"migratedVolumes": [moved]}},
            "changedBlockTracking": {"state": "Enabled", "backupStatus": {"backupName": "b"}},
            "instancetypeRef": reference, "preferenceRef": reference,
        });
        let status: VirtualMachineStatus = serde_json::from_value(full.clone()).unwrap();
        assert_eq!(serde_json::to_value(status).unwrap(), full);
    }

    #[test]
    fn words_for_people_are_written_as_they_are_named() {
        let word =
            |text: &str| serde_json::from_value::<PrintableStatus>(Value::from(text)).unwrap();
        assert_eq!(
            word("WaitingForVolumeBinding").as_str(),
            "WaitingForVolumeBinding"
        );
        assert_eq!(word("SomethingNew"), PrintableStatus::Other);
        let empty = VirtualMachineStatus::default();
        assert_eq!(serde_json::to_value(empty).unwrap(), serde_json::json!({}));
    }
}
