//! What must outlive the handler: which launchers there are (ghost records, in upstream's format), and how a domain
//! ended whose end was already acknowledged.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use api::paths::{FINAL_DOMAINS_DIR_NAME, GHOST_RECORDS_DIR_NAME};
use proto::domain::Domain;
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use crate::config::HostPaths;
use crate::key::VmiKey;
use crate::pod_files::is_uid;

/// Bytes of the longest ghost record: two names, a UID and a path.
const RECORD_LEN_MAX_BYTES: u64 = 64 << 10;
/// Bytes of the longest final domain: a message, written anew.
const DOMAIN_LEN_MAX_BYTES: u64 = 16 << 20;

/// A ghost record on disk. The names are upstream's, whose handlers may have written it or may read it next; so other
/// fields are tolerated.
#[derive(Debug, Serialize, Deserialize)]
struct GhostFile {
    name: String,
    namespace: String,
    #[serde(rename = "socketFile")]
    socket_file: PathBuf,
    uid: String,
}

/// A launcher that was attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ghost {
    pub(super) key: VmiKey,
    pub(super) uid: String,
    pub(super) pod_uid: String,
}

/// The folders of the records.
#[derive(Clone, Debug)]
pub(super) struct Records {
    ghosts: PathBuf,
    finals: PathBuf,
}

impl Records {
    /// Makes the folders.
    pub(super) fn open(paths: &HostPaths) -> Result<Self, (PathBuf, io::Error)> {
        let records = Self {
            ghosts: paths.private_dir.join(GHOST_RECORDS_DIR_NAME),
            finals: paths.private_dir.join(FINAL_DOMAINS_DIR_NAME),
        };
        for folder in [&records.ghosts, &records.finals] {
            fs::create_dir_all(folder).map_err(|error| (folder.clone(), error))?;
        }
        Ok(records)
    }

    /// Returns where the ghost record of an instance is.
    pub(super) fn ghost_path(&self, uid: &str) -> PathBuf {
        self.ghosts.join(uid)
    }

    /// Remembers a launcher, and returns whether it has told already how its domain ended; once this returns, a crash
    /// of the node does not forget the launcher.
    pub(super) fn keep_ghost(&self, ghost: &Ghost, socket: &Path) -> io::Result<bool> {
        let is_known = read_ghost(&self.ghosts.join(&ghost.uid)).is_ok_and(|old| old == *ghost);
        if !is_known && is_uid(&ghost.uid) {
            // What was told in another pod has no meaning for this one.
            remove(&self.finals.join(&ghost.uid));
        }
        let file = GhostFile {
            name: ghost.key.name.clone(),
            namespace: ghost.key.namespace.clone(),
            socket_file: socket.to_owned(),
            uid: ghost.uid.clone(),
        };
        write(&self.ghosts, &ghost.uid, &serde_json::to_vec(&file)?)?;
        Ok(self.final_domain(&ghost.uid).is_some())
    }

    /// Remembers how a domain ended.
    pub(super) fn keep_final(&self, uid: &str, domain: &Domain) -> io::Result<()> {
        write(&self.finals, uid, &serde_json::to_vec(domain)?)
    }

    /// Returns how a domain ended, if its launcher had told.
    pub(super) fn final_domain(&self, uid: &str) -> Option<Domain> {
        let json = read(&self.finals.join(uid), DOMAIN_LEN_MAX_BYTES).ok()?;
        Domain::from_json(&json).ok().flatten()
    }

    /// Forgets all about the launcher of an instance.
    pub(super) fn forget(&self, uid: &str) {
        if !is_uid(uid) {
            return;
        }
        for path in [self.ghosts.join(uid), self.finals.join(uid)] {
            remove(&path);
        }
    }

    /// Returns the launchers on record. Files that are no records are told of and removed.
    pub(super) fn ghosts(&self) -> Result<Vec<Ghost>, (PathBuf, io::Error)> {
        let failed = |error| (self.ghosts.clone(), error);
        let mut ghosts = Vec::new();
        for entry in fs::read_dir(&self.ghosts).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            match read_ghost(&path) {
                Ok(ghost) => ghosts.push(ghost),
                Err(error) => {
                    tracing::warn!(path = %path.display(), %error, "record of a launcher makes no sense and is removed");
                    remove(&path);
                }
            }
        }
        Ok(ghosts)
    }
}

/// Returns the instances whose launchers are on record below a handler's own folder, by the uids of their pods. What
/// cannot be read is left out.
pub(crate) fn pods_on_record(private_dir: &Path) -> BTreeMap<String, VmiKey> {
    let entries = fs::read_dir(private_dir.join(GHOST_RECORDS_DIR_NAME));
    let found = entries.into_iter().flatten().flatten();
    found
        .filter_map(|entry| read_ghost(&entry.path()).ok())
        .map(|ghost| (ghost.pod_uid, ghost.key))
        .collect()
}

fn read_ghost(path: &Path) -> io::Result<Ghost> {
    let file: GhostFile = serde_json::from_slice(&read(path, RECORD_LEN_MAX_BYTES)?)?;
    let wrong = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    if !is_uid(&file.uid) || path.file_name() != Some(file.uid.as_ref()) {
        return Err(wrong("uid is not the name of the file"));
    }
    if file.name.is_empty() || file.namespace.is_empty() {
        return Err(wrong("name or namespace is empty"));
    }
    let pod_uid = pod_uid(&file.socket_file).ok_or_else(|| wrong("socketFile is not in a pod"))?;
    Ok(Ghost {
        key: VmiKey::new(file.namespace, file.name),
        pod_uid: pod_uid.to_owned(),
        uid: file.uid,
    })
}

/// Returns the pod of `…/<pod uid>/volumes/kubernetes.io~empty-dir/sockets/launcher-sock`.
fn pod_uid(socket: &Path) -> Option<&str> {
    let pod = socket.ancestors().nth(4)?;
    let rest = socket.strip_prefix(pod).ok()?;
    let is_command_socket =
        rest == Path::new("volumes/kubernetes.io~empty-dir/sockets/launcher-sock");
    let uid = pod.file_name()?.to_str()?;
    (is_command_socket && is_uid(uid)).then_some(uid)
}

fn read(path: &Path, len_max_bytes: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?
        .take(len_max_bytes)
        .read_to_end(&mut content)?;
    Ok(content)
}

/// Writes a file that is either whole or not there.
fn write(folder: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    if !is_uid(name) {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "uid is no name for a file",
        ));
    }
    let mut file = NamedTempFile::new_in(folder)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    file.persist(folder.join(name))?;
    File::open(folder)?.sync_all()
}

fn remove(path: &Path) {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(path = %path.display(), %error, "record of a launcher cannot be removed");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use proto::domain::Domain;

    use super::{Ghost, Records};
    use crate::config::HostPaths;
    use crate::key::VmiKey;

    fn ghost() -> Ghost {
        Ghost {
            key: VmiKey::new("default", "vm"),
            uid: "u-1".to_owned(),
            pod_uid: "p-1".to_owned(),
        }
    }

    fn records(folder: &Path) -> Records {
        let paths = HostPaths {
            private_dir: folder.to_owned(),
            ..HostPaths::default()
        };
        Records::open(&paths).unwrap()
    }

    const SOCKET: &str = "/pods/p-1/volumes/kubernetes.io~empty-dir/sockets/launcher-sock";

    #[test]
    fn a_record_has_the_names_of_upstream_and_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path());
        records.keep_ghost(&ghost(), Path::new(SOCKET)).unwrap();
        let json = fs::read_to_string(folder.path().join("ghost-records/u-1")).unwrap();
        let expected =
            format!(r#"{{"name":"vm","namespace":"default","socketFile":"{SOCKET}","uid":"u-1"}}"#);
        assert_eq!(json, expected);
        assert_eq!(records.ghosts().unwrap(), [ghost()]);
    }

    #[test]
    fn files_that_are_no_records_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path());
        let dir = folder.path().join("ghost-records");
        let elsewhere = r#"{"name":"vm","namespace":"a","socketFile":"/etc/x","uid":"u-2"}"#;
        fs::write(dir.join("u-1"), r#"{"name":"v"#).unwrap();
        fs::write(dir.join("u-2"), elsewhere).unwrap();
        fs::write(dir.join("u-3"), elsewhere).unwrap();
        assert_eq!(records.ghosts().unwrap(), []);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    }

    #[test]
    fn what_is_forgotten_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path());
        records.keep_ghost(&ghost(), Path::new(SOCKET)).unwrap();
        let domain = Domain::new("default", "vm", "u-1");
        records.keep_final("u-1", &domain).unwrap();
        assert_eq!(records.final_domain("u-1"), Some(domain));
        records.forget("u-1");
        assert_eq!(records.final_domain("u-1"), None);
        assert_eq!(records.ghosts().unwrap(), []);
    }

    #[test]
    fn an_end_in_another_pod_is_not_this_pods() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path());
        let socket = |pod: &str| SOCKET.replace("p-1", pod);
        assert!(
            !records
                .keep_ghost(&ghost(), socket("p-1").as_ref())
                .unwrap()
        );
        let domain = Domain::new("default", "vm", "u-1");
        records.keep_final("u-1", &domain).unwrap();
        assert!(
            records
                .keep_ghost(&ghost(), socket("p-1").as_ref())
                .unwrap()
        );
        let next = Ghost {
            pod_uid: "p-2".to_owned(),
            ..ghost()
        };
        assert!(!records.keep_ghost(&next, socket("p-2").as_ref()).unwrap());
        assert_eq!(records.final_domain("u-1"), None);
    }

    #[test]
    fn a_uid_is_no_path() {
        let folder = tempfile::tempdir().unwrap();
        let records = records(folder.path());
        let ghost = Ghost {
            uid: "../outside".to_owned(),
            ..ghost()
        };
        assert!(records.keep_ghost(&ghost, Path::new(SOCKET)).is_err());
        assert!(!folder.path().join("outside").exists());
    }
}
