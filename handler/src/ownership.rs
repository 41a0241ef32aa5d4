//! Makes what a machine needs the launcher's own, since it does not run as root (§2.4 step 4).
//!
//! The launcher is not trusted: nothing is given by following links that it could have made, and only devices, disk
//! images and their folders are given.

mod wanted;

use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use api::Vmi;
use rustix::fs::{
    self, AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid, chownat,
};
use rustix::io::Errno;
use tracing::{debug, info};

use crate::config::HostPaths;
use crate::launchers::Launcher;
use crate::pod_files::{LAUNCHER_ID, open_in};
use wanted::{Disk, disks};

/// Devices that machines use, as far as the container has them.
const DEVICES: [&str; 4] = ["dev/kvm", "dev/net/tun", "dev/vhost-net", "dev/vhost-vsock"];
/// Folder of the launcher's sockets, disks and secrets. The link that leads there is the image's, not the launcher's.
const RUN: &str = "var/run";
/// Bytes of a process's status that are looked at.
const STATUS_LEN_MAX_BYTES: u64 = 16 << 10;

/// Why something cannot be given to a launcher.
#[derive(Debug, thiserror::Error)]
pub enum OwnershipError {
    /// The launcher's process cannot be looked at.
    #[error("look at the launcher's process by {}", path.display())]
    Process {
        /// Its path below `/proc`.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A path in the launcher's root cannot be used.
    #[error("give /{} to the launcher", path.display())]
    Path {
        /// The path as the launcher sees it.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Gives devices and disks of an instance to its launcher's user, unless that is root. Blocks; does nothing where it was
/// done before.
///
/// # Errors
///
/// Fails when a path leads elsewhere than it should, or when the node refuses.
pub fn give_to_launcher(
    paths: &HostPaths,
    vmi: &Vmi,
    launcher: &Launcher,
) -> Result<(), OwnershipError> {
    let process = paths.proc_dir.join(launcher.pid.to_string());
    if is_root(&process)? {
        debug!("the launcher is root and needs nothing given");
        return Ok(());
    }
    let root = Root::of(&process)?;
    for device in DEVICES {
        root.give_device(Path::new(device))?;
    }
    for disk in disks(vmi) {
        match disk {
            Disk::Device { path } => root.give_device(&path)?,
            Disk::Image { folder, name, rule } => {
                let given = root.give_image(&folder, &name, rule);
                given.map_err(|source| OwnershipError::Path {
                    path: Path::new(RUN).join(folder).join(name),
                    source,
                })?;
            }
        }
    }
    Ok(())
}

/// What may be done for an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ImageRule {
    /// It is there, or else it is the launcher that complains.
    Existing,
    /// The launcher may make it in the folder, which is the instance's own.
    OwnFolder,
    /// The launcher may make it in the folder, which may be anything on the node.
    NodeFolder,
}

/// The root folder of the launcher.
struct Root(OwnedFd);

impl Root {
    fn of(process: &Path) -> Result<Self, OwnershipError> {
        let path = process.join("root");
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = fs::openat(CWD, &path, flags, Mode::empty());
        opened.map(Self).map_err(|error| OwnershipError::Process {
            path,
            source: error.into(),
        })
    }

    /// Gives a device; one that the container does not have is skipped.
    fn give_device(&self, path: &Path) -> Result<(), OwnershipError> {
        let failed = |source| OwnershipError::Path {
            path: path.to_owned(),
            source,
        };
        let Some(file) = beneath(&self.0, path, OFlags::NOFOLLOW).map_err(failed)? else {
            return Ok(());
        };
        let stat = fs::fstat(&file).map_err(|error| failed(error.into()))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::CharacterDevice | FileType::BlockDevice => {
                give(&file, &stat, path).map_err(failed)
            }
            // `/dev/<volume>` may be the name of something else, like the link `/dev/stdin`.
            _ => Ok(()),
        }
    }

    /// Gives an image, or its folder when it is absent and to be made.
    fn give_image(&self, folder: &Path, name: &Path, rule: ImageRule) -> io::Result<()> {
        let at = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let run = fs::openat2(&self.0, RUN, at, Mode::empty(), resolve)?;
        let Some(opened) = beneath(&run, folder, OFlags::DIRECTORY)? else {
            return Ok(());
        };
        let Some(file) = beneath(&opened, name, OFlags::empty())? else {
            return match rule {
                ImageRule::Existing => Ok(()),
                ImageRule::OwnFolder => give(&opened, &fs::fstat(&opened)?, folder),
                ImageRule::NodeFolder => give_node_folder(&opened, folder),
            };
        };
        let stat = fs::fstat(&file)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile | FileType::BlockDevice => give(&file, &stat, name),
            _ => Err(io::Error::other("this is no disk image")),
        }
    }
}

/// Gives a folder of the node in which an image is to be made, unless others use it too.
fn give_node_folder(folder: &OwnedFd, path: &Path) -> io::Result<()> {
    let stat = fs::fstat(folder)?;
    if may_write(&stat) {
        return Ok(());
    }
    let readable = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let entries = Dir::new(fs::openat(folder, ".", readable, Mode::empty())?)?;
    for entry in entries {
        let entry = entry?;
        if ![".", ".."]
            .map(str::as_bytes)
            .contains(&entry.file_name().to_bytes())
        {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "the folder holds other files, so it is not given away: let user 107 write to it, or put the disk into a folder of its own",
            ));
        }
    }
    give(folder, &stat, path)
}

/// Whether the launcher may make files in a folder.
fn may_write(folder: &Stat) -> bool {
    let may = |who: Mode| Mode::from_raw_mode(folder.st_mode).contains(who);
    (folder.st_uid == LAUNCHER_ID && may(Mode::WUSR | Mode::XUSR))
        || (folder.st_gid == LAUNCHER_ID && may(Mode::WGRP | Mode::XGRP))
        || may(Mode::WOTH | Mode::XOTH)
}

/// Opens what lies below a folder without following links, only to name it; `None` when there is nothing.
fn beneath(folder: impl AsFd, path: &Path, flags: OFlags) -> io::Result<Option<OwnedFd>> {
    match open_in(folder, path, flags) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn give(file: &OwnedFd, stat: &Stat, path: &Path) -> io::Result<()> {
    if (stat.st_uid, stat.st_gid) == (LAUNCHER_ID, LAUNCHER_ID) {
        return Ok(());
    }
    let (user, group) = (Uid::from_raw(LAUNCHER_ID), Gid::from_raw(LAUNCHER_ID));
    match chownat(file, "", Some(user), Some(group), AtFlags::EMPTY_PATH) {
        Ok(()) => {
            info!(path = %path.display(), "gave to the launcher");
            Ok(())
        }
        // Whether it can be used as it is, the launcher will see.
        Err(Errno::ROFS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether a process runs as root.
fn is_root(process: &Path) -> Result<bool, OwnershipError> {
    let path = process.join("status");
    let mut status = String::new();
    let read = std::fs::File::open(&path)
        .and_then(|file| file.take(STATUS_LEN_MAX_BYTES).read_to_string(&mut status));
    let found = read.and_then(|_| {
        let missing = || io::Error::other("it does not tell the user");
        effective_user(&status).ok_or_else(missing)
    });
    let user = found.map_err(|source| OwnershipError::Process { path, source })?;
    Ok(user == 0)
}

/// Reads the effective user of `Uid: <real> <effective> …` (`/proc/<pid>/status`).
fn effective_user(status: &str) -> Option<u32> {
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    users.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests;
