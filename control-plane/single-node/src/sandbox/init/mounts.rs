//! What is mounted in a container: the kernel's file systems, and the pod's volumes.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount, mount_change,
    mount_remount, move_mount, open_tree,
};

use super::told;
use crate::sandbox::beneath::{self, Links};
use crate::sandbox::spec::{ContainerSpec, Mount};

/// What of `/proc` a container does not see.
const HIDDEN: [&str; 9] = [
    "proc/acpi",
    "proc/kcore",
    "proc/keys",
    "proc/latency_stats",
    "proc/timer_list",
    "proc/timer_stats",
    "proc/sched_debug",
    "proc/scsi",
    "sys/firmware",
];
/// What of `/proc` a container cannot write.
const READ_ONLY: [&str; 5] = [
    "proc/bus",
    "proc/fs",
    "proc/irq",
    "proc/sys",
    "proc/sysrq-trigger",
];
/// Mode of folders that are made for mounts.
const FOLDER_MODE: u32 = 0o755;

/// Mounts `/proc` and `/sys`.
pub(super) fn mount_kernel(root: &Path, spec: &ContainerSpec) -> io::Result<()> {
    let restricted = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    let writable = if spec.is_privileged {
        MountFlags::empty()
    } else {
        MountFlags::RDONLY
    };
    file_system("proc", &root.join("proc"), restricted)?;
    file_system("sysfs", &root.join("sys"), restricted | writable)?;
    let groups = root.join("sys/fs/cgroup");
    // A kernel or host with other control groups only has none to show.
    let _absent = mount("cgroup2", &groups, "cgroup2", restricted | writable, None);
    if spec.is_privileged {
        return Ok(());
    }
    for name in READ_ONLY {
        read_only(&root.join(name))?;
    }
    HIDDEN.iter().try_for_each(|name| hide(&root.join(name)))
}

fn file_system(kind: &str, on: &Path, flags: MountFlags) -> io::Result<()> {
    fs::create_dir_all(on)?;
    mount(kind, on, kind, flags, None).map_err(told(format_args!("mount {kind}")))
}

fn read_only(path: &Path) -> io::Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let failed = |error: Errno| told(format_args!("make {} read-only", path.display()))(error);
    rustix::mount::mount_bind(path, path).map_err(failed)?;
    let flags = MountFlags::BIND
        | MountFlags::RDONLY
        | MountFlags::NOSUID
        | MountFlags::NODEV
        | MountFlags::NOEXEC;
    mount_remount(path, flags, "").map_err(failed)
}

fn hide(path: &Path) -> io::Result<()> {
    let Ok(found) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    let hidden = if found.is_dir() {
        mount("tmpfs", path, "tmpfs", MountFlags::RDONLY, None)
    } else {
        rustix::mount::mount_bind("/dev/null", path)
    };
    hidden.map_err(told(format_args!("hide {}", path.display())))
}

/// Mounts the pod's volumes.
pub(super) fn mount_volumes(root: &Path, spec: &ContainerSpec) -> io::Result<()> {
    let root = beneath::folder(root)?;
    for mount in &spec.mounts {
        mount_volume(&root, mount).map_err(told(format_args!(
            "mount {} on {}",
            mount.source.display(),
            mount.target
        )))?;
    }
    Ok(())
}

fn mount_volume(root: &OwnedFd, mount: &Mount) -> io::Result<()> {
    let source = source(mount)?;
    // A copy that is nowhere attached, so that no name can be changed under our hands.
    let flags = OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_RECURSIVE;
    let tree = open_tree(&source, "", flags)?;
    let target = Path::new(&mount.target);
    let on = if beneath::is_folder(&source)? {
        beneath::make_folder(root, target, FOLDER_MODE, Links::InRoot)?
    } else {
        beneath::make_file(root, target, Links::InRoot)?
    };
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(&tree, "", &on, "", flags)?;
    let mounted = beneath::open(root, target, Links::InRoot)?;
    if !mount.follows_host {
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change(beneath::name(&mounted), private)?;
    }
    restrict(&mounted, mount.is_read_only)
}

/// Opens what is mounted. A path below it cannot lead out of it, whatever the pod has put there.
fn source(mount: &Mount) -> io::Result<OwnedFd> {
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    let source = rustix::fs::openat(CWD, &mount.source, flags, rustix::fs::Mode::empty())?;
    let Some(sub_path) = mount.sub_path.as_deref().filter(|path| !path.is_empty()) else {
        return Ok(source);
    };
    let path = Path::new(sub_path);
    let opened = match beneath::open(&source, path, Links::Beneath) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            beneath::make_folder(&source, path, 0o750, Links::Beneath)
        }
        opened => opened,
    };
    opened.map_err(told(format_args!("subPath {sub_path:?}")))
}

/// Makes a mount read-only where wanted. What the host has forbidden there stays forbidden.
fn restrict(mounted: impl AsFd, is_read_only: bool) -> io::Result<()> {
    if !is_read_only {
        return Ok(());
    }
    let has = rustix::fs::fstatvfs(mounted.as_fd())?.f_flag;
    let mut flags = MountFlags::BIND | MountFlags::RDONLY;
    for (has_it, flag) in [
        (StatVfsMountFlags::NOSUID, MountFlags::NOSUID),
        (StatVfsMountFlags::NODEV, MountFlags::NODEV),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
    ] {
        flags.set(flag, has.contains(has_it));
    }
    let owned = mounted.as_fd().try_clone_to_owned()?;
    Ok(mount_remount(beneath::name(&owned), flags, "")?)
}
