//! A container as this program sees it: a folder with notes, and processes.

use std::fs;
use std::io::{self, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use jiff::Timestamp;
use rustix::process::Signal;

use super::record::{self, Ended, Started};
use super::shim;
use super::spec::ContainerSpec;

/// Most bytes of what a keeper tells at the start.
const REPORT_LEN_MAX_BYTES: u64 = 8192;

/// Why a container did not start when this program ended at the wrong moment.
const INTERRUPTED: &str = "the node was stopped while the container started";

/// What became of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Life {
    /// It was never started.
    None,
    /// Its keeper prepares it.
    Starting,
    /// It runs.
    Running(Started),
    /// It has ended, or could not start.
    Ended {
        /// When it started, if it did.
        started: Option<Started>,
        /// How it ended.
        ended: Ended,
    },
}

/// One run of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    folder: PathBuf,
}

/// A container that was just started.
#[derive(Debug)]
pub struct Fresh {
    /// Its processes.
    pub started: Started,
    /// The keeper, which is to be waited for.
    pub keeper: Child,
}

impl Container {
    /// The container of a folder.
    #[must_use]
    pub fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// Its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Starts the container and waits until it runs. `ferrovirt` is this program. Blocks.
    ///
    /// # Errors
    ///
    /// Fails with the reason why it cannot start, which is also noted as its end.
    pub fn start(&self, ferrovirt: &Path, spec: &ContainerSpec) -> io::Result<Fresh> {
        fs::create_dir_all(&self.folder)?;
        record::write(&self.folder, record::SPEC, spec)?;
        let log = fs::File::create(self.folder.join("keeper.log"))?;
        let mut command = Command::new(ferrovirt);
        command
            .arg0("ferrovirt")
            .arg(shim::NAME)
            .arg(&self.folder)
            .current_dir("/");
        command
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log);
        let mut keeper = command.spawn()?;
        let mut told = Vec::new();
        if let Some(stdout) = keeper.stdout.take() {
            stdout.take(REPORT_LEN_MAX_BYTES).read_to_end(&mut told)?;
        }
        match record::read(&self.folder, record::STARTED)? {
            Some(started) if told == shim::IS_RUNNING => Ok(Fresh { started, keeper }),
            _ => {
                keeper.wait()?;
                Err(io::Error::other(self.failure(&told)))
            }
        }
    }

    fn failure(&self, told: &[u8]) -> String {
        if !told.is_empty() {
            return String::from_utf8_lossy(told).into_owned();
        }
        let log = fs::read_to_string(self.folder.join("keeper.log")).unwrap_or_default();
        format!("the container's keeper ended at once: {}", log.trim())
    }

    /// Returns what became of the container. Blocks shortly.
    ///
    /// # Errors
    ///
    /// Fails when its notes cannot be read.
    pub fn life(&self) -> io::Result<Life> {
        let started: Option<Started> = record::read(&self.folder, record::STARTED)?;
        if let Some(ended) = record::read(&self.folder, record::ENDED)? {
            return Ok(Life::Ended { started, ended });
        }
        let Some(started) = started else {
            return self.life_before_start();
        };
        if started.keeper.is_alive() {
            return Ok(Life::Running(started));
        }
        // The keeper may have written its last note since.
        let ended = record::read(&self.folder, record::ENDED)?;
        let ended = ended.unwrap_or_else(|| Ended::unseen(Timestamp::now()));
        Ok(Life::Ended {
            started: Some(started),
            ended,
        })
    }

    /// A container without a note of its start: its keeper prepares it still, or is gone, or comes too late.
    fn life_before_start(&self) -> io::Result<Life> {
        if !self.folder.join(record::SPEC).exists() {
            return Ok(Life::None);
        }
        let Some(_unkept) = record::hold_unkept(&self.folder)? else {
            return Ok(Life::Starting);
        };
        // The keeper may have noted more before it went.
        let started = record::read(&self.folder, record::STARTED)?;
        let noted = record::read(&self.folder, record::ENDED)?;
        let ended = match (noted, &started) {
            (Some(ended), _) => return Ok(Life::Ended { started, ended }),
            (None, Some(_)) => Ended::unseen(Timestamp::now()),
            (None, None) => Ended::failed(Timestamp::now(), INTERRUPTED.to_owned()),
        };
        self.note_end(&ended)?;
        Ok(Life::Ended { started, ended })
    }

    /// Notes an end that nobody else did.
    ///
    /// # Errors
    ///
    /// Fails when the folder cannot be written.
    pub fn note_end(&self, ended: &Ended) -> io::Result<()> {
        record::write(&self.folder, record::ENDED, ended)
    }

    /// Sends the container's first process a signal; one that does not run needs none. Blocks shortly.
    ///
    /// # Errors
    ///
    /// Fails when its notes cannot be read or the host refuses.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let started: Option<Started> = record::read(&self.folder, record::STARTED)?;
        started.map_or(Ok(()), |started| started.process.signal(signal))
    }

    /// Returns the specification that the container was started with.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be read.
    pub fn spec(&self) -> io::Result<Option<ContainerSpec>> {
        record::read(&self.folder, record::SPEC)
    }
}
