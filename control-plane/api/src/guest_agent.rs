//! What a guest agent tells, as the calls `GetGuestInfo`, `GetUsers` and `GetFilesystems` of a launcher
//! and the subresources `guestosinfo`, `userlist` and `filesystemlist` return it.

use serde::{Deserialize, Serialize};

use crate::access_credentials::AccessCredential;
use crate::manifest::API_VERSION;
use crate::object::{null_as_default, object};
use crate::status::GuestOsInfo;

/// Kind of [`GuestAgentInfo`].
pub const GUEST_AGENT_INFO_KIND: &str = "VirtualMachineInstanceGuestAgentInfo";
/// Kind of [`GuestUserList`].
pub const GUEST_USER_LIST_KIND: &str = "VirtualMachineInstanceGuestOSUserList";
/// Kind of [`FilesystemList`].
pub const FILESYSTEM_LIST_KIND: &str = "VirtualMachineInstanceFileSystemList";

/// Commands that every agent must have.
const BASIC_COMMANDS: &[&str] = &[
    "guest-ping",
    "guest-get-time",
    "guest-info",
    "guest-shutdown",
    "guest-network-get-interfaces",
    "guest-get-fsinfo",
    "guest-get-host-name",
    "guest-get-users",
    "guest-get-timezone",
    "guest-get-osinfo",
];
/// Commands that hand out public keys.
const KEY_COMMANDS: &[&str] = &[
    "guest-ssh-get-authorized-keys",
    "guest-ssh-add-authorized-keys",
    "guest-ssh-remove-authorized-keys",
];
/// Commands by which public keys are handed out where [`KEY_COMMANDS`] are lacking.
const FILE_COMMANDS: &[&str] = &[
    "guest-exec-status",
    "guest-exec",
    "guest-file-open",
    "guest-file-close",
    "guest-file-read",
    "guest-file-write",
];
/// Command that sets a password.
const PASSWORD_COMMAND: &str = "guest-set-user-password";

/// What an agent cannot do; as text, the reason of the condition `AgentVersionNotSupported`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AgentShortcoming {
    /// It lacks commands that every agent must have.
    #[error("This guest agent doesn't support required basic commands")]
    Basic,
    /// It cannot hand out public keys, which the instance asks for.
    #[error("This guest agent doesn't support required public key commands")]
    PublicKeys,
    /// It cannot set passwords, which the instance asks for.
    #[error("This guest agent doesn't support required password commands")]
    Passwords,
}

object! {
    /// All that a guest agent tells of its guest.
    pub struct GuestAgentInfo {
        /// Group and version, `kubevirt.io/v1`.
        pub api_version: String,
        /// [`GUEST_AGENT_INFO_KIND`].
        pub kind: String,
        /// Version of the agent.
        pub guest_agent_version: String,
        /// Commands of the agent.
        pub supported_commands: Vec<GuestAgentCommand>,
        /// Host name.
        pub hostname: String,
        /// Operating system.
        pub os: GuestOsInfo,
        /// Time zone, with its distance from UTC in seconds.
        pub timezone: String,
        /// Users that are logged in.
        pub user_list: Vec<GuestUser>,
        /// Mounted file systems.
        pub fs_info: FilesystemInfo,
        /// [`FS_FROZEN`](crate::status::FS_FROZEN) while file systems stand still on our request.
        pub fs_freeze_status: String,
    }

    /// A command of an agent.
    pub struct GuestAgentCommand {
        /// Name, `guest-exec`.
        pub name: String,
        /// Whether the agent carries it out.
        pub enabled: bool,
    }

    /// A user that is logged in.
    pub struct GuestUser {
        /// Name.
        pub user_name: String,
        /// Windows domain.
        pub domain: String,
        /// Earliest login, seconds since 1970.
        pub login_time: Option<f64>,
    }

    /// A mounted file system.
    pub struct Filesystem {
        /// Device in the guest.
        pub disk_name: String,
        /// Where it is mounted.
        pub mount_point: String,
        /// `ext4`, `NTFS` and the like.
        pub file_system_type: String,
        /// Bytes in use.
        pub used_bytes: i64,
        /// Bytes altogether.
        pub total_bytes: i64,
        /// Disks it lies on.
        pub disk: Vec<FilesystemDisk>,
    }

    /// A disk under a file system.
    pub struct FilesystemDisk {
        /// Serial number.
        pub serial: String,
        /// `virtio`, `scsi` and the like.
        pub bus_type: String,
    }

    /// `metadata` of a list.
    pub struct ListMeta {
        /// Version for optimistic concurrency.
        pub resource_version: String,
        /// Where the next part of the list begins.
        #[serde(rename = "continue")]
        pub continue_token: String,
        /// How many more there are.
        pub remaining_item_count: Option<i64>,
    }
}

/// File systems inside [`GuestAgentInfo`]; the list is written even when it is empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default)]
pub struct FilesystemInfo {
    /// Mounted file systems.
    #[serde(deserialize_with = "null_as_default")]
    pub disks: Vec<Filesystem>,
}

/// Clients walk through the list without asking whether it is there.
impl crate::object::Unset for FilesystemInfo {
    fn is_unset(&self) -> bool {
        false
    }
}

/// Users that are logged in; the list is written even when it is empty.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GuestUserList {
    /// Group and version, `kubevirt.io/v1`.
    #[serde(deserialize_with = "null_as_default")]
    pub api_version: String,
    /// [`GUEST_USER_LIST_KIND`].
    #[serde(deserialize_with = "null_as_default")]
    pub kind: String,
    /// Metadata of the list.
    #[serde(deserialize_with = "null_as_default")]
    pub metadata: ListMeta,
    /// The users.
    #[serde(deserialize_with = "null_as_default")]
    pub items: Vec<GuestUser>,
}

/// Mounted file systems; the list is written even when it is empty.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct FilesystemList {
    /// Group and version, `kubevirt.io/v1`.
    #[serde(deserialize_with = "null_as_default")]
    pub api_version: String,
    /// [`FILESYSTEM_LIST_KIND`].
    #[serde(deserialize_with = "null_as_default")]
    pub kind: String,
    /// Metadata of the list.
    #[serde(deserialize_with = "null_as_default")]
    pub metadata: ListMeta,
    /// The file systems.
    #[serde(deserialize_with = "null_as_default")]
    pub items: Vec<Filesystem>,
}

impl From<Vec<GuestUser>> for GuestUserList {
    fn from(items: Vec<GuestUser>) -> Self {
        Self {
            api_version: API_VERSION.to_owned(),
            kind: GUEST_USER_LIST_KIND.to_owned(),
            metadata: ListMeta::default(),
            items,
        }
    }
}

impl Default for GuestUserList {
    fn default() -> Self {
        Vec::new().into()
    }
}

impl From<Vec<Filesystem>> for FilesystemList {
    fn from(items: Vec<Filesystem>) -> Self {
        Self {
            api_version: API_VERSION.to_owned(),
            kind: FILESYSTEM_LIST_KIND.to_owned(),
            metadata: ListMeta::default(),
            items,
        }
    }
}

impl Default for FilesystemList {
    fn default() -> Self {
        Vec::new().into()
    }
}

impl GuestAgentInfo {
    /// Returns an object that says nothing but its kind.
    pub fn new() -> Self {
        Self {
            api_version: API_VERSION.to_owned(),
            kind: GUEST_AGENT_INFO_KIND.to_owned(),
            ..Self::default()
        }
    }

    /// Whether the agent carries out a command.
    pub fn supports(&self, command: &str) -> bool {
        let mut commands = self.supported_commands.iter();
        commands.any(|known| known.enabled && known.name == command)
    }

    /// Returns what the agent cannot do of what an instance with these credentials needs.
    pub fn shortcoming(&self, credentials: &[AccessCredential]) -> Option<AgentShortcoming> {
        let has_all = |commands: &[&str]| commands.iter().all(|command| self.supports(command));
        let by_agent = |credential: &AccessCredential| credential.goes_by_agent();
        let mut keys = credentials.iter().filter(|c| c.ssh_public_key.is_some());
        let mut passwords = credentials.iter().filter(|c| c.user_password.is_some());
        if !has_all(BASIC_COMMANDS) {
            Some(AgentShortcoming::Basic)
        } else if keys.any(by_agent) && !has_all(KEY_COMMANDS) && !has_all(FILE_COMMANDS) {
            Some(AgentShortcoming::PublicKeys)
        } else if passwords.any(by_agent) && !self.supports(PASSWORD_COMMAND) {
            Some(AgentShortcoming::Passwords)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests;
