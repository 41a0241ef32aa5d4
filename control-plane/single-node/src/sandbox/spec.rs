//! What a container is, as its keeper reads it from the file `spec.json`.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::image::ImageRoot;

/// A container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// What its image is called for sure.
    pub image_id: String,
    /// Files of its root.
    pub root: ImageRoot,
    /// Whether its root cannot be written.
    pub is_root_read_only: bool,
    /// Namespaces of its pod; those absent are the host's.
    pub namespaces: Namespaces,
    /// Control group folders to join.
    pub cgroups: Vec<PathBuf>,
    /// Control group folder for the keeper.
    pub keeper_cgroup: Option<PathBuf>,
    /// File that counts how often the kernel killed for want of memory, in a line `oom_kill N`.
    pub oom_counter: Option<PathBuf>,
    /// What is mounted in its root, outer ones before those inside them.
    pub mounts: Vec<Mount>,
    /// Device nodes beside the usual ones.
    pub devices: Vec<Device>,
    /// The pod's shared memory, mounted at `/dev/shm`.
    pub shm: Option<PathBuf>,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Environment.
    pub env: Vec<(String, String)>,
    /// Working folder.
    pub workdir: String,
    /// Who runs it.
    pub user: UserSpec,
    /// Capabilities that the container's processes may ever have, as a mask (capabilities(7)).
    pub capabilities: u64,
    /// Capabilities among them that a user other than root has from the start.
    pub ambient_capabilities: u64,
    /// Whether programs give no rights beyond those of who runs them.
    pub no_new_privileges: bool,
    /// Whether nothing of the host is hidden or read-only.
    pub is_privileged: bool,
    /// Whether it has a terminal.
    pub has_terminal: bool,
    /// Where its output goes.
    pub log: PathBuf,
    /// How readily the kernel kills it for want of memory, -1000 to 1000.
    pub oom_score_adj: i32,
}

/// Files that hold namespaces open; `None` for the host's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespaces {
    /// Network.
    pub net: Option<PathBuf>,
    /// System V IPC and POSIX queues.
    pub ipc: Option<PathBuf>,
    /// Host name.
    pub uts: Option<PathBuf>,
    /// Whether processes see the host's processes.
    pub is_pid_host: bool,
}

/// A folder or file of the host in the container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// On the host.
    pub source: PathBuf,
    /// A path below the source that no link leads out of; made as a folder when absent.
    pub sub_path: Option<String>,
    /// In the container.
    pub target: String,
    /// Whether it cannot be written.
    pub is_read_only: bool,
    /// Whether what the host mounts there later appears in the container (`HostToContainer`).
    pub follows_host: bool,
}

/// A device node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// The node on the host.
    pub source: PathBuf,
    /// In the container.
    pub target: String,
    /// Letters `r`, `w`, `m`.
    pub permissions: String,
}

/// Who runs a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserSpec {
    /// `user[:group]` by name or number, as images have it; numbers of the pod take precedence.
    pub name: String,
    /// Number of the user.
    pub uid: Option<u32>,
    /// Number of the group.
    pub gid: Option<u32>,
    /// More groups.
    pub groups: Vec<u32>,
    /// Whether root is refused.
    pub must_not_be_root: bool,
}
