//! Serves the request queues of a block device.

use std::error::Error as _;
use std::sync::Arc;

use block::{Disk, DiskError};

use super::request::{ID_BYTES, Limits, Operation, Range, Request, Status};
use super::{
    BlkOptions, DiskAction, DiskEvent, ErrorPolicy, F_DISCARD, F_FLUSH, F_WRITE_ZEROES,
    MAX_DISCARD_SEGMENTS, MAX_RANGE_SECTORS, MAX_WRITE_ZEROES_SEGMENTS,
};
use crate::guest_log::GuestLog;
use crate::memory::GuestMemory;
use crate::virtio::chain::{Chain, Segments};
use crate::virtio::ring::{RingError, Rings, Served};
use crate::virtio::worker::{QueueWorker, Turn};

/// Most bytes that go through the worker's buffer at once, whatever the request's length.
const BUFFER_BYTES: usize = 128 << 10;

/// Why an operation was not done.
enum Failure {
    /// The host refused.
    Host {
        action: DiskAction,
        offset: u64,
        error: DiskError,
    },
    /// The chain is not what it was when it was walked.
    Ring(RingError),
}

impl From<RingError> for Failure {
    fn from(error: RingError) -> Self {
        Self::Ring(error)
    }
}

/// Serves one queue. While a request is held it serves nothing.
pub(super) struct BlkWorker {
    disk: Arc<dyn Disk>,
    options: Arc<BlkOptions>,
    limits: Limits,
    flushes: bool,
    holds: bool,
    log: GuestLog,
    buffer: Vec<u8>,
}

impl BlkWorker {
    pub(super) fn new(disk: Arc<dyn Disk>, options: Arc<BlkOptions>) -> Self {
        let limits = Limits {
            disk_bytes: disk.len_bytes(),
            is_read_only: disk.is_read_only(),
            may_discard: false,
            may_write_zeroes: false,
            range_sectors: MAX_RANGE_SECTORS,
            discard_segments: MAX_DISCARD_SEGMENTS,
            write_zeroes_segments: MAX_WRITE_ZEROES_SEGMENTS,
        };
        Self {
            disk,
            options,
            limits,
            flushes: false,
            holds: false,
            log: GuestLog::default(),
            buffer: Vec::new(),
        }
    }

    fn serve_chain(&mut self, memory: &GuestMemory, chain: Chain) -> Result<Served, RingError> {
        let Request { operation, status } = Request::read(memory, chain, &self.limits)?;
        let done = match operation {
            Err(answer) => (answer, 0),
            Ok(operation) => match self.perform(memory, &operation) {
                Ok(written_bytes) => (Status::Ok, written_bytes),
                Err(Failure::Ring(error)) => return Err(error),
                Err(Failure::Host {
                    action,
                    offset,
                    error,
                }) => match self.on_host_error(action, offset, &error) {
                    Some(answer) => (answer, 0),
                    None => {
                        self.holds = true;
                        return Ok(Served::Held);
                    }
                },
            },
        };
        let (answer, written_bytes) = done;
        status.write(memory, 0, &[answer as u8])?;
        Ok(Served::Used(
            u32::try_from(written_bytes + 1).unwrap_or(u32::MAX),
        ))
    }

    /// Does what was asked; returns the number of bytes given to the guest.
    fn perform(&mut self, memory: &GuestMemory, operation: &Operation) -> Result<usize, Failure> {
        match operation {
            Operation::Read { offset, to } => return self.read(memory, *offset, to),
            Operation::Write { offset, from } => {
                self.write(memory, *offset, from)?;
                self.settle_write(*offset)?;
            }
            Operation::Flush => self.flush(0)?,
            Operation::GetId { to } => {
                to.write(memory, 0, &self.id())?;
                return Ok(ID_BYTES);
            }
            Operation::Discard(ranges) => {
                self.each(ranges, DiskAction::Discard, |disk, range| {
                    disk.discard(range.offset, range.len_bytes)
                })?;
            }
            Operation::WriteZeroes(ranges) => {
                self.each(ranges, DiskAction::WriteZeroes, |disk, range| {
                    disk.write_zeroes(range.offset, range.len_bytes, range.unmap)
                })?;
                self.settle_write(ranges.first().map_or(0, |range| range.offset))?;
            }
        }
        Ok(0)
    }

    fn read(&mut self, memory: &GuestMemory, offset: u64, to: &Segments) -> Result<usize, Failure> {
        let len_bytes = to.len_bytes();
        for done in (0..len_bytes).step_by(BUFFER_BYTES) {
            let at = offset + to_u64(done);
            let piece = piece(&mut self.buffer, len_bytes - done);
            let host = |error| Failure::Host {
                action: DiskAction::Read,
                offset: at,
                error,
            };
            self.disk.read_at(at, piece).map_err(host)?;
            to.write(memory, done, piece)?;
        }
        Ok(len_bytes)
    }

    fn write(&mut self, memory: &GuestMemory, offset: u64, from: &Segments) -> Result<(), Failure> {
        let len_bytes = from.len_bytes();
        for done in (0..len_bytes).step_by(BUFFER_BYTES) {
            let at = offset + to_u64(done);
            let piece = piece(&mut self.buffer, len_bytes - done);
            from.read(memory, done, piece)?;
            let host = |error| Failure::Host {
                action: DiskAction::Write,
                offset: at,
                error,
            };
            self.disk.write_at(at, piece).map_err(host)?;
        }
        Ok(())
    }

    /// A driver that cannot flush must find each write on the disk when it is done (§5.2.5.2).
    fn settle_write(&self, offset: u64) -> Result<(), Failure> {
        if self.flushes {
            Ok(())
        } else {
            self.flush(offset)
        }
    }

    fn flush(&self, offset: u64) -> Result<(), Failure> {
        let host = |error| Failure::Host {
            action: DiskAction::Flush,
            offset,
            error,
        };
        match self.disk.flush() {
            Err(DiskError::ReadOnly) => Ok(()),
            other => other.map_err(host),
        }
    }

    fn each(
        &self,
        ranges: &[Range],
        action: DiskAction,
        act: impl Fn(&dyn Disk, &Range) -> Result<(), DiskError>,
    ) -> Result<(), Failure> {
        ranges
            .iter()
            .filter(|range| range.len_bytes > 0)
            .try_for_each(|range| {
                let host = |error| Failure::Host {
                    action,
                    offset: range.offset,
                    error,
                };
                act(self.disk.as_ref(), range).map_err(host)
            })
    }

    fn id(&self) -> [u8; ID_BYTES] {
        let mut id = [0; ID_BYTES];
        for (slot, byte) in id.iter_mut().zip(self.options.serial.bytes()) {
            *slot = byte;
        }
        id
    }

    /// Reports the error; returns the answer to the guest, or nothing if the request is to wait.
    fn on_host_error(&self, action: DiskAction, offset: u64, error: &DiskError) -> Option<Status> {
        let no_space = matches!(error, DiskError::NoSpace { .. });
        let answer = match self.options.policy {
            ErrorPolicy::Report => Some(Status::IoError),
            ErrorPolicy::Ignore => Some(Status::Ok),
            ErrorPolicy::StopOnNoSpace if !no_space => Some(Status::IoError),
            ErrorPolicy::Stop | ErrorPolicy::StopOnNoSpace => None,
        };
        let device = self.options.name.clone();
        let error = with_causes(error);
        if let Some(count) = self.log.admit() {
            tracing::warn!(
                device,
                ?action,
                offset,
                count,
                error,
                "the host refused a disk request"
            );
        }
        let held = answer.is_none();
        (self.options.on_error)(DiskEvent {
            device,
            action,
            offset,
            error,
            no_space,
            held,
        });
        answer
    }
}

impl QueueWorker for BlkWorker {
    fn start(&mut self, features: u64) {
        self.limits.may_discard = features & F_DISCARD != 0;
        self.limits.may_write_zeroes = features & F_WRITE_ZEROES != 0;
        self.flushes = features & F_FLUSH != 0;
        self.holds = false;
    }

    fn serve(&mut self, rings: &mut Rings, turn: &Turn<'_>) -> Result<(), RingError> {
        match rings.get(0) {
            Some(ring) if !self.holds => {
                ring.drain(turn, |memory, chain| self.serve_chain(memory, chain))
            }
            _ => Ok(()),
        }
    }
}

/// Lends so much of the buffer as the next piece of a transfer takes.
fn piece(buffer: &mut Vec<u8>, left_bytes: usize) -> &mut [u8] {
    let len_bytes = left_bytes.min(BUFFER_BYTES);
    if buffer.len() < len_bytes {
        buffer.resize(len_bytes, 0);
    }
    &mut buffer[..len_bytes]
}

fn to_u64(len_bytes: usize) -> u64 {
    u64::try_from(len_bytes).unwrap_or(u64::MAX)
}

fn with_causes(error: &DiskError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
