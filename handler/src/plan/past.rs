//! What was done for an instance before, which decides what is done next.

use std::time::Duration;

use api::Vmi;
use api::status::Phase;
use jiff::Timestamp;

use super::{
    Action, DISKS_PATIENCE, DomainView, FAILURE_RETRY, IO_RETRY, LauncherView, Machine, POLL,
};

/// What was done for an instance before. Nothing of it is needed to decide rightly after a restart: what is missing is
/// done once more, and every step can be done twice.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Past {
    /// The instance it is about.
    pub uid: String,
    /// Since when the launcher is awaited.
    pub waiting_since: Option<Timestamp>,
    /// Pod whose disks are mounted and whose devices are given away.
    pub prepared_pod: Option<String>,
    /// When the power button was first pressed.
    pub shutdown_first: Option<Timestamp>,
    /// When the power button was last pressed.
    pub shutdown_last: Option<Timestamp>,
    /// When the plug was last pulled.
    pub killed_last: Option<Timestamp>,
    /// Whether the launcher was told to forget the machine.
    pub is_domain_deleted: bool,
    /// The uid after which was cleaned up.
    pub cleaned_up: Option<String>,
    /// The last failure, unless a success followed.
    pub failure: Option<Failure>,
    sync: Option<Synced>,
    io_error: Option<IoError>,
    disks_since: Option<Timestamp>,
    disks_retry_at: Option<Timestamp>,
}

/// A step that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong.
    pub message: String,
    digest: u64,
    at: Timestamp,
    times: u32,
}

/// What came of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done.
    Done,
    /// It waits for something, which the text names.
    Waiting(String),
    /// It failed; the text says why.
    Failed(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Synced {
    digest: u64,
    pod_uid: String,
    at: Timestamp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct IoError {
    at: Timestamp,
    times: u32,
}

impl Past {
    /// Starts anew when the instance or its launcher is another one.
    pub fn follow(&mut self, uid: &str) {
        if self.uid != uid {
            *self = Self {
                uid: uid.to_owned(),
                ..Self::default()
            };
        }
    }

    /// Takes note of what is seen at `now`: since when something is awaited or stopped.
    pub fn observe(
        &mut self,
        now: Timestamp,
        launcher: LauncherView<'_>,
        domain: DomainView<'_>,
        vmi: Option<&Vmi>,
    ) {
        let is_ours =
            vmi.is_some_and(|vmi| matches!(vmi.status.phase, Phase::Scheduled | Phase::Running));
        if matches!(launcher, LauncherView::Attached { .. }) || !is_ours {
            self.waiting_since = None;
        } else {
            self.waiting_since.get_or_insert(now);
        }
        if domain.is_stopped_by_io_error() {
            self.io_error.get_or_insert(IoError { at: now, times: 0 });
        } else {
            self.io_error = None;
        }
        if domain.machine() == Machine::Alive {
            self.disks_since = None;
        }
    }

    /// Takes note of what came of a step at `now`.
    pub fn record(
        &mut self,
        now: Timestamp,
        action: &Action,
        outcome: &Outcome,
        digest: u64,
        pod_uid: &str,
    ) {
        match outcome {
            Outcome::Done => self.succeed(now, action, digest, pod_uid),
            Outcome::Waiting(what) => self.wait(now, what, digest),
            Outcome::Failed(message) => self.fail(now, action, message, digest),
        }
    }

    fn succeed(&mut self, now: Timestamp, action: &Action, digest: u64, pod_uid: &str) {
        match action {
            Action::MountDisks => (self.disks_since, self.disks_retry_at) = (None, None),
            Action::GiveOwnership => self.prepared_pod = Some(pod_uid.to_owned()),
            Action::Sync => {
                self.sync = Some(Synced {
                    digest,
                    pod_uid: pod_uid.to_owned(),
                    at: now,
                });
                self.failure = None;
                self.try_again_after_io_error(now);
            }
            Action::Shutdown { .. } => self.press(now),
            Action::Kill => self.killed_last = Some(now),
            Action::DeleteDomain => self.is_domain_deleted = true,
            Action::CleanUp { uid } => self.cleaned_up = Some(uid.clone()),
        }
    }

    fn press(&mut self, now: Timestamp) {
        self.shutdown_first.get_or_insert(now);
        self.shutdown_last = Some(now);
    }

    fn try_again_after_io_error(&mut self, now: Timestamp) {
        if let Some(error) = &mut self.io_error {
            error.times = error.times.saturating_add(1);
            error.at = now;
        }
    }

    fn wait(&mut self, now: Timestamp, what: &str, digest: u64) {
        let since = *self.disks_since.get_or_insert(now);
        self.disks_retry_at = Some(now + POLL);
        if now >= since + DISKS_PATIENCE {
            let waited = DISKS_PATIENCE.as_secs();
            self.note_failure(now, format!("{what} isn't there after {waited} s"), digest);
        }
    }

    fn fail(&mut self, now: Timestamp, action: &Action, message: &str, digest: u64) {
        match action {
            // They are repeated by the time of the last attempt, whatever came of it.
            Action::Shutdown { .. } => self.press(now),
            Action::Kill => self.killed_last = Some(now),
            // A launcher that is about to end may be gone already.
            Action::DeleteDomain => self.is_domain_deleted = true,
            Action::MountDisks | Action::GiveOwnership => {
                self.note_failure(now, message.to_owned(), digest);
            }
            Action::Sync => {
                self.note_failure(now, message.to_owned(), digest);
                self.try_again_after_io_error(now);
            }
            Action::CleanUp { .. } => self.note_failure(now, message.to_owned(), digest),
        }
    }

    fn note_failure(&mut self, now: Timestamp, message: String, digest: u64) {
        let earlier = self
            .failure
            .take()
            .filter(|failure| failure.digest == digest);
        self.failure = Some(Failure {
            message,
            digest,
            at: now,
            times: earlier.map_or(1, |failure| failure.times.saturating_add(1)),
        });
    }

    /// Returns when a step that failed or waits for this wish may be tried again.
    pub(super) fn retry_at(&self, digest: u64) -> Option<Timestamp> {
        let failure = self
            .failure
            .as_ref()
            .filter(|failure| failure.digest == digest);
        let after_failure = failure
            .map(|failure| failure.at + backoff(FAILURE_RETRY, failure.times.saturating_sub(1)));
        after_failure.max(self.disks_retry_at)
    }

    /// Returns when a machine that an I/O error stopped may be tried again.
    pub(super) fn io_retry_at(&self) -> Option<Timestamp> {
        self.io_error
            .map(|error| error.at + backoff(IO_RETRY, error.times))
    }

    /// Whether the launcher of the pod has this wish.
    #[must_use]
    pub fn is_synced(&self, digest: u64, pod_uid: &str) -> bool {
        let sync = self.sync.as_ref();
        sync.is_some_and(|sync| sync.digest == digest && sync.pod_uid == pod_uid)
    }

    /// Returns when the launcher last took a wish.
    #[must_use]
    pub fn synced_at(&self) -> Option<Timestamp> {
        self.sync.as_ref().map(|sync| sync.at)
    }
}

/// Returns the first wait doubled so many times, up to the longest.
fn backoff((first, longest): (Duration, Duration), times: u32) -> Duration {
    first.saturating_mul(1 << times.min(16)).min(longest)
}
