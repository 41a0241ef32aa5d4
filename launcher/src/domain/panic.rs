//! What becomes of a machine whose guest's kernel has panicked (libvirt's `on_crash`: destroy).
//!
//! Kernels that are told to (`panic=1`) start the machine anew by themselves; one that has not after a while
//! hangs for good, and its machine is ended so that whoever wants it running notices.

use std::convert::Infallible;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use tracing::Span;

use super::owner::Owner;
use super::state::{Activity, Ended};

/// How long a kernel that has panicked has to start anew: longer than distributions have theirs wait.
const PATIENCE: Duration = Duration::from_secs(15);

/// Whether the guest's kernel has panicked.
#[derive(Debug, Default)]
pub(super) struct Panic {
    /// Counts the times that the machine started anew.
    starts: u64,
    has_panicked: bool,
    /// Whoever waits for the guest stops when this goes.
    waiting: Option<Sender<Infallible>>,
}

impl Panic {
    pub(super) fn started_anew(&mut self) {
        self.starts = self.starts.wrapping_add(1);
        self.has_panicked = false;
        self.waiting = None;
    }
}

impl Owner {
    /// Returns whether this is the first that is heard of the guest's panic.
    pub(super) fn guest_panicked(&mut self) -> bool {
        if self.panic.has_panicked {
            return false;
        }
        self.panic.has_panicked = true;
        if let Some(facts) = &mut self.facts {
            facts.panics = facts.panics.saturating_add(1);
        }
        self.wait_for_reboot();
        true
    }

    /// Gives a guest that has panicked its time.
    pub(super) fn wait_for_reboot(&mut self) {
        if !self.panic.has_panicked {
            return;
        }
        let (waiting, over) = channel::<Infallible>();
        let (tasks, starts, span) = (self.tasks.clone(), self.panic.starts, Span::current());
        let work = move || {
            if over.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                // The owner ends with the process.
                drop(tasks.send(Box::new(move |owner: &mut Self| owner.give_up(starts))));
            }
        };
        let thread = thread::Builder::new().name("panic-wait".to_owned());
        match thread.spawn(move || span.in_scope(work)) {
            Ok(_) => self.panic.waiting = Some(waiting),
            Err(error) => tracing::warn!(%error, "a guest that has panicked is left alone"),
        }
    }

    /// Ends the machine of a guest that has panicked and hangs; a paused one gets its time when it goes on.
    fn give_up(&mut self, starts: u64) {
        let activity = self.facts.as_ref().map(|facts| facts.activity);
        let hangs = self.panic.has_panicked && self.panic.starts == starts;
        let Some(running) = self.running.as_ref().filter(|_| hangs) else {
            return;
        };
        if activity != Some(Activity::Running) {
            return;
        }
        tracing::warn!(
            patience_s = PATIENCE.as_secs(),
            "guest has panicked and does not start anew: its machine is ended"
        );
        // A machine that has ended needs no killing.
        drop(running.machine.kill());
        let _ended = running.machine.wait();
        self.end_as(Ended::Panicked);
    }
}
