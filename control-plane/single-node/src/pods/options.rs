//! Where the runner of pods finds and leaves things, and how patient it is.

use std::path::{Path, PathBuf};
use std::time::Duration;

/// Which events are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventLevel {
    /// Those that tell of something wrong.
    Warnings,
    /// Also those that tell of containers that start and are stopped, two or more for each pod.
    All,
}

/// How long things take and are waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Wait before a container that ended twice is started again; it doubles each time.
    pub backoff: Duration,
    /// Longest such wait.
    pub backoff_max: Duration,
    /// A container that ran this long starts with the shortest wait again.
    pub backoff_reset: Duration,
    /// Wait before what is missing (a volume, an image) is looked for again.
    pub retry: Duration,
    /// A status that does not change for better within this time is told.
    pub telling: Duration,
    /// How often config maps and secrets in volumes are read again.
    pub refresh: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            backoff: Duration::from_secs(10),
            backoff_max: Duration::from_secs(300),
            backoff_reset: Duration::from_secs(600),
            retry: Duration::from_secs(2),
            telling: Duration::from_millis(700),
            refresh: Duration::from_secs(60),
        }
    }
}

/// Settings of the runner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Name of the node.
    pub node: String,
    /// Address of the host, told in pods' status.
    pub host_ip: Option<String>,
    /// Folder of everything that outlives this process. Short, as sockets in it have long names.
    pub state: PathBuf,
    /// This program.
    pub ferrovirt: PathBuf,
    /// The launcher of the built-in image.
    pub launcher: PathBuf,
    /// Control group that all of ours are in.
    pub cgroup_parent: String,
    /// Which events are written.
    pub events: EventLevel,
    /// Patience.
    pub timing: Timing,
}

impl Options {
    /// Returns settings for a node with its state in this folder.
    #[must_use]
    pub fn new(node: &str, state: &Path) -> Self {
        let own = std::env::current_exe().unwrap_or_else(|_| "/usr/bin/ferrovirt".into());
        Self {
            node: node.to_owned(),
            host_ip: None,
            state: state.to_owned(),
            // The file that runs now, though another build may have its name later.
            ferrovirt: "/proc/self/exe".into(),
            launcher: own.with_file_name("virt-launcher"),
            cgroup_parent: "ferrovirt".to_owned(),
            events: EventLevel::Warnings,
            timing: Timing::default(),
        }
    }

    /// The folder that a kubelet would have at `/var/lib/kubelet`.
    #[must_use]
    pub fn kubelet_dir(&self) -> PathBuf {
        self.state.join("kubelet")
    }

    /// The folders of pods, which the handler looks into.
    #[must_use]
    pub fn pods_dir(&self) -> PathBuf {
        self.kubelet_dir().join("pods")
    }

    /// Folder of a pod with its volumes.
    #[must_use]
    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.pods_dir().join(uid)
    }

    /// Folder of all sandboxes.
    #[must_use]
    pub fn sandboxes_dir(&self) -> PathBuf {
        self.state.join("sandboxes")
    }

    /// Folder of a pod's namespaces and containers.
    #[must_use]
    pub fn sandbox_dir(&self, uid: &str) -> PathBuf {
        self.sandboxes_dir().join(uid)
    }

    /// Folder of a run of a container; runs are numbered from 0.
    #[must_use]
    pub fn container_dir(&self, uid: &str, container: &str, run: u32) -> PathBuf {
        self.sandbox_dir(uid)
            .join("containers")
            .join(container)
            .join(run.to_string())
    }

    /// Folder of a pod's logs.
    #[must_use]
    pub fn log_dir(&self, namespace: &str, name: &str, uid: &str) -> PathBuf {
        self.state
            .join("logs")
            .join(format!("{namespace}_{name}_{uid}"))
    }
}

/// Longest name of an object.
const NAME_LEN_MAX_BYTES: usize = 253;

/// Whether a name that others gave is one component of a path, and no hidden file. Names of Kubernetes are.
#[must_use]
pub fn is_file_name(name: &str) -> bool {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let len = 1..=NAME_LEN_MAX_BYTES;
    len.contains(&name.len()) && !name.starts_with('.') && name.bytes().all(is_fine)
}

#[cfg(test)]
mod tests {
    use super::is_file_name;

    #[test]
    fn names_are_no_paths() {
        assert!(is_file_name("virt-launcher-vm.0_x"));
        let long = "n".repeat(254);
        for odd in [
            "",
            ".",
            "..",
            ".x",
            "a/b",
            "../x",
            "a b",
            "a\0",
            "\n",
            long.as_str(),
        ] {
            assert!(!is_file_name(odd), "{odd:?}");
        }
    }
}
