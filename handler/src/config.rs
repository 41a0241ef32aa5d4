//! Where the handler finds what it works with, and how patient it is.

use std::path::PathBuf;
use std::time::Duration;

/// Folders of the host as the handler sees them. In its pod `proc_dir` is the host's `/proc` and the host's root is
/// reached through it; tests give folders of their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPaths {
    /// Folder of the kubelet's pods, one folder per pod uid. Mounted short (`/pods`) because a socket's path may have no
    /// more than 108 bytes.
    pub pods_dir: PathBuf,
    /// Folder that the handler shares with other components of the node: the notify socket.
    pub share_dir: PathBuf,
    /// The handler's own records: ghost records, mount states.
    pub private_dir: PathBuf,
    /// Process file system that shows the launchers' processes.
    pub proc_dir: PathBuf,
    /// Where control groups are mounted.
    pub cgroup_dir: PathBuf,
    /// Root of the kubelet's folder (`cpu_manager_state`, device plugins).
    pub kubelet_dir: PathBuf,
    /// `sysfs` of the host.
    pub sys_dir: PathBuf,
    /// What is `/dev` for the host.
    pub dev_dir: PathBuf,
}

impl Default for HostPaths {
    fn default() -> Self {
        Self {
            pods_dir: "/pods".into(),
            share_dir: "/var/run/kubevirt".into(),
            private_dir: "/var/run/kubevirt-private".into(),
            proc_dir: "/proc".into(),
            cgroup_dir: "/sys/fs/cgroup".into(),
            kubelet_dir: "/var/lib/kubelet".into(),
            sys_dir: "/sys".into(),
            dev_dir: "/dev".into(),
        }
    }
}

/// How patient the handler is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// After this long without an answer a launcher is given up.
    pub watchdog: Duration,
    /// Every domain is asked for at least this often.
    pub resync: Duration,
    /// After this long without a socket a scheduled instance is given up.
    pub launcher_start: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            watchdog: Duration::from_secs(30),
            resync: Duration::from_secs(300),
            launcher_start: Duration::from_secs(180),
        }
    }
}
