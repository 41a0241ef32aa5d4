//! The qcow2 format, versions 2 and 3, as QEMU's `docs/interop/qcow2` specifies it.

mod create;
mod header;
mod refcount;

use std::sync::Arc;

use crate::disk::{Disk, DiskError, check_range};
use crate::host_file::HostFile;
use crate::open::OpenError;

pub(crate) use create::{Layout, create};
pub(crate) use header::{Backing, Header, MAGIC};

/// What the opener decides about an image, beside what its header says.
pub(crate) struct Setup {
    /// What lies below unallocated clusters.
    pub(crate) backing: Option<Arc<dyn Disk>>,
    /// Refuses every change.
    pub(crate) read_only: bool,
    /// Flushes after every change.
    pub(crate) writethrough: bool,
    /// How many images stand on this one.
    pub(crate) depth: usize,
}

/// A qcow2 image.
pub(crate) struct Qcow2Disk {
    setup: Setup,
    len_bytes: u64,
}

impl Qcow2Disk {
    pub(crate) fn new(file: HostFile, _header: &Header, _setup: Setup) -> Result<Self, OpenError> {
        Err(OpenError::Unsupported {
            path: file.path().to_owned(),
            feature: "qcow2".into(),
        })
    }
}

impl Disk for Qcow2Disk {
    fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    fn is_read_only(&self) -> bool {
        self.setup.read_only
    }

    fn read_at(&self, offset: u64, _buf: &mut [u8]) -> Result<(), DiskError> {
        check_range(offset, u64::MAX, self.len_bytes)
    }

    fn write_at(&self, offset: u64, _buf: &[u8]) -> Result<(), DiskError> {
        check_range(offset, u64::MAX, self.len_bytes)
    }

    fn flush(&self) -> Result<(), DiskError> {
        Ok(())
    }

    fn discard(&self, offset: u64, _len_bytes: u64) -> Result<(), DiskError> {
        check_range(offset, u64::MAX, self.len_bytes)
    }

    fn write_zeroes(
        &self,
        offset: u64,
        _len_bytes: u64,
        _may_unmap: bool,
    ) -> Result<(), DiskError> {
        check_range(offset, u64::MAX, self.len_bytes)
    }
}
