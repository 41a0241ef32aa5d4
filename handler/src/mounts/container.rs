//! The container behind a socket, and the files of its image. Neither the socket nor the image is trusted: what is
//! mounted is a regular file of the container's own root, whatever links say.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno as NixErrno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket,
    sockopt::PeerCredentials,
};
use rustix::fs::{self, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::wanted::Source;
use crate::pod_files::{is_socket, short_path};

/// Entries of `/disk` that are looked at.
const ENTRIES_MAX: usize = 1024;
/// Where images have their disk.
const DISK_FOLDER: &str = "disk";

/// A container that is there.
#[derive(Debug)]
pub(super) struct Container {
    /// Its mount namespace.
    pub(super) namespace: OwnedFd,
    root: OwnedFd,
}

impl Container {
    /// Finds the container that listens on a socket; `None` while none does.
    pub(super) fn behind(
        folder: impl AsFd,
        socket: &str,
        proc_dir: &Path,
    ) -> io::Result<Option<Self>> {
        let Some(pid) = listener(folder.as_fd(), socket)? else {
            return Ok(None);
        };
        if pid <= 0 {
            return Err(io::Error::other(
                "its process is not visible here: the handler must run in the host's pid namespace (hostPID)",
            ));
        }
        if u32::try_from(pid).is_ok_and(|pid| pid == std::process::id()) {
            return Err(io::Error::other("this process itself listens there"));
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let process = fs::open(proc_dir.join(pid.to_string()), flags, Mode::empty())?;
        let root = fs::openat(&process, "root", flags, Mode::empty())?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let namespace = fs::openat(&process, "ns/mnt", flags, Mode::empty())?;
        // It listens still, so the number was that process's own all the time.
        Ok((listener(folder, socket)? == Some(pid)).then_some(Self { namespace, root }))
    }

    /// Opens a file of the image, only to name it.
    pub(super) fn open(&self, source: &Source) -> io::Result<OwnedFd> {
        match source {
            Source::Path(path) => self.open_file(Path::new(path)),
            Source::OnlyDisk => self.open_only_disk(),
        }
    }

    fn open_file(&self, path: &Path) -> io::Result<OwnedFd> {
        let file = self.resolve(path, OFlags::PATH)?;
        is_regular(&file)?
            .then_some(file)
            .ok_or_else(|| io::Error::other("this is no regular file"))
    }

    fn open_only_disk(&self) -> io::Result<OwnedFd> {
        let folder = self.resolve(Path::new(DISK_FOLDER), OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut disks = Vec::new();
        for entry in Dir::new(folder)?.take(ENTRIES_MAX) {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy();
            if name == "." || name == ".." {
                continue;
            }
            // What is no regular file is no disk.
            if let Ok(file) = self.open_file(&Path::new(DISK_FOLDER).join(&*name)) {
                disks.push(file);
            }
        }
        match (disks.pop(), disks.len()) {
            (Some(only), 0) => Ok(only),
            (None, _) => Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the folder holds no disk: put one there, or name the file with path",
            )),
            (Some(_), _) => Err(io::Error::other(
                "the folder holds several files: leave only one, or name it with path",
            )),
        }
    }

    /// Follows links in the image only, and not into what is mounted in the container.
    fn resolve(&self, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
        let flags = flags | OFlags::CLOEXEC;
        match fs::openat2(&self.root, path, flags, Mode::empty(), resolve) {
            Ok(file) => Ok(file),
            Err(Errno::XDEV) => Err(io::Error::other(
                "this is not in the image but on something that is mounted in the container",
            )),
            Err(error) => Err(error.into()),
        }
    }
}

fn is_regular(file: &OwnedFd) -> io::Result<bool> {
    let format = FileType::from_raw_mode(fs::fstat(file)?.st_mode);
    Ok(format == FileType::RegularFile)
}

/// Returns which process listens on a socket, if one does and has the time for us.
fn listener(folder: impl AsFd, name: &str) -> io::Result<Option<i32>> {
    Ok(match dial(folder, name)? {
        Dialled::Answered(stream) => Some(getsockopt(&stream, PeerCredentials)?.pid()),
        Dialled::Busy | Dialled::Nobody => None,
    })
}

/// What comes of connecting to a socket.
pub(crate) enum Dialled {
    /// A connection.
    Answered(OwnedFd),
    /// Someone listens, who does not answer.
    Busy,
    /// There is no socket, or nobody listens.
    Nobody,
}

/// Connects to a socket of a pod without waiting.
pub(crate) fn dial(folder: impl AsFd, name: &str) -> io::Result<Dialled> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match fs::openat(folder, name, flags, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(Dialled::Nobody),
        opened => opened?,
    };
    if !is_socket(&file)? {
        return Err(io::Error::other("this is no socket"));
    }
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let stream = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    let address = UnixAddr::new(&short_path(&file))?;
    match connect(stream.as_raw_fd(), &address) {
        Ok(()) => Ok(Dialled::Answered(stream)),
        Err(NixErrno::ECONNREFUSED) => Ok(Dialled::Nobody),
        Err(NixErrno::EAGAIN) => Ok(Dialled::Busy),
        Err(error) => Err(error.into()),
    }
}
