//! The user's own terminal as the far end of a child's console.

use std::{
    io::{self, Read, Write},
    os::fd::AsFd,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr},
};

use super::{ConsoleError, Spawned};

/// The terminal in raw mode: every key goes to the guest; dropped, it is as before.
struct RawTerminal(Termios);

impl RawTerminal {
    fn enter() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(io::stdin(), SetArg::TCSANOW, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        // A terminal that is gone needs no restoring.
        let _gone = tcsetattr(io::stdin(), SetArg::TCSANOW, &self.0);
    }
}

impl Spawned {
    /// Joins the child's console to standard input and output until it closes; gives the time until `wanted` first
    /// appeared.
    ///
    /// # Errors
    ///
    /// When standard input is no terminal, or a console fails.
    pub fn relay(&mut self, wanted: &str) -> Result<Option<Duration>, ConsoleError> {
        let _raw = RawTerminal::enter()?;
        let began = Instant::now();
        let mut appeared = None;
        self.echo();
        let mut typing = true;
        while !self.ended {
            let (keys, output) = self.wait_either(typing)?;
            if keys {
                typing = self.pass_keys()?;
            }
            if output {
                self.receive(Instant::now())?;
                if appeared.is_none() && super::find(&self.seen, wanted.as_bytes()).is_some() {
                    appeared = Some(began.elapsed());
                }
                self.forget(wanted.len());
            }
        }
        Ok(appeared)
    }

    /// Waits for a key or for output; says which came.
    fn wait_either(&self, typing: bool) -> io::Result<(bool, bool)> {
        let stdin = io::stdin();
        let mut watched = vec![PollFd::new(self.output.as_fd(), PollFlags::POLLIN)];
        if typing {
            watched.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut watched, PollTimeout::NONE) {
            Err(Errno::EINTR) => Ok((false, false)),
            Err(errno) => Err(errno.into()),
            Ok(_) => {
                let ready = |at: usize| watched.get(at).is_some_and(|fd| fd.any() == Some(true));
                Ok((ready(1), ready(0)))
            }
        }
    }

    /// Hands typed keys to the child; false at the end of standard input.
    fn pass_keys(&mut self) -> io::Result<bool> {
        let mut keys = [0; 256];
        let length = io::stdin().read(&mut keys)?;
        if let Some(input) = &mut self.input {
            // The child may have gone between the key and now; its console then closes next.
            let _gone = input.write_all(&keys[..length]);
        }
        Ok(length > 0)
    }

    /// Drops output that no search needs any more, so that a long session stays small.
    fn forget(&mut self, keep_bytes: usize) {
        self.seen
            .drain(..self.seen.len().saturating_sub(keep_bytes));
    }
}
