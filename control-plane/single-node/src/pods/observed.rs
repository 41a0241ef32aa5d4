//! What is known of a pod on this node.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::sandbox::record::{Ended, Started};

/// A pod here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// When the pod was first seen.
    pub since: Timestamp,
    /// Whether it has its volumes and namespaces.
    pub is_prepared: bool,
    /// Why it has not; tried again at that time.
    pub unprepared: Option<Setback>,
    /// Whether everything that it held was let go after its end.
    pub is_released: bool,
    /// Why it can never run here.
    pub refused: Option<Refusal>,
    /// Whether the API knows that the pod is gone.
    pub is_deleted: bool,
    /// Its containers, init containers among them.
    pub containers: BTreeMap<String, Runs>,
}

impl Observed {
    /// A pod of which nothing is known.
    #[must_use]
    pub fn new(since: Timestamp) -> Self {
        Self {
            since,
            is_prepared: false,
            unprepared: None,
            is_released: false,
            refused: None,
            is_deleted: false,
            containers: BTreeMap::new(),
        }
    }

    /// What is known of a container.
    #[must_use]
    pub fn runs(&self, container: &str) -> &Runs {
        static NONE: Runs = Runs::none();
        self.containers.get(container).unwrap_or(&NONE)
    }

    /// What is known of a container, to note more.
    pub fn runs_mut(&mut self, container: &str) -> &mut Runs {
        self.containers
            .entry(container.to_owned())
            .or_insert_with(Runs::none)
    }

    /// Whether a container runs.
    #[must_use]
    pub fn has_running(&self) -> bool {
        self.containers
            .values()
            .any(|runs| runs.started().is_some())
    }
}

/// Why a pod can never run here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// One word, for the status.
    pub reason: String,
    /// A sentence.
    pub message: String,
}

/// Something that did not succeed and is tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setback {
    /// One word, for the status.
    pub reason: String,
    /// A sentence.
    pub message: String,
    /// When it is tried again.
    pub until: Timestamp,
    /// How often it has failed in a row.
    pub count: u32,
}

/// The runs of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Runs {
    /// How many there were, the current one included.
    pub count: u32,
    /// The newest.
    pub current: Current,
    /// How the one before ended.
    pub last: Option<Finished>,
    /// What its probes found.
    pub probed: Probed,
    /// Whether and since when it is asked to end.
    pub stopping: Option<Stopping>,
    /// Why the next run has not begun.
    pub setback: Option<Setback>,
    /// How often it ended soon after its start, in a row.
    pub crashes: u32,
    /// What the image is called for sure.
    pub image_id: String,
}

/// The newest run of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Current {
    /// There was none.
    None,
    /// It runs.
    Running(Started),
    /// It has ended.
    Ended(Finished),
}

/// A run that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// When it had started, if it had.
    pub started_at: Option<Timestamp>,
    /// How it ended.
    pub ended: Ended,
    /// What it left as its last words.
    pub message: Option<String>,
}

/// What probes found in the current run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Probed {
    /// The startup probe succeeded, or there is none.
    pub has_started: bool,
    /// The readiness probe succeeds, or there is none.
    pub is_ready: bool,
    /// The startup or liveness probe failed too often.
    pub is_unhealthy: bool,
}

/// A container that is asked to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stopping {
    /// When it is killed.
    pub kill_at: Timestamp,
    /// Whether it was.
    pub is_killed: bool,
}

impl Runs {
    const fn none() -> Self {
        Self {
            count: 0,
            current: Current::None,
            last: None,
            probed: Probed {
                has_started: false,
                is_ready: false,
                is_unhealthy: false,
            },
            stopping: None,
            setback: None,
            crashes: 0,
            image_id: String::new(),
        }
    }

    /// The current run, if it runs.
    #[must_use]
    pub fn started(&self) -> Option<&Started> {
        match &self.current {
            Current::Running(started) => Some(started),
            Current::None | Current::Ended(_) => None,
        }
    }

    /// The end of the current run, if it has ended.
    #[must_use]
    pub fn finished(&self) -> Option<&Finished> {
        match &self.current {
            Current::Ended(finished) => Some(finished),
            Current::None | Current::Running(_) => None,
        }
    }

    /// Whether the current run has ended well.
    #[must_use]
    pub fn has_succeeded(&self) -> bool {
        self.finished()
            .is_some_and(|finished| finished.ended.code == 0)
    }

    /// Notes that a run begins.
    pub fn begin(&mut self, started: Started, image_id: String, probed: Probed) {
        if let Current::Ended(finished) = &self.current {
            self.last = Some(finished.clone());
        }
        self.count += 1;
        self.current = Current::Running(started);
        self.setback = None;
        self.stopping = None;
        self.probed = probed;
        self.image_id = image_id;
    }

    /// Notes that a run has ended, or could not begin after its number was taken.
    pub fn end(&mut self, finished: Finished, reset_after: std::time::Duration) {
        if let Current::Ended(before) = &self.current {
            self.last = Some(before.clone());
            self.count += 1;
        } else if self.current == Current::None {
            self.count += 1;
        }
        let ran = finished
            .started_at
            .map(|at| finished.ended.at.duration_since(at));
        let was_long = ran.is_some_and(|ran| ran.unsigned_abs() >= reset_after);
        self.crashes = if was_long {
            1
        } else {
            self.crashes.saturating_add(1)
        };
        self.current = Current::Ended(finished);
        self.probed = Probed::default();
        self.stopping = None;
        self.setback = None;
    }
}
