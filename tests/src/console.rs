//! A child process with a console that tests read and write: text is awaited with a deadline, never with a sleep.

mod relay;

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::{AsFd, OwnedFd},
    process::{Command, ExitStatus, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{Signal, kill},
        wait::{Id, WaitPidFlag, waitid},
    },
    unistd::Pid,
};

use crate::cpu_time::{CpuTime, cpu_time};

/// Most output that is kept: a guest that floods its console must not flood the test.
const OUTPUT_LIMIT_BYTES: usize = 16 << 20;

/// Output shown when an expectation fails.
const TAIL_BYTES: usize = 2000;

/// What the child's standard input and output are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Console {
    /// Two pipes.
    Pipes,
    /// Standard output a pipe, standard input at its end from the start.
    OutputOnly,
    /// A pseudo-terminal in its default, cooked mode.
    Terminal,
}

/// Why awaited text did not come.
#[derive(thiserror::Error)]
pub enum ConsoleError {
    /// The deadline passed.
    #[error("{wanted:?} did not come within {within:?}; the console ends with:\n{tail}")]
    Late {
        /// The text.
        wanted: String,
        /// The time that was given.
        within: Duration,
        /// The last output.
        tail: String,
    },
    /// The console closed first.
    #[error("the console closed before {wanted:?} came; it ends with:\n{tail}\n{errors}")]
    Closed {
        /// The text.
        wanted: String,
        /// The last output.
        tail: String,
        /// Standard error.
        errors: String,
    },
    /// The process did not end in time.
    #[error("the process still ran after {within:?}; its console ends with:\n{tail}")]
    Running {
        /// The time that was given.
        within: Duration,
        /// The last output.
        tail: String,
    },
    /// The host refused.
    #[error("use the console")]
    Host(#[from] io::Error),
}

/// `unwrap` in a test shows this: the message with its line breaks.
impl std::fmt::Debug for ConsoleError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{self}")
    }
}

/// What a process left behind.
#[derive(Debug)]
pub struct Finished {
    /// Its exit status.
    pub status: ExitStatus,
    /// Everything it wrote to its console.
    pub output: String,
    /// Everything it wrote to standard error.
    pub errors: String,
    /// CPU time it used.
    pub cpu: CpuTime,
}

/// A running child; dropped, it is killed.
pub struct Spawned {
    pid: u32,
    input: Option<File>,
    output: File,
    errors: File,
    exit: Receiver<(io::Result<ExitStatus>, CpuTime)>,
    seen: Vec<u8>,
    matched: usize,
    ended: bool,
    reaped: bool,
    echo: bool,
}

impl Spawned {
    /// Starts a command with the console given; standard error goes to a file of its own.
    ///
    /// # Errors
    ///
    /// When the host cannot make the console or start the program.
    pub fn start(mut command: Command, console: Console) -> io::Result<Self> {
        let errors = tempfile::tempfile()?;
        let (input, output) = attach(&mut command, console)?;
        command.stderr(errors.try_clone()?);
        let mut child = command.spawn()?;
        drop(command); // it holds our copy of the child's ends
        let pid = child.id();
        let (report, exit) = channel();
        std::thread::Builder::new()
            .name(format!("wait-{pid}"))
            .spawn(move || {
                let cpu = cpu_at_exit(pid);
                // The receiver is gone when nobody asks any more.
                let _asked = report.send((child.wait(), cpu));
            })?;
        Ok(Self {
            pid,
            input,
            output,
            errors,
            exit,
            seen: Vec::new(),
            matched: 0,
            ended: false,
            reaped: false,
            echo: false,
        })
    }

    /// From now on copies the console's output to standard output.
    pub fn echo(&mut self) {
        self.echo = true;
    }

    /// The process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// CPU time used so far.
    #[must_use]
    pub fn cpu(&self) -> CpuTime {
        cpu_time(self.pid).unwrap_or_default()
    }

    /// Waits until the console shows `wanted` after everything matched before; gives the text up to its end.
    ///
    /// # Errors
    ///
    /// When the deadline passes or the console closes first.
    pub fn expect(&mut self, wanted: &str, within: Duration) -> Result<String, ConsoleError> {
        let deadline = Instant::now() + within;
        let mut searched = self.matched;
        loop {
            if let Some(at) = find(&self.seen[searched..], wanted.as_bytes()) {
                let end = searched + at + wanted.len();
                let text = String::from_utf8_lossy(&self.seen[self.matched..end]).into_owned();
                self.matched = end;
                return Ok(text);
            }
            searched = self
                .seen
                .len()
                .saturating_sub(wanted.len())
                .max(self.matched);
            if self.ended {
                let (wanted, tail, errors) = (wanted.to_owned(), self.tail(), self.errors());
                return Err(ConsoleError::Closed {
                    wanted,
                    tail,
                    errors,
                });
            }
            if !self.receive(deadline)? {
                return Err(ConsoleError::Late {
                    wanted: wanted.to_owned(),
                    within,
                    tail: self.tail(),
                });
            }
        }
    }

    /// Writes to the console.
    ///
    /// # Errors
    ///
    /// When the child's end is closed, or it was started without input.
    pub fn send(&mut self, text: &str) -> io::Result<()> {
        let closed = || io::Error::new(io::ErrorKind::BrokenPipe, "the console has no input");
        self.input
            .as_mut()
            .ok_or_else(closed)?
            .write_all(text.as_bytes())
    }

    /// Ends standard input.
    pub fn close_input(&mut self) {
        self.input = None;
    }

    /// Sends a signal to the process unless it has ended.
    pub fn signal(&self, signal: Signal) {
        if !self.reaped
            && let Ok(pid) = i32::try_from(self.pid)
        {
            // A process that ended meanwhile needs no signal.
            let _gone = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Reads on until the process ends.
    ///
    /// # Errors
    ///
    /// When it has not ended in time.
    pub fn finish(mut self, within: Duration) -> Result<Finished, ConsoleError> {
        let deadline = Instant::now() + within;
        while !self.ended {
            if !self.receive(deadline)? {
                return Err(ConsoleError::Running {
                    within,
                    tail: self.tail(),
                });
            }
        }
        match self
            .exit
            .recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            Ok((status, cpu)) => {
                self.reaped = true;
                let output = String::from_utf8_lossy(&self.seen).into_owned();
                Ok(Finished {
                    status: status?,
                    output,
                    errors: self.errors(),
                    cpu,
                })
            }
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                Err(ConsoleError::Running {
                    within,
                    tail: self.tail(),
                })
            }
        }
    }

    /// Whether the process has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid));
        let state = stat.as_ref().ok().and_then(|it| it.rsplit_once(") "));
        state.is_none_or(|(_, rest)| rest.starts_with('Z'))
    }

    /// Everything on standard error so far.
    #[must_use]
    pub fn errors(&self) -> String {
        use std::os::unix::fs::FileExt;
        let mut text = vec![0; 1 << 20];
        let length = self.errors.read_at(&mut text, 0).unwrap_or(0);
        String::from_utf8_lossy(&text[..length]).into_owned()
    }

    /// Takes in what the console has, waiting until the deadline; false when that passed.
    fn receive(&mut self, deadline: Instant) -> io::Result<bool> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left.as_millis()).unwrap_or(PollTimeout::MAX);
            let mut watched = [PollFd::new(self.output.as_fd(), PollFlags::POLLIN)];
            match poll(&mut watched, timeout) {
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
                Ok(0) if left.is_zero() => return Ok(false),
                Ok(0) => {}
                Ok(_) => break,
            }
        }
        let mut chunk = [0; 16 << 10];
        // A pseudo-terminal whose other end is gone answers EIO instead of an end of file.
        let length = self.output.read(&mut chunk).or_else(|error| {
            if error.raw_os_error() == Some(Errno::EIO as i32) {
                Ok(0)
            } else {
                Err(error)
            }
        })?;
        if length == 0 {
            self.ended = true;
            return Ok(true);
        }
        if self.echo {
            // The reader of the echo may have gone; the run goes on.
            let _gone = io::stdout()
                .write_all(&chunk[..length])
                .and_then(|()| io::stdout().flush());
        }
        if self.seen.len() + length <= OUTPUT_LIMIT_BYTES {
            self.seen.extend_from_slice(&chunk[..length]);
            return Ok(true);
        }
        Err(io::Error::other(
            "the console wrote more than the harness keeps",
        ))
    }

    fn tail(&self) -> String {
        String::from_utf8_lossy(&self.seen[self.seen.len().saturating_sub(TAIL_BYTES)..])
            .into_owned()
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}

/// Gives the command its console; returns our ends.
fn attach(command: &mut Command, console: Console) -> io::Result<(Option<File>, File)> {
    if console == Console::Terminal {
        let pair = nix::pty::openpty(None, None)?;
        let slave = File::from(pair.slave);
        command.stdin(slave.try_clone()?).stdout(slave);
        let master = File::from(pair.master);
        return Ok((Some(master.try_clone()?), master));
    }
    let (output, theirs) = io::pipe()?;
    command.stdout(theirs);
    let output = File::from(OwnedFd::from(output));
    if console == Console::OutputOnly {
        command.stdin(Stdio::null());
        return Ok((None, output));
    }
    let (theirs, input) = io::pipe()?;
    command.stdin(theirs);
    Ok((Some(File::from(OwnedFd::from(input))), output))
}

/// Waits for the process to end, and reads its CPU time while it is not yet reaped.
fn cpu_at_exit(pid: u32) -> CpuTime {
    let Ok(raw) = i32::try_from(pid) else {
        return CpuTime::default();
    };
    while waitid(
        Id::Pid(Pid::from_raw(raw)),
        WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT,
    ) == Err(Errno::EINTR)
    {}
    cpu_time(pid).unwrap_or_default()
}

fn find(text: &[u8], wanted: &[u8]) -> Option<usize> {
    text.windows(wanted.len().max(1))
        .position(|window| window == wanted)
}

#[cfg(test)]
mod tests;
