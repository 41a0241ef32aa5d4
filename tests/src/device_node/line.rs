//! Lines of JSON over a socket of QEMU's.

use std::cell::RefCell;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::node::until;

/// A connection whose sides speak in turns.
pub(super) struct Line {
    input: UnixStream,
    output: BufReader<UnixStream>,
    /// What was received of the next line.
    begun: Vec<u8>,
}

impl Line {
    /// Connects to a socket, which may not be there yet.
    pub(super) fn connect(socket: &Path, patience: Duration) -> io::Result<Self> {
        let stream = RefCell::new(UnixStream::connect(socket));
        let _reached = until(patience, || {
            if stream.borrow().is_err() {
                *stream.borrow_mut() = UnixStream::connect(socket);
            }
            stream.borrow().is_ok()
        });
        let input = stream.into_inner()?;
        let output = BufReader::new(input.try_clone()?);
        Ok(Self {
            input,
            output,
            begun: Vec::new(),
        })
    }

    /// Sends a line.
    pub(super) fn send(&mut self, message: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        self.input.write_all(&line)
    }

    /// Receives the next line that is such a message; lines that are none are left out.
    pub(super) fn receive<T: DeserializeOwned>(&mut self, patience: Duration) -> io::Result<T> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // No time at all would mean forever.
            self.input
                .set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            let length = self.output.read_until(b'\n', &mut self.begun)?;
            if length == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if let Ok(message) = serde_json::from_slice(&std::mem::take(&mut self.begun)) {
                return Ok(message);
            }
        }
    }
}
