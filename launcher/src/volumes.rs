//! Volumes: what each needs, decided without touching the host, and the files that are then made.

mod access;
mod cloud_init;
mod folder;
mod host_disk;
mod metrics;
mod place;
mod plan;
mod prepare;
mod probe;
mod status;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use api::{FieldError, FieldPath};
use block::iso9660::IsoError;
use vmm::config::DiskSource;

use crate::images::ImageError;
use crate::state_dir::StateDirError;

pub(crate) use access::{credential_files, keys};
pub use cloud_init::{CloudInit, CloudInitKind, Data};
pub use metrics::{
    METRICS_DISK_BYTES, Metric, MetricValue, Subject, create_metrics_disk, host_metrics,
    update_metrics_disk, vm_metrics,
};
pub use place::{ClaimImage, ImageFile, Place, Standalone};
pub(crate) use plan::is_read_only;
pub use plan::{KernelPlan, VolumePlan, VolumeSource, plan_kernel, plan_volumes};
pub use prepare::prepare;

/// Volumes and kernel as files of this host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResolvedVolumes {
    /// Sources of disks, by volume name.
    pub disks: BTreeMap<String, ResolvedDisk>,
    /// Kernel of `firmware.kernelBoot`.
    pub kernel: Option<ResolvedKernel>,
    /// What is to be said about volumes, such as less space than asked for.
    pub warnings: Vec<FieldError>,
}

/// A volume as a file of this host.
#[derive(Clone, Debug, PartialEq)]
pub struct ResolvedDisk {
    /// Where the data live.
    pub source: DiskSource,
    /// Whether the volume cannot be written, whatever the disk says.
    pub read_only: bool,
    /// What the host's file or device is like.
    pub medium: Medium,
}

/// What a file or block device of the host is like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Medium {
    /// Whether data can go past the page cache (`O_DIRECT`).
    pub direct_io: bool,
    /// Whether its room is set aside: giving some back would undo what somebody paid for.
    pub preallocated: bool,
    /// Logical and physical block size, bytes; `None` when unknown.
    pub block_bytes: Option<(u32, u32)>,
}

/// A kernel as files of this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedKernel {
    /// Kernel.
    pub kernel: PathBuf,
    /// Initial RAM disk.
    pub initrd: Option<PathBuf>,
}

/// A volume that cannot be prepared.
#[derive(Debug, thiserror::Error)]
#[error("{field}")]
pub struct VolumeError {
    /// The field.
    pub field: FieldPath,
    /// Why.
    pub source: Box<VolumeCause>,
}

/// Why a volume cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub enum VolumeCause {
    /// A container image cannot be had.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// The state folder cannot take a file.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// An empty disk cannot be made.
    #[error(transparent)]
    Create(#[from] block::CreateError),
    /// A disk with files cannot be made.
    #[error(transparent)]
    Iso(#[from] IsoError),
    /// A file is not there.
    #[error("{} does not exist: {cure}", path.display())]
    Absent {
        /// The file or folder.
        path: PathBuf,
        /// What to do.
        cure: &'static str,
    },
    /// A file cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// Neither the file nor the device of a claim is there.
    #[error(
        "neither {} nor {} exists: see the pod's events for what keeps the claim from being mounted",
        file.display(), device.display()
    )]
    NoClaim {
        /// The file of a claim of volume mode Filesystem.
        file: PathBuf,
        /// The device of one of volume mode Block.
        device: PathBuf,
    },
    /// A path that should lead to an image or a device leads to something else.
    #[error("{} is {found}: {cure}", path.display())]
    NoImage {
        /// The path.
        path: PathBuf,
        /// What is there.
        found: &'static str,
        /// What to do.
        cure: &'static str,
    },
    /// A file of a volume cannot be made.
    #[error("create {}", path.display())]
    Make {
        /// The file.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// A volume is smaller than what is asked for.
    #[error(
        "create {}: {wanted_bytes} bytes are wanted and {available_bytes} are available, which is less than {tolerated_bytes}, the least that is tolerated: free some room, or ask for less",
        path.display()
    )]
    NoRoom {
        /// The file.
        path: PathBuf,
        /// Size that is asked for.
        wanted_bytes: u64,
        /// Size that fits.
        available_bytes: u64,
        /// Size that would be taken.
        tolerated_bytes: u64,
    },
    /// More data than such a disk is for.
    #[error("{} holds more than {limit_mib} MiB: use a smaller one", path.display())]
    TooLarge {
        /// The file or folder.
        path: PathBuf,
        /// The bound.
        limit_mib: u64,
    },
}

#[cfg(test)]
mod tests;
