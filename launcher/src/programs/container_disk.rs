//! `container-disk`: keeps a container alive whose image holds a disk.

use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use nix::sys::signal::Signal;

use super::FAILED;
use super::files::{Watch, Woken};

/// Keeps a container alive whose image holds a disk, for as long as a machine needs it.
///
/// Listens on the socket PATH.sock, by which virt-handler finds the container, and ends when that file is removed, as
/// virt-launcher does once its machine has ended. SIGTERM is not obeyed: a machine that is being shut down still needs its
/// disk.
#[derive(Debug, Parser)]
#[command(name = "container-disk", version)]
pub(super) struct Arguments {
    /// Where the disk is to be found by the machine; the socket has this name with `.sock` at its end
    #[arg(
        short = 'c',
        long = "copy-path",
        value_name = "PATH",
        required_unless_present = "no_op"
    )]
    copy_path: Option<PathBuf>,

    /// Ends at once with success: pulls the image and no more
    #[arg(short = 'n', long)]
    no_op: bool,

    /// Ends at once, with success if another such program listens on the socket
    #[arg(short = 'l', long)]
    health_check: bool,
}

/// Why a container cannot be kept.
#[derive(Debug, thiserror::Error)]
pub(super) enum ContainerDiskError {
    #[error("listen on {}", path.display())]
    Listen { path: PathBuf, source: io::Error },
    #[error("watch {}", path.display())]
    Watch { path: PathBuf, source: io::Error },
    #[error("reach {}", path.display())]
    Check { path: PathBuf, source: io::Error },
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, ContainerDiskError> {
    let Some(copy_path) = arguments.copy_path.as_ref().filter(|_| !arguments.no_op) else {
        return Ok(ExitCode::SUCCESS);
    };
    let mut path = OsString::from(copy_path);
    path.push(".sock");
    let path = PathBuf::from(path);
    if arguments.health_check {
        let reached = UnixStream::connect(&path);
        let failed = |source| ContainerDiskError::Check { path, source };
        return reached.map(|_| ExitCode::SUCCESS).map_err(failed);
    }
    keep(&path)
}

fn keep(path: &Path) -> Result<ExitCode, ContainerDiskError> {
    let failed = |source| ContainerDiskError::Watch {
        path: path.to_owned(),
        source,
    };
    let mut watch = Watch::new(&[Signal::SIGTERM]).map_err(failed)?;
    watch.folder_of(path);
    let listener = listen(path).map_err(|source| ContainerDiskError::Listen {
        path: path.to_owned(),
        source,
    })?;
    let own = inode(path);
    loop {
        // Who connects only wants to know who we are.
        while listener.accept().is_ok() {}
        let there = inode(path);
        if there.is_none() {
            return Ok(ExitCode::SUCCESS);
        }
        if there != own {
            // Someone else listens there now: our machine is long gone.
            return Ok(ExitCode::from(FAILED));
        }
        let woken = watch.wait(Some(listener.as_fd()), None).map_err(failed)?;
        if woken == Woken::Signal {
            tracing::info!("signal not obeyed: the machine may still need its disk");
        }
    }
}

/// Listens, in place of a socket that a container left which was killed.
fn listen(path: &Path) -> io::Result<UnixListener> {
    let refused = |error: io::Error| error.kind() == ErrorKind::ConnectionRefused;
    if UnixStream::connect(path).is_err_and(refused) {
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    let file = fs::symlink_metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}
