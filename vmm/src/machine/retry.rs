//! Machines that nobody commands: a disk that stops one is tried again.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::{MachineEvent, MachineHandle};

/// How long a machine that a disk has stopped stands still before it tries again.
pub const RETRY: Duration = Duration::from_secs(5);

impl MachineHandle {
    /// Shows every event until the machine's end. A machine that a disk has stopped is resumed every [`RETRY`], until
    /// the host has mended what was wrong; a try that ends as the last one did is not shown again.
    ///
    /// For those who run a machine without anyone to command it: it must not stand still for ever.
    pub fn watch_and_retry(&self, mut show: impl FnMut(&MachineEvent)) {
        let events = self.events();
        let mut retry = Retry::default();
        loop {
            match next(&events, retry.due) {
                Ok(event) => {
                    if retry.note(&event, Instant::now()) {
                        show(&event);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    retry.tried(Instant::now());
                    if let Err(error) = self.resume() {
                        tracing::debug!(%error, "the disk is not tried again");
                    }
                }
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }
}

fn next(
    events: &Receiver<MachineEvent>,
    due: Option<Instant>,
) -> Result<MachineEvent, RecvTimeoutError> {
    match due {
        None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
        Some(due) => events.recv_timeout(due.saturating_duration_since(Instant::now())),
    }
}

/// When to try again, and what the last try came to.
#[derive(Default)]
struct Retry {
    due: Option<Instant>,
    tried: Option<Instant>,
    shown: Option<MachineEvent>,
}

impl Retry {
    fn tried(&mut self, now: Instant) {
        self.due = None;
        self.tried = Some(now);
    }

    /// Takes an event in; tells whether it is news.
    fn note(&mut self, event: &MachineEvent, now: Instant) -> bool {
        if !matches!(event, MachineEvent::DiskStopped { .. }) {
            return true;
        }
        self.due.get_or_insert(now + RETRY);
        let is_retry = self.tried.is_some_and(|tried| now - tried < RETRY);
        let is_known = is_retry && self.shown.as_ref() == Some(event);
        self.shown = Some(event.clone());
        !is_known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stopped(disk: &str) -> MachineEvent {
        MachineEvent::DiskStopped {
            disk: disk.to_owned(),
            reason: "no space left".to_owned(),
        }
    }

    #[test]
    fn a_stop_is_due_again_and_shown_once() {
        let start = Instant::now();
        let mut retry = Retry::default();
        assert!(retry.note(&MachineEvent::Panicked, start));
        assert_eq!(retry.due, None);
        assert!(retry.note(&stopped("a"), start));
        assert_eq!(retry.due, Some(start + RETRY));
        retry.tried(start + RETRY);
        assert_eq!(retry.due, None);
        assert!(!retry.note(&stopped("a"), start + RETRY), "as before");
        assert_eq!(retry.due, Some(start + 2 * RETRY));
        retry.tried(start + 2 * RETRY);
        assert!(retry.note(&stopped("b"), start + 2 * RETRY));
        // The machine has gone on for a while.
        assert!(retry.note(&stopped("b"), start + 4 * RETRY));
    }
}
