//! The tables of an open image, which one lock protects.

use std::collections::BTreeSet;
use std::mem;
use std::ops::Range;
use std::sync::Arc;

use super::cache::{DirtySlice, SliceCache, Stage};
use super::geometry::{Geometry, corrupt};
use super::header::Header;
use crate::disk::DiskError;
use crate::host_file::HostFile;

/// Bytes of tables that the image at the top of a chain may cache: 8 GiB of disk in 64 KiB clusters.
const CACHE_BYTES: u64 = 1 << 20;
/// What all images below it share.
const BACKING_CACHE_BYTES: u64 = 1 << 20;
/// More ranges than this wait for a flush only if it fails.
const MAX_FREED_RANGES: usize = 1024;

/// The tables, and what is under way with them.
#[derive(Debug)]
pub(super) struct Metadata {
    pub(super) geometry: Geometry,
    pub(super) file: Arc<HostFile>,
    pub(super) cache: SliceCache,
    pub(super) l1_offset: u64,
    pub(super) l1_entries: u64,
    pub(super) count_table_offset: u64,
    pub(super) count_table_entries: u64,
    /// No cluster below this one is free.
    pub(super) free_hint: u64,
    /// Present size of the file.
    pub(super) file_bytes: u64,
    /// Clusters of the disk that a write is moving to a new place.
    pub(super) busy: BTreeSet<u64>,
    /// Clusters of the file that lose one reference once the tables without it are durable.
    freed: Vec<Range<u64>>,
}

impl Metadata {
    pub(super) fn new(
        file: Arc<HostFile>,
        header: &Header,
        depth: usize,
    ) -> Result<Self, DiskError> {
        let geometry = Geometry::new(header);
        let layers = u64::try_from(depth).unwrap_or(u64::MAX);
        let max_bytes = if depth == 0 {
            CACHE_BYTES
        } else {
            BACKING_CACHE_BYTES / layers
        };
        Ok(Self {
            geometry,
            cache: SliceCache::new(Arc::clone(&file), geometry.cluster_bytes(), max_bytes),
            l1_offset: header.l1_offset,
            l1_entries: header.l1_entries,
            count_table_offset: header.refcount_table_offset,
            count_table_entries: header.refcount_table_bytes / 8,
            free_hint: 0,
            file_bytes: file.len_bytes()?,
            busy: BTreeSet::new(),
            freed: Vec::new(),
            file,
        })
    }

    /// Takes one reference from clusters of the file, once that is safe.
    pub(super) fn free(&mut self, clusters: Range<u64>) {
        match self.freed.last_mut() {
            Some(last) if last.end == clusters.start => last.end = clusters.end,
            _ => self.freed.push(clusters),
        }
    }

    /// Puts back what a failed flush had taken.
    pub(super) fn free_again(&mut self, clusters: Vec<Range<u64>>) {
        self.freed.extend(clusters);
    }

    /// Tells whether a flush should come before more changes.
    pub(super) fn is_crowded(&self) -> bool {
        self.cache.is_crowded() || self.freed.len() >= MAX_FREED_RANGES
    }

    /// Tells whether clusters wait for a flush to become free.
    pub(super) fn has_freed(&self) -> bool {
        !self.freed.is_empty()
    }

    /// Tells whether a flush would write nothing.
    pub(super) fn is_clean(&self) -> bool {
        self.cache.is_clean() && self.freed.is_empty()
    }

    /// Takes a consistent picture of all changes: what its tables refer to, its refcounts count.
    pub(super) fn changes(&mut self) -> (Vec<DirtySlice>, Vec<Range<u64>>) {
        (self.cache.dirty_slices(), mem::take(&mut self.freed))
    }

    /// Makes the error for an image that contradicts itself.
    pub(super) fn corrupt(
        &self,
        field: &'static str,
        offset: u64,
        problem: &'static str,
    ) -> DiskError {
        corrupt(self.file.path(), field, offset, problem)
    }

    /// Returns where in the file the L1 entry for a position of the disk lies.
    pub(super) fn l1_entry_offset(&self, pos: u64) -> u64 {
        self.l1_offset + pos / self.geometry.bytes_per_l1_entry() * 8
    }

    /// Makes the L1 table reach over `len_bytes` of the disk, as far as its clusters have room.
    pub(super) fn extend_l1(&mut self, len_bytes: u64) -> Result<(), DiskError> {
        let wanted = len_bytes.div_ceil(self.geometry.bytes_per_l1_entry());
        if wanted <= self.l1_entries {
            return Ok(());
        }
        let room = (self.l1_entries * 8).next_multiple_of(self.geometry.cluster_bytes()) / 8;
        if wanted > room {
            return Err(DiskError::FixedSize);
        }
        self.extend_file(self.l1_offset + wanted * 8)?;
        for index in self.l1_entries..wanted {
            let entry = self.l1_offset + index * 8;
            self.cache.set_entry(entry, 0, Stage::Mapping)?;
        }
        self.l1_entries = wanted;
        Ok(())
    }

    /// Makes the file at least `end` bytes long.
    pub(super) fn extend_file(&mut self, end: u64) -> Result<(), DiskError> {
        if end <= self.file_bytes {
            return Ok(());
        }
        if end > super::mapping::HOST_OFFSET_LIMIT || self.file.is_block_device() {
            let path = self.file.path().to_owned();
            return Err(DiskError::NoSpace {
                operation: "allocate a cluster",
                offset: end,
                path,
            });
        }
        self.file.set_len(end)?;
        self.file_bytes = end;
        Ok(())
    }
}
