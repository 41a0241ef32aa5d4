//! Processes that are recognised again after a restart of this program: by number and time of start.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

/// A process, never another that has its number later.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// Its number in the host's process namespace.
    pub pid: i32,
    /// When it started, in clock ticks since the host's start (proc(5), `stat` field 22).
    pub start_ticks: u64,
    /// The start of the host that this counts from.
    pub boot_id: String,
}

impl ProcessId {
    /// Identifies a running process.
    ///
    /// # Errors
    ///
    /// Fails when there is none with that number.
    pub fn of(pid: i32) -> io::Result<Self> {
        let (_, start_ticks) = stat(pid)?;
        let boot_id = boot_id();
        Ok(Self {
            pid,
            start_ticks,
            boot_id,
        })
    }

    /// Identifies this process.
    ///
    /// # Errors
    ///
    /// Fails without `/proc`.
    pub fn own() -> io::Result<Self> {
        Self::of(rustix::process::getpid().as_raw_nonzero().get())
    }

    /// Whether the process still runs; one that only waits for its parent does not.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let is_this =
            |(state, start_ticks)| start_ticks == self.start_ticks && state != 'Z' && state != 'X';
        stat(self.pid).is_ok_and(is_this) && boot_id() == self.boot_id
    }

    /// Takes hold of the process.
    ///
    /// # Errors
    ///
    /// Fails when it has ended (`ESRCH`).
    pub fn hold(&self) -> io::Result<OwnedFd> {
        let gone = || io::Error::from(rustix::io::Errno::SRCH);
        let pid = Pid::from_raw(self.pid).ok_or_else(gone)?;
        let held = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        self.is_alive().then_some(held).ok_or_else(gone)
    }

    /// Sends the process a signal; one that has ended needs none.
    ///
    /// # Errors
    ///
    /// Fails when this process may not.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let sent = self
            .hold()
            .and_then(|held| Ok(pidfd_send_signal(&held, signal)?));
        match sent {
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error()) => {
                Ok(())
            }
            sent => sent,
        }
    }
}

/// Returns state and start time of a process.
fn stat(pid: i32) -> io::Result<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name, in parentheses, may hold anything.
    let fields = text.rsplit_once(')').map(|(_, fields)| fields.trim());
    let fields = fields.unwrap_or_default();
    let state = fields.chars().next();
    let start = fields
        .split(' ')
        .nth(19)
        .and_then(|field| field.parse().ok());
    state
        .zip(start)
        .ok_or_else(|| io::Error::other("the process's stat file is not as expected"))
}

/// Returns what tells one start of the host from another.
#[must_use]
pub fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::ProcessId;

    #[test]
    fn a_process_is_recognised_and_a_namesake_is_not() {
        let own = ProcessId::own().unwrap();
        assert!(own.is_alive());
        own.hold().unwrap();
        let namesake = ProcessId {
            start_ticks: own.start_ticks + 1,
            ..own.clone()
        };
        assert!(!namesake.is_alive());
        namesake.hold().unwrap_err();
        let before = ProcessId {
            boot_id: "other".to_owned(),
            ..own
        };
        assert!(!before.is_alive());
    }

    #[test]
    fn what_has_ended_is_not_alive_even_before_it_is_reaped() {
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        let id = ProcessId::of(i32::try_from(child.id()).unwrap()).unwrap();
        id.signal(rustix::process::Signal::KILL).unwrap();
        child.wait().unwrap();
        assert!(!id.is_alive());
        id.signal(rustix::process::Signal::KILL).unwrap();
    }
}
