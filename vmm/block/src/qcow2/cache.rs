//! A bounded write-back cache of the tables: L1, L2, refcount table and refcount blocks.
//!
//! Tables are held in slices of one cluster or 4 KiB, whichever is less, so that neither large
//! clusters nor absurd table sizes make the process grow.

use std::collections::HashMap;
use std::sync::Arc;

use super::geometry::corrupt;
use crate::disk::DiskError;
use crate::host_file::HostFile;
use crate::width::{to_u64, to_usize};

/// The largest slice.
const MAX_SLICE_BYTES: u64 = 4096;
/// The fewest slices with which a request can make progress.
const MIN_SLICES: usize = 16;

/// The order in which changed slices must become durable, so that no table ever points to
/// something that a power failure could take back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// A refcount block.
    Counts,
    /// The refcount table.
    CountTable,
    /// The L1 table and L2 tables.
    Mapping,
}

#[derive(Debug)]
struct Slice {
    bytes: Arc<Vec<u8>>,
    /// The stage in which the slice must be written, if it was changed.
    dirty: Option<Stage>,
    /// Counts changes, so that a change during a flush is noticed.
    version: u64,
    last_used: u64,
}

/// A changed slice on its way to the file.
pub(super) struct DirtySlice {
    pub(super) offset: u64,
    pub(super) stage: Stage,
    pub(super) bytes: Arc<Vec<u8>>,
    version: u64,
}

/// The cache.
pub(super) struct SliceCache {
    file: Arc<HostFile>,
    slice_bytes: u64,
    capacity: usize,
    slices: HashMap<u64, Slice>,
    clock: u64,
    dirty: usize,
}

impl SliceCache {
    /// Makes a cache that holds about `max_bytes` of tables.
    pub(super) fn new(file: Arc<HostFile>, cluster_bytes: u64, max_bytes: u64) -> Self {
        let slice_bytes = cluster_bytes.min(MAX_SLICE_BYTES);
        let capacity = to_usize(max_bytes / slice_bytes).max(MIN_SLICES);
        Self {
            file,
            slice_bytes,
            capacity,
            slices: HashMap::new(),
            clock: 0,
            dirty: 0,
        }
    }

    /// Returns the size of a slice.
    pub(super) fn slice_bytes(&self) -> u64 {
        self.slice_bytes
    }

    /// Tells whether changed slices should be written before there are more.
    pub(super) fn is_crowded(&self) -> bool {
        self.dirty >= self.capacity / 2
    }

    /// Tells whether nothing waits to be written.
    pub(super) fn is_clean(&self) -> bool {
        self.dirty == 0
    }

    /// Returns the bytes of the slice from `offset` on.
    pub(super) fn read(&mut self, offset: u64) -> Result<&[u8], DiskError> {
        let at = to_usize(offset % self.slice_bytes);
        self.load(offset).map(|slice| &slice.bytes[at..])
    }

    /// Returns the bytes of the slice from `offset` on, to be changed.
    pub(super) fn change(&mut self, offset: u64, stage: Stage) -> Result<&mut [u8], DiskError> {
        let at = to_usize(offset % self.slice_bytes);
        let fresh = self.load(offset)?.dirty.is_none();
        self.dirty += usize::from(fresh);
        let slice = self.load(offset)?;
        slice.dirty = Some(stage);
        slice.version += 1;
        Ok(&mut Arc::make_mut(&mut slice.bytes)[at..])
    }

    /// Reads a table entry.
    pub(super) fn entry(&mut self, offset: u64) -> Result<u64, DiskError> {
        let bytes = self
            .read(offset)?
            .first_chunk()
            .expect("entries do not cross slices");
        Ok(u64::from_be_bytes(*bytes))
    }

    /// Changes a table entry.
    pub(super) fn set_entry(
        &mut self,
        offset: u64,
        value: u64,
        stage: Stage,
    ) -> Result<(), DiskError> {
        self.change(offset, stage)?[..8].copy_from_slice(&value.to_be_bytes());
        Ok(())
    }

    /// Drops what is held of a range that was written or given up otherwise.
    pub(super) fn forget(&mut self, offset: u64, len_bytes: u64) {
        let Self { slices, dirty, .. } = self;
        slices.retain(|at, slice| {
            let keep = *at < offset || *at >= offset + len_bytes;
            if !keep && slice.dirty.is_some() {
                *dirty -= 1;
            }
            keep
        });
    }

    /// Returns every changed slice, in the order of offsets.
    pub(super) fn dirty_slices(&self) -> Vec<DirtySlice> {
        let mut dirty: Vec<DirtySlice> = self
            .slices
            .iter()
            .filter_map(|(offset, slice)| {
                let (bytes, version) = (Arc::clone(&slice.bytes), slice.version);
                slice.dirty.map(|stage| DirtySlice {
                    offset: *offset,
                    stage,
                    bytes,
                    version,
                })
            })
            .collect();
        dirty.sort_unstable_by_key(|slice| slice.offset);
        dirty
    }

    /// Notes that the slices are durable as they were; those changed since stay dirty.
    pub(super) fn written(&mut self, written: &[DirtySlice]) {
        for done in written {
            let slice = self.slices.get_mut(&done.offset);
            if let Some(slice) = slice.filter(|s| s.version == done.version && s.dirty.is_some()) {
                slice.dirty = None;
                self.dirty -= 1;
            }
        }
    }

    fn load(&mut self, offset: u64) -> Result<&mut Slice, DiskError> {
        let at = offset / self.slice_bytes * self.slice_bytes;
        if !self.slices.contains_key(&at) {
            let bytes = Arc::new(self.read_slice(at)?);
            self.make_room();
            let slice = Slice {
                bytes,
                dirty: None,
                version: self.clock,
                last_used: 0,
            };
            self.slices.insert(at, slice);
        }
        self.clock += 1;
        let slice = self.slices.get_mut(&at).expect("the slice was just loaded");
        slice.last_used = self.clock;
        Ok(slice)
    }

    /// Reads a slice, of which the file may hold only the first part: an L1 table at its end.
    fn read_slice(&self, at: u64) -> Result<Vec<u8>, DiskError> {
        let mut bytes = vec![0; to_usize(self.slice_bytes)];
        if self.file.read_up_to(at, &mut bytes)? == 0 {
            let problem = "lies beyond the end of the file";
            return Err(corrupt(self.file.path(), "table", at, problem));
        }
        Ok(bytes)
    }

    /// Evicts the clean slice that was not used for the longest time. Where all are dirty the cache
    /// grows, until the writer that dirties them looks at [`is_crowded`](Self::is_crowded).
    fn make_room(&mut self) {
        if self.slices.len() < self.capacity {
            return;
        }
        let clean = self
            .slices
            .iter()
            .filter(|(_, slice)| slice.dirty.is_none());
        if let Some(oldest) = clean
            .min_by_key(|(_, slice)| slice.last_used)
            .map(|(at, _)| *at)
        {
            self.slices.remove(&oldest);
        }
    }
}

impl std::fmt::Debug for SliceCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let held = to_u64(self.slices.len()) * self.slice_bytes;
        f.debug_struct("SliceCache")
            .field("held_bytes", &held)
            .finish_non_exhaustive()
    }
}
