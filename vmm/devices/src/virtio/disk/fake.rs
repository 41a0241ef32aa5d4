//! A disk in memory that counts and fails on demand.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use block::{Disk, DiskError};

pub(in crate::virtio) struct FakeDisk {
    pub(in crate::virtio) bytes: Mutex<Vec<u8>>,
    read_only: bool,
    pub(in crate::virtio) flushes: AtomicU32,
    /// Discards, and zeroes that may unmap.
    pub(in crate::virtio) unmaps: AtomicU32,
    /// The host has no space left.
    pub(in crate::virtio) fails: AtomicBool,
    /// The host's disk is broken.
    pub(in crate::virtio) breaks: AtomicBool,
    /// The size that the disk will have when it is asked again.
    pub(in crate::virtio) grows_to: AtomicU64,
}

impl FakeDisk {
    /// Makes a disk of 1 MiB.
    pub(in crate::virtio) fn new(read_only: bool) -> Arc<Self> {
        Arc::new(Self {
            bytes: Mutex::new(vec![0; 1 << 20]),
            read_only,
            flushes: AtomicU32::new(0),
            unmaps: AtomicU32::new(0),
            fails: AtomicBool::new(false),
            breaks: AtomicBool::new(false),
            grows_to: AtomicU64::new(1 << 20),
        })
    }

    fn answer(&self, offset: u64) -> Result<(), DiskError> {
        if self.fails.load(Ordering::SeqCst) {
            return Err(DiskError::NoSpace {
                operation: "write",
                offset,
                path: "disk.img".into(),
            });
        }
        if self.breaks.load(Ordering::SeqCst) {
            return Err(DiskError::Io {
                operation: "read",
                offset,
                path: "disk.img".into(),
                source: std::io::Error::other("broken"),
            });
        }
        Ok(())
    }

    fn range(offset: u64, len: usize) -> std::ops::Range<usize> {
        let start = usize::try_from(offset).unwrap();
        start..start + len
    }
}

impl Disk for FakeDisk {
    fn len_bytes(&self) -> u64 {
        self.bytes.lock().unwrap().len().try_into().unwrap()
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn refresh_len(&self) -> Result<u64, DiskError> {
        let len_bytes = self.grows_to.load(Ordering::SeqCst);
        let len = usize::try_from(len_bytes).unwrap();
        self.bytes.lock().unwrap().resize(len, 0);
        Ok(len_bytes)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        self.answer(offset)?;
        buf.copy_from_slice(&self.bytes.lock().unwrap()[Self::range(offset, buf.len())]);
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), DiskError> {
        self.answer(offset)?;
        assert!(
            !self.read_only,
            "the device knows that the disk is read-only"
        );
        self.bytes.lock().unwrap()[Self::range(offset, buf.len())].copy_from_slice(buf);
        Ok(())
    }

    fn flush(&self) -> Result<(), DiskError> {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        self.answer(0)
    }

    fn discard(&self, offset: u64, len_bytes: u64) -> Result<(), DiskError> {
        self.write_zeroes(offset, len_bytes, true)
    }

    fn write_zeroes(&self, offset: u64, len_bytes: u64, may_unmap: bool) -> Result<(), DiskError> {
        self.unmaps
            .fetch_add(u32::from(may_unmap), Ordering::SeqCst);
        let len = usize::try_from(len_bytes).unwrap();
        self.write_at(offset, &vec![0; len])
    }
}
