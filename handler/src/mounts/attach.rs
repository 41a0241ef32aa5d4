//! Mounting a file of a container on a file of a pod.
//!
//! A file can be bind-mounted only by who is in the mount namespace that shows it, onto files of the same namespace. So
//! a thread of its own goes there, makes a mount that is nowhere attached yet (`open_tree`), and comes back with it. A
//! thread may do so, unlike the process, since it can have a root and working folder of its own. It makes the mount
//! read-only in a private copy of our namespace first: once attached for all to see, a change would reach our view only,
//! and not the launcher's. The kernel must be 5.2 or later for that; that is no limit, as `openat2` needs 5.6.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::fchdir;
use rustix::fs::{self, CWD, Mode, OFlags, StatVfsMountFlags};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount_change, mount_remount,
    move_mount, open_tree,
};

use super::place::MountPoint;

/// What is forbidden to who uses the mount.
const RESTRICTIONS: MountFlags = MountFlags::BIND
    .union(MountFlags::RDONLY)
    .union(MountFlags::NOSUID)
    .union(MountFlags::NODEV)
    .union(MountFlags::NOEXEC);

/// Mounts a file of another mount namespace read-only on a file that is there.
pub(super) fn attach(namespace: &OwnedFd, file: &OwnedFd, on: &MountPoint) -> io::Result<()> {
    let restricted = thread::scope(|scope| {
        let copy = || restricted_copy(namespace, file, on);
        let copying = thread::Builder::new()
            .name("mount".to_owned())
            .spawn_scoped(scope, copy)?;
        let died = |_| Err(io::Error::other("the thread that mounts has panicked"));
        copying.join().unwrap_or_else(died)
    })?;
    put(&restricted, on.open()?)
}

/// Returns a read-only mount of the file that is nowhere attached. The thread is of no use afterwards.
fn restricted_copy(namespace: &OwnedFd, file: &OwnedFd, on: &MountPoint) -> io::Result<OwnedFd> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let private = fs::openat(CWD, "/proc/thread-self/ns/mnt", flags, Mode::empty())?;
    let folder = on.open_folder()?;
    let below = on.open()?;
    setns(namespace, CloneFlags::CLONE_NEWNS)?;
    let detached = copy(file)?;
    setns(&private, CloneFlags::CLONE_NEWNS)?;
    put(&detached, below)?;
    fchdir(&folder)?;
    mount_remount(on.name(), RESTRICTIONS, "")?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let restricted = copy(&fs::openat(&folder, on.name(), flags, Mode::empty())?)?;
    let is_read_only = fs::fstatvfs(&restricted)?
        .f_flag
        .contains(StatVfsMountFlags::RDONLY);
    is_read_only
        .then_some(restricted)
        .ok_or_else(|| io::Error::other("the mount cannot be made read-only"))
}

fn copy(file: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    Ok(open_tree(file, "", flags)?)
}

fn put(mount: &OwnedFd, on: impl AsFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, "", on, "", flags)?)
}
