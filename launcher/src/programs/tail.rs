//! `virt-tail`: shows the guest's console as the log of a container.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use nix::sys::signal::Signal;

use super::files::{Watch, Woken};

/// What a console's log has in its name beyond that of the console's socket.
const LOG_SUFFIX: &[u8] = b"-log";
/// How long a file may be away while its writer starts a new one.
const ROTATION: Duration = Duration::from_secs(5);
/// Bytes copied at once.
const PIECE_LEN: usize = 16 << 10;

/// Follows the log of a guest's console and writes it to standard output.
///
/// Waits for the file, follows it across rotation, and ends when the machine has: when the console's socket, whose name is
/// that of the log without `-log`, has come and gone, when the log has been away for some seconds, or on SIGTERM.
#[derive(Debug, Parser)]
#[command(name = "virt-tail", version)]
pub(super) struct Arguments {
    /// The log
    #[arg(long, value_name = "FILE")]
    logfile: PathBuf,
}

/// Why a log cannot be followed.
#[derive(Debug, thiserror::Error)]
pub(super) enum TailError {
    #[error("wait for {}", path.display())]
    Wait { path: PathBuf, source: io::Error },
    #[error("read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("write to standard output")]
    Write(#[source] io::Error),
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, TailError> {
    let path = &arguments.logfile;
    let wait = |source| TailError::Wait {
        path: path.clone(),
        source,
    };
    let mut watch = Watch::new(&[Signal::SIGTERM, Signal::SIGINT]).map_err(wait)?;
    let mut log = Log::new(path);
    let mut out = io::stdout();
    loop {
        watch.folder_of(path);
        let over = log.is_over(Instant::now());
        log.copy_to(&mut out)?;
        if over {
            return Ok(ExitCode::SUCCESS);
        }
        if watch.wait(None, log.patience()).map_err(wait)? == Woken::Signal {
            log.copy_to(&mut out)?;
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// A log that is followed.
struct Log {
    path: PathBuf,
    socket: Option<PathBuf>,
    socket_seen: bool,
    file: Option<File>,
    /// Since when the file, that was there, is not there.
    away_since: Option<Instant>,
    file_seen: bool,
}

impl Log {
    fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            socket: socket_of(path),
            socket_seen: false,
            file: None,
            away_since: None,
            file_seen: false,
        }
    }

    /// Looks whether the writer has ended; what it wrote may still be there to read.
    fn is_over(&mut self, now: Instant) -> bool {
        let socket_there = self.socket.as_ref().is_some_and(|path| path.exists());
        let socket_gone = self.socket_seen && !socket_there;
        self.socket_seen |= socket_there;
        let away = self.file_seen && !self.path.exists();
        self.away_since = away.then(|| self.away_since.unwrap_or(now));
        let lost = self
            .away_since
            .is_some_and(|since| now.saturating_duration_since(since) >= ROTATION);
        socket_gone || lost
    }

    /// How long to wait at most for something to happen.
    fn patience(&self) -> Option<Duration> {
        self.away_since.map(|_| ROTATION)
    }

    /// Writes everything that was not written yet.
    fn copy_to(&mut self, out: &mut impl Write) -> Result<(), TailError> {
        loop {
            // Looked at first: after it, a file that was put away grows no more.
            let replaced = self.is_replaced();
            if let Some(file) = &mut self.file {
                copy(file, out, &self.path)?;
            }
            if !replaced {
                break;
            }
            self.file = self.open()?;
            if self.file.is_none() {
                break;
            }
        }
        out.flush().map_err(TailError::Write)
    }

    /// Whether another file, or none yet, has the log's name than the one that is open.
    fn is_replaced(&self) -> bool {
        let open = self.file.as_ref().and_then(|file| file.metadata().ok());
        let named = fs::metadata(&self.path).ok();
        match (open, named) {
            (Some(open), Some(named)) => (open.dev(), open.ino()) != (named.dev(), named.ino()),
            (None, named) => named.is_some(),
            // Its successor is yet to come; until then it may still be written.
            (Some(_), None) => false,
        }
    }

    fn open(&mut self) -> Result<Option<File>, TailError> {
        match File::open(&self.path) {
            Ok(file) => {
                self.file_seen = true;
                Ok(Some(file))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(TailError::Read {
                path: self.path.clone(),
                source,
            }),
        }
    }
}

/// The socket of the console whose log this is.
fn socket_of(log: &Path) -> Option<PathBuf> {
    let name = log.file_name()?.as_bytes().strip_suffix(LOG_SUFFIX)?;
    let name = std::ffi::OsString::from_vec(name.to_vec());
    Some(log.with_file_name(name))
}

/// Writes what a file holds beyond what was read of it; from its start, if it has become shorter.
fn copy(file: &mut File, out: &mut impl Write, path: &Path) -> Result<(), TailError> {
    let read = |source| TailError::Read {
        path: path.to_owned(),
        source,
    };
    let position = file.stream_position().map_err(read)?;
    if file.metadata().map_err(read)?.len() < position {
        file.rewind().map_err(read)?;
    }
    let mut piece = [0; PIECE_LEN];
    loop {
        match file.read(&mut piece) {
            Ok(0) => return Ok(()),
            Ok(count) => out.write_all(&piece[..count]).map_err(TailError::Write)?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(read(error)),
        }
    }
}
