//! `status` of an instance: what is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::condition::{self, Condition};
use crate::domain::Machine;
use crate::migration::MigrationState;
use crate::object::{Unset, is_unset, null_as_default, object};
use crate::quantity::Quantity;

object! {
    /// What a machine is at the moment.
    pub struct VmiStatus {
        /// Node that runs it.
        pub node_name: String,
        /// Why the machine is in its phase.
        pub reason: String,
        /// Statements about it.
        pub conditions: Vec<Condition>,
        /// Where it is in its life.
        pub phase: Phase,
        /// When each phase began.
        pub phase_transition_timestamps: Vec<PhaseTransition>,
        /// Network interfaces.
        pub interfaces: Vec<InterfaceStatus>,
        /// The operating system, as the guest agent tells.
        #[serde(rename = "guestOSInfo")]
        pub guest_os_info: GuestOsInfo,
        /// Migration under way, or the last one.
        pub migration_state: Option<MigrationState>,
        /// `LiveMigration` or `BlockMigration`.
        pub migration_method: String,
        /// Transport of migrations, `Unix`.
        pub migration_transport: String,
        /// Quality of service class of the pod.
        pub qos_class: Option<String>,
        /// Image of the launcher.
        pub launcher_container_image_version: String,
        /// Node that is being drained of the machine.
        pub evacuation_node_name: String,
        /// Pods by uid and their nodes.
        pub active_pods: BTreeMap<String, String>,
        /// Volumes.
        pub volume_status: Vec<VolumeStatus>,
        /// Checksums of the booted kernel.
        pub kernel_boot_status: Option<KernelBootStatus>,
        /// File system freeze state, `frozen` or empty.
        pub fs_freeze_status: String,
        /// What a node must offer.
        pub topology_hints: Option<TopologyHints>,
        /// Controller revision the machine was made from.
        pub virtual_machine_revision_name: String,
        /// User of the launcher, 107 when not root.
        pub runtime_user: Option<u64>,
        /// vsock context identifier.
        #[serde(rename = "VSOCKCID")]
        pub vsock_cid: Option<u32>,
        /// SELinux context of the launcher, `none` on nodes without SELinux.
        pub selinux_context: String,
        /// Machine type in use.
        pub machine: Option<Machine>,
        /// CPU topology in use.
        #[serde(rename = "currentCPUTopology")]
        pub current_cpu_topology: Option<CpuTopology>,
        /// Memory in use.
        pub memory: Option<MemoryStatus>,
        /// Volumes under migration.
        pub migrated_volumes: Vec<MigratedVolume>,
        /// Changed block tracking.
        pub changed_block_tracking: Option<ChangedBlockTrackingStatus>,
    }

    /// Changed block tracking as it is.
    pub struct ChangedBlockTrackingStatus {
        /// `Undefined`, `Initializing`, `Enabled`, `Disabled` and the like.
        pub state: String,
        /// A backup that is being made.
        pub backup_status: Option<BackupStatus>,
    }

    /// A backup that is being made, or the last one.
    pub struct BackupStatus {
        /// Its name.
        pub backup_name: String,
        /// When it began (RFC 3339).
        pub start_timestamp: Option<String>,
        /// When it ended (RFC 3339).
        pub end_timestamp: Option<String>,
        /// Whether it is over.
        pub completed: Option<bool>,
        /// Whether it failed.
        pub failed: Option<bool>,
        /// Why, for people.
        pub backup_msg: Option<String>,
        /// Checkpoint that it made.
        pub checkpoint_name: Option<String>,
        /// Whether file systems stood still.
        pub quiesce_status: Option<String>,
        /// What it holds (untyped).
        pub volumes: Vec<Value>,
    }

    /// When a phase began.
    pub struct PhaseTransition {
        /// The phase.
        pub phase: Phase,
        /// Its beginning (RFC 3339).
        pub phase_transition_timestamp: Option<String>,
    }

    /// A network interface as it is.
    pub struct InterfaceStatus {
        /// First of `ip_addresses`.
        pub ip_address: String,
        /// MAC address.
        pub mac: String,
        /// Name of the network; empty for interfaces that only the guest knows.
        pub name: String,
        /// Addresses.
        pub ip_addresses: Vec<String>,
        /// Name in the pod.
        pub pod_interface_name: String,
        /// Name in the guest.
        pub interface_name: String,
        /// Who told, joined by `, `: [`INFO_SOURCE_DOMAIN`] and its like.
        pub info_source: String,
        /// Queues.
        pub queue_count: Option<i32>,
        /// `up` or `down`.
        pub link_state: String,
    }

    /// A guest's operating system, as its agent tells.
    pub struct GuestOsInfo {
        /// Name.
        pub name: String,
        /// Release of the kernel.
        pub kernel_release: String,
        /// Version.
        pub version: String,
        /// Name and version for people.
        pub pretty_name: String,
        /// Number of the version.
        pub version_id: String,
        /// Build of the kernel.
        pub kernel_version: String,
        /// Architecture.
        pub machine: String,
        /// Name for programs.
        pub id: String,
    }

    /// A claim as a volume came from it.
    pub struct ClaimInfo {
        /// Name of the claim.
        pub claim_name: String,
        /// How nodes may use it.
        pub access_modes: Vec<String>,
        /// `Filesystem` (default) or `Block`.
        pub volume_mode: Option<String>,
        /// What it has, by resource.
        pub capacity: BTreeMap<String, Quantity>,
        /// What was asked for, by resource.
        pub requests: BTreeMap<String, Quantity>,
        /// Whether all its space is taken up already.
        pub preallocated: Option<bool>,
        /// Share of the space that a file system needs, as text.
        pub filesystem_overhead: Option<String>,
    }

    /// The pod that holds a plugged volume.
    pub struct HotplugVolumeStatus {
        /// Its name.
        pub attach_pod_name: String,
        /// Its uid.
        #[serde(rename = "attachPodUID")]
        pub attach_pod_uid: String,
    }

    /// A dump of guest memory.
    pub struct MemoryDumpVolume {
        /// When it began (RFC 3339).
        pub start_timestamp: Option<String>,
        /// When it ended (RFC 3339).
        pub end_timestamp: Option<String>,
        /// Claim that takes it.
        pub claim_name: String,
        /// File in the claim.
        pub target_file_name: String,
    }

    /// A file of a container image.
    pub struct ImageFile {
        /// CRC-32 of its content, by which a target node knows that it got the same file.
        pub checksum: Option<u32>,
    }

    /// The files of a kernel boot container.
    pub struct KernelBootStatus {
        /// The kernel.
        pub kernel_info: Option<ImageFile>,
        /// The initial RAM disk.
        pub initrd_info: Option<ImageFile>,
    }

    /// What a node must offer.
    pub struct TopologyHints {
        /// Time stamp counter, hertz.
        pub tsc_frequency: Option<i64>,
    }

    /// CPU topology in use.
    pub struct CpuTopology {
        /// Cores per socket.
        pub cores: Option<u32>,
        /// Sockets.
        pub sockets: Option<u32>,
        /// Threads per core.
        pub threads: Option<u32>,
    }

    /// Guest memory as it is.
    pub struct MemoryStatus {
        /// Size at boot.
        pub guest_at_boot: Option<Quantity>,
        /// Size now.
        pub guest_current: Option<Quantity>,
        /// Size asked for.
        pub guest_requested: Option<Quantity>,
        /// Memory beside the guest's.
        pub memory_overhead: Option<Quantity>,
    }

    /// A volume that moves to another claim.
    pub struct MigratedVolume {
        /// Name of the volume.
        pub volume_name: String,
        /// Claim it leaves.
        #[serde(rename = "sourcePVCInfo")]
        pub source_pvc_info: Option<ClaimInfo>,
        /// Claim it goes to.
        #[serde(rename = "destinationPVCInfo")]
        pub destination_pvc_info: Option<ClaimInfo>,
    }
}

/// A volume as it is.
///
/// `name` and `target` are always written: the schema of the API server demands them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeStatus {
    /// Name of the volume.
    #[serde(deserialize_with = "null_as_default")]
    pub name: String,
    /// Device name in the guest's eyes (`vda`); empty for what is no disk.
    #[serde(deserialize_with = "null_as_default")]
    pub target: String,
    /// How far plugging is; one of [`volume_phase`].
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_unset")]
    pub phase: String,
    /// Why it is in its phase; one of [`volume_reason`].
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_unset")]
    pub reason: String,
    /// Why it is in its phase, for people.
    #[serde(deserialize_with = "null_as_default", skip_serializing_if = "is_unset")]
    pub message: String,
    /// The claim it came from.
    #[serde(skip_serializing_if = "is_unset")]
    pub persistent_volume_claim_info: Option<ClaimInfo>,
    /// The pod that holds a plugged volume.
    #[serde(skip_serializing_if = "is_unset")]
    pub hotplug_volume: Option<HotplugVolumeStatus>,
    /// Size of an image that is made beforehand, bytes.
    #[serde(skip_serializing_if = "is_unset")]
    pub size: Option<i64>,
    /// A dump of guest memory.
    #[serde(skip_serializing_if = "is_unset")]
    pub memory_dump_volume: Option<MemoryDumpVolume>,
    /// The image of a container disk.
    #[serde(skip_serializing_if = "is_unset")]
    pub container_disk_volume: Option<ImageFile>,
}

const INFO_SOURCE_SEPARATOR: &str = ", ";
/// [`InterfaceStatus::info_source`]: the machine.
pub const INFO_SOURCE_DOMAIN: &str = "domain";
/// [`InterfaceStatus::info_source`]: the guest agent.
pub const INFO_SOURCE_GUEST_AGENT: &str = "guest-agent";
/// [`InterfaceStatus::info_source`]: the pod's network status.
pub const INFO_SOURCE_MULTUS_STATUS: &str = "multus-status";
/// [`VmiStatus::fs_freeze_status`] while the guest's file systems stand still.
pub const FS_FROZEN: &str = "frozen";
/// [`VmiStatus::migration_method`] with disks that both nodes reach.
pub const LIVE_MIGRATION: &str = "LiveMigration";
/// [`VmiStatus::migration_method`] with disks that must be copied.
pub const BLOCK_MIGRATION: &str = "BlockMigration";
/// [`VmiStatus::migration_transport`] over Unix sockets, the only one.
pub const MIGRATION_TRANSPORT_UNIX: &str = "Unix";
/// [`VmiStatus::selinux_context`] on nodes without SELinux.
pub const SELINUX_NONE: &str = "none";

/// How far plugging of a volume is.
pub mod volume_phase {
    /// The claim waits for its volume.
    pub const PENDING: &str = "Pending";
    /// The claim has its volume.
    pub const BOUND: &str = "Bound";
    /// A pod holds it on the node.
    pub const ATTACHED_TO_NODE: &str = "AttachedToNode";
    /// The launcher's pod sees it.
    pub const MOUNTED_TO_POD: &str = "MountedToPod";
    /// The guest has it.
    pub const READY: &str = "Ready";
    /// The guest gave it back.
    pub const DETACHING: &str = "Detaching";
    /// The launcher's pod sees it no longer.
    pub const UNMOUNTED_FROM_POD: &str = "UnMountedFromPod";
    /// A memory dump goes into it.
    pub const MEMORY_DUMP_IN_PROGRESS: &str = "MemoryDumpInProgress";
    /// A memory dump is in it.
    pub const MEMORY_DUMP_COMPLETED: &str = "MemoryDumpCompleted";
    /// A memory dump didn't succeed.
    pub const MEMORY_DUMP_FAILED: &str = "MemoryDumpFailed";
}

/// Why a volume is in its phase; also the reasons of the events that tell of it.
pub mod volume_reason {
    /// The guest has it.
    pub const READY: &str = "VolumeReady";
    /// The launcher's pod sees it.
    pub const MOUNTED_TO_POD: &str = "VolumeMountedToPod";
    /// The launcher's pod sees it no longer.
    pub const UNMOUNTED_FROM_POD: &str = "VolumeUnMountedFromPod";
    /// It is gone.
    pub const UNPLUGGED: &str = "VolumeUnplugged";
}

/// Where an instance is in its life.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum Phase {
    /// Just made.
    #[default]
    #[serde(rename = "")]
    Unset,
    /// Accepted; no pod yet.
    Pending,
    /// Its pod looks for a node.
    Scheduling,
    /// Its pod runs; the node agent takes over.
    Scheduled,
    /// Receives a machine from another cluster.
    WaitingForSync,
    /// The machine runs, or is paused.
    Running,
    /// The machine ended by itself or because it was asked to.
    Succeeded,
    /// The machine crashed, was killed or never came up.
    Failed,
    /// Nobody can tell, or a name that we don't know.
    #[serde(other)]
    Unknown,
}

impl Phase {
    /// Returns the name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unset => "",
            Self::Pending => "Pending",
            Self::Scheduling => "Scheduling",
            Self::Scheduled => "Scheduled",
            Self::WaitingForSync => "WaitingForSync",
            Self::Running => "Running",
            Self::Succeeded => "Succeeded",
            Self::Failed => "Failed",
            Self::Unknown => "Unknown",
        }
    }

    /// Whether the instance's life is over.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed)
    }
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Unset for Phase {
    fn is_unset(&self) -> bool {
        *self == Self::Unset
    }
}

impl InterfaceStatus {
    /// Whether `source` told of the interface.
    pub fn has_source(&self, source: &str) -> bool {
        self.info_source
            .split(INFO_SOURCE_SEPARATOR)
            .any(|known| known == source)
    }

    /// Notes that `source` told of the interface.
    pub fn add_source(&mut self, source: &str) {
        if self.has_source(source) {
            return;
        }
        if !self.info_source.is_empty() {
            self.info_source.push_str(INFO_SOURCE_SEPARATOR);
        }
        self.info_source.push_str(source);
    }
}

impl VmiStatus {
    /// Returns the condition of a kind ([`condition::kind`]).
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        condition::find(&self.conditions, kind)
    }

    /// Whether the condition of a kind is there and holds.
    pub fn is_true(&self, kind: &str) -> bool {
        condition::is_true(&self.conditions, kind)
    }

    /// Returns the status of a volume.
    pub fn volume(&self, name: &str) -> Option<&VolumeStatus> {
        self.volume_status.iter().find(|volume| volume.name == name)
    }

    /// Enters a phase at `now` (RFC 3339) and notes the time, once for each phase.
    ///
    /// Returns whether it is another phase than before.
    pub fn enter_phase(&mut self, phase: Phase, now: &str) -> bool {
        let changed = self.phase != phase;
        self.phase = phase;
        let noted = &mut self.phase_transition_timestamps;
        if changed && !noted.iter().any(|transition| transition.phase == phase) {
            noted.push(PhaseTransition {
                phase,
                phase_transition_timestamp: Some(now.to_owned()),
            });
        }
        changed
    }
}

#[cfg(test)]
mod tests;
