//! What every disk can do, whatever its format.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::width::to_u64;

/// The unit in which disks are sized.
pub(crate) const SECTOR_BYTES: u64 = 512;

/// A disk: a number of bytes that can be read and, if it is not read-only, written. The number
/// changes only by [`grow`](Disk::grow) and [`refresh_len`](Disk::refresh_len).
///
/// All calls block and may come from any thread, several at once. Two calls that touch the same
/// bytes at the same time have no order; calls on different bytes never disturb each other, even
/// inside one sector's cluster. What a call wrote is certain to survive a power failure only after a
/// later [`flush`](Disk::flush) succeeded.
pub trait Disk: Send + Sync {
    /// Returns the size of the disk in bytes, always a multiple of 512.
    fn len_bytes(&self) -> u64;

    /// Tells whether every change is refused with [`DiskError::ReadOnly`].
    fn is_read_only(&self) -> bool;

    /// Returns the block size that a guest should see. Calls accept any byte range all the same.
    fn logical_block_bytes(&self) -> u32 {
        512
    }

    /// Returns the room that the image takes on the host in bytes, without its backing files.
    fn allocated_bytes(&self) -> u64 {
        0
    }

    /// Looks at the size of the image again, which somebody else may have changed, and returns it.
    ///
    /// # Errors
    /// What the host answered; the disk then keeps the size it had.
    fn refresh_len(&self) -> Result<u64, DiskError> {
        Ok(self.len_bytes())
    }

    /// Makes the disk `len_bytes` long, rounded up to whole sectors; what is added reads as zeroes.
    /// A disk that is at least that long stays as it is.
    ///
    /// # Errors
    /// [`DiskError::ReadOnly`], [`DiskError::FixedSize`], [`DiskError::NoSpace`], else what the host
    /// answered.
    fn grow(&self, _len_bytes: u64) -> Result<(), DiskError> {
        Err(DiskError::FixedSize)
    }

    /// Says what was asked of the opener and could not be done, such as direct I/O.
    fn note(&self) -> Option<String> {
        None
    }

    /// Fills `buf` with the bytes from `offset` on.
    ///
    /// # Errors
    /// [`DiskError::OutOfRange`] when the range leaves the disk, else what the host answered.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError>;

    /// Writes `buf` to the bytes from `offset` on.
    ///
    /// # Errors
    /// [`DiskError::OutOfRange`], [`DiskError::ReadOnly`], [`DiskError::NoSpace`], else what the host
    /// answered. After an error any part of the range may have been written.
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), DiskError>;

    /// Makes everything written before this call survive a power failure (fdatasync).
    ///
    /// # Errors
    /// What the host answered; what was written before may then be lost.
    fn flush(&self) -> Result<(), DiskError>;

    /// Says that the content of the range is no longer needed, which may give room back to the host.
    ///
    /// It is a hint: each byte afterwards reads as zero or as before.
    ///
    /// # Errors
    /// As [`write_at`](Disk::write_at); a host that cannot discard is no error.
    fn discard(&self, offset: u64, len_bytes: u64) -> Result<(), DiskError>;

    /// Makes the range read as zeroes, without keeping room for it on the host if `may_unmap`.
    ///
    /// # Errors
    /// As [`write_at`](Disk::write_at).
    fn write_zeroes(&self, offset: u64, len_bytes: u64, may_unmap: bool) -> Result<(), DiskError>;
}

impl fmt::Debug for dyn Disk + '_ {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disk")
            .field("len_bytes", &self.len_bytes())
            .field("is_read_only", &self.is_read_only())
            .finish_non_exhaustive()
    }
}

/// Why a disk could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The range does not lie inside the disk.
    #[error("access {len_bytes} bytes at {offset} of a disk of {disk_bytes} bytes")]
    OutOfRange {
        /// First byte of the range.
        offset: u64,
        /// Length of the range.
        len_bytes: u64,
        /// Size of the disk.
        disk_bytes: u64,
    },
    /// The disk was opened read-only.
    #[error("change a read-only disk")]
    ReadOnly,
    /// The disk cannot get longer, or not that much.
    #[error("grow a disk whose size is fixed")]
    FixedSize,
    /// The host file system is full, or the owner's quota is.
    #[error("{operation} at {offset} of {}: no space left on the host", path.display())]
    NoSpace {
        /// What was tried, for example `write`.
        operation: &'static str,
        /// Offset in the host file.
        offset: u64,
        /// The host file.
        path: PathBuf,
    },
    /// The host refused.
    #[error("{operation} at {offset} of {}", path.display())]
    Io {
        /// What was tried, for example `read`.
        operation: &'static str,
        /// Offset in the host file.
        offset: u64,
        /// The host file.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// The image contradicts itself or its format.
    #[error("use the image {}: {field} at {offset} {problem}", path.display())]
    Corrupt {
        /// The part of the format that is wrong, for example `L2 entry`.
        field: &'static str,
        /// Offset in the image file where the part lies or points to.
        offset: u64,
        /// What is wrong with it.
        problem: &'static str,
        /// The image file.
        path: PathBuf,
    },
}

impl DiskError {
    /// Sorts a host error into [`DiskError::NoSpace`] or [`DiskError::Io`].
    pub(crate) fn from_host(
        operation: &'static str,
        offset: u64,
        path: &Path,
        source: io::Error,
    ) -> Self {
        let path = path.to_owned();
        match source.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENOSPC | Errno::EDQUOT) => Self::NoSpace {
                operation,
                offset,
                path,
            },
            _ => Self::Io {
                operation,
                offset,
                path,
                source,
            },
        }
    }
}

/// Checks that a range lies inside a disk of `disk_bytes`.
pub(crate) fn check_range(offset: u64, len_bytes: u64, disk_bytes: u64) -> Result<(), DiskError> {
    match offset.checked_add(len_bytes) {
        Some(end) if end <= disk_bytes => Ok(()),
        _ => Err(DiskError::OutOfRange {
            offset,
            len_bytes,
            disk_bytes,
        }),
    }
}

/// Reads from a disk as if zeroes without end followed its last byte.
pub(crate) fn read_zero_extended(
    disk: &dyn Disk,
    offset: u64,
    buf: &mut [u8],
) -> Result<(), DiskError> {
    let inside = disk
        .len_bytes()
        .saturating_sub(offset)
        .min(to_u64(buf.len()));
    let (head, tail) = buf.split_at_mut(crate::width::to_usize(inside));
    tail.fill(0);
    if head.is_empty() {
        Ok(())
    } else {
        disk.read_at(offset, head)
    }
}
