//! The command socket in the folder of a pod, and the mark beside it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use api::paths::{COMMAND_SOCKET_NAME, SOCKETS_VOLUME, UNRESPONSIVE_MARKER_NAME};
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use crate::config::HostPaths;
use crate::pod_files::{check_pod_uid, emptydir, open_beneath, open_socket};

/// Returns where a pod's emptyDir volume is on the host.
pub(super) fn emptydir_on_host(paths: &HostPaths, pod_uid: &str, volume: &str) -> PathBuf {
    paths.pods_dir.join(emptydir(pod_uid, volume))
}

/// Returns where the command socket of a pod is on the host.
pub(super) fn command_socket(paths: &HostPaths, pod_uid: &str) -> PathBuf {
    emptydir_on_host(paths, pod_uid, SOCKETS_VOLUME).join(COMMAND_SOCKET_NAME)
}

/// Names the command socket of a pod; `None` when there is none.
pub(super) fn open_command_socket(paths: &HostPaths, pod_uid: &str) -> io::Result<Option<OwnedFd>> {
    check_pod_uid(pod_uid)?;
    let path = emptydir(pod_uid, SOCKETS_VOLUME).join(COMMAND_SOCKET_NAME);
    match open_socket(&paths.pods_dir, &path) {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the launcher of a pod was given up before.
pub(super) fn is_unresponsive(paths: &HostPaths, pod_uid: &str) -> bool {
    let path = emptydir(pod_uid, SOCKETS_VOLUME).join(UNRESPONSIVE_MARKER_NAME);
    open_beneath(&paths.pods_dir, &path, OFlags::empty()).is_ok()
}

/// Marks the launcher of a pod as given up.
pub(super) fn mark_unresponsive(paths: &HostPaths, pod_uid: &str) -> io::Result<()> {
    let folder = emptydir(pod_uid, SOCKETS_VOLUME);
    let folder = open_beneath(&paths.pods_dir, &folder, OFlags::DIRECTORY)?;
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    match openat(&folder, UNRESPONSIVE_MARKER_NAME, flags, Mode::from(0o644)) {
        Ok(_) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
