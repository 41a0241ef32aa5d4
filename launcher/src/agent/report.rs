//! What the guest agent tells of its guest.

use std::sync::Arc;
use std::time::Duration;

use super::AgentError;

/// What is known of a guest through its agent. Lists are empty and options `None` until the agent has answered; what was
/// known stays while the agent is away.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AgentReport {
    /// Whether an agent answers.
    pub connected: bool,
    /// The agent's version (`guest-info`).
    pub version: Option<String>,
    /// The agent's commands (`guest-info`).
    pub supported_commands: Vec<AgentCommand>,
    /// The operating system (`guest-get-osinfo`).
    pub os: Option<OsInfo>,
    /// The host name (`guest-get-host-name`).
    pub hostname: Option<String>,
    /// The time zone (`guest-get-timezone`).
    pub timezone: Option<Timezone>,
    /// Who is logged in (`guest-get-users`).
    pub users: Vec<User>,
    /// Mounted file systems (`guest-get-fsinfo`).
    pub filesystems: Vec<Filesystem>,
    /// Network interfaces (`guest-network-get-interfaces`).
    pub interfaces: Vec<Interface>,
    /// Whether file systems are frozen (`guest-fsfreeze-status`).
    pub fs_freeze: Option<FreezeStatus>,
    /// Load averages over 1, 5 and 15 minutes (`guest-get-load`).
    pub load: Option<[f64; 3]>,
    /// Processors that are on line (`guest-get-vcpus`).
    pub vcpus_online: Option<u32>,
}

impl AgentReport {
    pub(super) fn is_frozen(&self) -> bool {
        self.fs_freeze == Some(FreezeStatus::Frozen)
    }

    /// Returns whether the agent offers a command, which is not known before its `guest-info` answer.
    pub fn offers(&self, command: &str) -> bool {
        let mut commands = self.supported_commands.iter();
        commands.any(|known| known.enabled && known.name == command)
    }
}

/// An answer of the agent as the JSON text that it gave, cut to a sane length; `None` where the agent has no such command.
pub type Figure = Result<Option<Arc<str>>, Arc<AgentError>>;

/// A command of the agent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentCommand {
    /// Its name.
    pub name: String,
    /// Whether the guest's administrator lets us use it.
    pub enabled: bool,
}

/// A guest's operating system; strings are empty where the guest does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OsInfo {
    /// `ID` of os-release.
    pub id: String,
    /// `NAME` of os-release.
    pub name: String,
    /// `PRETTY_NAME` of os-release.
    pub pretty_name: String,
    /// `VERSION` of os-release.
    pub version: String,
    /// `VERSION_ID` of os-release.
    pub version_id: String,
    /// Hardware name, as `uname -m`.
    pub machine: String,
    /// Release of the kernel, as `uname -r`.
    pub kernel_release: String,
    /// Version of the kernel, as `uname -v`.
    pub kernel_version: String,
}

/// A guest's time zone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timezone {
    /// Its name, empty where the guest does not say.
    pub zone: String,
    /// Seconds east of UTC.
    pub offset_secs: i64,
}

/// Someone logged in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct User {
    /// Login name.
    pub name: String,
    /// Windows domain, empty elsewhere.
    pub domain: String,
    /// Seconds since the epoch.
    pub login_time_secs: f64,
}

/// A mounted file system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filesystem {
    /// Name of its device.
    pub name: String,
    /// Where it is mounted.
    pub mountpoint: String,
    /// Its type.
    pub kind: String,
    /// Bytes in use, where the guest says.
    pub used_bytes: Option<u64>,
    /// Bytes there are, where the guest says.
    pub total_bytes: Option<u64>,
    /// The disks it lies on.
    pub disks: Vec<FilesystemDisk>,
}

/// A disk below a file system.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FilesystemDisk {
    /// The disk's serial number, where it has one.
    pub serial: Option<String>,
    /// Its bus (`scsi`, `virtio`, …).
    pub bus: String,
    /// Its device node in the guest, where the guest says.
    pub device: Option<String>,
}

/// A network interface of the guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Interface {
    /// Its name in the guest.
    pub name: String,
    /// Its hardware address, where it has one.
    pub mac: Option<String>,
    /// Its addresses.
    pub addresses: Vec<Address>,
}

/// An address of an [`Interface`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Address {
    /// The address as text.
    pub ip: String,
    /// Whether it is of IPv6.
    pub is_ipv6: bool,
    /// Length of the network's prefix.
    pub prefix_len: u8,
}

/// Whether a guest's file systems take writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FreezeStatus {
    /// They do.
    Thawed,
    /// At least one does not.
    Frozen,
}

/// How a program in the guest ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOutcome {
    /// Its exit code; 128 and the signal's number for one that a signal ended.
    pub exit_code: i32,
    /// What it wrote to its standard output.
    pub stdout: Vec<u8>,
    /// What it wrote to its standard error.
    pub stderr: Vec<u8>,
    /// Whether the agent cut the output off.
    pub truncated: bool,
}

/// How a guest is to stop ([`super::Agent::shutdown`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Switch off.
    PowerDown,
    /// Start again.
    Reboot,
}

/// How often the agent is asked, at most; questions that fall due close together are asked together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intervals {
    /// Operating system, host name, time zone, interfaces, load, processors.
    pub sys: Duration,
    /// File systems.
    pub filesystem: Duration,
    /// Users.
    pub users: Duration,
    /// The agent's version and commands.
    pub version: Duration,
    /// The freeze status, while something is frozen; otherwise it is asked with the users.
    pub fsfreeze: Duration,
}

impl Default for Intervals {
    /// Upstream's: 120 s, 300 s, 10 s, 300 s, 5 s.
    fn default() -> Self {
        Self {
            sys: Duration::from_secs(120),
            filesystem: Duration::from_secs(300),
            users: Duration::from_secs(10),
            version: Duration::from_secs(300),
            fsfreeze: Duration::from_secs(5),
        }
    }
}
