//! The connection to the port's socket, and whether an agent listens at its other end.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags};

use crate::agent::wire::{self, Line, Lines};

/// First and longest time for which a guest is left alone that did not keep to the protocol.
const RETRIES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));
/// Time to the next attempt when nothing listens at the socket, as the machine is not there yet or not any more.
const ABSENT: Duration = Duration::from_secs(2);
/// A connection that lasted so long was a good one.
const GOOD: Duration = Duration::from_secs(60);
/// First and longest time for our number to come back. What was sent waits in the socket for an agent, so asking often
/// gains nothing; a guest that died with our number in its memory is why it is asked again at all.
const SYNC_TIMEOUTS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
/// Most bytes before our number: old numbers, and an answer that was too late or too long. The longest is 16 MiB of output
/// and as much of errors, in base64.
const MAX_STALE_BYTES: usize = 48 << 20;
/// Most lines before our number: as many old numbers as a socket holds, and more.
const MAX_STALE_LINES: usize = 4096;
/// Bytes read at once.
const PIECE_LEN: usize = 64 << 10;

/// What the agent sent.
pub(super) enum Heard {
    /// Our number: an agent listens.
    Synced,
    /// A line.
    Line(Line),
    /// The connection ended.
    Ended,
}

pub(super) struct Link {
    socket: PathBuf,
    state: State,
    /// Time until the next attempt after the next failure.
    retry: Duration,
    last_id: u32,
}

enum State {
    Down { retry_at: Instant },
    Up(Up),
}

struct Up {
    stream: UnixStream,
    lines: Lines,
    /// What the socket did not take yet: one request and one number at most.
    unsent: Vec<u8>,
    /// While our number is out.
    syncing: Option<Syncing>,
    since: Instant,
}

#[derive(Clone, Copy)]
struct Syncing {
    deadline: Instant,
    timeout: Duration,
    stale_bytes: usize,
    stale_lines: usize,
}

impl Link {
    pub(super) fn new(socket: PathBuf, now: Instant) -> Self {
        Self {
            socket,
            state: State::Down { retry_at: now },
            retry: RETRIES.0,
            last_id: 0,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        matches!(self.state, State::Up(_))
    }

    /// Whether an agent listens.
    pub(super) fn is_ready(&self) -> bool {
        matches!(&self.state, State::Up(up) if up.syncing.is_none())
    }

    /// Returns when [`Self::keep`] has something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Down { retry_at } => Some(*retry_at),
            State::Up(up) => up.syncing.map(|syncing| syncing.deadline),
        }
    }

    /// Returns what to wait for.
    pub(super) fn watch(&self) -> Option<PollFd<'_>> {
        let State::Up(up) = &self.state else {
            return None;
        };
        let mut events = PollFlags::POLLIN;
        events.set(PollFlags::POLLOUT, !up.unsent.is_empty());
        Some(PollFd::new(up.stream.as_fd(), events))
    }

    /// Connects and asks for a sign of life when it is time to; tells whether one asked for earlier did not come.
    pub(super) fn keep(&mut self, now: Instant) -> bool {
        if self.deadline().is_none_or(|at| at > now) {
            return false;
        }
        match &mut self.state {
            State::Down { .. } => {
                self.connect(now);
                false
            }
            State::Up(up) => {
                let timeout = up
                    .syncing
                    .map_or(SYNC_TIMEOUTS.0, |syncing| syncing.timeout * 2);
                self.send_number(now, timeout.min(SYNC_TIMEOUTS.1));
                true
            }
        }
    }

    fn connect(&mut self, now: Instant) {
        let connected = UnixStream::connect(&self.socket).and_then(|stream| {
            stream.set_nonblocking(true)?;
            Ok(stream)
        });
        match connected {
            Ok(stream) => {
                self.state = State::Up(Up {
                    stream,
                    lines: Lines::default(),
                    unsent: Vec::new(),
                    syncing: None,
                    since: now,
                });
                self.send_number(now, SYNC_TIMEOUTS.0);
            }
            Err(error) => {
                tracing::trace!(%error, "guest agent port cannot be reached");
                self.state = State::Down {
                    retry_at: now + ABSENT,
                };
            }
        }
    }

    /// Asks for a sign of life, as nothing is known of where the agent stands.
    pub(super) fn sync(&mut self, now: Instant) {
        self.send_number(now, SYNC_TIMEOUTS.0);
    }

    /// Looks for a new agent as if for the first time.
    pub(super) fn start_over(&mut self, now: Instant) {
        self.retry = RETRIES.0;
        match &mut self.state {
            State::Down { retry_at } => *retry_at = now,
            State::Up(_) => self.sync(now),
        }
    }

    /// Starts the wait for a sign of life anew.
    pub(super) fn extend(&mut self, now: Instant) {
        if let State::Up(up) = &mut self.state
            && let Some(syncing) = &mut up.syncing
        {
            syncing.deadline = now + syncing.timeout;
        }
    }

    fn send_number(&mut self, now: Instant, timeout: Duration) {
        let State::Up(up) = &mut self.state else {
            return;
        };
        // Where the socket is full of our numbers, an agent that comes answers the last of them.
        if up.unsent.is_empty() || up.syncing.is_none() {
            self.last_id = self.last_id.wrapping_add(1);
            up.send(&wire::sync(self.last_id));
        }
        up.syncing = Some(Syncing {
            deadline: now + timeout,
            timeout,
            stale_bytes: 0,
            stale_lines: 0,
        });
    }

    /// Sends a request, as far as the socket takes it now.
    pub(super) fn send(&mut self, line: &[u8]) {
        if let State::Up(up) = &mut self.state {
            up.send(line);
        }
    }

    /// Leaves a guest alone that does not keep to the protocol.
    pub(super) fn fail(&mut self, now: Instant) {
        if let State::Up(up) = &self.state
            && now.saturating_duration_since(up.since) >= GOOD
        {
            self.retry = RETRIES.0;
        }
        let retry_at = now + self.retry;
        self.retry = (self.retry * 2).min(RETRIES.1);
        self.state = State::Down { retry_at };
    }

    /// Sends what waits and reads what came.
    pub(super) fn hear(&mut self, now: Instant) -> Vec<Heard> {
        let State::Up(up) = &mut self.state else {
            return Vec::new();
        };
        let mut heard = Vec::new();
        let kept = up.flush().and_then(|()| up.read(self.last_id, &mut heard));
        if let Err(error) = kept {
            tracing::debug!(%error, "guest agent connection dropped");
            self.fail(now);
            heard.push(Heard::Ended);
        }
        heard
    }
}

impl Up {
    fn send(&mut self, bytes: &[u8]) {
        self.unsent.extend_from_slice(bytes);
        // A broken connection shows when it is read.
        let _broken = self.flush();
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(error) if is_later(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads one piece: a guest that never stops sending does not keep the thread from its other work.
    fn read(&mut self, id: u32, heard: &mut Vec<Heard>) -> io::Result<()> {
        let mut piece = vec![0; PIECE_LEN];
        let count = match self.stream.read(&mut piece) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if is_later(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        self.lines.push(&piece[..count]);
        if let Some(syncing) = &mut self.syncing {
            syncing.stale_bytes += count;
        }
        while let Some(line) = self.lines.next() {
            match (&line, &mut self.syncing) {
                (_, None) => heard.push(Heard::Line(line)),
                (Line::Whole(line), Some(_)) if wire::is_synced(line, id) => {
                    self.syncing = None;
                    heard.push(Heard::Synced);
                }
                (_, Some(syncing)) => syncing.stale_lines += 1,
            }
        }
        if self.syncing.is_some_and(|syncing| syncing.is_flooded()) {
            return Err(io::Error::other("too much before the answer to a sync"));
        }
        Ok(())
    }
}

impl Syncing {
    fn is_flooded(&self) -> bool {
        self.stale_bytes > MAX_STALE_BYTES || self.stale_lines > MAX_STALE_LINES
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
