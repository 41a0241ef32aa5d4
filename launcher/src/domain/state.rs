//! What the owner knows of the domain: plain facts, without a machine.

use api::Vmi;
use proto::domain::Devices;

use super::Stage;

/// Why a machine stands still.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Paused {
    /// Someone wanted it so.
    User,
    /// A disk's error policy did it.
    IoError,
}

/// How a machine has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The guest switched itself off.
    Shutdown,
    /// It was killed.
    Destroyed,
    /// It could not go on.
    Failed,
    /// Its guest's kernel panicked and did not start anew.
    Panicked,
}

/// What the machine is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Activity {
    Running,
    Paused(Paused),
    Ended(Ended),
}

/// A dump of the guest's memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Dump {
    /// Name of the file.
    pub(super) file_name: String,
    /// When it began (RFC 3339).
    pub(super) began: String,
    /// When it ended (RFC 3339).
    pub(super) ended: Option<String>,
    /// Why it failed, if it did.
    pub(super) failure: Option<String>,
}

/// A domain that has begun.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Facts {
    /// The instance as it was last asked for.
    pub(super) wanted: Box<Vmi>,
    /// The same with its defaults.
    pub(super) vmi: Vmi,
    /// SMBIOS UUID.
    pub(super) uuid: String,
    /// Whether KVM runs the machine.
    pub(super) is_kvm: bool,
    /// Guest memory, bytes.
    pub(super) memory_bytes: u64,
    /// Disks and channels, the channels disconnected.
    pub(super) devices: Devices,
    /// What the machine is doing.
    pub(super) activity: Activity,
    /// When it ended (RFC 3339).
    pub(super) ended_at: Option<String>,
    /// When the grace period began (RFC 3339).
    pub(super) shutdown_at: Option<String>,
    /// Whether the pod is to end.
    pub(super) marked_for_shutdown: bool,
    /// The last dump.
    pub(super) dump: Option<Dump>,
    /// Whether the guest got its credentials, and if not, why.
    pub(super) credentials: Option<Result<(), String>>,
    /// How often the guest's kernel panicked.
    pub(super) panics: u32,
    /// Whether the domain was deleted.
    pub(super) is_deleted: bool,
}

impl Facts {
    pub(super) fn stage(&self) -> Stage {
        match self.activity {
            _ if self.is_deleted => Stage::Deleted,
            Activity::Ended(_) => Stage::Ended,
            Activity::Running | Activity::Paused(_) => Stage::Alive,
        }
    }
}
