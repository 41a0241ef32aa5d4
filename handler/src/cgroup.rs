//! Which devices the launcher's control group may use (§2.13).
//!
//! Version 1 has rules that are written one by one and add up. Version 2 has programs of the kernel's (eBPF), which decide
//! for the whole group (`attached`). Neither needs anything for what a container of version 2 was given at its start: the
//! runtime has allowed that.

mod attached;
mod bpf;
mod program;
mod rules;

use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::path::{Component, Path, PathBuf};

use api::Vmi;
use rustix::fs::{FileType, OFlags, fstat, major, minor};
use tracing::{debug, warn};

use crate::config::HostPaths;
use crate::launchers::Launcher;
use crate::pod_files::open_beneath;
pub use bpf::BpfError;
pub use rules::{DeviceKind, DeviceNode, DeviceRule, rules};

/// Bytes of a process's list of groups that are looked at.
const GROUPS_LEN_MAX_BYTES: u64 = 64 << 10;
/// Devices of a launcher that are looked at: more than a machine can have.
const NODES_MAX: usize = 1024;
/// Folders in `/dev` whose devices are machines' (VFIO groups, USB buses), with how deep they are.
const DEVICE_FOLDERS: [(&str, usize); 2] = [("dev/vfio", 1), ("dev/bus/usb", 2)];
/// How deep devices are in `/dev`.
const PRESENT_DEPTH: usize = 4;
/// Folders in `/dev` that everybody may fill with files.
const FILE_FOLDERS: [&str; 3] = ["dev/shm", "dev/mqueue", "dev/hugepages"];
/// Single devices of machines.
const DEVICES: [&str; 3] = ["dev/kvm", "dev/vhost-vsock", "dev/sev"];

/// Why devices cannot be allowed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// The launcher's group cannot be found.
    #[error("find the control group of the launcher in {}", path.display())]
    Find {
        /// What lists it.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The launcher's devices cannot be looked at.
    #[error("list devices in {}", path.display())]
    List {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel does not take a rule.
    #[error("write {rule:?} to {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The rule.
        rule: String,
        /// Why.
        source: io::Error,
    },
    /// The kernel does not list, load or replace programs.
    #[error("allow devices in {}", path.display())]
    Programs {
        /// The group.
        path: PathBuf,
        /// Why.
        source: BpfError,
    },
    /// A group above does not let its members use a device.
    #[error(
        "allow {rule:?} in {}: a program of a control group above denies it; allow the device there (DeviceAllow= of a systemd slice, or the options of the container that the node runs in)",
        path.display()
    )]
    Above {
        /// The group.
        path: PathBuf,
        /// The rule.
        rule: String,
    },
    /// More than one program decides, one of which cannot be extended.
    #[error(
        "allow devices in {}: {count} programs decide there, and one does more than compare numbers or is hidden by net.core.bpf_jit_harden=2; leave a single one attached, or set that to 1",
        path.display()
    )]
    Opaque {
        /// The group.
        path: PathBuf,
        /// How many there are.
        count: usize,
    },
    /// The program would be too long.
    #[error(
        "allow devices in {}: it takes {length} instructions, more than {}; give the instance fewer devices",
        path.display(),
        program::LEN_MAX
    )]
    TooLong {
        /// The group.
        path: PathBuf,
        /// How many instructions it takes.
        length: usize,
    },
}

/// The control group that decides on devices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceGroup {
    /// Of version 1, with this folder.
    V1(PathBuf),
    /// Of version 2, with this folder.
    V2(PathBuf),
}

impl DeviceGroup {
    /// Finds the group of a launcher. Blocks.
    ///
    /// # Errors
    ///
    /// Fails when the process is gone, or when its groups are not those below `paths.cgroup_dir`.
    pub fn of(paths: &HostPaths, launcher: &Launcher) -> Result<Self, CgroupError> {
        let path = paths.proc_dir.join(launcher.pid.to_string()).join("cgroup");
        let mut groups = String::new();
        let read = std::fs::File::open(&path)
            .and_then(|file| file.take(GROUPS_LEN_MAX_BYTES).read_to_string(&mut groups));
        let found = read.and_then(|_| Self::find(&paths.cgroup_dir, &groups));
        found.map_err(|source| CgroupError::Find { path, source })
    }

    /// Reads `<number>:<controllers>:<path>` lines (cgroups(7)).
    fn find(cgroup_dir: &Path, groups: &str) -> io::Result<Self> {
        let fields = |line: &'_ str| -> Option<(String, String)> {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            Some((controllers.to_owned(), path.to_owned()))
        };
        let groups: Vec<_> = groups.lines().filter_map(fields).collect();
        let has = |controllers: &str| controllers.split(',').any(|it| it == "devices");
        if let Some((_, path)) = groups.iter().find(|(controllers, _)| has(controllers)) {
            return Ok(Self::V1(below(&cgroup_dir.join("devices"), path)?));
        }
        match groups
            .iter()
            .find(|(controllers, _)| controllers.is_empty())
        {
            Some((_, path)) => Ok(Self::V2(below(cgroup_dir, path)?)),
            None => Err(io::Error::other("it is in no group for devices")),
        }
    }
}

fn below(folder: &Path, group: &str) -> io::Result<PathBuf> {
    let group = Path::new(group.trim_start_matches('/'));
    let is_name = |part: Component<'_>| matches!(part, Component::Normal(_));
    if !group.components().all(is_name) {
        return Err(io::Error::other(
            "the group is not below the handler's: the handler must run in the host's cgroup namespace",
        ));
    }
    Ok(folder.join(group))
}

/// Allows the launcher those devices that its container was given. Blocks. Control groups of version 2 need nothing: the
/// container runtime has allowed what it put there.
///
/// # Errors
///
/// Fails when the group cannot be found or written.
pub fn allow_present(paths: &HostPaths, vmi: &Vmi, launcher: &Launcher) -> Result<(), CgroupError> {
    match DeviceGroup::of(paths, launcher)? {
        // A group of version 1 for everything is a process outside of containers, which may use all.
        DeviceGroup::V1(group) if group == paths.cgroup_dir.join("devices") => Ok(()),
        DeviceGroup::V1(group) if !group.exists() => {
            warn!(group = %group.display(), "the launcher's control group is not mounted here; its devices stay as the runtime left them");
            Ok(())
        }
        DeviceGroup::V1(_) => {
            let nodes = nodes(&launcher.root(), vmi)?;
            allow_devices(paths, launcher, &rules(&nodes))
        }
        DeviceGroup::V2(_) => Ok(()),
    }
}

/// Allows a launcher devices, which may be such as it was given after its start. Blocks.
///
/// On control groups of version 2 these rules replace those of earlier calls, and leave alone what the container runtime
/// decided: they must be all that the handler has to say. A group that no program decides for may use everything, and
/// stays so.
///
/// # Errors
///
/// Fails when the group cannot be found or written; on control groups of version 2 also when bpf(2) cannot be used, when a
/// group above denies the devices, and when several programs decide of which one cannot be extended.
pub fn allow_devices(
    paths: &HostPaths,
    launcher: &Launcher,
    rules: &[DeviceRule],
) -> Result<(), CgroupError> {
    match DeviceGroup::of(paths, launcher)? {
        DeviceGroup::V1(group) => write(&group, rules),
        DeviceGroup::V2(group) => attached::allow(&group, &launcher.root(), rules),
    }
}

/// Writes rules to a group of version 1.
fn write(group: &Path, rules: &[DeviceRule]) -> Result<(), CgroupError> {
    for rule in rules {
        let file = if rule.is_allowed {
            "devices.allow"
        } else {
            "devices.deny"
        };
        let path = group.join(file);
        debug!(%rule, path = %path.display(), "device rule");
        let text = rule.to_string();
        let opened = std::fs::OpenOptions::new().write(true).open(&path);
        // The kernel takes one rule per write.
        let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
        written.map_err(|source| CgroupError::Write {
            path,
            rule: text,
            source,
        })?;
    }
    Ok(())
}

/// Returns the devices in a launcher's root that are its machine's.
fn nodes(root: &Path, vmi: &Vmi) -> Result<Vec<DeviceNode>, CgroupError> {
    let single = DEVICES.iter().map(PathBuf::from);
    let mut nodes: Vec<_> = single.filter_map(|path| node(root, &path)).collect();
    let names = vmi.spec.volumes.iter().map(|volume| volume.name.as_str());
    let names = names.filter(|name| !name.contains('/') && !matches!(*name, "" | "." | ".."));
    let blocks = names.filter_map(|name| node(root, &Path::new("dev").join(name)));
    nodes.extend(blocks.filter(|node| node.kind == DeviceKind::Block));
    for (folder, depth) in DEVICE_FOLDERS {
        let listed = list(root, Path::new(folder), depth, &mut nodes);
        listed.map_err(|source| CgroupError::List {
            path: root.join(folder),
            source,
        })?;
    }
    Ok(nodes)
}

/// Returns all devices in the `/dev` of a root.
fn present(root: &Path) -> Result<Vec<DeviceNode>, CgroupError> {
    let mut nodes = vec![];
    let listed = list(root, Path::new("dev"), PRESENT_DEPTH, &mut nodes);
    listed.map_err(|source| CgroupError::List {
        path: root.join("dev"),
        source,
    })?;
    Ok(nodes)
}

fn list(root: &Path, folder: &Path, depth: usize, nodes: &mut Vec<DeviceNode>) -> io::Result<()> {
    let opened = match open_beneath(root, folder, OFlags::DIRECTORY) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        opened => opened?,
    };
    for entry in std::fs::read_dir(format!("/proc/self/fd/{}", opened.as_raw_fd()))? {
        if nodes.len() >= NODES_MAX {
            return Err(io::Error::other("there are too many devices"));
        }
        let entry = entry?;
        let path = folder.join(entry.file_name());
        let is_for_files = FILE_FOLDERS.iter().any(|it| path == Path::new(it));
        if entry.file_type()?.is_dir() && depth > 1 && !is_for_files {
            list(root, &path, depth - 1, nodes)?;
        } else {
            nodes.extend(node(root, &path));
        }
    }
    Ok(())
}

/// Returns the device at a path below the root, if one is there. Links are not followed.
fn node(root: &Path, path: &Path) -> Option<DeviceNode> {
    let file = open_beneath(root, path, OFlags::NOFOLLOW).ok()?;
    let stat = fstat(file).ok()?;
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::CharacterDevice => DeviceKind::Character,
        FileType::BlockDevice => DeviceKind::Block,
        _ => return None,
    };
    Some(DeviceNode {
        kind,
        major: major(stat.st_rdev),
        minor: minor(stat.st_rdev),
    })
}

#[cfg(test)]
mod tests;
