//! Looking at what there is on a node.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use api::paths::{
    COMMAND_SOCKET_NAME, FINAL_DOMAINS_DIR_NAME, GHOST_RECORDS_DIR_NAME, INIT_COMMAND_SOCKET_NAME,
    NOTIFY_SOCKET_NAME, PUBLIC_VOLUME, SOCKETS_VOLUME, UNRESPONSIVE_MARKER_NAME,
};
use rustix::fs::{AtFlags, OFlags, statat};
use serde::Deserialize;

use crate::config::HostPaths;
use crate::mounts::container::{Dialled, dial};
use crate::mounts::place::{MountPoint, pods_dir};
use crate::mounts::state::{self, State};
use crate::pod_files::{emptydir, is_uid, open_beneath};

/// Entries of a folder that are looked at: no node has so many pods.
const ENTRIES_MAX: usize = 4096;
/// Bytes of the longest ghost record.
const GHOST_LEN_MAX_BYTES: u64 = 64 << 10;
/// Bytes of the list of mounts that are looked at.
const MOUNTS_LEN_MAX_BYTES: u64 = 16 << 20;
/// The command socket of a launcher that is ready, and of one that is not yet.
const COMMAND_SOCKETS: [&str; 2] = [COMMAND_SOCKET_NAME, INIT_COMMAND_SOCKET_NAME];

/// What there is on the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Pods of launchers that were attached to, by uid of the instance (ghost records).
    pub ghosts: BTreeMap<String, String>,
    /// Instances of which it is known how their domain ended.
    pub finals: BTreeSet<String>,
    /// Records of mounts by uid of the instance.
    pub mounts: BTreeMap<String, Record>,
    /// Pods by uid.
    pub pods: BTreeMap<String, Pod>,
}

/// What is on record of an instance's mounts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Where they are.
    pub paths: BTreeSet<PathBuf>,
    /// The pods in which they are.
    pub pods: BTreeSet<String>,
}

/// What there is of us in a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// Whether a launcher listens there.
    pub is_alive: bool,
    /// Whether its launcher was given up.
    pub has_mark: bool,
    /// Whether there is a socket for its launcher's notifications.
    pub has_pipe: bool,
    /// Container disks that are mounted there.
    pub mounts: BTreeSet<PathBuf>,
}

/// Looks at what there is. Blocks. What cannot be looked at is not there.
#[must_use]
pub fn observe(paths: &HostPaths) -> Observed {
    let ghosts = paths.private_dir.join(GHOST_RECORDS_DIR_NAME);
    let of_ghost = |uid: String| {
        let pod = pod_of_ghost(&ghosts.join(&uid)).unwrap_or_default();
        (uid, pod)
    };
    let mut pods: BTreeMap<_, _> = uids(&paths.pods_dir)
        .map(|uid| {
            let pod = pod(paths, &uid);
            (uid, pod)
        })
        .collect();
    for path in mounts(paths) {
        if let Some(point) = MountPoint::at(paths, &path) {
            let pod: &mut Pod = pods.entry(point.pod_uid().to_owned()).or_default();
            pod.mounts.insert(path);
        }
    }
    Observed {
        ghosts: uids(&ghosts).map(of_ghost).collect(),
        finals: uids(&paths.private_dir.join(FINAL_DOMAINS_DIR_NAME)).collect(),
        mounts: uids(&state::folder(paths))
            .map(|uid| {
                let record = record(paths, &uid);
                (uid, record)
            })
            .collect(),
        pods,
    }
}

fn uids(folder: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(folder).into_iter().flatten().take(ENTRIES_MAX);
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter(|name| is_uid(name))
}

#[derive(Deserialize)]
struct GhostFile {
    #[serde(rename = "socketFile")]
    socket: PathBuf,
}

/// Returns the pod of a ghost record: `…/<pod uid>/volumes/kubernetes.io~empty-dir/sockets/launcher-sock`.
fn pod_of_ghost(path: &Path) -> Option<String> {
    let mut content = Vec::new();
    let file = File::open(path).ok()?;
    file.take(GHOST_LEN_MAX_BYTES)
        .read_to_end(&mut content)
        .ok()?;
    let ghost: GhostFile = serde_json::from_slice(&content).ok()?;
    let pod = ghost.socket.ancestors().nth(4)?;
    Some(pod.file_name()?.to_str()?.to_owned())
}

fn record(paths: &HostPaths, uid: &str) -> Record {
    let state = State::read(paths, uid).unwrap_or_default();
    let targets = state.entries.into_iter().map(|entry| entry.target);
    let mut record = Record {
        paths: targets.collect(),
        pods: BTreeSet::new(),
    };
    for path in &record.paths {
        let point = MountPoint::at(paths, path);
        record
            .pods
            .extend(point.map(|point| point.pod_uid().to_owned()));
    }
    record
}

fn pod(paths: &HostPaths, uid: &str) -> Pod {
    let open = |volume| {
        let path = emptydir(uid, volume);
        open_beneath(&paths.pods_dir, &path, OFlags::DIRECTORY)
    };
    let sockets = open(SOCKETS_VOLUME).ok();
    let has =
        |folder: &dyn AsFd, name| statat(folder.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
    // Whoever cannot be asked may be alive.
    let listens = |name| {
        let dialled = sockets.as_ref().map(|folder| dial(folder, name));
        !matches!(dialled, None | Some(Ok(Dialled::Nobody)))
    };
    Pod {
        is_alive: COMMAND_SOCKETS.into_iter().any(listens),
        has_mark: sockets
            .as_ref()
            .is_some_and(|folder| has(folder, UNRESPONSIVE_MARKER_NAME)),
        has_pipe: open(PUBLIC_VOLUME).is_ok_and(|folder| has(&folder, NOTIFY_SOCKET_NAME)),
        mounts: BTreeSet::new(),
    }
}

/// Returns the mount points below the pods' folder (proc_pid_mountinfo(5)).
fn mounts(paths: &HostPaths) -> Vec<PathBuf> {
    let mut table = Vec::new();
    let read = File::open("/proc/self/mountinfo")
        .and_then(|file| file.take(MOUNTS_LEN_MAX_BYTES).read_to_end(&mut table));
    if let Err(error) = read {
        tracing::warn!(%error, "cannot list mounts");
    }
    let pods = pods_dir(paths);
    let lines = table.split(|byte| *byte == b'\n');
    let points = lines.filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    let points = points.map(unescaped);
    points.filter(|point| point.starts_with(&pods)).collect()
}

/// Reads a path in which `\ooo` stands for a byte.
fn unescaped(text: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.get(..3).filter(|_| *first == b'\\');
        let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::unescaped;

    #[test]
    fn escaped_bytes_of_mount_points_are_read() {
        for (text, expected) in [
            (r"/a\040b\134c", "/a b\\c"),
            (r"/plain", "/plain"),
            (r"/end\04", r"/end\04"),
            (r"/x\999", r"/x\999"),
        ] {
            assert_eq!(unescaped(text.as_bytes()), Path::new(expected));
        }
    }
}
