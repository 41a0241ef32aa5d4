//! One port: moves bytes between its rings and the host's side.

use serde::{Deserialize, Serialize};

use super::OnPort;
use super::control::{
    CONSOLE_PORT, Message, PORT_ADD, PORT_NAME, PORT_OPEN, PORT_READY, RESIZE, Untold,
};
use super::endpoint::{Endpoint, Input, Output};
use crate::virtio::chain::Chain;
use crate::virtio::ring::{Ring, RingError};
use crate::virtio::worker::Turn;

/// Most bytes moved at once.
const PIECE_BYTES: usize = 4096;
/// Most chains moved before the other ports have their turn.
const TURN_CHAINS: usize = 64;

/// One port of the console.
pub(super) struct Port {
    pub(super) id: u16,
    name: String,
    pub(super) endpoint: Endpoint,
    on_port: Option<OnPort>,
    /// The driver has set the port up.
    is_ready: bool,
    /// A program in the guest has the port open.
    guest_open: bool,
    /// What the driver was last told of the host's side.
    told_open: bool,
    pub(super) untold: Untold,
    /// How much of the first chain in the transmit ring the host has taken.
    taken_bytes: usize,
    pub(super) wants_input: bool,
    pub(super) wants_room: bool,
}

/// The saved form of a [`Port`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PortState {
    id: u16,
    is_ready: bool,
    guest_open: bool,
    told_open: bool,
    untold: u8,
    taken_bytes: usize,
}

/// What became of a chain of output.
enum Sent {
    All,
    /// The client takes no more now, or the worker must stop.
    Part,
}

impl Port {
    pub(super) fn new(id: u16, name: String, endpoint: Endpoint, on_port: Option<OnPort>) -> Self {
        Self {
            id,
            name,
            endpoint,
            on_port,
            is_ready: false,
            guest_open: false,
            told_open: false,
            untold: Untold::default(),
            taken_bytes: 0,
            wants_input: false,
            wants_room: false,
        }
    }

    /// Returns the places of the port's receive and transmit queues (§5.3.2).
    pub(super) fn queues(&self) -> (usize, usize) {
        let first = match usize::from(self.id) {
            0 => 0,
            id => 2 * id + 2,
        };
        (first, first + 1)
    }

    fn is_console(&self) -> bool {
        matches!(self.endpoint, Endpoint::InProcess(_))
    }

    /// Forgets what the driver did and was told; clients stay.
    pub(super) fn reset(&mut self) {
        self.is_ready = false;
        self.set_guest_open(false);
        self.told_open = false;
        self.untold = Untold::default();
        self.taken_bytes = 0;
    }

    /// Behaves as a port does for a driver that knows of one port only (§5.3.5).
    pub(super) fn open_without_control(&mut self) {
        self.set_guest_open(true);
    }

    fn set_guest_open(&mut self, open: bool) {
        let changed = std::mem::replace(&mut self.guest_open, open) != open;
        if let Some(on_port) = self.on_port.as_ref().filter(|_| changed) {
            on_port(&self.name, open);
        }
    }

    /// Takes the driver's word on this port.
    pub(super) fn control(&mut self, message: Message) {
        match message.event {
            PORT_READY if message.value == 1 => {
                self.is_ready = true;
                if self.is_console() {
                    self.untold.add(CONSOLE_PORT);
                }
                if !self.name.is_empty() {
                    self.untold.add(PORT_NAME);
                }
                self.untold.add(PORT_OPEN);
            }
            PORT_OPEN => self.set_guest_open(message.value != 0),
            _ => {}
        }
    }

    /// Notes that the terminal's size is to be told.
    pub(super) fn resized(&mut self) {
        if self.is_ready && self.is_console() {
            self.untold.add(RESIZE);
        }
    }

    /// Looks at the host's side and notes what the driver is to be told of it.
    pub(super) fn refresh(&mut self) {
        self.endpoint.refresh();
        if self.is_ready && self.endpoint.is_open() != self.told_open {
            self.untold.add(PORT_OPEN);
        }
    }

    /// Returns the next message to the driver, if there is one.
    pub(super) fn next_message(&self, size: Option<(u16, u16)>) -> Option<(u16, Vec<u8>)> {
        let event = self.untold.next()?;
        let message = |value| Message {
            port: self.id.into(),
            event,
            value,
        };
        let bytes = match event {
            PORT_ADD | CONSOLE_PORT => message(1).to_bytes(&[]),
            PORT_NAME => message(1).to_bytes(self.name.as_bytes()),
            RESIZE => {
                let (cols, rows) = size.unwrap_or_default();
                message(0).to_bytes(&[cols.to_le_bytes(), rows.to_le_bytes()].concat())
            }
            _ => message(self.endpoint.is_open().into()).to_bytes(&[]),
        };
        Some((event, bytes))
    }

    /// Notes that the driver was told.
    pub(super) fn told(&mut self, event: u16) {
        self.untold.remove(event);
        if event == PORT_OPEN {
            self.told_open = self.endpoint.is_open();
        }
    }

    /// Moves what the guest wrote to the host; tells whether there may be more.
    pub(super) fn transmit(&mut self, ring: &mut Ring, turn: &Turn<'_>) -> Result<bool, RingError> {
        self.wants_room = false;
        for _ in 0..TURN_CHAINS {
            let Some(chain) = ring.pop()? else {
                return ring.listen();
            };
            match self.send(ring, &chain, turn)? {
                Sent::All => {
                    self.taken_bytes = 0;
                    ring.complete(chain.head(), 0)?;
                }
                Sent::Part => {
                    ring.unpop();
                    self.wants_room = true;
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn send(&mut self, ring: &Ring, chain: &Chain, turn: &Turn<'_>) -> Result<Sent, RingError> {
        let mut buffer = [0; PIECE_BYTES];
        loop {
            let left = chain.readable.len_bytes().saturating_sub(self.taken_bytes);
            if left == 0 {
                return Ok(Sent::All);
            }
            if turn.must_stop() {
                return Ok(Sent::Part);
            }
            let piece = &mut buffer[..left.min(PIECE_BYTES)];
            chain
                .readable
                .read(ring.memory(), self.taken_bytes, piece)?;
            match self.endpoint.write(piece) {
                Output::Taken(count) => self.taken_bytes += count,
                Output::Later => return Ok(Sent::Part),
                Output::Nobody => return Ok(Sent::All),
            }
        }
    }

    /// Moves what the host sent to the guest; tells whether there may be more.
    pub(super) fn receive(&mut self, ring: &mut Ring) -> Result<bool, RingError> {
        self.wants_input = false;
        if !self.guest_open {
            return Ok(false);
        }
        let mut buffer = [0; PIECE_BYTES];
        for _ in 0..TURN_CHAINS {
            let Some(chain) = ring.pop()? else {
                return ring.listen();
            };
            let len_bytes = chain.writable.len_bytes().min(PIECE_BYTES);
            if len_bytes == 0 {
                ring.complete(chain.head(), 0)?;
                continue;
            }
            match self.endpoint.read(&mut buffer[..len_bytes]) {
                Input::Bytes(count) => {
                    chain.writable.write(ring.memory(), 0, &buffer[..count])?;
                    ring.complete(chain.head(), u32::try_from(count).unwrap_or(0))?;
                }
                other => {
                    ring.unpop();
                    self.wants_input = other == Input::Later;
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    pub(super) fn save(&self) -> PortState {
        PortState {
            id: self.id,
            is_ready: self.is_ready,
            guest_open: self.guest_open,
            told_open: self.told_open,
            untold: self.untold.bits(),
            taken_bytes: self.taken_bytes,
        }
    }

    pub(super) fn accepts(&self, state: &PortState) -> bool {
        state.id == self.id && Untold::from_bits(state.untold).is_some()
    }

    pub(super) fn restore(&mut self, state: &PortState) {
        self.is_ready = state.is_ready;
        self.set_guest_open(state.guest_open);
        self.told_open = state.told_open;
        self.untold = Untold::from_bits(state.untold).unwrap_or_default();
        self.taken_bytes = state.taken_bytes;
    }
}
