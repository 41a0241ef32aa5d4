//! Whose a device node of the host is.
//!
//! Paths come from sources, and what they lead to may have been exchanged since. So a node is reached part by part without
//! following a link, and everything is done to what was reached, not to its path.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Component, Path};

use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, fchownat};
use serde::{Deserialize, Serialize};

use crate::source::Host;

/// Bits of a mode that let the owner read and write.
const OWNER_READS_AND_WRITES: u32 = 0o600;
/// Bits of a mode that say who may do what.
const PERMISSION_BITS: u32 = 0o7777;

/// A device node that was reached.
#[derive(Debug)]
pub(crate) struct Reached {
    fd: OwnedFd,
    /// Which one it is and whose; none for a plain file, which some put in a device's place and nobody is given.
    pub(crate) owned: Option<Owned>,
}

/// Which node it is, and whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Owned {
    /// Number of the file system that it is in.
    pub(crate) file_system: u64,
    /// Number of the node in it: another one after the device was plugged in again.
    pub(crate) inode: u64,
    /// Number of the device.
    pub(crate) device: u64,
    /// User.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
    /// Who may do what.
    pub(crate) mode: u32,
}

impl Owned {
    /// Whether it is the same node, whosever it is.
    pub(crate) fn is_same_node(&self, other: &Self) -> bool {
        let key = |one: &Self| (one.file_system, one.inode, one.device);
        key(self) == key(other)
    }
}

/// Reaches the node at a path below `/dev`. Blocks.
///
/// # Errors
///
/// Fails where there is none, where a part of the path is a link, and where it is neither a character device nor a plain
/// file.
pub(crate) fn reach(host: &Host, path: &Path) -> io::Result<Reached> {
    let below = path.strip_prefix("/dev").map_err(io::Error::other)?;
    let mut fd: OwnedFd = fs::File::open(&host.dev_dir)?.into();
    let last = below.components().count();
    for (index, part) in below.components().enumerate() {
        let Component::Normal(name) = part else {
            return Err(io::Error::other("its path has .. in it"));
        };
        let mut flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        if index + 1 < last {
            flags |= OFlag::O_DIRECTORY;
        }
        fd = openat(&fd, name, flags, Mode::empty())?;
    }
    let owned = owned(&fd)?;
    Ok(Reached { fd, owned })
}

fn owned(fd: &OwnedFd) -> io::Result<Option<Owned>> {
    let found = fs::File::from(fd.try_clone()?).metadata()?;
    if found.is_file() {
        return Ok(None);
    }
    if !found.file_type().is_char_device() {
        return Err(io::Error::other("it is no character device"));
    }
    Ok(Some(Owned {
        file_system: found.dev(),
        inode: found.ino(),
        device: found.rdev(),
        uid: found.uid(),
        gid: found.gid(),
        mode: found.mode() & PERMISSION_BITS,
    }))
}

impl Reached {
    /// Makes the node a user's own, who can then read and write it. Does nothing where that is so. Blocks.
    ///
    /// # Errors
    ///
    /// Fails where the host does not allow it.
    pub(crate) fn give(&self, id: u32) -> io::Result<()> {
        let Some(owned) = self.owned else {
            return Ok(());
        };
        self.change(&owned, id, id, owned.mode | OWNER_READS_AND_WRITES)
    }

    /// Gives the node back to whom it belonged, if it is still the same and nobody else has changed its owner. Blocks.
    ///
    /// # Errors
    ///
    /// Fails where the host does not allow it.
    pub(crate) fn give_back(&self, original: &Owned, id: u32) -> io::Result<()> {
        match &self.owned {
            Some(owned) if owned.is_same_node(original) && owned.uid == id => {
                self.change(owned, original.uid, original.gid, original.mode)
            }
            _ => Ok(()),
        }
    }

    fn change(&self, owned: &Owned, uid: u32, gid: u32, mode: u32) -> io::Result<()> {
        if (owned.uid, owned.gid) != (uid, gid) {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            fchownat(
                self.fd.as_fd(),
                "",
                Some(uid),
                Some(gid),
                AtFlags::AT_EMPTY_PATH,
            )?;
        }
        if owned.mode != mode {
            // A descriptor that only stands for a place takes no fchmod; its name in /proc leads to the same place.
            let place = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
            fs::set_permissions(place, fs::Permissions::from_mode(mode))?;
        }
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests;
