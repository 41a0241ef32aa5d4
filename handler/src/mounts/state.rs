//! What was mounted for an instance, on disk: a handler that starts anew, ours or upstream's, undoes it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::config::HostPaths;
use crate::pod_files::is_uid;

/// Bytes of the longest record: hundreds of paths.
const LEN_MAX_BYTES: u64 = 1 << 20;

/// Returns the folder of the records.
pub(crate) fn folder(paths: &HostPaths) -> PathBuf {
    paths.private_dir.join("container-disk-mount-state")
}

/// A record. The names are upstream's, whose handlers may have written it or may read it next; so other fields are
/// tolerated.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct State {
    /// What was mounted, or was about to be.
    #[serde(rename = "mountTargetEntries", default)]
    pub(crate) entries: Vec<Entry>,
    /// Whether the paths are whole (upstream has written others).
    #[serde(rename = "usesSafePaths", default)]
    uses_safe_paths: bool,
    /// Checksums that are known. Upstream does not keep them.
    #[serde(default)]
    pub(super) checksums: BTreeMap<String, u32>,
}

/// A mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Where it is on the host.
    #[serde(rename = "targetFile")]
    pub(crate) target: PathBuf,
    /// The socket of the container whose file it is.
    #[serde(rename = "socketFile", default)]
    socket: PathBuf,
}

impl State {
    /// Reads the record of an instance; an empty one when there is none.
    pub(crate) fn read(paths: &HostPaths, uid: &str) -> io::Result<Self> {
        let content = match content(&path(paths, uid)?) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            read => read?,
        };
        Ok(serde_json::from_slice(&content)?)
    }

    /// Remembers a mount that is about to be made; returns whether it was not remembered yet.
    pub(super) fn add(&mut self, target: PathBuf, socket: PathBuf) -> bool {
        self.uses_safe_paths = true;
        let is_new = self.entries.iter().all(|entry| entry.target != target);
        if is_new {
            self.entries.push(Entry { target, socket });
        }
        is_new
    }

    /// Writes the record; once this returns, a crash of the node does not forget it.
    pub(super) fn write(&self, paths: &HostPaths, uid: &str) -> io::Result<()> {
        let (folder, path) = (folder(paths), path(paths, uid)?);
        fs::create_dir_all(&folder)?;
        let mut file = NamedTempFile::new_in(&folder)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.as_file().sync_all()?;
        file.persist(path)?;
        File::open(folder)?.sync_all()
    }
}

/// Removes the record of an instance, if there is one.
pub(super) fn remove(paths: &HostPaths, uid: &str) -> io::Result<()> {
    match fs::remove_file(path(paths, uid)?) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Returns where the record of an instance is.
pub(super) fn path(paths: &HostPaths, uid: &str) -> io::Result<PathBuf> {
    is_uid(uid)
        .then(|| folder(paths).join(uid))
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the uid is no name for a file"))
}

fn content(path: &Path) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let file = File::open(path)?;
    file.take(LEN_MAX_BYTES).read_to_end(&mut content)?;
    Ok(content)
}
