//! What is noted about a container in its folder, so that it outlives this program.
//!
//! `spec.json` is what to run, `started.json` which processes do, `ended.json` how that ended. Each is written under
//! another name and renamed, so whoever reads one reads all of it.

use std::fs;
use std::io;
use std::path::Path;

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use rustix::io::{Errno, retry_on_intr};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::process::ProcessId;

/// Name of the specification in a container's folder.
pub const SPEC: &str = "spec.json";
/// Name of the note that a container has started.
pub const STARTED: &str = "started.json";
/// Name of the note that a container has ended.
pub const ENDED: &str = "ended.json";
/// Most bytes of a note that are read.
const NOTE_LEN_MAX_BYTES: u64 = 16 << 20;

/// A container that has started.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// Its first process.
    pub process: ProcessId,
    /// The process that keeps it.
    pub keeper: ProcessId,
    /// When.
    pub at: Timestamp,
}

/// A container that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// Exit status; 128 and the signal after a signal.
    pub code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// When.
    pub at: Timestamp,
    /// Whether the kernel killed it for want of memory.
    pub is_out_of_memory: bool,
    /// Why it could not even start.
    pub failure: Option<String>,
}

impl Ended {
    /// A container whose end nobody saw: its keeper was killed, or the host restarted.
    #[must_use]
    pub fn unseen(at: Timestamp) -> Self {
        Self {
            code: 137,
            signal: Some(9),
            at,
            is_out_of_memory: false,
            failure: None,
        }
    }

    /// A container that could not start.
    #[must_use]
    pub fn failed(at: Timestamp, failure: String) -> Self {
        Self {
            code: 128,
            signal: None,
            at,
            is_out_of_memory: false,
            failure: Some(failure),
        }
    }
}

/// Holds a container's specification for who keeps the container, and thereby tells that somebody does. Waits while
/// another looks. `None` when there is no specification.
///
/// # Errors
///
/// Fails when the host refuses.
pub fn hold(folder: &Path) -> io::Result<Option<fs::File>> {
    let file = match fs::File::open(folder.join(SPEC)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    retry_on_intr(|| flock(&file, FlockOperation::LockExclusive))?;
    Ok(Some(file))
}

/// Holds a container's specification unless somebody does already. A keeper that comes later waits until the file is
/// dropped. `None` when a keeper lives.
///
/// # Errors
///
/// Fails when there is no specification, or the host refuses.
pub fn hold_unkept(folder: &Path) -> io::Result<Option<fs::File>> {
    let file = fs::File::open(folder.join(SPEC))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Writes a note.
///
/// # Errors
///
/// Fails when the folder cannot be written.
pub fn write<T: Serialize>(folder: &Path, name: &str, note: &T) -> io::Result<()> {
    let text = serde_json::to_vec(note)?;
    let new = folder.join(format!("{name}.new"));
    fs::write(&new, text)?;
    fs::rename(new, folder.join(name))
}

/// Reads a note; `None` when there is none.
///
/// # Errors
///
/// Fails when there is one that cannot be read.
pub fn read<T: DeserializeOwned>(folder: &Path, name: &str) -> io::Result<Option<T>> {
    use io::Read;
    let mut text = Vec::new();
    let opened = fs::File::open(folder.join(name));
    match opened.and_then(|file| file.take(NOTE_LEN_MAX_BYTES).read_to_end(&mut text)) {
        Ok(_) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
