//! The launcher's files: where they lie, and that they go when the machine does.

use std::fs::{self, File, TryLockError};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use api::{Vmi, paths};

use crate::pod::PodPaths;

/// Longest path of a Unix socket (sun_path without its end).
const MAX_SOCKET_PATH_LEN: usize = 107;

/// Where one instance's files lie: in the folders of a launcher's pod, or below a folder that stands for
/// the pod's `/var/run`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    private_dir: PathBuf,
    ephemeral_disk_dir: PathBuf,
    empty_disk_dir: PathBuf,
    namespace: String,
    name: String,
    uid: String,
}

impl Layout {
    /// Returns the places of an instance below `root`. Its name and namespace must have been checked.
    pub fn new(root: &Path, vmi: &Vmi) -> Self {
        let private_dir = root.join(paths::PRIVATE_DIR);
        let ephemeral_disk_dir = root.join(paths::EPHEMERAL_DISK_DIR);
        let empty_disk_dir = root.join(paths::EMPTY_DISK_DIR);
        Self::of(vmi, private_dir, ephemeral_disk_dir, empty_disk_dir)
    }

    /// Returns the places of an instance in a pod. Its name and namespace must have been checked.
    pub fn in_pod(paths: &PodPaths, vmi: &Vmi) -> Self {
        let empty_disk_dir = paths.libvirt_dir.join("empty-disks");
        let private_dir = paths.private_dir.clone();
        Self::of(
            vmi,
            private_dir,
            paths.ephemeral_disk_dir.clone(),
            empty_disk_dir,
        )
    }

    fn of(
        vmi: &Vmi,
        private_dir: PathBuf,
        ephemeral_disk_dir: PathBuf,
        empty_disk_dir: PathBuf,
    ) -> Self {
        Self {
            private_dir,
            ephemeral_disk_dir,
            empty_disk_dir,
            namespace: vmi.metadata.namespace_or_default().to_owned(),
            name: vmi.metadata.name.clone(),
            uid: vmi.metadata.uid.clone(),
        }
    }

    /// Folder of the console sockets.
    pub fn console_dir(&self) -> PathBuf {
        self.private_dir.join(&self.uid)
    }

    /// Socket of the first serial port.
    pub fn serial_socket(&self) -> PathBuf {
        self.console_dir().join(paths::SERIAL_SOCKET)
    }

    /// Socket of the guest agent's port.
    pub fn agent_socket(&self) -> PathBuf {
        self.console_dir().join("virt-agent0")
    }

    /// The guest's writes over a volume that stays unchanged.
    pub fn overlay(&self, volume: &str) -> PathBuf {
        self.ephemeral_disk_dir
            .join("disk-data")
            .join(volume)
            .join("disk.qcow2")
    }

    /// An empty disk.
    pub fn empty_disk(&self, volume: &str) -> PathBuf {
        self.empty_disk_dir.join(format!("{volume}.qcow2"))
    }

    /// The image with cloud-init's data, `noCloud.iso` or `configdrive.iso`.
    pub fn cloud_init_image(&self, file_name: &str) -> PathBuf {
        self.ephemeral_disk_dir
            .join("cloud-init-data")
            .join(&self.namespace)
            .join(&self.name)
            .join(file_name)
    }

    /// The image of a config map, secret or the like; `kind` as in `config-map-disks`.
    pub fn object_image(&self, kind: &str, volume: &str) -> PathBuf {
        self.private_dir.join(kind).join(format!("{volume}.iso"))
    }

    /// The disk with metrics of the host.
    pub fn metrics_disk(&self) -> PathBuf {
        self.private_dir.join("downwardmetric-disk/vhostmd0")
    }
}

/// Why there is no folder for the launcher's files.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// The folder cannot be made or opened.
    #[error("use the state folder {}: give another --state-dir", path.display())]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// Another launcher has it.
    #[error("the state folder {} is in use by another virt-launcher: give another --state-dir", .0.display())]
    InUse(PathBuf),
    /// Sockets below it would have names that no socket can have.
    #[error("the state folder's path {} is too long for sockets: give a shorter --state-dir", .0.display())]
    TooLong(PathBuf),
}

/// A folder for one launcher's files. What the launcher registered is removed on drop, and all of it
/// when the folder was its own.
#[derive(Debug)]
pub struct StateDir {
    root: PathBuf,
    registered: Vec<PathBuf>,
    /// Files that go unless the machine starts.
    provisional: Vec<PathBuf>,
    /// Held for its lock; the folders of a pod serve one launcher anyway.
    lock: Option<File>,
    /// Held for its removal.
    _private: Option<tempfile::TempDir>,
}

impl StateDir {
    /// Takes a given folder, or makes a private temporary one.
    ///
    /// # Errors
    ///
    /// Fails when the folder cannot be made or another launcher has it.
    pub fn acquire(given: Option<&Path>) -> Result<Self, StateDirError> {
        let (root, private) = match given {
            Some(path) => {
                let unusable = |source| StateDirError::Unusable {
                    path: path.to_owned(),
                    source,
                };
                fs::create_dir_all(path).map_err(unusable)?;
                (std::path::absolute(path).map_err(unusable)?, None)
            }
            None => {
                let made = tempfile::Builder::new().prefix("virt-launcher-").tempdir();
                let path = std::env::temp_dir();
                let dir = made.map_err(|source| StateDirError::Unusable { path, source })?;
                (dir.path().to_owned(), Some(dir))
            }
        };
        let unusable = |source| StateDirError::Unusable {
            path: root.clone(),
            source,
        };
        let lock = File::create(root.join("launcher.lock")).map_err(unusable)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StateDirError::InUse(root)),
            Err(TryLockError::Error(source)) => return Err(unusable(source)),
        }
        Ok(Self {
            root,
            registered: Vec::new(),
            provisional: Vec::new(),
            lock: Some(lock),
            _private: private,
        })
    }

    /// Takes the folders of a pod, which are this launcher's alone.
    pub fn in_pod(paths: &PodPaths) -> Self {
        Self {
            root: paths.private_dir.clone(),
            registered: Vec::new(),
            provisional: Vec::new(),
            lock: None,
            _private: None,
        }
    }

    /// Returns the folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Makes way for a file of this launcher's: its folder is made, a file left over from an earlier
    /// run is removed, and the file itself goes on drop.
    ///
    /// # Errors
    ///
    /// Fails when the host refuses.
    pub fn claim(&mut self, path: &Path) -> Result<(), StateDirError> {
        let unusable = |source| StateDirError::Unusable {
            path: path.to_owned(),
            source,
        };
        if let Some(parent) = path.parent() {
            // Consoles and secrets are the owner's alone.
            let mut builder = fs::DirBuilder::new();
            builder.recursive(true).mode(0o700);
            builder.create(parent).map_err(unusable)?;
        }
        remove(path).map_err(unusable)?;
        if !self.registered.iter().any(|known| known == path) {
            self.registered.push(path.to_owned());
        }
        Ok(())
    }

    /// As [`claim`](Self::claim), for a socket, whose path is bounded.
    ///
    /// # Errors
    ///
    /// Fails when the path is too long or the host refuses.
    pub fn claim_socket(&mut self, path: &Path) -> Result<(), StateDirError> {
        if path.as_os_str().len() > MAX_SOCKET_PATH_LEN {
            return Err(StateDirError::TooLong(self.root.clone()));
        }
        self.claim(path)
    }

    /// Has a file removed on drop unless the machine starts.
    pub fn provisional(&mut self, path: PathBuf) {
        self.provisional.push(path);
    }

    /// Lets provisional files stay: the machine runs.
    pub fn started(&mut self) {
        self.provisional.clear();
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        for path in self.registered.drain(..).chain(self.provisional.drain(..)) {
            if let Err(error) = remove(&path) {
                tracing::warn!(path = %path.display(), %error, "a file of this machine could not be removed");
            }
        }
        if self.lock.is_some() {
            let _gone = remove(&self.root.join("launcher.lock"));
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::{Layout, StateDir, StateDirError};
    use crate::pod::PodPaths;

    #[test]
    fn a_pod_has_its_consoles_where_the_node_agent_looks() {
        let (mut vmi, paths) = (api::Vmi::default(), PodPaths::default());
        vmi.metadata.uid = "1-2".to_owned();
        let layout = Layout::in_pod(&paths, &vmi);
        assert_eq!(layout.serial_socket(), paths.serial_socket("1-2"));
        assert_eq!(
            layout.agent_socket().parent(),
            Some(&*paths.console_dir("1-2"))
        );
    }

    #[test]
    fn a_pod_keeps_what_is_not_its_launchers() {
        let dir = tempfile::tempdir().unwrap();
        let paths = PodPaths {
            private_dir: dir.path().join("private"),
            ..PodPaths::default()
        };
        let mut state = StateDir::in_pod(&paths);
        let (claimed, kept) = (paths.private_dir.join("a"), paths.private_dir.join("b"));
        state.claim(&claimed).unwrap();
        // A second attempt claims it again, and it goes once.
        state.claim(&claimed).unwrap();
        for path in [&claimed, &kept] {
            fs::write(path, b"new").unwrap();
        }
        drop(state);
        assert!(!claimed.exists() && kept.exists());
    }

    #[test]
    fn a_private_folder_goes_with_its_owner() {
        let state = StateDir::acquire(None).unwrap();
        let root = state.root().to_owned();
        fs::write(root.join("x"), b"x").unwrap();
        drop(state);
        assert!(!root.exists());
    }

    #[test]
    fn claimed_files_go_and_others_stay() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = StateDir::acquire(Some(dir.path())).unwrap();
        let (claimed, kept) = (dir.path().join("a/claimed"), dir.path().join("kept"));
        fs::create_dir_all(claimed.parent().unwrap()).unwrap();
        fs::write(&claimed, b"stale").unwrap();
        state.claim(&claimed).unwrap();
        assert!(!claimed.exists());
        let secret = dir.path().join("b/secret");
        state.claim(&secret).unwrap();
        let folder = fs::metadata(dir.path().join("b")).unwrap();
        assert_eq!(folder.permissions().mode() & 0o077, 0);
        for path in [&claimed, &kept] {
            fs::write(path, b"new").unwrap();
        }
        state.provisional(kept.clone());
        state.started();
        drop(state);
        assert!(!claimed.exists() && kept.exists());
    }

    #[test]
    fn a_folder_serves_one_launcher() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::acquire(Some(dir.path())).unwrap();
        assert!(matches!(
            StateDir::acquire(Some(dir.path())),
            Err(StateDirError::InUse(_))
        ));
        drop(state);
        assert!(StateDir::acquire(Some(dir.path())).is_ok());
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut state = StateDir::acquire(Some(dir.path())).unwrap();
        let long = dir.path().join("x".repeat(100));
        assert!(matches!(
            state.claim_socket(&long),
            Err(StateDirError::TooLong(_))
        ));
    }
}
