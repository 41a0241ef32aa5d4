//! Sockets in the folders of pods. Whoever is in a pod may put links there, so no link is followed.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat, openat2};
use nix::sys::stat::{Mode, SFlag, fstat};
use tokio::net::UnixStream;

use crate::config::HostPaths;

/// The pod's volume with the command socket.
const SOCKETS_VOLUME: &str = "sockets";
/// The command socket of a launcher that is ready.
const COMMAND_SOCKET: &str = "launcher-sock";
/// The file beside it that says that the launcher was given up.
const UNRESPONSIVE_MARK: &str = "launcher-unresponsive";

/// Returns where a pod's emptyDir volume is on the host, below the folder of the pods.
pub(super) fn emptydir(pod_uid: &str, volume: &str) -> PathBuf {
    [pod_uid, "volumes", "kubernetes.io~empty-dir", volume]
        .iter()
        .collect()
}

/// Returns where a pod's emptyDir volume is on the host.
pub(super) fn emptydir_on_host(paths: &HostPaths, pod_uid: &str, volume: &str) -> PathBuf {
    paths.pods_dir.join(emptydir(pod_uid, volume))
}

/// Returns where the command socket of a pod is on the host.
pub(super) fn command_socket(paths: &HostPaths, pod_uid: &str) -> PathBuf {
    emptydir_on_host(paths, pod_uid, SOCKETS_VOLUME).join(COMMAND_SOCKET)
}

/// Whether the text can be a UID: one component of a path and nothing else.
pub(super) fn is_uid(text: &str) -> bool {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=128).contains(&text.len()) && text.bytes().all(is_fine)
}

/// Opens what lies at `path` below `folder` without following links, only to name it.
pub(super) fn open_beneath(folder: &Path, path: &Path, flags: OFlag) -> io::Result<OwnedFd> {
    let folder = File::open(folder)?;
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC | flags)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    Ok(openat2(folder.as_fd(), path, how)?)
}

/// Names the command socket of a pod; `None` when there is none.
pub(super) fn open_command_socket(paths: &HostPaths, pod_uid: &str) -> io::Result<Option<OwnedFd>> {
    if !is_uid(pod_uid) {
        let message = "the pod's uid is no name for a folder";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let path = emptydir(pod_uid, SOCKETS_VOLUME).join(COMMAND_SOCKET);
    match open_beneath(&paths.pods_dir, &path, OFlag::empty()) {
        Ok(socket) => is_socket(&socket)
            .then_some(Some(socket))
            .ok_or_else(|| io::Error::other("this is no socket")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether the file is a socket.
pub(super) fn is_socket(file: &OwnedFd) -> bool {
    let format = fstat(file).map(|stat| SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT);
    format == Ok(SFlag::S_IFSOCK)
}

/// Connects to a socket that was named by [`open_command_socket`].
pub(super) async fn connect(socket: &OwnedFd) -> io::Result<UnixStream> {
    // This path is short whatever the socket's own is.
    UnixStream::connect(format!("/proc/self/fd/{}", socket.as_raw_fd())).await
}

/// Whether the launcher of a pod was given up before.
pub(super) fn is_unresponsive(paths: &HostPaths, pod_uid: &str) -> bool {
    let path = emptydir(pod_uid, SOCKETS_VOLUME).join(UNRESPONSIVE_MARK);
    open_beneath(&paths.pods_dir, &path, OFlag::empty()).is_ok()
}

/// Marks the launcher of a pod as given up.
pub(super) fn mark_unresponsive(paths: &HostPaths, pod_uid: &str) -> io::Result<()> {
    let folder = emptydir(pod_uid, SOCKETS_VOLUME);
    let folder = open_beneath(&paths.pods_dir, &folder, OFlag::O_DIRECTORY)?;
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    match openat(
        &folder,
        UNRESPONSIVE_MARK,
        flags,
        Mode::from_bits_truncate(0o644),
    ) {
        Ok(_) | Err(Errno::EEXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}
