//! Where things lie in the pod of a launcher, and the folders that must be there before it serves.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use api::paths;

/// Longest path of a Unix socket (`sun_path` without its end).
const MAX_SOCKET_PATH_LEN: usize = 107;
/// Sockets of containers that hold disk images, by the end of their names.
const SOCKET_EXTENSION: &str = "sock";

/// The folders of a launcher's pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodPaths {
    /// Sockets that the node agent uses.
    pub share_dir: PathBuf,
    /// Consoles, images made of config maps and secrets.
    pub private_dir: PathBuf,
    /// Overlays and cloud-init images.
    pub ephemeral_disk_dir: PathBuf,
    /// Images of container disks, mounted by the node agent.
    pub container_disk_dir: PathBuf,
    /// Volumes that come and go while the guest runs.
    pub hotplug_disk_dir: PathBuf,
    /// Empty disks.
    pub libvirt_dir: PathBuf,
    /// Images of container disks, mounted by the kubelet.
    pub image_volume_dir: PathBuf,
    /// Kernel image, mounted by the kubelet.
    pub kernel_boot_image_dir: PathBuf,
    /// Token and certificate of the pod's service account.
    pub service_account_dir: PathBuf,
}

impl Default for PodPaths {
    fn default() -> Self {
        let at = |path: &str| PathBuf::from(path);
        Self {
            share_dir: at("/var/run/kubevirt"),
            private_dir: at("/var/run/kubevirt-private"),
            ephemeral_disk_dir: at("/var/run/kubevirt-ephemeral-disks"),
            container_disk_dir: at("/var/run/kubevirt/container-disks"),
            hotplug_disk_dir: at("/var/run/kubevirt/hotplug-disks"),
            libvirt_dir: at("/var/run/libvirt"),
            image_volume_dir: at("/var/run/kubevirt-image-volume"),
            kernel_boot_image_dir: at("/var/run/kubevirt-kernel-boot"),
            service_account_dir: at("/var/run/secrets/kubernetes.io/serviceaccount"),
        }
    }
}

/// Why a pod cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PodError {
    /// A folder cannot be made.
    #[error("make the folder {}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// A socket would have a name that no socket can have.
    #[error("the path {} is too long for a socket: give a shorter folder", .0.display())]
    TooLong(PathBuf),
    /// An identity would lead out of its folder.
    #[error("metadata.uid: {0:?} is no uid: letters, digits and dashes only")]
    Uid(String),
}

impl PodPaths {
    /// Command socket of a launcher that is starting.
    pub fn init_command_socket(&self) -> PathBuf {
        self.share_dir.join("sockets/launcher-init-sock")
    }

    /// Command socket of a launcher that is ready.
    pub fn command_socket(&self) -> PathBuf {
        self.share_dir.join("sockets/launcher-sock")
    }

    /// Socket on which the node agent takes events.
    pub fn notify_socket(&self) -> PathBuf {
        self.share_dir.join("domain-notify-pipe.sock")
    }

    /// Folder of one instance's console sockets.
    pub fn console_dir(&self, uid: &str) -> PathBuf {
        self.private_dir.join(uid)
    }

    /// Socket of the first serial port.
    pub fn serial_socket(&self, uid: &str) -> PathBuf {
        self.console_dir(uid).join(paths::SERIAL_SOCKET)
    }

    /// What the guest said on its first serial port.
    pub fn serial_log(&self, uid: &str) -> PathBuf {
        self.console_dir(uid)
            .join(format!("{}-log", paths::SERIAL_SOCKET))
    }

    /// Makes every folder that the launcher writes to.
    ///
    /// # Errors
    ///
    /// Fails when the host refuses one, or a socket in one would have too long a path.
    pub fn make(&self) -> Result<(), PodError> {
        for path in [
            &self.share_dir.join("sockets"),
            &self.private_dir,
            &self.ephemeral_disk_dir,
            &self.container_disk_dir,
            &self.hotplug_disk_dir,
            &self.libvirt_dir,
        ] {
            make_folder(path)?;
        }
        check_socket(&self.init_command_socket())?;
        check_socket(&self.notify_socket())
    }

    /// Makes the folder of one instance's consoles.
    ///
    /// # Errors
    ///
    /// Fails when the uid is none, a socket would have too long a path, or the host refuses.
    pub fn make_console_dir(&self, uid: &str) -> Result<(), PodError> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
        if uid.is_empty() || !uid.bytes().all(is_plain) {
            return Err(PodError::Uid(uid.to_owned()));
        }
        check_socket(&self.serial_socket(uid))?;
        make_folder(&self.console_dir(uid))
    }

    /// Removes the sockets by which containers with disk images know that they are needed, in the
    /// folder and the folders in it.
    pub fn release_container_disks(&self) {
        for path in entries(&self.container_disk_dir) {
            if path.is_dir() {
                entries(&path).iter().for_each(|path| release(path));
            } else {
                release(&path);
            }
        }
    }
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn release(path: &Path) {
    if path.extension().is_some_and(|end| end == SOCKET_EXTENSION)
        && let Err(error) = fs::remove_file(path)
    {
        tracing::warn!(path = %path.display(), %error, "a container disk could not be released");
    }
}

fn make_folder(path: &Path) -> Result<(), PodError> {
    fs::create_dir_all(path).map_err(|source| PodError::Folder {
        path: path.to_owned(),
        source,
    })
}

fn check_socket(path: &Path) -> Result<(), PodError> {
    if path.as_os_str().len() > MAX_SOCKET_PATH_LEN {
        return Err(PodError::TooLong(path.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::{PodError, PodPaths};

    fn below(root: &Path) -> PodPaths {
        PodPaths {
            share_dir: root.join("share"),
            private_dir: root.join("private"),
            ephemeral_disk_dir: root.join("ephemeral"),
            container_disk_dir: root.join("share/container-disks"),
            hotplug_disk_dir: root.join("share/hotplug-disks"),
            libvirt_dir: root.join("libvirt"),
            ..PodPaths::default()
        }
    }

    #[test]
    fn folders_are_made_and_made_again() {
        let dir = tempfile::tempdir().unwrap();
        let paths = below(dir.path());
        paths.make().unwrap();
        paths.make().unwrap();
        assert!(paths.command_socket().parent().unwrap().is_dir());
        paths.make_console_dir("1-2").unwrap();
        assert!(paths.serial_log("1-2").parent().unwrap().is_dir());
    }

    #[test]
    fn a_uid_does_not_lead_out_of_the_folder() {
        let dir = tempfile::tempdir().unwrap();
        for uid in ["", "..", "a/b"] {
            assert!(matches!(
                below(dir.path()).make_console_dir(uid),
                Err(PodError::Uid(_))
            ));
        }
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let long = below(&dir.path().join("x".repeat(100)));
        assert!(matches!(long.make(), Err(PodError::TooLong(_))));
    }

    #[test]
    fn only_sockets_of_container_disks_go() {
        let dir = tempfile::tempdir().unwrap();
        let paths = below(dir.path());
        paths.release_container_disks();
        paths.make().unwrap();
        let at = |name: &str| paths.container_disk_dir.join(name);
        fs::create_dir(at("1-2")).unwrap();
        for name in ["disk_0.sock", "1-2/kernel-boot.sock", "disk_0.img"] {
            fs::write(at(name), b"").unwrap();
        }
        paths.release_container_disks();
        assert!(at("disk_0.img").exists());
        assert!(!at("disk_0.sock").exists() && !at("1-2/kernel-boot.sock").exists());
    }
}
