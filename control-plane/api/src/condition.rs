//! Conditions of an instance and of the cluster's `KubeVirt` object: their form, names and reasons.

use serde::{Deserialize, Serialize};

use crate::object::{Unset, object};

object! {
    /// A statement about an object, with the time since which it holds.
    pub struct Condition {
        /// Which statement; one of [`kind`].
        #[serde(rename = "type")]
        pub kind: String,
        /// Whether it holds.
        pub status: ConditionStatus,
        /// Why, in one word; one of [`reason`].
        pub reason: String,
        /// Why, for people.
        pub message: String,
        /// When it was last looked at (RFC 3339).
        pub last_probe_time: Option<String>,
        /// When `status` last changed (RFC 3339).
        pub last_transition_time: Option<String>,
    }
}

/// Whether a condition holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It doesn't hold.
    False,
    /// Nobody can tell.
    #[default]
    #[serde(other)]
    Unknown,
}

/// The API server refuses a condition without a status.
impl Unset for ConditionStatus {
    fn is_unset(&self) -> bool {
        false
    }
}

impl From<bool> for ConditionStatus {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

impl Condition {
    /// Returns a condition that has the given status from `now` (RFC 3339) on.
    pub fn new(kind: &str, status: impl Into<ConditionStatus>, now: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            status: status.into(),
            last_probe_time: Some(now.to_owned()),
            last_transition_time: Some(now.to_owned()),
            ..Self::default()
        }
    }

    /// Returns the condition with its reason, for programs and for people.
    #[must_use]
    pub fn because(mut self, reason: &str, message: impl Into<String>) -> Self {
        reason.clone_into(&mut self.reason);
        self.message = message.into();
        self
    }

    /// Whether it holds.
    pub fn is_true(&self) -> bool {
        self.status == ConditionStatus::True
    }

    /// Whether both say the same, whenever they said it.
    pub fn says_the_same(&self, other: &Self) -> bool {
        (&self.kind, self.status, &self.reason, &self.message)
            == (&other.kind, other.status, &other.reason, &other.message)
    }
}

/// Returns the condition of a kind.
pub fn find<'c>(conditions: &'c [Condition], kind: &str) -> Option<&'c Condition> {
    conditions.iter().find(|condition| condition.kind == kind)
}

/// Whether the condition of a kind is there and holds.
pub fn is_true(conditions: &[Condition], kind: &str) -> bool {
    find(conditions, kind).is_some_and(Condition::is_true)
}

/// Puts a condition in the place of the one of its kind, or at the end.
///
/// One that says the same stays as it is, times included; one that differs in the reason only keeps
/// its transition time.
pub fn set(conditions: &mut Vec<Condition>, mut new: Condition) {
    let Some(old) = conditions.iter_mut().find(|old| old.kind == new.kind) else {
        return conditions.push(new);
    };
    if old.says_the_same(&new) {
        return;
    }
    if old.status == new.status && old.last_transition_time.is_some() {
        new.last_transition_time = old.last_transition_time.take();
    }
    *old = new;
}

/// Removes the condition of a kind.
pub fn remove(conditions: &mut Vec<Condition>, kind: &str) {
    conditions.retain(|condition| condition.kind != kind);
}

/// Kinds of conditions of an instance.
pub mod kind {
    /// The launcher's pod is ready and the guest runs.
    pub const READY: &str = "Ready";
    /// The launcher's pod has a node.
    pub const POD_SCHEDULED: &str = "PodScheduled";
    /// Volumes are being made.
    pub const PROVISIONING: &str = "Provisioning";
    /// All data volumes are filled.
    pub const DATA_VOLUMES_READY: &str = "DataVolumesReady";
    /// The machine is as the specification wants it.
    pub const SYNCHRONIZED: &str = "Synchronized";
    /// The guest's processors are stopped.
    pub const PAUSED: &str = "Paused";
    /// The guest agent answers.
    pub const AGENT_CONNECTED: &str = "AgentConnected";
    /// The guest agent lacks commands that we use.
    pub const AGENT_VERSION_NOT_SUPPORTED: &str = "AgentVersionNotSupported";
    /// The guest has the keys and passwords of the specification.
    pub const ACCESS_CREDENTIALS_SYNCHRONIZED: &str = "AccessCredentialsSynchronized";
    /// The machine can move to another node.
    pub const LIVE_MIGRATABLE: &str = "LiveMigratable";
    /// The machine can move to other volumes.
    pub const STORAGE_LIVE_MIGRATABLE: &str = "StorageLiveMigratable";
    /// The machine must move to take over a change.
    pub const MIGRATION_REQUIRED: &str = "MigrationRequired";
    /// Somebody asked for the pod's eviction.
    pub const EVICTION_REQUESTED: &str = "EvictionRequested";
    /// Processors are being plugged.
    pub const HOT_VCPU_CHANGE: &str = "HotVCPUChange";
    /// Memory is being plugged.
    pub const HOT_MEMORY_CHANGE: &str = "HotMemoryChange";
    /// Volumes are being exchanged.
    pub const VOLUMES_CHANGE: &str = "VolumesChange";
    /// The processors are emulated in software.
    pub const SOFTWARE_EMULATION: &str = "SoftwareEmulation";
}

/// Reasons of conditions of an instance.
pub mod reason {
    /// `Ready`: the pod goes away.
    pub const POD_TERMINATING: &str = "PodTerminating";
    /// `Ready`: there is no pod.
    pub const POD_NOT_EXISTS: &str = "PodNotExists";
    /// `Ready`: the pod doesn't say.
    pub const POD_CONDITION_MISSING: &str = "PodConditionMissing";
    /// `Ready`: the pod is there, the guest isn't.
    pub const GUEST_NOT_RUNNING: &str = "GuestNotRunning";
    /// `Paused`: somebody asked for it.
    pub const PAUSED_BY_USER: &str = "PausedByUser";
    /// `Paused`: a disk failed.
    pub const PAUSED_IO_ERROR: &str = "PausedIOError";
    /// `Paused`: a migration had to stop the guest.
    pub const PAUSED_BY_MIGRATION_MONITOR: &str = "PausedByMigrationMonitor";
    /// `SoftwareEmulation`: the node's hardware virtualisation is absent or unfit. (Ours.)
    pub const KVM_UNUSABLE: &str = "KvmUnusable";
    /// `SoftwareEmulation`: the cluster or the user wants it. (Ours.)
    pub const EMULATION_REQUESTED: &str = "EmulationRequested";
    /// `SoftwareEmulation`: the guest is of another architecture than the node.
    pub const CROSS_ARCHITECTURE_EMULATION: &str = "CrossArchitectureEmulation";
    /// `Synchronized`: the machine refused.
    pub const SYNCHRONIZING_FAILED: &str = "Synchronizing with the Domain failed.";
    /// Failed instance: its node doesn't give signs of life.
    pub const NODE_UNRESPONSIVE: &str = "NodeUnresponsive";
    /// `DataVolumesReady`: all of them are.
    pub const ALL_DVS_READY: &str = "AllDVsReady";
    /// `DataVolumesReady`: some aren't.
    pub const NOT_ALL_DVS_READY: &str = "NotAllDVsReady";
    /// `EvictionRequested`: somebody asked.
    pub const EVICTION_REQUESTED: &str = "EvictionRequested";
    /// `LiveMigratable`: several things, or none of those below; the message tells.
    pub const NOT_MIGRATABLE: &str = "NotMigratable";
    /// `LiveMigratable`: disks that only this node has.
    pub const DISKS_NOT_MIGRATABLE: &str = "DisksNotLiveMigratable";
    /// `LiveMigratable`: interfaces that stay with their pod.
    pub const INTERFACE_NOT_MIGRATABLE: &str = "InterfaceNotLiveMigratable";
    /// `LiveMigratable`: volumes plugged in the meantime.
    pub const HOTPLUG_NOT_MIGRATABLE: &str = "HotplugNotLiveMigratable";
    /// `LiveMigratable`: processors as the host has them. (The word is upstream's.)
    pub const CPU_MODE_NOT_MIGRATABLE: &str = "CPUModeLiveMigratable";
    /// `LiveMigratable`: shared file systems.
    pub const VIRTIOFS_NOT_MIGRATABLE: &str = "VirtIOFSNotLiveMigratable";
    /// `LiveMigratable`: devices of the host.
    pub const HOST_DEVICE_NOT_MIGRATABLE: &str = "HostDeviceNotLiveMigratable";
    /// `LiveMigratable`: memory encrypted by SEV.
    pub const SEV_NOT_MIGRATABLE: &str = "SEVNotLiveMigratable";
    /// `LiveMigratable`: memory encrypted by TDX.
    pub const TDX_NOT_MIGRATABLE: &str = "TDXNotLiveMigratable";
    /// `LiveMigratable`: memory encrypted by Secure Execution.
    pub const SECURE_EXECUTION_NOT_MIGRATABLE: &str = "SecureExecutionNotLiveMigratable";
    /// `LiveMigratable`: a clock that needs a TSC frequency the node doesn't tell.
    pub const NO_TSC_FREQUENCY_NOT_MIGRATABLE: &str = "NoTSCFrequencyNotLiveMigratable";
    /// `LiveMigratable`: enlightenments as the host has them.
    pub const HYPERV_PASSTHROUGH_NOT_MIGRATABLE: &str = "HypervPassthroughNotLiveMigratable";
    /// `LiveMigratable`: persistent reservations of a SCSI unit.
    pub const PERSISTENT_RESERVATION_NOT_MIGRATABLE: &str =
        "PersistentReservationNotLiveMigratable";
}

/// Messages of conditions of an instance.
pub mod message {
    /// With [`PAUSED_BY_USER`](super::reason::PAUSED_BY_USER).
    pub const PAUSED_BY_USER: &str = "VMI was paused by user";
    /// With [`PAUSED_IO_ERROR`](super::reason::PAUSED_IO_ERROR).
    pub const PAUSED_IO_ERROR: &str = "VMI was paused, low-level IO error detected";
    /// With [`PAUSED_BY_MIGRATION_MONITOR`](super::reason::PAUSED_BY_MIGRATION_MONITOR).
    pub const PAUSED_BY_MIGRATION_MONITOR: &str = "VMI was paused by the migration monitor";
    /// With [`GUEST_NOT_RUNNING`](super::reason::GUEST_NOT_RUNNING).
    pub const GUEST_NOT_RUNNING: &str = "Guest VM is not reported as running";
}

#[cfg(test)]
mod tests;
