//! Laying out a new, empty image.

use std::fs::File;
use std::path::Path;

use super::header::MAGIC;
use crate::create::{CreateError, create_file, whole_sectors};
use crate::disk::DiskError;
use crate::host_file::HostFile;

/// Length of the version 3 header with the compression type and its padding.
const HEADER_BYTES: u32 = 112;
/// The bound on the L1 table that every reader shares.
const MAX_L1_BYTES: u64 = 32 << 20;

/// The choices that a new image leaves open.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layout {
    /// Binary logarithm of the cluster size, 9 to 21.
    pub(crate) cluster_bits: u32,
    /// Binary logarithm of the width of a refcount in bits, 0 to 6.
    pub(crate) refcount_order: u32,
}

impl Default for Layout {
    /// Clusters of 64 KiB and refcounts of 16 bits, as every tool expects.
    fn default() -> Self {
        Self {
            cluster_bits: 16,
            refcount_order: 4,
        }
    }
}

/// Where the parts of a new image lie, in clusters: header, refcount table, refcount blocks, L1.
struct Plan {
    len_bytes: u64,
    l1_entries: u32,
    table_clusters: u32,
    blocks: u64,
    l1_clusters: u64,
}

impl Plan {
    fn new(len_bytes: u64, layout: &Layout) -> Option<Self> {
        let bits = layout.cluster_bits;
        let l1_bytes = len_bytes.div_ceil(1 << (2 * bits - 3)) * 8;
        if l1_bytes > MAX_L1_BYTES {
            return None;
        }
        let l1_clusters = l1_bytes.div_ceil(1 << bits);
        let refcounts_per_block = 1u64 << (bits + 3 - layout.refcount_order);
        let (mut table_clusters, mut blocks) = (1, 1);
        // Each block and table cluster needs a refcount itself; the sum settles after a few rounds.
        loop {
            let total: u64 = 1 + table_clusters + blocks + l1_clusters;
            let need = total.div_ceil(refcounts_per_block);
            let need_table = (need * 8).div_ceil(1 << bits);
            if need <= blocks && need_table <= table_clusters {
                break;
            }
            (blocks, table_clusters) = (need.max(blocks), need_table.max(table_clusters));
        }
        let l1_entries = u32::try_from(l1_bytes / 8).ok()?;
        let table_clusters = u32::try_from(table_clusters).ok()?;
        Some(Self {
            len_bytes,
            l1_entries,
            table_clusters,
            blocks,
            l1_clusters,
        })
    }

    fn blocks_start(&self) -> u64 {
        1 + u64::from(self.table_clusters)
    }

    fn l1_start(&self) -> u64 {
        self.blocks_start() + self.blocks
    }

    fn clusters(&self) -> u64 {
        self.l1_start() + self.l1_clusters
    }
}

/// Creates an empty version 3 image without a backing file.
pub(crate) fn create(path: &Path, len_bytes: u64, layout: &Layout) -> Result<(), CreateError> {
    let len_bytes = whole_sectors(path, len_bytes)?;
    let plan = Plan::new(len_bytes, layout).ok_or_else(|| CreateError::Size {
        path: path.to_owned(),
        len_bytes,
        problem: "more than a qcow2 image with this cluster size can hold",
    })?;
    create_file(path, |file| {
        write(path, file, &plan, layout).map_err(|source| CreateError::Write {
            path: path.to_owned(),
            source,
        })
    })
}

fn write(path: &Path, file: File, plan: &Plan, layout: &Layout) -> Result<(), DiskError> {
    let file = HostFile::from_new(path, file);
    let bits = layout.cluster_bits;
    file.set_len(plan.clusters() << bits)?;
    // The tables get their room on the host now: on a full host a flush must still be able to write
    // them, or clusters that the guest gives back could not be freed.
    file.zero(1 << bits, (plan.clusters() - 1) << bits, false)?;
    let table: Vec<u8> = (0..plan.blocks)
        .flat_map(|block| ((plan.blocks_start() + block) << bits).to_be_bytes())
        .collect();
    file.write_all(1 << bits, &table)?;
    // The blocks lie one behind the other, so their refcounts form one array from cluster 0 on.
    file.write_all(
        plan.blocks_start() << bits,
        &ones(plan.clusters(), layout.refcount_order),
    )?;
    // With the header the file becomes an image: one that was not finished is none.
    file.write_all(0, &header(plan, layout))
}

fn header(plan: &Plan, layout: &Layout) -> Vec<u8> {
    let bits = layout.cluster_bits;
    let mut h = Vec::new();
    let word = |h: &mut Vec<u8>, value: u32| h.extend(value.to_be_bytes());
    let long = |h: &mut Vec<u8>, value: u64| h.extend(value.to_be_bytes());
    word(&mut h, MAGIC);
    word(&mut h, 3);
    long(&mut h, 0); // backing_file_offset
    word(&mut h, 0); // backing_file_size
    word(&mut h, bits);
    long(&mut h, plan.len_bytes);
    word(&mut h, 0); // crypt_method
    word(&mut h, plan.l1_entries);
    long(&mut h, plan.l1_start() << bits);
    long(&mut h, 1 << bits); // refcount_table_offset
    word(&mut h, plan.table_clusters);
    word(&mut h, 0); // nb_snapshots
    long(&mut h, 0); // snapshots_offset
    long(&mut h, 0); // incompatible_features
    long(&mut h, 0); // compatible_features
    long(&mut h, 0); // autoclear_features
    word(&mut h, layout.refcount_order);
    word(&mut h, HEADER_BYTES);
    long(&mut h, 0); // compression_type and padding
    h
}

/// Makes an array of `count` refcounts that are all one.
fn ones(count: u64, refcount_order: u32) -> Vec<u8> {
    let mut counts = super::refcount::Counts::new(count, refcount_order);
    (0..count).for_each(|index| counts.set(index, 1));
    counts.into_bytes()
}
