//! Refcounts of 1 to 64 bits (qcow2 specification, "Host cluster management").

use crate::width::to_usize;

/// An array of refcounts as it lies in a refcount block.
pub(super) struct Counts {
    bytes: Vec<u8>,
    order: u32,
}

impl Counts {
    /// Makes an array of zeroes.
    pub(super) fn new(count: u64, order: u32) -> Self {
        Self {
            bytes: vec![0; to_usize((count << order).div_ceil(8))],
            order,
        }
    }

    /// Sets one refcount.
    pub(super) fn set(&mut self, index: u64, value: u64) {
        set_count(&mut self.bytes, self.order, index, value);
    }

    /// Returns the array.
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// Reads the refcount at `index`; those below one byte fill each byte from its low bits up.
pub(super) fn count_at(bytes: &[u8], order: u32, index: u64) -> u64 {
    let first_bit = index << order;
    let at = to_usize(first_bit / 8);
    if order < 3 {
        let mask = (1u8 << (1 << order)) - 1;
        return u64::from((bytes[at] >> (first_bit % 8)) & mask);
    }
    bytes[at..][..1 << (order - 3)]
        .iter()
        .fold(0, |value, byte| value << 8 | u64::from(*byte))
}

/// Writes the refcount at `index`. The value must fit.
pub(super) fn set_count(bytes: &mut [u8], order: u32, index: u64, value: u64) {
    let first_bit = index << order;
    let at = to_usize(first_bit / 8);
    if order < 3 {
        let mask = (1u8 << (1 << order)) - 1;
        let shift = first_bit % 8;
        let low = value.to_le_bytes()[0] & mask;
        bytes[at] = bytes[at] & !(mask << shift) | low << shift;
        return;
    }
    let width = 1 << (order - 3);
    bytes[at..][..width].copy_from_slice(&value.to_be_bytes()[8 - width..]);
}
