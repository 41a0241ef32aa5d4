//! Serves the request queues of a block device.

use std::sync::Arc;

use block::Disk;

use super::request::{ID_BYTES, Limits, Request, Status, Wish};
use super::{
    F_DISCARD, F_FLUSH, F_WRITE_ZEROES, MAX_DISCARD_SEGMENTS, MAX_RANGE_SECTORS,
    MAX_WRITE_ZEROES_SEGMENTS, Shape,
};
use crate::memory::GuestMemory;
use crate::virtio::chain::{Chain, Segments};
use crate::virtio::disk::{Drive, Engine, Operation, Outcome};
use crate::virtio::ring::{RingError, Rings, Served};
use crate::virtio::worker::{QueueWorker, Turn};

/// Serves one queue. While a request is held it serves nothing.
pub(super) struct BlkWorker {
    disk: Arc<dyn Disk>,
    drive: Arc<Drive>,
    id: [u8; ID_BYTES],
    limits: Limits,
    holds: bool,
    engine: Engine,
}

impl BlkWorker {
    pub(super) fn new(disk: Arc<dyn Disk>, drive: Arc<Drive>, serial: &str, shape: &Shape) -> Self {
        let limits = Limits {
            disk_bytes: 0,
            block_bytes: shape.logical_block_bytes.into(),
            durable: true,
            may_unmap: shape.discards,
            is_read_only: disk.is_read_only(),
            may_discard: false,
            may_write_zeroes: false,
            range_sectors: MAX_RANGE_SECTORS,
            discard_segments: MAX_DISCARD_SEGMENTS,
            write_zeroes_segments: MAX_WRITE_ZEROES_SEGMENTS,
        };
        Self {
            disk,
            drive,
            id: id(serial),
            limits,
            holds: false,
            engine: Engine::default(),
        }
    }

    fn serve_chain(&mut self, memory: &GuestMemory, chain: Chain) -> Result<Served, RingError> {
        let limits = Limits {
            disk_bytes: self.disk.len_bytes(),
            ..self.limits
        };
        let Request { wish, status } = Request::read(memory, chain, &limits)?;
        let (answer, written_bytes) = match wish {
            Err(answer) => (answer, 0),
            Ok(Wish::GetId { to }) => (Status::Ok, self.tell_id(memory, &to)?),
            Ok(Wish::Disk(operation)) => match self.run(memory, &operation)? {
                Outcome::Done(written_bytes) => (Status::Ok, written_bytes),
                Outcome::Failed { .. } | Outcome::Differs => (Status::IoError, 0),
                Outcome::Held => {
                    self.holds = true;
                    return Ok(Served::Held);
                }
            },
        };
        status.write(memory, 0, &[answer as u8])?;
        Ok(Served::Used(
            u32::try_from(written_bytes + 1).unwrap_or(u32::MAX),
        ))
    }

    fn tell_id(&self, memory: &GuestMemory, to: &Segments) -> Result<usize, RingError> {
        to.write(memory, 0, &self.id)?;
        Ok(ID_BYTES)
    }

    fn run(&mut self, memory: &GuestMemory, operation: &Operation) -> Result<Outcome, RingError> {
        self.engine
            .run(memory, &self.drive, self.disk.as_ref(), operation)
    }
}

impl QueueWorker for BlkWorker {
    fn start(&mut self, features: u64) {
        self.limits.may_discard = features & F_DISCARD != 0;
        self.limits.may_write_zeroes = features & F_WRITE_ZEROES != 0;
        self.limits.durable = features & F_FLUSH == 0;
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

/// Cuts a serial number to the answer's length.
fn id(serial: &str) -> [u8; ID_BYTES] {
    let mut id = [0; ID_BYTES];
    for (slot, byte) in id.iter_mut().zip(serial.bytes()) {
        *slot = byte;
    }
    id
}
