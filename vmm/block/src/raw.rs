//! Raw images: the bytes of the file or block device are the bytes of the disk.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::disk::{Disk, DiskError, SECTOR_BYTES, check_range};
use crate::host_file::HostFile;
use crate::width::{to_u64, to_usize};

/// A raw image.
#[derive(Debug)]
pub(crate) struct RawDisk {
    file: HostFile,
    /// Size of the host file, which need not be a whole number of sectors.
    file_bytes: AtomicU64,
    read_only: bool,
    writethrough: bool,
}

impl RawDisk {
    /// Makes a disk of the whole file.
    pub(crate) fn new(
        file: HostFile,
        read_only: bool,
        writethrough: bool,
    ) -> Result<Self, DiskError> {
        let file_bytes = AtomicU64::new(file.len_bytes()?);
        Ok(Self {
            file,
            file_bytes,
            read_only,
            writethrough,
        })
    }

    fn file_bytes(&self) -> u64 {
        self.file_bytes.load(Ordering::Acquire)
    }

    fn check_change(&self, offset: u64, len_bytes: u64) -> Result<(), DiskError> {
        check_range(offset, len_bytes, self.len_bytes())?;
        if self.read_only {
            Err(DiskError::ReadOnly)
        } else {
            Ok(())
        }
    }

    fn after_change(&self) -> Result<(), DiskError> {
        if self.writethrough {
            self.file.sync()
        } else {
            Ok(())
        }
    }
}

fn whole_sectors(len_bytes: u64) -> u64 {
    len_bytes.saturating_add(SECTOR_BYTES - 1) / SECTOR_BYTES * SECTOR_BYTES
}

impl Disk for RawDisk {
    /// Counts a last sector that the file fills only in part; its rest reads as zeroes.
    fn len_bytes(&self) -> u64 {
        whole_sectors(self.file_bytes())
    }

    fn allocated_bytes(&self) -> u64 {
        self.file.allocated_bytes().unwrap_or(0)
    }

    fn note(&self) -> Option<String> {
        self.file.note()
    }

    fn refresh_len(&self) -> Result<u64, DiskError> {
        let file_bytes = self.file.len_bytes()?;
        self.file_bytes.store(file_bytes, Ordering::Release);
        Ok(self.len_bytes())
    }

    fn grow(&self, len_bytes: u64) -> Result<(), DiskError> {
        if self.refresh_len()? >= len_bytes {
            return Ok(());
        }
        if self.read_only {
            return Err(DiskError::ReadOnly);
        }
        if self.file.is_block_device() {
            return Err(DiskError::FixedSize);
        }
        self.file.set_len(whole_sectors(len_bytes))?;
        self.file.sync()?;
        self.refresh_len().map(|_| ())
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        check_range(offset, to_u64(buf.len()), self.len_bytes())?;
        let file_bytes = self.file_bytes();
        if file_bytes.is_multiple_of(SECTOR_BYTES) {
            return self.file.read_exact(offset, buf);
        }
        let got = self.file.read_up_to(offset, buf)?;
        let in_file = to_usize(file_bytes.saturating_sub(offset).min(to_u64(buf.len())));
        if got < in_file {
            return self.file.read_exact(offset, &mut buf[..in_file]);
        }
        buf[got..].fill(0);
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), DiskError> {
        self.check_change(offset, to_u64(buf.len()))?;
        self.file.write_all(offset, buf)?;
        self.after_change()
    }

    fn flush(&self) -> Result<(), DiskError> {
        if self.read_only {
            Ok(())
        } else {
            self.file.sync()
        }
    }

    fn discard(&self, offset: u64, len_bytes: u64) -> Result<(), DiskError> {
        self.check_change(offset, len_bytes)?;
        self.file.punch(offset, len_bytes)?;
        self.after_change()
    }

    fn write_zeroes(&self, offset: u64, len_bytes: u64, may_unmap: bool) -> Result<(), DiskError> {
        self.check_change(offset, len_bytes)?;
        self.file.zero(offset, len_bytes, may_unmap)?;
        self.after_change()
    }
}
