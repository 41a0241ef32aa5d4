//! Sizes that follow from the header, and how positions split into table indices.

use std::path::Path;

use super::header::{Compression, Header};
use crate::disk::DiskError;

/// What the header fixes for the time that an image is open.
#[derive(Debug, Clone, Copy)]
pub(super) struct Geometry {
    pub(super) version: u32,
    pub(super) cluster_bits: u32,
    pub(super) refcount_order: u32,
    pub(super) compression: Compression,
}

impl Geometry {
    pub(super) fn new(header: &Header) -> Self {
        Self {
            version: header.version,
            cluster_bits: header.cluster_bits,
            refcount_order: header.refcount_order,
            compression: header.compression,
        }
    }

    pub(super) fn cluster_bytes(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Returns how many bytes into its cluster a position lies.
    pub(super) fn in_cluster(&self, at: u64) -> u64 {
        at % self.cluster_bytes()
    }

    /// Returns the cluster that a position lies in.
    pub(super) fn cluster_of(&self, at: u64) -> u64 {
        at >> self.cluster_bits
    }

    /// Returns how many bytes of the disk one L1 entry maps.
    pub(super) fn bytes_per_l1_entry(&self) -> u64 {
        1 << (2 * self.cluster_bits - 3)
    }

    /// Returns where in its L2 table the entry for a position of the disk lies.
    pub(super) fn in_l2_table(&self, pos: u64) -> u64 {
        self.cluster_of(pos) % (self.cluster_bytes() / 8) * 8
    }

    /// Returns how many refcounts one refcount block holds.
    pub(super) fn counts_per_block(&self) -> u64 {
        1 << (self.cluster_bits + 3 - self.refcount_order)
    }
}

/// Makes the error for an image that contradicts itself.
pub(super) fn corrupt(
    path: &Path,
    field: &'static str,
    offset: u64,
    problem: &'static str,
) -> DiskError {
    DiskError::Corrupt {
        field,
        offset,
        problem,
        path: path.to_owned(),
    }
}
