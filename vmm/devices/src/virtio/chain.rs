//! Descriptor chains (virtio 1.3 §2.7.5), checked as a whole before a device sees them.

use virtio_queue::DescriptorChain;
use vm_memory::{Bytes, GuestAddress, GuestMemory as _, Permissions};

use super::ring::RingError;
use crate::memory::GuestMemory;

/// A run of guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    gpa: u64,
    len_bytes: usize,
}

/// The device-readable or the device-writable half of a chain: one range of bytes, scattered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segments {
    segments: Vec<Segment>,
    len_bytes: usize,
}

impl Segments {
    /// Returns the number of bytes.
    pub fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    fn push(&mut self, segment: Segment) {
        if segment.len_bytes > 0 {
            self.len_bytes += segment.len_bytes;
            self.segments.push(segment);
        }
    }

    /// Cuts off and returns what follows the first `at` bytes.
    #[must_use]
    pub fn split_off(&mut self, at: usize) -> Self {
        let tail = self
            .pieces(at, usize::MAX)
            .fold(Self::default(), Self::with);
        *self = self.pieces(0, at).fold(Self::default(), Self::with);
        tail
    }

    fn with(mut self, segment: Segment) -> Self {
        self.push(segment);
        self
    }

    /// Copies bytes from `offset` on into `buf`.
    ///
    /// # Errors
    /// If the range ends before `buf` is full.
    pub fn read(
        &self,
        memory: &GuestMemory,
        offset: usize,
        mut buf: &mut [u8],
    ) -> Result<(), RingError> {
        for Segment { gpa, len_bytes } in self.pieces(offset, buf.len()) {
            let (head, tail) = std::mem::take(&mut buf).split_at_mut(len_bytes);
            memory
                .read_slice(head, GuestAddress(gpa))
                .map_err(|_| RingError::Address { gpa, len_bytes })?;
            buf = tail;
        }
        if buf.is_empty() {
            Ok(())
        } else {
            Err(RingError::TooShort)
        }
    }

    /// Copies `data` to the bytes from `offset` on.
    ///
    /// # Errors
    /// If the range ends before all of `data` is written.
    pub fn write(
        &self,
        memory: &GuestMemory,
        offset: usize,
        mut data: &[u8],
    ) -> Result<(), RingError> {
        for Segment { gpa, len_bytes } in self.pieces(offset, data.len()) {
            let (head, tail) = data.split_at(len_bytes);
            memory
                .write_slice(head, GuestAddress(gpa))
                .map_err(|_| RingError::Address { gpa, len_bytes })?;
            data = tail;
        }
        if data.is_empty() {
            Ok(())
        } else {
            Err(RingError::TooShort)
        }
    }

    /// Lists the segments that hold the `len_bytes` bytes from `offset` on, as far as they go.
    fn pieces(&self, offset: usize, len_bytes: usize) -> impl Iterator<Item = Segment> {
        let (mut skip, mut left) = (offset, len_bytes);
        self.segments.iter().filter_map(move |segment| {
            let skipped = skip.min(segment.len_bytes);
            skip -= skipped;
            let taken = left.min(segment.len_bytes - skipped);
            left -= taken;
            let gpa = segment.gpa + u64::try_from(skipped).ok()?;
            let piece = Segment {
                gpa,
                len_bytes: taken,
            };
            (taken > 0).then_some(piece)
        })
    }
}

/// One request of the driver.
#[derive(Debug)]
pub struct Chain {
    head: u16,
    /// What the device may read.
    pub readable: Segments,
    /// What the device may write.
    pub writable: Segments,
}

impl Chain {
    /// Walks a chain of at most `most` descriptors.
    ///
    /// # Errors
    /// If the chain loops, breaks off, is longer than `most`, has a readable descriptor behind a
    /// writable one or leaves guest memory.
    pub(super) fn walk(
        mut descriptors: DescriptorChain<&GuestMemory>,
        memory: &GuestMemory,
        most: u16,
    ) -> Result<Self, RingError> {
        let head = descriptors.head_index();
        let mut chain = Self {
            head,
            readable: Segments::default(),
            writable: Segments::default(),
        };
        // The iterator ends early on whatever it cannot follow; a chain ends with its last
        // descriptor, so one that promises another was broken off.
        let mut promises_more = true;
        let mut count = 0;
        for descriptor in descriptors.by_ref() {
            count += 1;
            if count > most {
                return Err(RingError::Chain { head });
            }
            promises_more = descriptor.has_next();
            let gpa = descriptor.addr().0;
            let access = if descriptor.is_write_only() {
                Permissions::Write
            } else {
                Permissions::Read
            };
            chain.append(memory, gpa, descriptor.len(), access)?;
        }
        if promises_more {
            Err(RingError::Chain { head })
        } else {
            Ok(chain)
        }
    }

    fn append(
        &mut self,
        memory: &GuestMemory,
        gpa: u64,
        len: u32,
        access: Permissions,
    ) -> Result<(), RingError> {
        let writable = access == Permissions::Write;
        if !writable && self.writable.len_bytes > 0 {
            return Err(RingError::Chain { head: self.head });
        }
        let len_bytes = usize::try_from(len).unwrap_or(usize::MAX);
        if len_bytes > 0 && !memory.check_range(GuestAddress(gpa), len_bytes, access) {
            return Err(RingError::Address { gpa, len_bytes });
        }
        let half = if writable {
            &mut self.writable
        } else {
            &mut self.readable
        };
        half.push(Segment { gpa, len_bytes });
        Ok(())
    }

    /// Returns the index of the first descriptor, which names the chain in the used ring.
    pub fn head(&self) -> u16 {
        self.head
    }
}

#[cfg(test)]
mod tests;
