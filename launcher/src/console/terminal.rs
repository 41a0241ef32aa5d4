//! The console on the terminal, or on whatever standard input and output are.

use std::io::{self, IsTerminal, Read};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use nix::sys::termios::{self, InputFlags, LocalFlags, SetArg, SpecialCharacterIndices, Termios};

use super::{CHUNK_LEN, Console};

/// Ctrl-], which ends the console instead of going to the guest.
pub const ESCAPE_KEY: u8 = 0x1d;
/// How long the end waits for a reader of standard output that doesn't read.
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// The console on standard input and output.
#[derive(Debug)]
pub struct Terminal {
    drained: mpsc::Receiver<()>,
}

impl Terminal {
    /// Connects standard input and output with the console. `escape` is called for each Ctrl-] typed
    /// at a terminal. The end of input changes nothing.
    ///
    /// # Errors
    ///
    /// Fails when the host refuses a thread.
    pub fn attach(console: &Console, escape: impl FnMut() + Send + 'static) -> io::Result<Self> {
        let (_queue, writer) = console.view("console-out", io::stdout())?;
        let (done, drained) = mpsc::channel();
        thread::Builder::new()
            .name("console-drain".to_owned())
            .spawn(move || {
                let _ended = writer.join();
                let _nobody_waits = done.send(());
            })?;
        let console = console.clone();
        thread::Builder::new()
            .name("console-in".to_owned())
            .spawn(move || {
                if io::stdin().is_terminal() {
                    feed_keys(&console, io::stdin(), escape);
                } else {
                    console.feed(io::stdin());
                }
            })?;
        Ok(Self { drained })
    }

    /// Waits, for a short time, until all output of a closed console is written.
    pub fn drain(self) {
        let _late = self.drained.recv_timeout(DRAIN_TIME);
    }
}

/// Passes keys on, but for the escape key.
fn feed_keys(console: &Console, mut from: impl Read, mut escape: impl FnMut()) {
    let mut buffer = [0; CHUNK_LEN];
    while let Ok(count) = from.read(&mut buffer) {
        if count == 0 {
            break;
        }
        let mut pieces = buffer[..count].split(|byte| *byte == ESCAPE_KEY);
        if let Some(piece) = pieces.next() {
            console.type_in(piece);
        }
        for piece in pieces {
            escape();
            console.type_in(piece);
        }
    }
}

/// A terminal that hands over every key as it is typed, until dropped. Output is left as it was, so
/// that log lines keep their shape.
#[derive(Debug)]
pub struct RawMode {
    before: Termios,
}

impl RawMode {
    /// Switches the terminal of standard input; `None` where that is no terminal.
    pub fn enter() -> Option<Self> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return None;
        }
        let before = termios::tcgetattr(&stdin).ok()?;
        let mut raw = before.clone();
        raw.input_flags.remove(
            InputFlags::BRKINT
                | InputFlags::ICRNL
                | InputFlags::INLCR
                | InputFlags::ISTRIP
                | InputFlags::IXON,
        );
        raw.local_flags
            .remove(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::IEXTEN | LocalFlags::ISIG);
        raw.control_chars[SpecialCharacterIndices::VMIN as usize] = 1;
        raw.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
        termios::tcsetattr(&stdin, SetArg::TCSANOW, &raw).ok()?;
        Some(Self { before })
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        let _best_effort = termios::tcsetattr(io::stdin(), SetArg::TCSADRAIN, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::{Console, feed_keys};

    #[test]
    fn the_escape_key_is_kept_from_the_guest() {
        let console = Console::new();
        let mut escapes = 0;
        feed_keys(&console, &b"ab\x1dcd\x1d\x1d"[..], || escapes += 1);
        console.close();
        assert_eq!(escapes, 3);
        assert_eq!(console.input().take(100).unwrap(), b"abcd");
    }
}
