//! A container's `/dev`: the usual nodes, and those of devices that the pod was given.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, chmodat, mknodat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_bind};

use super::told;
use crate::sandbox::beneath::{self, Links};
use crate::sandbox::spec::{ContainerSpec, Device};

/// Nodes that every container has.
const NODES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// Links that every container has.
const LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
];

/// Mounts `/dev`.
pub(super) fn mount_dev(root: &Path, spec: &ContainerSpec) -> io::Result<()> {
    let dev = root.join("dev");
    fs::create_dir_all(&dev)?;
    let restricted = MountFlags::NOSUID | MountFlags::NOEXEC;
    tmpfs(&dev, MountFlags::NOSUID, "mode=755,size=64k")?;
    for name in NODES {
        node(&Path::new("/dev").join(name), &dev.join(name))?;
    }
    for (name, target) in LINKS {
        symlink(target, dev.join(name))?;
    }
    for name in ["pts", "shm", "mqueue"] {
        fs::create_dir(dev.join(name))?;
    }
    mount(
        "devpts",
        dev.join("pts"),
        "devpts",
        restricted,
        c"newinstance,ptmxmode=0666,mode=0620,gid=5",
    )
    .map_err(told("mount devpts"))?;
    match &spec.shm {
        Some(shm) => mount_bind(shm, dev.join("shm")).map_err(told("mount /dev/shm"))?,
        None => tmpfs(
            &dev.join("shm"),
            restricted | MountFlags::NODEV,
            "mode=1777,size=64m",
        )?,
    }
    // A kernel may be without message queues.
    let _absent = mount(
        "mqueue",
        dev.join("mqueue"),
        "mqueue",
        restricted | MountFlags::NODEV,
        None,
    );
    let held = beneath::folder(root)?;
    if spec.is_privileged {
        all_nodes(&dev)?;
    }
    spec.devices
        .iter()
        .try_for_each(|device| given(&held, device))
}

fn tmpfs(on: &Path, flags: MountFlags, options: &str) -> io::Result<()> {
    let options = std::ffi::CString::new(options)?;
    mount("tmpfs", on, "tmpfs", flags, &*options)
        .map_err(told(format_args!("mount {}", on.display())))
}

/// Makes the same node as the host's. Where nodes cannot be made, the host's own is mounted.
fn node(from: &Path, to: &Path) -> io::Result<()> {
    let found = fs::metadata(from).map_err(told(format_args!("find {}", from.display())))?;
    let kind = FileType::from_raw_mode(found.mode());
    if !matches!(kind, FileType::CharacterDevice | FileType::BlockDevice) {
        return Err(io::Error::other(format!("{} is no device", from.display())));
    }
    let mode = Mode::from_raw_mode(found.mode() & 0o777);
    match mknodat(CWD, to, kind, mode, found.rdev()) {
        Ok(()) => chmodat(CWD, to, mode, rustix::fs::AtFlags::empty())?,
        Err(Errno::PERM) => {
            fs::write(to, "")?;
            return mount_bind(from, to).map_err(told(format_args!("mount {}", from.display())));
        }
        Err(error) => return Err(told(format_args!("make {}", to.display()))(error)),
    }
    std::os::unix::fs::chown(to, Some(found.uid()), Some(found.gid()))
}

/// Makes a node of a device that the pod was given; a folder's nodes are all made.
fn given(root: &std::os::fd::OwnedFd, device: &Device) -> io::Result<()> {
    let target = Path::new(&device.target);
    let failed = |error| told(format_args!("give the device {}", device.source.display()))(error);
    let (Some(parent), Some(name)) = (target.parent(), target.file_name()) else {
        return Err(failed(io::Error::other(
            "its path in the container is no path of a file",
        )));
    };
    let parent = beneath::make_folder(root, parent, 0o755, Links::InRoot).map_err(failed)?;
    let to = beneath::name(&parent).join(name);
    if fs::metadata(&device.source).map_err(failed)?.is_dir() {
        fs::create_dir_all(&to).map_err(failed)?;
        return mount_bind(&device.source, to).map_err(|error| failed(error.into()));
    }
    // One that the pod was given twice, or that everybody has.
    if fs::symlink_metadata(&to).is_ok() {
        return Ok(());
    }
    node(&device.source, &to).map_err(failed)
}

/// Makes the nodes of all devices of the host, for privileged containers.
fn all_nodes(dev: &Path) -> io::Result<()> {
    for entry in fs::read_dir("/dev")? {
        let entry = entry?;
        let to = dev.join(entry.file_name());
        let kind = FileType::from_raw_mode(entry.metadata()?.mode());
        let is_device = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
        if is_device && fs::symlink_metadata(&to).is_err() {
            node(&entry.path(), &to)?;
        }
    }
    Ok(())
}
