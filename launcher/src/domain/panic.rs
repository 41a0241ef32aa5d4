//! What becomes of a machine whose guest's kernel has panicked (libvirt's `on_crash`: destroy).
//!
//! Kernels that are told to (`panic=1`) start the machine anew by themselves; one that has not after a while
//! hangs for good, and its machine is ended so that whoever wants it running notices.

use std::sync::mpsc::RecvTimeoutError;
use std::thread;
use std::time::{Duration, Instant};

use tracing::Span;
use vmm::machine::{MachineEvent, MachineHandle};

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
}

impl Panic {
    pub(super) fn started_anew(&mut self) {
        self.starts = self.starts.wrapping_add(1);
        self.has_panicked = false;
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
    pub(super) fn wait_for_reboot(&self) {
        let Some(running) = self.running.as_ref().filter(|_| self.panic.has_panicked) else {
            return;
        };
        let (machine, tasks) = (running.machine.clone(), self.tasks.clone());
        let (starts, span) = (self.panic.starts, Span::current());
        let work = move || {
            if !starts_anew(&machine) {
                // The owner ends with the process.
                drop(tasks.send(Box::new(move |owner: &mut Self| owner.give_up(starts))));
            }
        };
        let thread = thread::Builder::new().name("panic-wait".to_owned());
        if let Err(error) = thread.spawn(move || span.in_scope(work)) {
            tracing::warn!(%error, "a guest that has panicked is left alone");
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

/// Waits until the machine starts anew or ends; returns false when it does neither in time.
fn starts_anew(machine: &MachineHandle) -> bool {
    let events = machine.events();
    let deadline = Instant::now() + PATIENCE;
    loop {
        match events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(MachineEvent::Reset(_)) | Err(RecvTimeoutError::Disconnected) => return true,
            Ok(_) => {}
            Err(RecvTimeoutError::Timeout) => return false,
        }
    }
}
