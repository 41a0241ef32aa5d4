//! The guest's end of the console.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use tracing::Span;
use vmm::machine::{ConsoleOut, Discard, MachineHandle, MachineIo, Wake};

use super::Console;

/// Bytes of input offered to the guest at once: more than a serial port takes.
const INPUT_CHUNK_LEN: usize = 256;

/// The guest's end of a console, for a machine that is about to start.
#[derive(Debug)]
pub struct GuestEnd {
    console: Console,
    room: Arc<Room>,
}

impl GuestEnd {
    /// Returns the end, and what connects the machine with it.
    pub fn new(console: &Console) -> (Self, MachineIo) {
        let room = Arc::new(Room::default());
        let io = MachineIo {
            serial_out: Box::new(SerialOut(console.clone())),
            serial_room: Some(Arc::clone(&room) as Arc<dyn Wake>),
            debug_out: Box::new(Discard),
        };
        let console = console.clone();
        (Self { console, room }, io)
    }

    /// Passes the console's input to the guest as it takes it, until the console ends.
    ///
    /// # Errors
    ///
    /// Fails when the host refuses a thread.
    pub fn pump_input(self, machine: &MachineHandle) -> io::Result<()> {
        let input = self.console.input();
        let machine = machine.clone();
        let span = Span::current();
        let work = move || {
            while let Some(bytes) = input.take(INPUT_CHUNK_LEN) {
                let mut rest = bytes.as_slice();
                while !rest.is_empty() {
                    let taken = machine.serial_input(rest);
                    rest = &rest[taken.min(rest.len())..];
                    if !rest.is_empty() {
                        self.room.wait();
                    }
                }
            }
        };
        thread::Builder::new()
            .name("console-pump".to_owned())
            .spawn(move || span.in_scope(work))
            .map(drop)
    }
}

/// What the guest says.
struct SerialOut(Console);

impl ConsoleOut for SerialOut {
    fn write(&mut self, bytes: &[u8]) {
        self.0.output(bytes);
    }
}

/// Tells when the guest's serial port takes input again.
#[derive(Debug, Default)]
struct Room {
    is_there: Mutex<bool>,
    changed: Condvar,
}

impl Room {
    fn lock(&self) -> MutexGuard<'_, bool> {
        self.is_there.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait(&self) {
        let waited = self.changed.wait_while(self.lock(), |is_there| !*is_there);
        *waited.unwrap_or_else(PoisonError::into_inner) = false;
    }
}

impl Wake for Room {
    fn wake(&self) {
        *self.lock() = true;
        self.changed.notify_one();
    }
}
