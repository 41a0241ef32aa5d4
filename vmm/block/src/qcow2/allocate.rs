//! Finding free clusters and counting references (qcow2 specification, "Host cluster management").

use std::ops::Range;

use super::cache::Stage;
use super::header::set_refcount_table;
use super::metadata::Metadata;
use super::refcount::{Counts, count_at, set_count};
use crate::disk::DiskError;
use crate::width::to_u64;

/// The bits of a refcount table entry that hold the offset.
const BLOCK_OFFSET_MASK: u64 = !0x1ff;
/// The bound on the refcount table that every reader shares.
const MAX_TABLE_BYTES: u64 = 8 << 20;

/// Clusters of the file, one behind the other, that were just allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: u64,
    pub(super) clusters: u64,
    /// They read as zeroes.
    pub(super) zeroed: bool,
}

impl Metadata {
    /// Returns how many references there are to a cluster of the file.
    pub(super) fn count(&mut self, cluster: u64) -> Result<u64, DiskError> {
        let Some(block) = self.block(cluster / self.geometry.counts_per_block())? else {
            return Ok(0);
        };
        let order = self.geometry.refcount_order;
        let (offset, index) = self.place(block, cluster);
        Ok(count_at(self.cache.read(offset)?, order, index))
    }

    /// Sets how many references there are to a cluster that has a refcount block.
    fn set_count(&mut self, cluster: u64, count: u64) -> Result<(), DiskError> {
        let block = self.block(cluster / self.geometry.counts_per_block())?;
        let block = block.ok_or_else(|| self.no_block(cluster))?;
        let order = self.geometry.refcount_order;
        let (offset, index) = self.place(block, cluster);
        set_count(
            self.cache.change(offset, Stage::Counts)?,
            order,
            index,
            count,
        );
        Ok(())
    }

    fn no_block(&self, cluster: u64) -> DiskError {
        let offset = cluster << self.geometry.cluster_bits;
        self.corrupt(
            "refcount table",
            offset,
            "has no block for a cluster in use",
        )
    }

    /// Returns the start of the slice with the refcount of a cluster, and its index there.
    fn place(&self, block: u64, cluster: u64) -> (u64, u64) {
        let per_slice = (self.cache.slice_bytes() * 8) >> self.geometry.refcount_order;
        let in_block = cluster % self.geometry.counts_per_block();
        (
            block + in_block / per_slice * self.cache.slice_bytes(),
            in_block % per_slice,
        )
    }

    /// Returns where a refcount block lies, if there is one.
    fn block(&mut self, index: u64) -> Result<Option<u64>, DiskError> {
        if index >= self.count_table_entries {
            return Ok(None);
        }
        let offset = self.cache.entry(self.count_table_offset + index * 8)? & BLOCK_OFFSET_MASK;
        if self.geometry.in_cluster(offset) != 0 {
            let problem = "is not the start of a cluster";
            return Err(self.corrupt("refcount table entry", offset, problem));
        }
        Ok(Some(offset).filter(|offset| *offset != 0))
    }

    /// Takes one reference from each cluster, which may thereby become free.
    pub(super) fn drop_references(&mut self, clusters: Range<u64>) -> Result<(), DiskError> {
        let mut without = 0u64;
        for cluster in clusters {
            let count = self.count(cluster)?;
            if count == 0 {
                without += 1;
                continue;
            }
            self.set_count(cluster, count - 1)?;
            if count == 1 {
                self.free_hint = self.free_hint.min(cluster);
            }
        }
        if without > 0 {
            let path = self.file.path().display();
            tracing::warn!(%path, clusters = without, "clusters in use had no reference");
        }
        Ok(())
    }

    /// Gives back clusters that nothing refers to yet.
    pub(super) fn release(&mut self, run: Run) {
        if let Err(error) = self.drop_references(run.first..run.first + run.clusters) {
            let path = self.file.path().display();
            tracing::warn!(%path, %error, "an unused cluster could not be freed");
        }
    }

    /// Allocates clusters that lie one behind the other: at least one, at most `wanted`.
    pub(super) fn allocate(&mut self, wanted: u64) -> Result<Run, DiskError> {
        let mut cluster = self.free_hint;
        let free = loop {
            let index = cluster / self.geometry.counts_per_block();
            if index >= self.count_table_entries {
                self.grow_count_table()?;
                continue;
            }
            let Some(block) = self.block(index)? else {
                self.add_block(index, cluster)?;
                cluster += 1;
                continue;
            };
            match self.free_in_slice(block, cluster, wanted)? {
                Ok(free) => break free,
                Err(next) => cluster = next,
            }
            self.check_scan(cluster)?;
        };
        let run = self.claim(free)?;
        self.free_hint = run.first + run.clusters;
        Ok(run)
    }

    /// Looks for free clusters from `cluster` to the end of its slice of refcounts; answers with
    /// the first cluster after the slice if there are none.
    fn free_in_slice(
        &mut self,
        block: u64,
        cluster: u64,
        wanted: u64,
    ) -> Result<Result<Range<u64>, u64>, DiskError> {
        let order = self.geometry.refcount_order;
        let (offset, index) = self.place(block, cluster);
        let bytes = self.cache.read(offset)?;
        let per_slice = to_u64(bytes.len() * 8) >> order;
        let base = cluster - index;
        let Some(first) = (index..per_slice).find(|i| count_at(bytes, order, *i) == 0) else {
            return Ok(Err(base + per_slice));
        };
        let limit = per_slice.min(first.saturating_add(wanted));
        let end = (first..limit)
            .find(|i| count_at(bytes, order, *i) != 0)
            .unwrap_or(limit);
        Ok(Ok(base + first..base + end))
    }

    /// Ends the search in an image whose refcounts claim what lies far beyond its end.
    fn check_scan(&self, cluster: u64) -> Result<(), DiskError> {
        let slack = 2 * self.geometry.counts_per_block();
        let end = self
            .geometry
            .cluster_of(self.file_bytes)
            .saturating_add(slack);
        if cluster <= end {
            return Ok(());
        }
        let offset = cluster << self.geometry.cluster_bits;
        Err(self.corrupt(
            "refcount block",
            offset,
            "counts clusters beyond the end of the file",
        ))
    }

    /// Gives free clusters their first reference, and a place in the file.
    fn claim(&mut self, mut free: Range<u64>) -> Result<Run, DiskError> {
        let bits = self.geometry.cluster_bits;
        let whole_inside = self.file_bytes >> bits;
        let zeroed = free.start << bits >= self.file_bytes;
        if !zeroed {
            free.end = free.end.min(whole_inside.max(free.start + 1));
        }
        self.extend_file(free.end << bits)?;
        let run = Run {
            first: free.start,
            clusters: free.end - free.start,
            zeroed,
        };
        for cluster in free.clone() {
            if let Err(error) = self.set_count(cluster, 1) {
                self.release(Run {
                    clusters: cluster - free.start,
                    ..run
                });
                return Err(error);
            }
        }
        Ok(run)
    }

    /// Adds a refcount block for clusters none of which is in use, and puts it into one of them.
    ///
    /// The block counts itself, so it is complete before the table points to it.
    fn add_block(&mut self, index: u64, cluster: u64) -> Result<(), DiskError> {
        let bits = self.geometry.cluster_bits;
        let offset = cluster << bits;
        let zeroed = offset >= self.file_bytes;
        self.extend_file((cluster + 1) << bits)?;
        if !zeroed {
            self.file
                .zero(offset, self.geometry.cluster_bytes(), false)?;
        }
        self.cache.forget(offset, self.geometry.cluster_bytes());
        let order = self.geometry.refcount_order;
        let (slice, place) = self.place(offset, cluster);
        let mut counts = Counts::new((self.cache.slice_bytes() * 8) >> order, order);
        counts.set(place, 1);
        self.file.write_all(slice, &counts.into_bytes())?;
        let entry = self.count_table_offset + index * 8;
        self.cache.set_entry(entry, offset, Stage::CountTable)
    }

    /// Moves the refcount table to a place where it can be twice as long.
    ///
    /// All clusters beyond the reach of the old table are free. The first of them take the blocks
    /// that count them and the new table; the header then switches between two complete tables.
    fn grow_count_table(&mut self) -> Result<(), DiskError> {
        let geometry = self.geometry;
        let (bits, per_block) = (geometry.cluster_bits, geometry.counts_per_block());
        let old_clusters = geometry.cluster_of(self.count_table_entries * 8);
        let clusters = (old_clusters * 2).min(MAX_TABLE_BYTES >> bits);
        if clusters <= old_clusters {
            let (path, offset) = (self.file.path().to_owned(), self.count_table_offset);
            return Err(DiskError::NoSpace {
                operation: "grow the refcount table",
                offset,
                path,
            });
        }
        let first = self.count_table_entries * per_block;
        // A block counts at least 64 clusters, so one for itself is enough for 63 of the table.
        let blocks = clusters.div_ceil(per_block - 1);
        let table = (first + blocks) << bits;
        self.extend_file((first + blocks + clusters) << bits)?;
        let mut counts = Counts::new(blocks * per_block, geometry.refcount_order);
        (0..blocks + clusters).for_each(|index| counts.set(index, 1));
        self.cache
            .forget(first << bits, (blocks + clusters) << bits);
        self.file.write_all(first << bits, &counts.into_bytes())?;
        self.copy_count_table(table, clusters << bits, first..first + blocks)?;
        self.file.sync()?;
        set_refcount_table(&self.file, table, narrow(clusters))?;
        self.file.sync()?;
        self.switch_count_table(table, clusters << bits);
        Ok(())
    }

    /// Writes a longer table: the entries there are, then those of the blocks in `new_blocks`.
    fn copy_count_table(
        &mut self,
        to: u64,
        len_bytes: u64,
        new_blocks: Range<u64>,
    ) -> Result<(), DiskError> {
        self.file.zero(to, len_bytes, false)?;
        let old_bytes = self.count_table_entries * 8;
        let mut at = 0;
        while at < old_bytes {
            let slice = self.cache.read(self.count_table_offset + at)?.to_vec();
            self.file.write_all(to + at, &slice)?;
            at += to_u64(slice.len());
        }
        let bits = self.geometry.cluster_bits;
        let added: Vec<u8> = new_blocks.flat_map(|b| (b << bits).to_be_bytes()).collect();
        self.file.write_all(to + old_bytes, &added)
    }

    fn switch_count_table(&mut self, offset: u64, len_bytes: u64) {
        let old_bytes = self.count_table_entries * 8;
        let first = self.geometry.cluster_of(self.count_table_offset);
        self.cache.forget(self.count_table_offset, old_bytes);
        self.free(first..first + self.geometry.cluster_of(old_bytes));
        self.count_table_offset = offset;
        self.count_table_entries = len_bytes / 8;
    }
}

fn narrow(clusters: u64) -> u32 {
    u32::try_from(clusters).expect("the table has at most 8 MiB")
}
