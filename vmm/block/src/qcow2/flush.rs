//! Writing changed tables back, in an order that a crash cannot break.

use std::ops::Range;

use super::cache::{DirtySlice, Stage};
use super::{Qcow2Disk, locked};
use crate::disk::DiskError;

/// How many clusters are freed while the lock on the tables is held once.
const FREED_AT_ONCE: u64 = 4096;

/// Clusters whose owner is durably gone, by the last epoch whose requests may still use them.
#[derive(Debug, Default)]
pub(super) struct Retired {
    batches: Vec<Batch>,
}

#[derive(Debug)]
struct Batch {
    epoch: u64,
    clusters: Vec<Range<u64>>,
}

impl Qcow2Disk {
    /// Writes changed tables back if there are so many that memory or later requests would suffer.
    pub(super) fn write_back_if_crowded(&self) -> Result<(), DiskError> {
        let crowded = locked(&self.metadata).is_crowded();
        if crowded { self.write_back() } else { Ok(()) }
    }

    /// Makes all data and tables durable, then frees what they no longer refer to.
    pub(super) fn write_back(&self) -> Result<(), DiskError> {
        let mut retired = locked(&self.retired);
        let (slices, clusters, epoch) = {
            let mut metadata = locked(&self.metadata);
            let (slices, clusters) = metadata.changes();
            (slices, clusters, self.in_flight.end_epoch())
        };
        if let Err(error) = self.write_stages(&slices) {
            locked(&self.metadata).free_again(clusters);
            return Err(error);
        }
        locked(&self.metadata).cache.written(&slices);
        retired.batches.push(Batch { epoch, clusters });
        self.free_drained(&mut retired)
    }

    /// Writes the slices stage by stage. The sync before a stage also covers the data that was
    /// written before.
    fn write_stages(&self, slices: &[DirtySlice]) -> Result<(), DiskError> {
        for stage in [Stage::Counts, Stage::CountTable, Stage::Mapping] {
            let mut of_stage = slices
                .iter()
                .filter(|slice| slice.stage == stage)
                .peekable();
            if of_stage.peek().is_some() && stage != Stage::Counts {
                self.file.sync()?;
            }
            of_stage.try_for_each(|slice| self.file.write_all(slice.offset, &slice.bytes))?;
        }
        self.file.sync()
    }

    fn free_drained(&self, retired: &mut Retired) -> Result<(), DiskError> {
        while let Some(batch) = retired.batches.first() {
            if !self.in_flight.is_drained(batch.epoch) {
                break;
            }
            let batch = retired.batches.remove(0);
            batch
                .clusters
                .into_iter()
                .try_for_each(|range| self.free_range(range))?;
        }
        Ok(())
    }

    fn free_range(&self, range: Range<u64>) -> Result<(), DiskError> {
        let mut first = range.start;
        while first < range.end {
            let end = range.end.min(first.saturating_add(FREED_AT_ONCE));
            self.punch_unshared(first..end)?;
            locked(&self.metadata).drop_references(first..end)?;
            first = end;
        }
        Ok(())
    }

    /// Gives the room of clusters with one reference back to the host. They still have it, so no
    /// write can get them meanwhile.
    fn punch_unshared(&self, clusters: Range<u64>) -> Result<(), DiskError> {
        let mut last: Option<Range<u64>> = None;
        let mut unshared = Vec::new();
        let mut metadata = locked(&self.metadata);
        for cluster in clusters {
            if metadata.count(cluster)? != 1 {
                continue;
            }
            match &mut last {
                Some(range) if range.end == cluster => range.end += 1,
                _ => unshared.extend(last.replace(cluster..cluster + 1)),
            }
        }
        drop(metadata);
        unshared.extend(last);
        let bits = self.geometry.cluster_bits;
        for range in unshared {
            let punched = self
                .file
                .punch(range.start << bits, (range.end - range.start) << bits);
            if let Err(error) = punched {
                tracing::debug!(%error, "freed clusters keep their room on the host");
            }
        }
        Ok(())
    }

    /// Writes everything back for the last time: the second round counts what the first one freed.
    pub(super) fn close(&self) {
        let dirty =
            || !locked(&self.metadata).is_clean() || !locked(&self.retired).batches.is_empty();
        for _ in 0..2 {
            if !dirty() {
                return;
            }
            if let Err(error) = self.write_back() {
                let path = self.file.path().display();
                tracing::error!(%path, %error, "image was closed with changes that are not written");
                return;
            }
        }
    }
}
