//! What is left on the node of instances that are gone: looked at, decided on, and removed, each by itself.
//!
//! What an instance that is known needs is never touched, nor a pod whose launcher listens. Ghost records are not looked
//! after here: each stands for a launcher, whose end is told first.

mod observe;

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use api::paths::{
    CONTAINER_DISKS_VOLUME, FINAL_DOMAINS_DIR_NAME, NOTIFY_SOCKET_NAME, PUBLIC_VOLUME,
    SOCKETS_VOLUME, UNRESPONSIVE_MARKER_NAME,
};
use rustix::fs::{AtFlags, OFlags, unlinkat};
use rustix::io::Errno;

use crate::config::HostPaths;
use crate::mounts;
use crate::mounts::place::{MountPoint, pods_dir};
use crate::pod_files::{emptydir, entries, is_socket, is_uid, open_beneath};
pub use observe::{Observed, Pod, Record, observe};

/// Most entries of the volume of container disks that are looked at: a pod may put there what it likes.
const CONTAINER_DISK_ENTRIES_MAX: usize = 4096;

/// Something that nobody needs any more.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Leftover {
    /// The mounts on record of an instance.
    Mounts {
        /// UID of the instance.
        uid: String,
    },
    /// A mount in a pod that is on no record.
    Mount {
        /// Where it is.
        path: PathBuf,
    },
    /// How a domain ended whose launcher is forgotten.
    FinalDomain {
        /// UID of the instance.
        uid: String,
    },
    /// The mark that a launcher was given up.
    Mark {
        /// UID of the pod.
        pod_uid: String,
    },
    /// The socket for a launcher's notifications.
    Pipe {
        /// UID of the pod.
        pod_uid: String,
    },
}

/// Returns what nobody needs any more; never what belongs to one of the instances that are known by uid.
#[must_use]
pub fn leftovers(observed: &Observed, known_uids: &BTreeSet<String>) -> Vec<Leftover> {
    let is_known = |uid: &String| known_uids.contains(uid);
    let is_alive = |pod: &String| observed.pods.get(pod).is_some_and(|pod| pod.is_alive);
    let mounts = observed.mounts.iter().filter(|(uid, record)| {
        let is_on_ghost = observed.ghosts.contains_key(*uid);
        !is_known(uid) && !is_on_ghost && !record.pods.iter().any(is_alive)
    });
    let mut leftovers: Vec<_> = mounts
        .map(|(uid, _)| Leftover::Mounts { uid: uid.clone() })
        .collect();
    let finals = observed.finals.iter();
    let finals = finals.filter(|uid| !is_known(uid) && !observed.ghosts.contains_key(*uid));
    leftovers.extend(finals.map(|uid| Leftover::FinalDomain { uid: uid.clone() }));
    leftovers.extend(of_pods(observed));
    leftovers
}

fn of_pods(observed: &Observed) -> impl Iterator<Item = Leftover> {
    let on_record = |path: &PathBuf| observed.mounts.values().any(|it| it.paths.contains(path));
    let has_record = |pod: &String| {
        observed.ghosts.values().any(|of| of == pod)
            || observed.mounts.values().any(|it| it.pods.contains(pod))
    };
    let free = observed.pods.iter();
    let free = free.filter(move |(uid, pod)| !pod.is_alive && !has_record(uid));
    free.flat_map(move |(uid, pod)| {
        let mounts = pod.mounts.iter().filter(|path| !on_record(path));
        let mounts = mounts.map(|path| Leftover::Mount { path: path.clone() });
        let pod_uid = || uid.clone();
        let mark = pod.has_mark.then(|| Leftover::Mark { pod_uid: pod_uid() });
        let pipe = pod.has_pipe.then(|| Leftover::Pipe { pod_uid: pod_uid() });
        mounts.chain(mark).chain(pipe).collect::<Vec<_>>()
    })
}

/// Removes a leftover. Blocks. What is gone already is no error.
///
/// # Errors
///
/// Fails when the node refuses.
pub fn remove(paths: &HostPaths, leftover: &Leftover) -> io::Result<()> {
    match leftover {
        Leftover::Mounts { uid } => mounts::unmount_all(paths, uid).map_err(io::Error::other),
        Leftover::Mount { path } => match MountPoint::at(paths, path) {
            Some(point) => point.clear(),
            None => Err(io::Error::other("the mount is in no pod")),
        },
        Leftover::FinalDomain { uid } => {
            if !is_uid(uid) {
                return Err(io::Error::other("the uid is no name for a file"));
            }
            let folder = paths.private_dir.join(FINAL_DOMAINS_DIR_NAME);
            unless_gone(std::fs::remove_file(folder.join(uid)))
        }
        Leftover::Mark { pod_uid } => {
            remove_in_pod(paths, pod_uid, SOCKETS_VOLUME, UNRESPONSIVE_MARKER_NAME)
        }
        Leftover::Pipe { pod_uid } => {
            remove_in_pod(paths, pod_uid, PUBLIC_VOLUME, NOTIFY_SOCKET_NAME)
        }
    }
}

/// Has the containers end that hold disk images for a launcher: each ends when its socket goes. A launcher does this at
/// its own end, unless it was killed.
///
/// # Errors
///
/// Fails when the node refuses.
pub fn end_image_containers(paths: &HostPaths, pod_uid: &str) -> io::Result<()> {
    let path = emptydir(pod_uid, CONTAINER_DISKS_VOLUME);
    let folder = match open_beneath(&pods_dir(paths), &path, OFlags::DIRECTORY) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    for entry in entries(&folder)?.take(CONTAINER_DISK_ENTRIES_MAX) {
        let name = entry?.file_name();
        let is_named_so = Path::new(&name).extension().is_some_and(|it| it == "sock");
        let opened = || open_beneath(&pods_dir(paths), &path.join(&name), OFlags::NOFOLLOW);
        // What is a link, or went meanwhile, is no socket that a container waits on.
        if is_named_so && opened().and_then(is_socket).unwrap_or(false) {
            remove_in_pod(paths, pod_uid, CONTAINER_DISKS_VOLUME, &name)?;
        }
    }
    Ok(())
}

fn remove_in_pod(
    paths: &HostPaths,
    pod_uid: &str,
    volume: &str,
    name: impl rustix::path::Arg,
) -> io::Result<()> {
    let path = emptydir(pod_uid, volume);
    let folder = match open_beneath(&pods_dir(paths), &path, OFlags::DIRECTORY) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    match unlinkat(folder, name, AtFlags::empty()) {
        Err(Errno::NOENT) => Ok(()),
        removed => Ok(removed?),
    }
}

fn unless_gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

#[cfg(test)]
mod tests;
