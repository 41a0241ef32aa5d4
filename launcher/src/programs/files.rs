//! Waits for files to come, change and go, and for signals.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// How often files are looked at where the host has no watches left to give.
const UNWATCHED: Duration = Duration::from_secs(1);

/// Folders and signals that are watched.
pub(super) struct Watch {
    events: Option<Inotify>,
    signals: SignalFd,
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Woken {
    /// Something may have changed, or the time is over.
    Look,
    /// A signal came.
    Signal,
}

impl Watch {
    /// Takes the signals given from now on; to be called before there is a second thread.
    pub(super) fn new(signals: &[Signal]) -> io::Result<Self> {
        let signals: SigSet = signals.iter().copied().collect();
        signals.thread_block()?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let signals = SignalFd::with_flags(&signals, flags)?;
        let events = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).ok();
        Ok(Self { events, signals })
    }

    /// Watches the folder of a file, or the nearest one above it that exists. May be called again and again.
    pub(super) fn folder_of(&mut self, file: &Path) {
        let flags = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MODIFY
            | AddWatchFlags::IN_MOVE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF;
        let Some(events) = &self.events else {
            return;
        };
        let mut folders = file.ancestors().skip(1);
        let watched = folders.any(|folder| {
            let here = Path::new(".");
            let folder = if folder.as_os_str().is_empty() {
                here
            } else {
                folder
            };
            events.add_watch(folder, flags).is_ok()
        });
        if !watched {
            self.events = None;
        }
    }

    /// Blocks until something happens, another file is readable, or the time is over.
    pub(super) fn wait(
        &self,
        other: Option<BorrowedFd<'_>>,
        timeout: Option<Duration>,
    ) -> io::Result<Woken> {
        let own = [
            Some(self.signals.as_fd()),
            self.events.as_ref().map(AsFd::as_fd),
            other,
        ];
        let files = own.into_iter().flatten();
        let mut files: Vec<_> = files
            .map(|file| PollFd::new(file, PollFlags::POLLIN))
            .collect();
        let unwatched = self.events.is_none().then_some(UNWATCHED);
        let timeout = [timeout, unwatched].into_iter().flatten().min();
        let timeout = timeout.map_or(PollTimeout::NONE, |timeout| {
            PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut files, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        // What happened is seen by looking at the files.
        while self
            .events
            .as_ref()
            .is_some_and(|events| events.read_events().is_ok())
        {}
        let signal = self.signals.read_signal()?;
        Ok(if signal.is_some() {
            Woken::Signal
        } else {
            Woken::Look
        })
    }
}
