//! Serves all queues of a console.

use std::sync::Arc;

use nix::poll::{PollFd, PollFlags};
use serde::{Deserialize, Serialize};

use super::control::{DEVICE_READY, MESSAGE_BYTES, Message, PORT_ADD, PORT_READY};
use super::port::{Port, PortState};
use super::{F_MULTIPORT, Shared};
use crate::lifecycle::RestoreError;
use crate::virtio::event::{borrow, take};
use crate::virtio::ring::{Ring, RingError, Rings, Served};
use crate::virtio::worker::{QueueWorker, Turn};

const CONTROL_RECEIVE: usize = 2;
const CONTROL_TRANSMIT: usize = 3;
/// Most buffers looked at for one message; a driver that offers as many too small ones gets it
/// when it notifies again.
const MOST_BUFFERS: usize = 128;

/// Moves bytes and control messages of every port.
pub(super) struct ConsoleWorker {
    ports: Vec<Port>,
    shared: Arc<Shared>,
    has_control: bool,
}

/// The saved form of a [`ConsoleWorker`].
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct State {
    size: Option<(u16, u16)>,
    ports: Vec<PortState>,
}

impl ConsoleWorker {
    pub(super) fn new(ports: Vec<Port>, shared: Arc<Shared>) -> Self {
        Self {
            ports,
            shared,
            has_control: false,
        }
    }

    fn take_control(&mut self, rings: &mut Rings, turn: &Turn<'_>) -> Result<(), RingError> {
        let Some(ring) = rings.get(CONTROL_TRANSMIT) else {
            return Ok(());
        };
        ring.drain(turn, |memory, chain| {
            let mut bytes = [0; MESSAGE_BYTES];
            // A message that is cut short says nothing.
            if chain.readable.len_bytes() >= MESSAGE_BYTES {
                chain.readable.read(memory, 0, &mut bytes)?;
                self.control(Message::from_bytes(bytes));
            }
            Ok(Served::Used(0))
        })
    }

    fn control(&mut self, message: Message) {
        if message.event == DEVICE_READY {
            for port in self.ports.iter_mut().filter(|_| message.value == 1) {
                port.untold.add(PORT_ADD);
            }
            return;
        }
        let has_size = self.shared.state.get().size.is_some();
        let mut ports = self.ports.iter_mut();
        if let Some(port) = ports.find(|port| u32::from(port.id) == message.port) {
            port.control(message);
            if message.event == PORT_READY && has_size {
                port.resized();
            }
        }
    }

    fn tell(&mut self, ring: &mut Ring) -> Result<(), RingError> {
        let size = self.shared.state.get().size;
        for port in &mut self.ports {
            while let Some((event, bytes)) = port.next_message(size) {
                if !post(ring, &bytes)? {
                    return Ok(());
                }
                port.told(event);
            }
        }
        Ok(())
    }

    fn note_changes(&mut self) {
        take(&self.shared.wake);
        let resized = std::mem::take(&mut self.shared.state.get().size_changed);
        for port in &mut self.ports {
            if resized {
                port.resized();
            }
            port.refresh();
        }
    }

    /// Gives each port its turn; tells whether one may have more to do.
    fn move_bytes(&mut self, rings: &mut Rings, turn: &Turn<'_>) -> Result<bool, RingError> {
        let mut more = false;
        for port in &mut self.ports {
            let (receive, transmit) = port.queues();
            if let Some(ring) = rings.get(transmit) {
                more |= port.transmit(ring, turn)?;
            }
            if let Some(ring) = rings.get(receive) {
                more |= port.receive(ring)?;
            }
        }
        Ok(more)
    }
}

/// Puts a message into the next buffer that has room for it; tells whether there was one.
fn post(ring: &mut Ring, bytes: &[u8]) -> Result<bool, RingError> {
    for _ in 0..MOST_BUFFERS {
        let Some(chain) = ring.pop()? else {
            if ring.listen()? {
                continue;
            }
            return Ok(false);
        };
        let fits = chain.writable.len_bytes() >= bytes.len();
        if fits {
            chain.writable.write(ring.memory(), 0, bytes)?;
        }
        let written_bytes = if fits { bytes.len() } else { 0 };
        ring.complete(chain.head(), u32::try_from(written_bytes).unwrap_or(0))?;
        if fits {
            return Ok(true);
        }
    }
    Ok(false)
}

impl QueueWorker for ConsoleWorker {
    fn start(&mut self, features: u64) {
        self.has_control = features & F_MULTIPORT != 0;
        if !self.has_control
            && let Some(port) = self.ports.iter_mut().find(|port| port.id == 0)
        {
            port.open_without_control();
        }
    }

    fn serve(&mut self, rings: &mut Rings, turn: &Turn<'_>) -> Result<(), RingError> {
        while !turn.must_stop() {
            self.note_changes();
            if self.has_control {
                self.take_control(rings, turn)?;
                if let Some(ring) = rings.get(CONTROL_RECEIVE) {
                    self.tell(ring)?;
                }
            }
            if !self.move_bytes(rings, turn)? {
                break;
            }
        }
        Ok(())
    }

    fn watch(&self) -> Vec<PollFd<'_>> {
        let wake = PollFd::new(borrow(&self.shared.wake), PollFlags::POLLIN);
        let mut files = vec![wake];
        for port in &self.ports {
            port.endpoint
                .watch(port.wants_input, port.wants_room, &mut files);
        }
        files
    }

    fn reset(&mut self) {
        self.ports.iter_mut().for_each(Port::reset);
    }

    fn save(&self) -> serde_json::Value {
        let state = State {
            size: self.shared.state.get().size,
            ports: self.ports.iter().map(Port::save).collect(),
        };
        // Numbers and flags always have a JSON form.
        serde_json::to_value(state).unwrap_or_default()
    }

    fn restore(&mut self, state: &serde_json::Value) -> Result<(), RestoreError> {
        let kind = "virtio-console";
        let state: State =
            serde_json::from_value(state.clone()).map_err(|source| RestoreError::Decode {
                kind: kind.to_owned(),
                source,
            })?;
        let mut pairs = self.ports.iter().zip(&state.ports);
        let fits = state.ports.len() == self.ports.len();
        if !fits || !pairs.all(|(port, state)| port.accepts(state)) {
            return Err(RestoreError::Field {
                kind: kind.to_owned(),
                field: "ports",
            });
        }
        self.shared.state.get().size = state.size;
        for (port, state) in self.ports.iter_mut().zip(&state.ports) {
            port.restore(state);
        }
        Ok(())
    }
}
