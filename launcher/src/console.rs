//! The guest's serial console: one stream from the guest to everyone who looks, and everyone's input to
//! the guest.
//!
//! The guest never waits for those who look: each has a queue of its own, which loses its oldest bytes
//! when it is full. Input waits for the guest: those who type are held back when the guest takes nothing.

mod guest;
mod log;
mod queue;
mod socket;
mod terminal;

use std::io::{Read, Write};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

pub use guest::GuestEnd;
pub use queue::Queue;
pub use socket::ConsoleSocket;
pub use terminal::{ESCAPE_KEY, RawMode, Terminal};

/// Bytes that wait for a viewer: a whole boot's messages, many times over.
const OUTPUT_LEN: usize = 1 << 20;
/// Bytes that wait for the guest.
const INPUT_LEN: usize = 4096;
/// Bytes read or written at once.
const CHUNK_LEN: usize = 4096;

/// The serial console of one guest.
#[derive(Clone, Debug)]
pub struct Console {
    viewers: Arc<queue::Viewers>,
    input: Arc<Queue>,
}

impl Default for Console {
    fn default() -> Self {
        Self::new()
    }
}

impl Console {
    /// Returns a console at which nobody looks.
    pub fn new() -> Self {
        Self {
            viewers: Arc::default(),
            input: Arc::new(Queue::new(INPUT_LEN)),
        }
    }

    /// Passes on what the guest sent; never blocks.
    pub fn output(&self, bytes: &[u8]) {
        self.viewers.push(bytes);
    }

    /// Takes input for the guest; blocks while too much waits already.
    pub fn type_in(&self, bytes: &[u8]) {
        self.input.push_blocking(bytes);
    }

    /// The input that waits for the guest.
    pub fn input(&self) -> Arc<Queue> {
        Arc::clone(&self.input)
    }

    /// Ends the console: viewers get what waits for them and no more.
    pub fn close(&self) {
        self.viewers.close();
        self.input.close();
    }

    /// Adds a viewer that is written to by a thread of its own, until the console, the viewer or its
    /// queue ends.
    fn view(
        &self,
        name: &str,
        mut out: impl Write + Send + 'static,
    ) -> std::io::Result<(Arc<Queue>, JoinHandle<()>)> {
        let queue = Arc::new(Queue::new(OUTPUT_LEN));
        let source = Arc::clone(&queue);
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                while let Some(chunk) = source.take(CHUNK_LEN) {
                    if out.write_all(&chunk).and_then(|()| out.flush()).is_err() {
                        source.close();
                    }
                }
            })?;
        self.viewers.add(&queue);
        Ok((queue, thread))
    }

    /// Passes on what is typed until the end of input.
    fn feed(&self, mut from: impl Read) {
        let mut buffer = [0; CHUNK_LEN];
        loop {
            match from.read(&mut buffer) {
                Ok(0) => break,
                Ok(count) => self.type_in(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
    }
}

#[cfg(test)]
mod tests;
