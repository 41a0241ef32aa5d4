//! The process behind a socket. It is held by a descriptor, so another with its number is never taken for it.

use std::io;
use std::os::fd::OwnedFd;

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A process whose end is noticed.
#[derive(Debug)]
pub(super) struct Process {
    end: AsyncFd<OwnedFd>,
}

impl Process {
    /// Takes hold of the process with this number. That it is the process which was meant is known when that one does
    /// something afterwards.
    #[expect(
        deprecated,
        reason = "the new constructor is unsafe for descriptors that may be closed by others; this one is owned"
    )]
    pub(super) fn hold(pid: i32) -> io::Result<Self> {
        let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
        let process = pidfd_open(pid, PidfdFlags::NONBLOCK)?;
        let end = AsyncFd::with_interest(process, Interest::READABLE)?;
        Ok(Self { end })
    }

    /// Returns once the process has ended.
    pub(super) async fn gone(&self) {
        // Waiting fails only when the runtime ends.
        drop(self.end.readable().await);
    }
}
