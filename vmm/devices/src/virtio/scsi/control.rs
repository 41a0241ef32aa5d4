//! Serves the control queue and the event queue.

use std::sync::Arc;

use nix::poll::{PollFd, PollFlags};

use super::bus::{Bus, BusState, Event};
use super::request::Address;
use super::spec::{EVENT_BYTES, control, event, response};
use crate::lifecycle::RestoreError;
use crate::memory::GuestMemory;
use crate::virtio::chain::Chain;
use crate::virtio::event::{borrow, take};
use crate::virtio::ring::{Ring, RingError, Rings, Served};
use crate::virtio::worker::{QueueWorker, Turn};

/// Length of `struct virtio_scsi_ctrl_tmf` as far as it is looked at: type, subtype and unit.
const TMF_BYTES: usize = 24;
/// Length of `struct virtio_scsi_ctrl_an`: type, unit and events.
const AN_BYTES: usize = 16;

/// Serves both queues, and keeps the saved state of the whole host.
pub(super) struct ControlWorker {
    bus: Arc<Bus>,
}

impl ControlWorker {
    pub(super) fn new(bus: Arc<Bus>) -> Self {
        Self { bus }
    }

    fn serve_chain(&self, memory: &GuestMemory, chain: &Chain) -> Result<Served, RingError> {
        let mut kind = [0; 4];
        chain.readable.read(memory, 0, &mut kind)?;
        match u32::from_le_bytes(kind) {
            control::TMF => self.manage(memory, chain),
            control::AN_QUERY => self.notify(memory, chain, false),
            control::AN_SUBSCRIBE => self.notify(memory, chain, true),
            _ => answer(memory, chain, &[response::FAILURE]),
        }
    }

    /// Answers a task management function: by then every command before it is done.
    fn manage(&self, memory: &GuestMemory, chain: &Chain) -> Result<Served, RingError> {
        let mut request = [0; TMF_BYTES];
        let len_bytes = request.len().min(chain.readable.len_bytes());
        chain.readable.read(memory, 0, &mut request[..len_bytes])?;
        let [_, _, _, _, s0, s1, s2, s3, rest @ ..] = request;
        let lun = *rest.first_chunk().expect("the unit follows the subtype");
        let answered = self.function(u32::from_le_bytes([s0, s1, s2, s3]), lun);
        answer(memory, chain, &[answered])
    }

    fn function(&self, function: u32, lun: [u8; 8]) -> u8 {
        let unit =
            Address::parse(lun).and_then(|address| Some((address, self.bus.unit(address.target)?)));
        let Some((Address { lun, .. }, unit)) = unit else {
            return response::BAD_TARGET;
        };
        match function {
            control::I_T_NEXUS_RESET => unit.reset(),
            _ if lun != 0 => return response::INCORRECT_LUN,
            control::LOGICAL_UNIT_RESET => unit.reset(),
            // Of no task is anything left; the answer to a query says that it is not there.
            control::ABORT_TASK
            | control::ABORT_TASK_SET
            | control::CLEAR_TASK_SET
            | control::QUERY_TASK
            | control::QUERY_TASK_SET => {}
            _ => return response::FUNCTION_REJECTED,
        }
        response::OK
    }

    /// Answers which asynchronous notifications there are, or sets which are wanted.
    fn notify(
        &self,
        memory: &GuestMemory,
        chain: &Chain,
        subscribes: bool,
    ) -> Result<Served, RingError> {
        let mut request = [0; AN_BYTES];
        let len_bytes = request.len().min(chain.readable.len_bytes());
        chain.readable.read(memory, 0, &mut request[..len_bytes])?;
        let [_, _, _, _, lun @ .., e0, e1, e2, e3] = request;
        let wanted = u32::from_le_bytes([e0, e1, e2, e3]);
        let unit =
            Address::parse(lun).and_then(|address| Some((address, self.bus.unit(address.target)?)));
        let (actual, answered) = match unit {
            None => (0, response::BAD_TARGET),
            Some((Address { lun, .. }, _)) if lun != 0 => (0, response::INCORRECT_LUN),
            Some((_, unit)) if subscribes => (unit.subscribe(wanted), response::OK),
            Some((_, unit)) => (unit.notifications() & wanted, response::OK),
        };
        let [a0, a1, a2, a3] = actual.to_le_bytes();
        answer(memory, chain, &[a0, a1, a2, a3, answered])
    }

    /// Fills the driver's buffers with the events that wait.
    fn tell(&self, ring: &mut Ring, turn: &Turn<'_>) -> Result<(), RingError> {
        if !self.bus.has_event() {
            return ring.ignore();
        }
        ring.drain(turn, |memory, chain| match self.bus.take_event() {
            Some(event) => write_event(memory, &chain, event),
            None => Ok(Served::Held),
        })
    }
}

/// Writes an answer. A buffer without room for it is one that nobody can be answered in.
fn answer(memory: &GuestMemory, chain: &Chain, answer: &[u8]) -> Result<Served, RingError> {
    let room = answer.len().min(chain.writable.len_bytes());
    if room == 0 {
        return Err(RingError::TooShort);
    }
    chain.writable.write(memory, 0, &answer[..room])?;
    Ok(Served::Used(u32::try_from(room).unwrap_or(u32::MAX)))
}

fn write_event(memory: &GuestMemory, chain: &Chain, event: Event) -> Result<Served, RingError> {
    let mut bytes = event.kind.to_le_bytes().to_vec();
    let has_unit = event.kind & !event::EVENTS_MISSED != event::NO_EVENT;
    // A Linux driver takes bytes 2 and 3 for the number of the unit, which is 0: flat addressing (SAM-5 §4.7.7.3) would
    // make it look for unit 16384.
    bytes.extend(if has_unit {
        [1, event.target, 0, 0, 0, 0, 0, 0]
    } else {
        [0; 8]
    });
    bytes.extend(event.reason.to_le_bytes());
    chain.writable.write(memory, 0, &bytes)?;
    Ok(Served::Used(EVENT_BYTES))
}

impl QueueWorker for ControlWorker {
    fn start(&mut self, features: u64) {
        self.bus.set_features(features);
    }

    fn serve(&mut self, rings: &mut Rings, turn: &Turn<'_>) -> Result<(), RingError> {
        take(&self.bus.wake);
        if let Some(ring) = rings.get(0) {
            ring.drain(turn, |memory, chain| self.serve_chain(memory, &chain))?;
        }
        match rings.get(1) {
            Some(ring) => self.tell(ring, turn),
            None => Ok(()),
        }
    }

    fn watch(&self) -> Vec<PollFd<'_>> {
        vec![PollFd::new(borrow(&self.bus.wake), PollFlags::POLLIN)]
    }

    fn save(&self) -> serde_json::Value {
        serde_json::to_value(self.bus.save()).unwrap_or_default()
    }

    fn restore(&mut self, state: &serde_json::Value) -> Result<(), RestoreError> {
        let kind = || "virtio-8".to_owned();
        let state: BusState =
            serde_json::from_value(state.clone()).map_err(|source| RestoreError::Decode {
                kind: kind(),
                source,
            })?;
        let refused = |field| RestoreError::Field {
            kind: kind(),
            field,
        };
        self.bus.restore(state).map_err(refused)
    }
}
