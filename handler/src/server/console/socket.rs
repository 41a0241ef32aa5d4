//! The launcher's end of a console. Its folder is in the pod's hands, so no link in it is followed.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{SFlag, fstat};
use tokio::net::UnixStream;
use tokio::time::timeout;

use crate::launchers::Launcher;

/// The pod's volume with the folder of the socket, which is called by the instance's uid.
const VOLUME: &str = "private";
/// The socket.
const SERIAL: &str = "virt-serial0";

/// Connects to the console of a launcher's machine.
pub(super) async fn connect(launcher: &Launcher, limit: Duration) -> io::Result<UnixStream> {
    let folder = File::open(launcher.emptydir(VOLUME))?;
    let socket = open_socket(&folder, &Path::new(&launcher.uid).join(SERIAL))?;
    // This path is short whatever the socket's own is.
    let path = format!("/proc/self/fd/{}", socket.as_raw_fd());
    let connected = timeout(limit, UnixStream::connect(path)).await;
    connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn open_socket(folder: &File, path: &Path) -> io::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS);
    let file = openat2(folder.as_fd(), path, how)?;
    let format = SFlag::from_bits_truncate(fstat(&file)?.st_mode) & SFlag::S_IFMT;
    if format == SFlag::S_IFSOCK {
        Ok(file)
    } else {
        Err(io::Error::other("what lies there is no socket"))
    }
}
