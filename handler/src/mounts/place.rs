//! The pods' volume of container disks, and the mount points in it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use api::paths::CONTAINER_DISKS_VOLUME;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, StatxAttributes, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{UnmountFlags, unmount};

use crate::config::HostPaths;
use crate::pod_files::{check_pod_uid, emptydir, is_uid, open_beneath, short_path};

/// Mounts on top of each other that are taken away at a time.
const STACKED_MAX: usize = 16;

/// Returns the folder of the pods by the name under which mounts reach the host and other pods: upstream's DaemonSet
/// shares mounts below the kubelet's folder, but not below `/pods`.
pub(crate) fn pods_dir(paths: &HostPaths) -> PathBuf {
    let shared = paths.kubelet_dir.join("pods");
    let inode = |path: &Path| fs::stat(path).map(|stat| (stat.st_dev, stat.st_ino));
    match (inode(&shared), inode(&paths.pods_dir)) {
        (Ok(one), Ok(other)) if one == other => shared,
        _ => paths.pods_dir.clone(),
    }
}

/// Returns device and inode of a file.
pub(super) fn inode(file: impl AsFd) -> io::Result<(u64, u64)> {
    let stat = fs::fstat(file)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// The pods' volume of container disks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Disks {
    pods: PathBuf,
    pod_uid: String,
}

impl Disks {
    /// Returns the volume of a pod.
    pub(super) fn of(paths: &HostPaths, pod_uid: &str) -> io::Result<Self> {
        check_pod_uid(pod_uid)?;
        Ok(Self {
            pods: pods_dir(paths),
            pod_uid: pod_uid.to_owned(),
        })
    }

    /// Returns where it is on the host.
    pub(super) fn path(&self) -> PathBuf {
        self.pods
            .join(emptydir(&self.pod_uid, CONTAINER_DISKS_VOLUME))
    }

    /// Opens a folder in it, or itself by an empty name.
    pub(super) fn open(&self, folder: &str) -> io::Result<OwnedFd> {
        let path = emptydir(&self.pod_uid, CONTAINER_DISKS_VOLUME).join(folder);
        open_beneath(&self.pods, &path, OFlags::DIRECTORY)
    }
}

/// A file on which a file of a container is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MountPoint {
    disks: Disks,
    folder: String,
    name: String,
}

impl MountPoint {
    /// Names a mount point; `folder` is empty when it lies in the volume itself.
    pub(super) fn new(disks: &Disks, folder: &str, name: &str) -> Self {
        Self {
            disks: disks.clone(),
            folder: folder.to_owned(),
            name: name.to_owned(),
        }
    }

    /// Reads what [`MountPoint::path`] wrote, by whichever name of the pods' folder.
    pub(crate) fn at(paths: &HostPaths, path: &Path) -> Option<Self> {
        let kubelet = paths.kubelet_dir.join("pods");
        let pods = [kubelet, paths.pods_dir.clone()];
        let pods = pods.into_iter().find(|pods| path.starts_with(pods))?;
        let beneath = path.strip_prefix(&pods).ok()?;
        let pod_uid = beneath.iter().next()?.to_str()?;
        let within = beneath
            .strip_prefix(emptydir(pod_uid, CONTAINER_DISKS_VOLUME))
            .ok()?;
        let is_name = |part: Component<'_>| matches!(part, Component::Normal(_));
        if !is_uid(pod_uid) || !within.components().all(is_name) {
            return None;
        }
        let folder = within.parent()?.to_str()?;
        let disks = Disks {
            pod_uid: pod_uid.to_owned(),
            pods,
        };
        Some(Self::new(&disks, folder, within.file_name()?.to_str()?))
    }

    /// Returns whose pod it is in.
    pub(crate) fn pod_uid(&self) -> &str {
        &self.disks.pod_uid
    }

    /// Returns where it is on the host.
    pub(super) fn path(&self) -> PathBuf {
        self.disks.path().join(&self.folder).join(&self.name)
    }

    /// Returns its name in its folder.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Makes the file unless it is there.
    pub(super) fn make(&self) -> io::Result<()> {
        if !self.folder.is_empty() {
            let made = fs::mkdirat(self.disks.open("")?, &self.folder, Mode::from(0o755));
            made.or_else(unless(Errno::EXIST))?;
        }
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let made = fs::openat(self.open_folder()?, &self.name, flags, Mode::from(0o644));
        Ok(made.map(drop).or_else(unless(Errno::EXIST))?)
    }

    /// Opens its folder.
    pub(super) fn open_folder(&self) -> io::Result<OwnedFd> {
        self.disks.open(&self.folder)
    }

    /// Opens what is there: the mount point, or what is mounted on it.
    pub(super) fn open(&self) -> io::Result<OwnedFd> {
        self.open_in(self.open_folder()?)
    }

    /// Opens the file for reading.
    pub(super) fn open_content(&self) -> io::Result<File> {
        let file = self.open()?;
        File::open(short_path(&file))
    }

    fn open_in(&self, folder: impl AsFd) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = fs::openat(folder, &self.name, flags, Mode::empty())?;
        let format = FileType::from_raw_mode(fs::fstat(&file)?.st_mode);
        if format != FileType::RegularFile {
            return Err(io::Error::other("this is no file; the pod has replaced it"));
        }
        Ok(file)
    }

    /// Whether something is mounted on it.
    pub(super) fn is_mounted(&self) -> io::Result<bool> {
        match self.open() {
            Ok(file) => is_mount(&file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Unmounts what is mounted on it and removes it. What is not there is no error.
    pub(crate) fn clear(&self) -> io::Result<()> {
        let folder = match self.open_folder() {
            Ok(folder) => folder,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let path = short_path(&folder).join(&self.name);
        for _ in 0..STACKED_MAX {
            match unmount(&path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
                Ok(()) => {}
                // Nothing is mounted there any more.
                Err(Errno::INVAL | Errno::NOENT) => break,
                Err(error) => return Err(error.into()),
            }
        }
        let removed = fs::unlinkat(&folder, &self.name, AtFlags::empty());
        Ok(removed.or_else(unless(Errno::NOENT))?)
    }
}

/// Whether the file is the root of a mount.
fn is_mount(file: &OwnedFd) -> io::Result<bool> {
    let stat = fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::empty())?;
    if !stat
        .stx_attributes_mask
        .contains(StatxAttributes::MOUNT_ROOT)
    {
        let message = "the kernel does not tell mounts: it must be version 5.8 or later";
        return Err(io::Error::new(io::ErrorKind::Unsupported, message));
    }
    Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

fn unless(expected: Errno) -> impl Fn(Errno) -> Result<(), Errno> {
    move |error| match error {
        error if error == expected => Ok(()),
        error => Err(error),
    }
}
