//! Where a node keeps everything: one folder.

use std::fs::{self, File};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use nix::unistd::Pid;

/// Where the state is unless the command line says: for root, and below the home of others.
const SYSTEM: &str = "/var/lib/ferrovirt";

/// Longest number of a process that is read, bytes.
const PID_LEN_MAX: u64 = 32;

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A file or folder of it cannot be made.
    #[error("state folder: {what} {}", path.display())]
    File {
        /// `make`, `open`, `read`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A node uses it.
    #[error(
        "a node runs in {} already (process {process}): stop it with `ferrovirt down --state-dir {}`, or choose another --state-dir",
        path.display(), path.display()
    )]
    InUse {
        /// The folder.
        path: PathBuf,
        /// The process.
        process: String,
    },
}

/// The folder of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    path: PathBuf,
}

/// The right to run a node in a folder; it ends with the process.
#[derive(Debug)]
pub struct Lock {
    _file: Flock<File>,
}

impl State {
    /// Returns the state in a folder, or where it is by default.
    #[must_use]
    pub fn new(path: Option<&Path>) -> Self {
        let path = path.map_or_else(default_path, Path::to_path_buf);
        let path = std::path::absolute(&path).unwrap_or(path);
        Self { path }
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What `kubectl --kubeconfig` takes.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.path.join("kubeconfig")
    }

    /// Objects of the API server.
    #[must_use]
    pub fn objects(&self) -> PathBuf {
        self.path.join("objects")
    }

    /// Certificates.
    #[must_use]
    pub fn certificates(&self) -> PathBuf {
        self.path.join("pki")
    }

    /// Images.
    #[must_use]
    pub fn images(&self) -> PathBuf {
        self.path.join("images")
    }

    /// Volumes of the built-in storage class.
    #[must_use]
    pub fn volumes(&self) -> PathBuf {
        self.path.join("volumes")
    }

    /// What a kubelet would have in `/var/lib/kubelet`.
    #[must_use]
    pub fn kubelet(&self) -> PathBuf {
        self.path.join("kubelet")
    }

    /// What the node agent shares with launchers, and what it keeps for itself.
    #[must_use]
    pub fn agent(&self, name: &str) -> PathBuf {
        self.path.join("agent").join(name)
    }

    /// Makes the folder, readable by its owner alone, and takes it for this process. Blocks.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be made, or a node runs in it.
    pub fn lock(&self) -> Result<Lock, StateError> {
        self.make()?;
        let path = self.pid_file();
        let opened = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o644)
            .open(&path);
        let file = opened.map_err(|source| self.failed("open", source))?;
        let mut process = String::new();
        let _unreadable = (&file).take(PID_LEN_MAX).read_to_string(&mut process);
        let locked = Flock::lock(file, FlockArg::LockExclusiveNonblock);
        let mut file = locked.map_err(|_| StateError::InUse {
            path: self.path.clone(),
            process: process.trim().to_owned(),
        })?;
        let written = file
            .set_len(0)
            .and_then(|()| file.rewind())
            .and_then(|()| writeln!(file, "{}", std::process::id()));
        written.map_err(|source| self.failed("write", source))?;
        Ok(Lock { _file: file })
    }

    /// Returns the process that runs a node in the folder.
    #[must_use]
    pub fn process(&self) -> Option<Pid> {
        let file = File::options()
            .read(true)
            .write(true)
            .open(self.pid_file())
            .ok()?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(_free) => None,
            Err((file, _)) => {
                let mut process = String::new();
                (&file)
                    .take(PID_LEN_MAX)
                    .read_to_string(&mut process)
                    .ok()?;
                process.trim().parse().ok().map(Pid::from_raw)
            }
        }
    }

    fn make(&self) -> Result<(), StateError> {
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(&self.path);
        let made =
            made.and_then(|()| fs::set_permissions(&self.path, fs::Permissions::from_mode(0o711)));
        made.map_err(|source| self.failed("make", source))
    }

    fn pid_file(&self) -> PathBuf {
        self.path.join("ferrovirt.pid")
    }

    fn failed(&self, what: &'static str, source: io::Error) -> StateError {
        StateError::File {
            what,
            path: self.path.clone(),
            source,
        }
    }
}

fn default_path() -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return SYSTEM.into();
    }
    let home = std::env::var_os("HOME").map(PathBuf::from);
    home.unwrap_or_else(|| "/tmp".into())
        .join(".local/share/ferrovirt")
}

#[cfg(test)]
mod tests {
    use super::{State, StateError};

    #[test]
    fn one_node_runs_in_a_folder() {
        let folder = tempfile::tempdir().unwrap();
        let state = State::new(Some(&folder.path().join("node")));
        assert_eq!(state.process(), None);
        let lock = state.lock().unwrap();
        let ours = i32::try_from(std::process::id()).unwrap();
        assert_eq!(state.process().map(nix::unistd::Pid::as_raw), Some(ours));
        let refused = state.lock().unwrap_err();
        assert!(
            matches!(&refused, StateError::InUse { process, .. } if *process == ours.to_string())
        );
        drop(lock);
        assert_eq!(state.process(), None);
        assert!(state.lock().is_ok());
    }
}
