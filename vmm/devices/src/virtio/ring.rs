//! Split virtqueues as a worker uses them (virtio 1.3 §2.7).

use std::sync::Arc;
use std::sync::atomic::Ordering;

use virtio_queue::{Queue, QueueOwnedT, QueueState, QueueT};
use vm_memory::{Bytes, GuestAddress};

use super::chain::Chain;
use super::signal::Signals;
use super::worker::Turn;
use crate::memory::GuestMemory;

const AVAIL_NO_INTERRUPT: u16 = 1;

/// What a driver did wrong with a ring. The device then needs a reset.
#[derive(Debug, thiserror::Error)]
pub enum RingError {
    /// The ring lies outside guest memory or has an impossible size.
    #[error("use the queue: {0}")]
    Ring(virtio_queue::Error),
    /// The ring is not inside guest memory.
    #[error("use the queue: it leaves guest memory")]
    Outside,
    /// The chain loops, breaks off, is too long, or has its halves out of order.
    #[error("walk the chain of descriptor {head}: it is malformed")]
    Chain {
        /// Index of the chain's first descriptor.
        head: u16,
    },
    /// A buffer is not in guest memory.
    #[error("access {len_bytes} bytes at {gpa:#x}: outside guest memory")]
    Address {
        /// Guest physical address of the buffer.
        gpa: u64,
        /// Its length in bytes.
        len_bytes: usize,
    },
    /// The chain has no room for what its device must find or leave there.
    #[error("serve the request: its buffers are too short")]
    TooShort,
}

impl From<virtio_queue::Error> for RingError {
    fn from(source: virtio_queue::Error) -> Self {
        Self::Ring(source)
    }
}

/// What became of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// It is done, with so many bytes written to its writable half.
    Used(u32),
    /// It cannot be served now: it stays first in the ring and the ring is left alone.
    Held,
}

/// A virtqueue that runs.
pub struct Ring {
    index: u16,
    queue: Queue,
    memory: GuestMemory,
    signals: Arc<Signals>,
}

impl Ring {
    /// Makes the ring of queue `index`.
    ///
    /// # Errors
    /// If the ring is misaligned or not inside guest memory.
    pub(super) fn new(
        index: u16,
        state: QueueState,
        memory: GuestMemory,
        signals: Arc<Signals>,
    ) -> Result<Self, RingError> {
        let queue = Queue::try_from(state)?;
        if !queue.is_valid(&memory) {
            return Err(RingError::Outside);
        }
        Ok(Self {
            index,
            queue,
            memory,
            signals,
        })
    }

    /// Returns the queue's number.
    pub fn index(&self) -> u16 {
        self.index
    }

    /// Returns the guest's memory.
    pub fn memory(&self) -> &GuestMemory {
        &self.memory
    }

    /// Returns the next positions in available and used ring.
    pub(super) fn positions(&self) -> (u16, u16) {
        (self.queue.next_avail(), self.queue.next_used())
    }

    /// Takes the next available chain.
    ///
    /// # Errors
    /// If ring or chain are malformed.
    pub fn pop(&mut self) -> Result<Option<Chain>, RingError> {
        let most = self.queue.max_size();
        let Some(descriptors) = self.queue.iter(&self.memory)?.next() else {
            return Ok(None);
        };
        Chain::walk(descriptors, &self.memory, most).map(Some)
    }

    /// Puts the chain that was popped last back to be popped again.
    pub fn unpop(&mut self) {
        self.queue.go_to_previous_position();
    }

    /// Gives a chain back with `written_bytes` bytes written, and interrupts the driver if it asked.
    ///
    /// # Errors
    /// If the used ring cannot be written.
    pub fn complete(&mut self, head: u16, written_bytes: u32) -> Result<(), RingError> {
        self.queue.add_used(&self.memory, head, written_bytes)?;
        if self.driver_listens()? {
            self.signals.queue_used(self.index);
        }
        Ok(())
    }

    /// Tells whether the driver wants an interrupt for what was used (§2.7.7).
    fn driver_listens(&mut self) -> Result<bool, RingError> {
        let asks = self.queue.needs_notification(&self.memory)?;
        if self.queue.event_idx_enabled() {
            return Ok(asks);
        }
        let flags: u16 = self
            .memory
            .load(GuestAddress(self.queue.avail_ring()), Ordering::Relaxed)
            .map_err(virtio_queue::Error::GuestMemory)?;
        Ok(u16::from_le(flags) & AVAIL_NO_INTERRUPT == 0)
    }

    /// Asks the driver to notify; tells whether chains came in meanwhile (§2.7.10).
    ///
    /// # Errors
    /// If the ring cannot be accessed.
    pub fn listen(&mut self) -> Result<bool, RingError> {
        Ok(self.queue.enable_notification(&self.memory)?)
    }

    /// Spares the driver notifications while the ring is looked at anyway (§2.7.10).
    ///
    /// # Errors
    /// If the ring cannot be accessed.
    pub fn ignore(&mut self) -> Result<(), RingError> {
        Ok(self.queue.disable_notification(&self.memory)?)
    }

    /// Serves chains until there are none, one is held, or the worker is told to stop.
    ///
    /// # Errors
    /// If ring or chain are malformed, or what `serve` says.
    pub fn drain(
        &mut self,
        turn: &Turn<'_>,
        mut serve: impl FnMut(&GuestMemory, Chain) -> Result<Served, RingError>,
    ) -> Result<(), RingError> {
        loop {
            self.ignore()?;
            while !turn.must_stop() {
                let Some(chain) = self.pop()? else { break };
                let head = chain.head();
                match serve(&self.memory, chain)? {
                    Served::Used(written_bytes) => self.complete(head, written_bytes)?,
                    Served::Held => {
                        self.unpop();
                        return Ok(());
                    }
                }
            }
            if !self.listen()? || turn.must_stop() {
                return Ok(());
            }
        }
    }
}

/// The rings of one worker, in the order of its plan. A queue that is not enabled has none.
#[derive(Default)]
pub struct Rings(pub(super) Vec<Option<Ring>>);

impl Rings {
    /// Returns the ring of the worker's queue number `at`, if it is enabled.
    pub fn get(&mut self, at: usize) -> Option<&mut Ring> {
        self.0.get_mut(at)?.as_mut()
    }

    /// Lists the enabled rings.
    pub fn enabled(&mut self) -> impl Iterator<Item = &mut Ring> {
        self.0.iter_mut().flatten()
    }
}
