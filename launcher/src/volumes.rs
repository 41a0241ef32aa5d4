//! Volumes: what each needs, decided without touching the host, and the files that are then made.

mod cloud_init;
mod plan;
mod prepare;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use api::FieldPath;
use block::iso9660::IsoError;
use vmm::config::DiskSource;

use crate::images::ImageError;
use crate::state_dir::StateDirError;

pub use cloud_init::{CloudInit, CloudInitKind, Data};
pub(crate) use plan::is_read_only;
pub use plan::{VolumePlan, VolumeSource, plan_volumes};
pub use prepare::prepare;

/// Volumes and kernel as files of this host.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ResolvedVolumes {
    /// Sources of disks, by volume name.
    pub disks: BTreeMap<String, ResolvedDisk>,
    /// Kernel of `firmware.kernelBoot`.
    pub kernel: Option<ResolvedKernel>,
}

/// A volume as a file of this host.
#[derive(Clone, Debug, PartialEq)]
pub struct ResolvedDisk {
    /// Where the data live.
    pub source: DiskSource,
    /// Whether the volume cannot be written, whatever the disk says.
    pub read_only: bool,
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
