//! The host's side of a port.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Shared;
use crate::uart::ConsoleOut;

/// What a read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// So many bytes.
    Bytes(usize),
    /// None now.
    Later,
    /// None, and there is nobody to send any.
    Nobody,
}

/// What a write did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// So many bytes were taken.
    Taken(usize),
    /// There is no room now.
    Later,
    /// There is nobody to take them.
    Nobody,
}

/// The host's side of a port.
pub(super) enum Endpoint {
    InProcess(InProcess),
    Socket(SocketEndpoint),
}

impl Endpoint {
    pub(super) fn is_open(&self) -> bool {
        match self {
            Self::InProcess(_) => true,
            Self::Socket(socket) => socket.is_open(),
        }
    }

    /// Looks for new and lost clients.
    pub(super) fn refresh(&mut self) {
        if let Self::Socket(socket) = self {
            socket.refresh();
        }
    }

    pub(super) fn read(&mut self, buf: &mut [u8]) -> Input {
        match self {
            Self::InProcess(own) => own.read(buf),
            Self::Socket(socket) => socket.read(buf),
        }
    }

    pub(super) fn write(&mut self, data: &[u8]) -> Output {
        match self {
            Self::InProcess(own) => {
                own.out.write(data);
                Output::Taken(data.len())
            }
            Self::Socket(socket) => socket.write(data),
        }
    }

    /// Adds the files to wait for, given what the port waits for.
    pub(super) fn watch<'a>(
        &'a self,
        wants_input: bool,
        wants_room: bool,
        files: &mut Vec<PollFd<'a>>,
    ) {
        if let Self::Socket(socket) = self {
            files.extend(socket.watch(wants_input, wants_room));
        }
    }
}

/// A port that belongs to this process.
pub(super) struct InProcess {
    out: Box<dyn ConsoleOut>,
    shared: Arc<Shared>,
}

impl InProcess {
    pub(super) fn new(out: Box<dyn ConsoleOut>, shared: Arc<Shared>) -> Self {
        Self { out, shared }
    }

    fn read(&self, buf: &mut [u8]) -> Input {
        let mut state = self.shared.state.get();
        let count = buf.len().min(state.input.len());
        for (slot, byte) in buf.iter_mut().zip(state.input.drain(..count)) {
            *slot = byte;
        }
        if count == 0 {
            Input::Later
        } else {
            Input::Bytes(count)
        }
    }
}

struct Client {
    stream: UnixStream,
    /// It has closed its sending half, and all that it sent was read.
    input_ended: bool,
    /// It has closed its end. What it sent before may still be read.
    gone: bool,
}

/// A Unix socket with one client at a time.
pub(super) struct SocketEndpoint {
    path: PathBuf,
    listener: UnixListener,
    /// The host refused to accept a client: it is asked again when something else has happened.
    is_resting: bool,
    client: Option<Client>,
}

impl SocketEndpoint {
    /// Listens on `path`, in place of a socket that nobody listens on any more.
    pub(super) fn listen(path: &Path) -> io::Result<Self> {
        remove_stale(path)?;
        let listener = UnixListener::bind(path)?;
        let path = path.to_owned();
        listener.set_nonblocking(true)?;
        Ok(Self {
            path,
            listener,
            is_resting: false,
            client: None,
        })
    }

    fn is_open(&self) -> bool {
        self.client.as_ref().is_some_and(|client| !client.gone)
    }

    fn refresh(&mut self) {
        if let Some(client) = &mut self.client {
            client.gone |= hung_up(client.stream.as_fd());
        }
        // A client that has gone gives way to the next, with what it sent and nobody read.
        if !self.is_open()
            && let Some(client) = self.accept()
        {
            self.client = Some(client);
        }
    }

    fn accept(&mut self) -> Option<Client> {
        let accepted = self.listener.accept().and_then(|(stream, _)| {
            stream.set_nonblocking(true)?;
            Ok(stream)
        });
        self.is_resting = false;
        match accepted {
            Ok(stream) => Some(Client {
                stream,
                input_ended: false,
                gone: false,
            }),
            Err(error) if is_later(&error) => None,
            Err(error) => {
                self.is_resting = true;
                tracing::warn!(path = %self.path.display(), %error, "a console client must wait");
                None
            }
        }
    }

    fn read(&mut self, buf: &mut [u8]) -> Input {
        let Some(client) = &mut self.client else {
            return Input::Nobody;
        };
        if client.input_ended {
            return Input::Nobody;
        }
        match client.stream.read(buf) {
            Ok(0) => {
                client.input_ended = true;
                Input::Nobody
            }
            Ok(count) => Input::Bytes(count),
            Err(error) if is_later(&error) => Input::Later,
            Err(_) => {
                (client.input_ended, client.gone) = (true, true);
                Input::Nobody
            }
        }
    }

    fn write(&mut self, data: &[u8]) -> Output {
        let Some(client) = self.client.as_mut().filter(|client| !client.gone) else {
            return Output::Nobody;
        };
        match client.stream.write(data) {
            Ok(count) => Output::Taken(count),
            Err(error) if is_later(&error) => Output::Later,
            Err(_) => {
                client.gone = true;
                Output::Nobody
            }
        }
    }

    fn watch(&self, wants_input: bool, wants_room: bool) -> Option<PollFd<'_>> {
        let Some(client) = self.client.as_ref().filter(|client| !client.gone) else {
            let listener = PollFd::new(self.listener.as_fd(), PollFlags::POLLIN);
            return (!self.is_resting).then_some(listener);
        };
        let mut events = PollFlags::empty();
        events.set(PollFlags::POLLIN, wants_input && !client.input_ended);
        events.set(PollFlags::POLLOUT, wants_room);
        Some(PollFd::new(client.stream.as_fd(), events))
    }
}

impl Drop for SocketEndpoint {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "the socket is gone already");
        }
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Tells whether the other end is closed.
fn hung_up(file: BorrowedFd<'_>) -> bool {
    let mut files = [PollFd::new(file, PollFlags::empty())];
    let found = poll(&mut files, PollTimeout::ZERO).unwrap_or(0);
    let closed = PollFlags::POLLHUP | PollFlags::POLLERR;
    found > 0
        && files[0]
            .revents()
            .is_some_and(|events| events.intersects(closed))
}

/// Removes the socket of a process that ended without doing so.
fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket());
    let refused = |error: io::Error| error.kind() == ErrorKind::ConnectionRefused;
    if is_socket && UnixStream::connect(path).is_err_and(refused) {
        std::fs::remove_file(path)?;
    }
    Ok(())
}
