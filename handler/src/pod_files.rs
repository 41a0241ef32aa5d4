//! Files in the folders of pods. Whoever is in a pod may put links there, so no link is followed.

use std::fs::ReadDir;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{self, CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use tokio::net::UnixStream;

/// User and group of launchers without root (`qemu`).
pub(crate) const LAUNCHER_ID: u32 = 107;

/// Returns where a pod's emptyDir volume is, below the folder of the pods.
pub(crate) fn emptydir(pod_uid: &str, volume: &str) -> PathBuf {
    [pod_uid, "volumes", "kubernetes.io~empty-dir", volume]
        .iter()
        .collect()
}

/// Whether the text can be a UID: one component of a path and nothing else.
pub(crate) fn is_uid(text: &str) -> bool {
    let is_fine = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=128).contains(&text.len()) && text.bytes().all(is_fine)
}

/// Fails unless the text can be a pod's UID.
pub(crate) fn check_pod_uid(text: &str) -> io::Result<()> {
    let message = "the pod's uid is no name for a folder";
    is_uid(text)
        .then_some(())
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, message))
}

/// Opens what lies at `path` below `folder` without following links, only to name it.
pub(crate) fn open_beneath(folder: &Path, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let at = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    open_in(fs::openat(CWD, folder, at, Mode::empty())?, path, flags)
}

/// Opens what lies at `path` below an open folder without following links, only to name it.
pub(crate) fn open_in(folder: impl AsFd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::CLOEXEC | flags;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    let opened = fs::openat2(folder, path, flags, Mode::empty(), resolve);
    opened.map_err(|error| match error {
        Errno::LOOP => io::Error::other("a link is in the way"),
        error => error.into(),
    })
}

/// Returns what is in an open folder.
pub(crate) fn entries(folder: &OwnedFd) -> io::Result<ReadDir> {
    std::fs::read_dir(short_path(folder))
}

/// Opens the socket at `path` below `folder` without following links, only to name it.
pub(crate) fn open_socket(folder: &Path, path: &Path) -> io::Result<OwnedFd> {
    let socket = open_beneath(folder, path, OFlags::empty())?;
    is_socket(&socket)?
        .then_some(socket)
        .ok_or_else(|| io::Error::other("this is no socket"))
}

/// Whether the file is a socket.
pub(crate) fn is_socket(file: impl AsFd) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(fs::fstat(file)?.st_mode) == FileType::Socket)
}

/// Returns a path of an open file. It is short whatever the file's own is: a socket's may have no more than 108 bytes.
pub(crate) fn short_path(file: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", file.as_raw_fd()).into()
}

/// Connects to a socket that was opened by [`open_socket`].
pub(crate) async fn connect(socket: &OwnedFd) -> io::Result<UnixStream> {
    UnixStream::connect(short_path(socket)).await
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;
    use std::path::Path;

    use super::{is_uid, open_socket};

    #[test]
    fn sockets_are_opened_and_neither_links_nor_files_are() {
        let pods = tempfile::tempdir().unwrap();
        let folder = pods.path().join("p");
        std::fs::create_dir(&folder).unwrap();
        let _listener = UnixListener::bind(folder.join("socket")).unwrap();
        std::fs::write(folder.join("file"), "").unwrap();
        symlink("socket", folder.join("link")).unwrap();
        symlink("p", pods.path().join("q")).unwrap();
        open_socket(pods.path(), Path::new("p/socket")).unwrap();
        for odd in ["p/file", "p/link", "q/socket", "p/../p/link", "../socket"] {
            open_socket(pods.path(), Path::new(odd)).unwrap_err();
        }
    }

    #[test]
    fn uids_are_one_component_of_a_path() {
        assert!(is_uid("0a-B_9"));
        let long = "u".repeat(129);
        for odd in ["", ".", "..", "a/b", "a b", "a\0", long.as_str()] {
            assert!(!is_uid(odd), "{odd:?}");
        }
    }
}
