//! Container disks: files of containers' images, mounted read-only where the launcher looks for them (§2.11, §4.4).
//!
//! ```text
//!   socket in the pod ──SO_PEERCRED──▶ container ──image──▶ file ──▶ record ──▶ mount ──▶ does the launcher see it?
//! ```
//!
//! A mount keeps its file alive when the container ends or its image is deleted.

mod attach;
mod checksum;
pub(crate) mod container;
pub(crate) mod place;
pub(crate) mod state;
mod wanted;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use api::Vmi;
use api::status::ImageFile;
use rustix::fs::{self, AtFlags, CWD, Mode, OFlags, ResolveFlags};
use tracing::{debug, info, warn};

use crate::config::HostPaths;
use crate::launchers::Launcher;
use crate::status::kernel_file;
use container::Container;
use place::{Disks, MountPoint, inode};
use state::State;
use wanted::{Source, Wanted, wanted};

/// Where launchers have their container disks.
const IN_LAUNCHER: &str = "var/run/kubevirt/container-disks";

/// How far the mounts of an instance are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mounted {
    /// All are there.
    Ready {
        /// The checksums that are known, by volume or by the names of [`crate::status::kernel_file`].
        checksums: BTreeMap<String, u32>,
    },
    /// A container does not answer yet.
    Waiting {
        /// The volume whose container it is, or `kernel-boot`.
        volume: String,
    },
}

/// Why files of containers cannot be mounted.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The instance says something that cannot be.
    #[error("spec.domain.firmware.{field}: {reason}")]
    Field {
        /// The field below `firmware`.
        field: &'static str,
        /// What is wrong with it, and the cure.
        reason: String,
    },
    /// The container cannot be found.
    #[error("reach the container of volume {volume} by {}", socket.display())]
    Container {
        /// The volume, or `kernel-boot`.
        volume: String,
        /// Its socket on the host.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The container's image has no such file.
    #[error("find {path} in the container image of volume {volume}")]
    Image {
        /// The volume, or `kernel-boot`.
        volume: String,
        /// The path in the image.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The node refuses to mount the file.
    #[error("mount the image of volume {volume} on {}", path.display())]
    Mount {
        /// The volume, or `kernel-boot`.
        volume: String,
        /// The mount point.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file was mounted, but the launcher has not got the mount.
    #[error(
        "show the launcher what is mounted on {}: the handler must mount the kubelet's folder with mountPropagation Bidirectional, and the launcher its volume container-disks with HostToContainer",
        path.display()
    )]
    NotSeen {
        /// The mount point.
        path: PathBuf,
    },
    /// The image is not that with which the instance was started.
    #[error(
        "accept the image of volume {volume}: its checksum is {found}, but the instance runs with {expected}: refer to images by digest"
    )]
    Differs {
        /// The volume, or `kernel-boot`.
        volume: String,
        /// Checksum by the instance's status.
        expected: u32,
        /// Checksum of the image.
        found: u32,
    },
    /// A folder or record cannot be used.
    #[error("use {}", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl MountError {
    fn path(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        |source| Self::Path { path, source }
    }
}

/// Mounts the container disks and kernel boot files of an instance for its launcher. Blocks; does nothing where it was
/// done before. Not for pods whose images the kubelet mounts (gate `ImageVolume`).
///
/// # Errors
///
/// Fails when an image has no such file, is not the one that the instance was started with, or when the node refuses
/// the mount.
pub fn mount_container_disks(
    paths: &HostPaths,
    vmi: &Vmi,
    launcher: &Launcher,
) -> Result<Mounted, MountError> {
    let mut mounting = Mounting::begin(paths, vmi, launcher)?;
    for wanted in &mounting.wanted.clone() {
        if !mounting.mount(wanted)? {
            let volume = wanted.volume.clone();
            return Ok(Mounted::Waiting { volume });
        }
    }
    for wanted in &mounting.wanted.clone() {
        mounting.check_visible(wanted)?;
        mounting.check_same(wanted, vmi)?;
    }
    Ok(Mounted::Ready {
        checksums: mounting.state.checksums,
    })
}

/// Returns the checksums (CRC-32 as in IEEE 802.3) of all files that are mounted for an instance, computing those that
/// are not known yet. Blocks for as long as it takes to read the images.
///
/// # Errors
///
/// Fails when a file cannot be read.
pub fn checksums(
    paths: &HostPaths,
    vmi: &Vmi,
    launcher: &Launcher,
) -> Result<BTreeMap<String, u32>, MountError> {
    let mut mounting = Mounting::begin(paths, vmi, launcher)?;
    for wanted in &mounting.wanted.clone() {
        mounting.checksum(wanted)?;
    }
    Ok(mounting.state.checksums)
}

/// Unmounts what was mounted for an instance, and forgets it. Blocks. What is not there any more is no error.
///
/// # Errors
///
/// Fails when the node refuses; what can be undone is undone nevertheless.
pub fn unmount_all(paths: &HostPaths, uid: &str) -> Result<(), MountError> {
    let path = state::path(paths, uid).map_err(MountError::path(uid))?;
    let state = State::read(paths, uid).unwrap_or_else(|error| {
        // The mounts are found by themselves when the pod is gone.
        warn!(path = %path.display(), %error, "record of mounts makes no sense and is removed");
        State::default()
    });
    let mut failed = None;
    for entry in &state.entries {
        match MountPoint::at(paths, &entry.target).map(|point| point.clear()) {
            Some(Ok(())) => info!(path = %entry.target.display(), "unmounted"),
            Some(Err(source)) => failed = Some(MountError::path(&entry.target)(source)),
            None => {
                warn!(path = %entry.target.display(), "mount on record is in no pod and is left alone");
            }
        }
    }
    match failed {
        Some(error) => Err(error),
        None => state::remove(paths, uid).map_err(MountError::path(path)),
    }
}

/// What it takes to mount the files of one instance.
struct Mounting<'a> {
    paths: &'a HostPaths,
    launcher: &'a Launcher,
    disks: Disks,
    wanted: Vec<Wanted>,
    state: State,
}

impl<'a> Mounting<'a> {
    fn begin(paths: &'a HostPaths, vmi: &Vmi, launcher: &'a Launcher) -> Result<Self, MountError> {
        let wanted = wanted(vmi)?;
        let disks = Disks::of(paths, &launcher.pod_uid);
        let disks = disks.map_err(MountError::path(&launcher.pod_uid))?;
        let path = state::path(paths, &launcher.uid).map_err(MountError::path(&launcher.uid))?;
        let state = State::read(paths, &launcher.uid).map_err(MountError::path(path))?;
        Ok(Self {
            paths,
            launcher,
            disks,
            wanted,
            state,
        })
    }

    fn point(&self, wanted: &Wanted) -> MountPoint {
        MountPoint::new(&self.disks, wanted.folder, &wanted.name)
    }

    /// Mounts a file unless it is mounted; returns whether it is.
    fn mount(&mut self, wanted: &Wanted) -> Result<bool, MountError> {
        let point = self.point(wanted);
        let failed = |source| MountError::Mount {
            volume: wanted.volume.clone(),
            path: point.path(),
            source,
        };
        if point.is_mounted().map_err(failed)? {
            debug!(volume = wanted.volume, "image is mounted already");
            return Ok(true);
        }
        let Some(container) = self.container(wanted)? else {
            return Ok(false);
        };
        let file = container
            .open(&wanted.source)
            .map_err(|source| MountError::Image {
                volume: wanted.volume.clone(),
                path: match &wanted.source {
                    Source::Path(path) => path.clone(),
                    Source::OnlyDisk => "the only file in /disk".to_owned(),
                },
                source,
            })?;
        self.remember(wanted, &point)?;
        point.make().map_err(failed)?;
        attach::attach(&container.namespace, &file, &point).map_err(failed)?;
        info!(volume = wanted.volume, path = %point.path().display(), "mounted image");
        Ok(true)
    }

    fn container(&self, wanted: &Wanted) -> Result<Option<Container>, MountError> {
        let folder = self.disks.path();
        let opened = self.disks.open("").map_err(MountError::path(&folder))?;
        Container::behind(opened, &wanted.socket, &self.paths.proc_dir).map_err(|source| {
            MountError::Container {
                volume: wanted.volume.clone(),
                socket: folder.join(&wanted.socket),
                source,
            }
        })
    }

    /// Remembers a mount before it is made. The checksum was that of what was mounted before.
    fn remember(&mut self, wanted: &Wanted, point: &MountPoint) -> Result<(), MountError> {
        let socket = self.disks.path().join(&wanted.socket);
        let is_new = self.state.add(point.path(), socket);
        if self.state.checksums.remove(&wanted.checksum).is_some() || is_new {
            self.keep_state()?;
        }
        Ok(())
    }

    fn keep_state(&self) -> Result<(), MountError> {
        let uid = &self.launcher.uid;
        let written = self.state.write(self.paths, uid);
        written.map_err(MountError::path(state::folder(self.paths).join(uid)))
    }

    /// Checks that the launcher has the mount where it will look for it, if that is where launchers look.
    fn check_visible(&self, wanted: &Wanted) -> Result<(), MountError> {
        let point = self.point(wanted);
        let failed = MountError::path(point.path());
        let is_seen = self.is_seen(wanted, &point).map_err(failed)?;
        is_seen
            .then_some(())
            .ok_or_else(|| MountError::NotSeen { path: point.path() })
    }

    fn is_seen(&self, wanted: &Wanted, point: &MountPoint) -> io::Result<bool> {
        let at = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = fs::openat(CWD, self.launcher.root(), at, Mode::empty())?;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let Ok(folder) = fs::openat2(root, IN_LAUNCHER, at, Mode::empty(), resolve) else {
            return Ok(true);
        };
        if inode(&folder)? != inode(self.disks.open("")?)? {
            return Ok(true);
        }
        let path = Path::new(wanted.folder).join(&wanted.name);
        let file = fs::statat(folder, path, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok((file.st_dev, file.st_ino) == inode(point.open()?)?)
    }

    /// Checks that a file is the one which the instance was started with elsewhere.
    fn check_same(&mut self, wanted: &Wanted, vmi: &Vmi) -> Result<(), MountError> {
        // Upstream writes 0 for a checksum that it does not know.
        let Some(expected) = expected(vmi, &wanted.checksum).filter(|checksum| *checksum != 0)
        else {
            return Ok(());
        };
        let found = self.checksum(wanted)?;
        let volume = || wanted.volume.clone();
        (found == expected)
            .then_some(())
            .ok_or_else(|| MountError::Differs {
                volume: volume(),
                expected,
                found,
            })
    }

    fn checksum(&mut self, wanted: &Wanted) -> Result<u32, MountError> {
        if let Some(known) = self.state.checksums.get(&wanted.checksum) {
            return Ok(*known);
        }
        let point = self.point(wanted);
        let read = point.open_content().and_then(checksum::of_file);
        let found = read.map_err(MountError::path(point.path()))?;
        self.state.checksums.insert(wanted.checksum.clone(), found);
        self.keep_checksum(&wanted.checksum, found)?;
        Ok(found)
    }

    /// Keeps a checksum. It took long, so the record may have changed, and must not come back when it is gone.
    fn keep_checksum(&self, name: &str, checksum: u32) -> Result<(), MountError> {
        let uid = &self.launcher.uid;
        let path = state::folder(self.paths).join(uid);
        let read = State::read(self.paths, uid).and_then(|mut state| {
            if state.entries.is_empty() {
                return Ok(());
            }
            state.checksums.insert(name.to_owned(), checksum);
            state.write(self.paths, uid)
        });
        read.map_err(MountError::path(path))
    }
}

/// Returns the checksum that the instance's status has for a file.
fn expected(vmi: &Vmi, name: &str) -> Option<u32> {
    let status = &vmi.status;
    let kernel = status.kernel_boot_status.as_ref();
    let file: Option<&ImageFile> = match name {
        kernel_file::KERNEL => kernel?.kernel_info.as_ref(),
        kernel_file::INITRD => kernel?.initrd_info.as_ref(),
        volume => {
            let mut all = status.volume_status.iter();
            let of_volume = all.find(|status| status.name == volume)?;
            of_volume.container_disk_volume.as_ref()
        }
    };
    file?.checksum
}
