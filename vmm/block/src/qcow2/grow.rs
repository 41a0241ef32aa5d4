//! Making the disk of an open image longer.

use std::sync::atomic::Ordering;

use super::header::set_size;
use super::mapping::Clear;
use super::{Qcow2Disk, locked};
use crate::disk::{Disk, DiskError, SECTOR_BYTES};

impl Qcow2Disk {
    /// Makes the disk longer. The tables that say that the new part is zero are durable before the
    /// header counts it in, and nobody can access it before that.
    pub(super) fn grow_to(&self, len_bytes: u64) -> Result<(), DiskError> {
        let _one_at_a_time = locked(&self.growing);
        let old_bytes = self.len_bytes();
        if len_bytes <= old_bytes {
            return Ok(());
        }
        if self.setup.read_only {
            return Err(DiskError::ReadOnly);
        }
        let len_bytes = len_bytes.checked_next_multiple_of(SECTOR_BYTES);
        let len_bytes = len_bytes.filter(|len| i64::try_from(*len).is_ok());
        let len_bytes = len_bytes.ok_or(DiskError::FixedSize)?;
        let l1_entries = {
            let mut metadata = locked(&self.metadata);
            metadata.extend_l1(len_bytes)?;
            metadata.l1_entries
        };
        // A longer backing file must not show through where the disk ended so far.
        let backed_bytes = self.setup.backed_bytes(len_bytes);
        self.backed_bytes.store(backed_bytes, Ordering::Release);
        self.zero_new_part(old_bytes, len_bytes)?;
        self.write_back()?;
        set_size(&self.file, len_bytes, l1_entries)?;
        self.len_bytes.store(len_bytes, Ordering::Release);
        Ok(())
    }

    /// Clears what clusters beyond the old end may hold, among them the rest of the last one.
    fn zero_new_part(&self, old_bytes: u64, len_bytes: u64) -> Result<(), DiskError> {
        let size = self.geometry.cluster_bytes();
        let whole = (
            old_bytes.next_multiple_of(size),
            len_bytes.next_multiple_of(size),
        );
        self.zero_range(old_bytes, len_bytes, whole, Clear::ZeroAndUnmap)
    }
}
