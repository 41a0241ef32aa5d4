//! The machine's serial port on standard input and output.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Read, Write};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use devices::{ConsoleOut, Wake};
use nix::sys::termios::{self, InputFlags, LocalFlags, SetArg, Termios};

use crate::machine::MachineHandle;

/// Ctrl-], which is not passed to the guest.
const ESCAPE_KEY: u8 = 0x1d;
/// Output that waits for a slow reader; what comes on top pushes out the oldest.
const WAITING_MAX: usize = 1 << 20;
const CHUNK_BYTES: usize = 4096;

#[derive(Default)]
struct Waiting {
    bytes: VecDeque<u8>,
    is_closed: bool,
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    signal: Condvar,
}

impl Queue {
    fn push(&self, bytes: &[u8]) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.bytes.extend(bytes);
        let excess = waiting.bytes.len().saturating_sub(WAITING_MAX);
        waiting.bytes.drain(..excess);
        self.signal.notify_one();
    }

    /// Takes what waits; empty at the end.
    fn take(&self) -> Vec<u8> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while waiting.bytes.is_empty() && !waiting.is_closed {
            waiting = self
                .signal
                .wait(waiting)
                .unwrap_or_else(PoisonError::into_inner);
        }
        let count = waiting.bytes.len().min(CHUNK_BYTES);
        waiting.bytes.drain(..count).collect()
    }

    fn close(&self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.is_closed = true;
        self.signal.notify_one();
    }
}

/// Takes the guest's output without ever waiting for its reader.
pub(super) struct Output(Arc<Queue>);

impl ConsoleOut for Output {
    fn write(&mut self, bytes: &[u8]) {
        self.0.push(bytes);
    }
}

/// Writes the guest's output to standard output, on a thread of its own.
pub(super) struct Screen {
    queue: Arc<Queue>,
    writer: JoinHandle<()>,
}

impl Screen {
    pub(super) fn start() -> io::Result<(Self, Output)> {
        let queue = Arc::new(Queue::default());
        let source = Arc::clone(&queue);
        let writer = thread::Builder::new()
            .name("serial-out".to_owned())
            .spawn(move || write_out(&source))?;
        let output = Output(Arc::clone(&queue));
        Ok((Self { queue, writer }, output))
    }

    /// Waits until everything is written.
    pub(super) fn drain(self) {
        self.queue.close();
        // A panic has been reported by the panic hook.
        drop(self.writer.join());
    }
}

fn write_out(source: &Queue) {
    let mut out = io::stdout();
    loop {
        let chunk = source.take();
        if chunk.is_empty() || out.write_all(&chunk).and_then(|()| out.flush()).is_err() {
            return;
        }
    }
}

/// Waits for room in the guest's serial port.
#[derive(Default)]
pub(super) struct Room {
    is_there: Mutex<bool>,
    signal: Condvar,
}

impl Wake for Room {
    fn wake(&self) {
        *self.is_there.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.signal.notify_one();
    }
}

impl Room {
    fn wait(&self) {
        let is_there = self.is_there.lock().unwrap_or_else(PoisonError::into_inner);
        let mut is_there = self
            .signal
            .wait_while(is_there, |is_there| !*is_there)
            .unwrap_or_else(PoisonError::into_inner);
        *is_there = false;
    }
}

/// Passes standard input to the guest; gives the terminal back when dropped.
pub(super) struct Keyboard {
    before: Option<Termios>,
}

impl Keyboard {
    /// Starts passing on input, with the terminal in raw mode if it is one.
    pub(super) fn attach(machine: MachineHandle, room: Arc<Room>) -> Self {
        let before = raw_mode();
        let has_keys = before.is_some();
        let reader = thread::Builder::new()
            .name("serial-in".to_owned())
            .spawn(move || pass_on(&machine, &room, has_keys));
        if let Err(error) = reader {
            tracing::error!(%error, "the guest gets no input: the host has no thread for it");
        }
        Self { before }
    }

    /// Tells whether keys are typed at a terminal.
    pub(super) fn is_terminal(&self) -> bool {
        self.before.is_some()
    }
}

impl Drop for Keyboard {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            let given_back = termios::tcsetattr(io::stdin(), SetArg::TCSADRAIN, before);
            given_back.unwrap_or_else(|error| tracing::debug!(%error, "the terminal is gone"));
        }
    }
}

fn raw_mode() -> Option<Termios> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return None;
    }
    let before = termios::tcgetattr(&stdin).ok()?;
    let mut raw = before.clone();
    raw.input_flags
        .remove(InputFlags::ICRNL | InputFlags::IXON | InputFlags::BRKINT | InputFlags::ISTRIP);
    raw.local_flags
        .remove(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::IEXTEN | LocalFlags::ISIG);
    termios::tcsetattr(&stdin, SetArg::TCSANOW, &raw).ok()?;
    Some(before)
}

/// Reads until the end of input, which changes nothing for the guest.
fn pass_on(machine: &MachineHandle, room: &Room, has_keys: bool) {
    let mut buffer = [0; CHUNK_BYTES];
    let mut presses = 0_u32;
    while let Ok(count @ 1..) = io::stdin().read(&mut buffer) {
        let bytes = &buffer[..count];
        if !has_keys {
            type_in(machine, room, bytes);
            continue;
        }
        for (index, piece) in bytes.split(|byte| *byte == ESCAPE_KEY).enumerate() {
            if index > 0 {
                escape(machine, presses);
                presses += 1;
            }
            type_in(machine, room, piece);
        }
    }
}

fn type_in(machine: &MachineHandle, room: &Room, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let taken = machine.serial_input(bytes);
        bytes = &bytes[taken.min(bytes.len())..];
        if !bytes.is_empty() {
            room.wait();
        }
    }
}

fn escape(machine: &MachineHandle, presses: u32) {
    let done = if presses == 0 {
        machine.power_button()
    } else {
        machine.kill()
    };
    if let Err(error) = done {
        tracing::debug!(%error, "the escape key came too late");
    }
}
