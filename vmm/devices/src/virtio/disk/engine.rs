//! Does requests on a disk.

use std::time::Instant;

use block::{Disk, DiskError};

use super::{DiskAction, Drive, Verdict};
use crate::memory::GuestMemory;
use crate::virtio::chain::Segments;
use crate::virtio::ring::RingError;

/// Most bytes that go through the engine's buffer at once, whatever the request's length.
const BUFFER_BYTES: usize = 128 << 10;

/// A range of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::virtio) struct Range {
    pub(in crate::virtio) offset: u64,
    pub(in crate::virtio) len_bytes: u64,
    /// The host may give up the room of the range.
    pub(in crate::virtio) unmap: bool,
}

/// What to do. Ranges lie inside the disk.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::virtio) enum Operation {
    /// Reads into guest memory.
    Read { offset: u64, to: Segments },
    /// Writes from guest memory.
    Write {
        offset: u64,
        from: Segments,
        durable: bool,
    },
    /// Writes one block again and again.
    Fill {
        range: Range,
        block: Vec<u8>,
        durable: bool,
    },
    /// Makes ranges read as zeroes.
    WriteZeroes { ranges: Vec<Range>, durable: bool },
    /// Forgets ranges.
    Discard(Vec<Range>),
    /// Reads and gives nothing to the guest.
    Verify(Range),
    /// Compares the disk with guest memory.
    Compare { offset: u64, with: Segments },
    /// Makes everything durable.
    Flush,
}

/// What became of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::virtio) enum Outcome {
    /// It is done, and so many bytes were given to the guest.
    Done(usize),
    /// The host refused it, and the guest is to learn that.
    Failed { action: DiskAction, no_space: bool },
    /// The host refused it, and it is to be tried again after a pause.
    Held,
    /// Disk and memory differ.
    Differs,
}

/// Why an operation was not done.
enum Failure {
    Host {
        action: DiskAction,
        offset: u64,
        error: DiskError,
    },
    /// The chain is not what it was when it was walked.
    Ring(RingError),
    Differs,
}

impl From<RingError> for Failure {
    fn from(error: RingError) -> Self {
        Self::Ring(error)
    }
}

fn host(action: DiskAction, offset: u64) -> impl Fn(DiskError) -> Failure {
    move |error| Failure::Host {
        action,
        offset,
        error,
    }
}

/// Does operations one after the other, through a buffer of its own.
#[derive(Debug, Default)]
pub(in crate::virtio) struct Engine {
    buffer: Vec<u8>,
}

impl Engine {
    /// Does an operation on `disk`, the medium of `drive`; blocks as long as the host does.
    ///
    /// # Errors
    /// If guest memory is not what it was when the chain was walked.
    pub(in crate::virtio) fn run(
        &mut self,
        memory: &GuestMemory,
        drive: &Drive,
        disk: &dyn Disk,
        operation: &Operation,
    ) -> Result<Outcome, RingError> {
        let start = Instant::now();
        let failure = match self.perform(memory, disk, operation) {
            Ok(given_bytes) => {
                count(drive, operation, start);
                return Ok(Outcome::Done(given_bytes));
            }
            Err(failure) => failure,
        };
        match failure {
            Failure::Ring(error) => Err(error),
            Failure::Differs => Ok(Outcome::Differs),
            Failure::Host {
                action,
                offset,
                error,
            } => Ok(match drive.refused(action, offset, &error) {
                Verdict::Report => Outcome::Failed {
                    action,
                    no_space: matches!(error, DiskError::NoSpace { .. }),
                },
                Verdict::Ignore => Outcome::Done(0),
                Verdict::Keep => Outcome::Held,
            }),
        }
    }

    /// Does what was asked; returns the number of bytes given to the guest.
    fn perform(
        &mut self,
        memory: &GuestMemory,
        disk: &dyn Disk,
        operation: &Operation,
    ) -> Result<usize, Failure> {
        match operation {
            Operation::Read { offset, to } => return self.read(memory, disk, *offset, to),
            Operation::Write {
                offset,
                from,
                durable,
            } => {
                self.write(memory, disk, *offset, from)?;
                settle(disk, *offset, *durable)?;
            }
            Operation::Fill {
                range,
                block,
                durable,
            } => {
                self.fill(disk, range, block)?;
                settle(disk, range.offset, *durable)?;
            }
            Operation::WriteZeroes { ranges, durable } => {
                each(ranges, DiskAction::WriteZeroes, |range| {
                    disk.write_zeroes(range.offset, range.len_bytes, range.unmap)
                })?;
                settle(disk, ranges.first().map_or(0, |r| r.offset), *durable)?;
            }
            Operation::Discard(ranges) => each(ranges, DiskAction::Discard, |range| {
                disk.discard(range.offset, range.len_bytes)
            })?,
            Operation::Verify(range) => self.verify(disk, range)?,
            Operation::Compare { offset, with } => self.compare(memory, disk, *offset, with)?,
            Operation::Flush => settle(disk, 0, true)?,
        }
        Ok(0)
    }

    fn read(
        &mut self,
        memory: &GuestMemory,
        disk: &dyn Disk,
        offset: u64,
        to: &Segments,
    ) -> Result<usize, Failure> {
        let len_bytes = to.len_bytes();
        for done in (0..len_bytes).step_by(BUFFER_BYTES) {
            let at = offset + to_u64(done);
            let piece = self.piece(len_bytes - done);
            disk.read_at(at, piece)
                .map_err(host(DiskAction::Read, at))?;
            to.write(memory, done, piece)?;
        }
        Ok(len_bytes)
    }

    fn write(
        &mut self,
        memory: &GuestMemory,
        disk: &dyn Disk,
        offset: u64,
        from: &Segments,
    ) -> Result<(), Failure> {
        let len_bytes = from.len_bytes();
        for done in (0..len_bytes).step_by(BUFFER_BYTES) {
            let at = offset + to_u64(done);
            let piece = self.piece(len_bytes - done);
            from.read(memory, done, piece)?;
            disk.write_at(at, piece)
                .map_err(host(DiskAction::Write, at))?;
        }
        Ok(())
    }

    fn fill(&mut self, disk: &dyn Disk, range: &Range, block: &[u8]) -> Result<(), Failure> {
        let whole = BUFFER_BYTES / block.len() * block.len();
        let len_bytes = to_usize(range.len_bytes);
        for chunk in self.piece(len_bytes.min(whole)).chunks_mut(block.len()) {
            chunk.copy_from_slice(&block[..chunk.len()]);
        }
        for done in (0..len_bytes).step_by(whole) {
            let at = range.offset + to_u64(done);
            disk.write_at(at, &self.buffer[..whole.min(len_bytes - done)])
                .map_err(host(DiskAction::Write, at))?;
        }
        Ok(())
    }

    fn verify(&mut self, disk: &dyn Disk, range: &Range) -> Result<(), Failure> {
        let len_bytes = to_usize(range.len_bytes);
        for done in (0..len_bytes).step_by(BUFFER_BYTES) {
            let at = range.offset + to_u64(done);
            disk.read_at(at, self.piece(len_bytes - done))
                .map_err(host(DiskAction::Read, at))?;
        }
        Ok(())
    }

    fn compare(
        &mut self,
        memory: &GuestMemory,
        disk: &dyn Disk,
        offset: u64,
        with: &Segments,
    ) -> Result<(), Failure> {
        let len_bytes = with.len_bytes();
        let mut expected = vec![0; len_bytes.min(BUFFER_BYTES)];
        for done in (0..len_bytes).step_by(BUFFER_BYTES) {
            let at = offset + to_u64(done);
            let piece = self.piece(len_bytes - done);
            disk.read_at(at, piece)
                .map_err(host(DiskAction::Read, at))?;
            let expected = &mut expected[..piece.len()];
            with.read(memory, done, expected)?;
            if expected != piece {
                return Err(Failure::Differs);
            }
        }
        Ok(())
    }

    /// Lends so much of the buffer as the next piece of a transfer takes.
    fn piece(&mut self, left_bytes: usize) -> &mut [u8] {
        let len_bytes = left_bytes.min(BUFFER_BYTES);
        if self.buffer.len() < len_bytes {
            self.buffer.resize(len_bytes, 0);
        }
        &mut self.buffer[..len_bytes]
    }
}

/// Flushes if what was written must be durable when the request is done.
fn settle(disk: &dyn Disk, offset: u64, durable: bool) -> Result<(), Failure> {
    if !durable {
        return Ok(());
    }
    match disk.flush() {
        Err(DiskError::ReadOnly) => Ok(()),
        other => other.map_err(host(DiskAction::Flush, offset)),
    }
}

fn each(
    ranges: &[Range],
    action: DiskAction,
    act: impl Fn(&Range) -> Result<(), DiskError>,
) -> Result<(), Failure> {
    let mut ranges = ranges.iter().filter(|range| range.len_bytes > 0);
    ranges.try_for_each(|range| act(range).map_err(host(action, range.offset)))
}

fn count(drive: &Drive, operation: &Operation, start: Instant) {
    let (counters, took) = (&drive.counters, start.elapsed());
    match operation {
        Operation::Read { to, .. } => counters.count_read(to_u64(to.len_bytes()), took),
        Operation::Compare { with, .. } => counters.count_read(to_u64(with.len_bytes()), took),
        Operation::Verify(range) => counters.count_read(range.len_bytes, took),
        Operation::Write { from, .. } => counters.count_write(to_u64(from.len_bytes()), took),
        Operation::Fill { range, .. } => counters.count_write(range.len_bytes, took),
        Operation::WriteZeroes { ranges, .. } => {
            counters.count_write(ranges.iter().map(|range| range.len_bytes).sum(), took);
        }
        Operation::Flush => counters.count_flush(took),
        Operation::Discard(_) => {}
    }
}

fn to_u64(len_bytes: usize) -> u64 {
    u64::try_from(len_bytes).unwrap_or(u64::MAX)
}

fn to_usize(len_bytes: u64) -> usize {
    usize::try_from(len_bytes).unwrap_or(usize::MAX)
}
