//! What is to be done for an instance, decided without a clock, a cluster or a machine.
//!
//! The order of decisions is KubeVirt's: ask the guest to shut down, pull the plug, delete what is left of the machine,
//! and only then bring the machine to what the instance wants. A machine whose state nobody can tell is left alone.
//!
//! ```text
//!   instance gone, or final ──────────────▶ Kill ─▶ DeleteDomain ─▶ CleanUp
//!   instance being deleted, or pod ending ▶ Shutdown … Shutdown ─▶ Kill      (then the status becomes final)
//!   instance here, no machine ────────────▶ MountDisks ─▶ GiveOwnership ─▶ Sync
//!   instance here, machine runs ──────────▶ Sync, when something changed or it is time
//! ```

use std::fmt;
use std::time::Duration;

use api::Vmi;
use api::status::Phase;
use jiff::Timestamp;
use proto::domain::{Domain, LifeCycle, StateChangeReason};

use crate::config::Patience;

mod past;

pub use past::{Failure, Outcome, Past};

/// Seconds between two presses of the power button, and between two pulls of the plug.
const REPEAT: Duration = Duration::from_secs(5);
/// How often a launcher's socket or a container disk is looked for while it is awaited.
const POLL: Duration = Duration::from_secs(1);
/// Time until a launcher is looked for again that was not there at the first look.
const POLL_FIRST: Duration = Duration::from_millis(20);
/// How often a launcher that cannot be attached to is tried again.
const TROUBLE_RETRY: Duration = Duration::from_secs(5);
/// First and longest wait before a machine that an I/O error stopped is tried again.
const IO_RETRY: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(180));
/// First and longest wait after a failure.
const FAILURE_RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(180));
/// How long container disks may take to appear before that is an error.
const DISKS_PATIENCE: Duration = Duration::from_secs(60);

/// What the API server says.
#[derive(Clone, Copy, Debug)]
pub struct Desired<'a> {
    /// The instance.
    pub instance: Instance<'a>,
    /// Stands for all that a Sync would bring to the machine; another digest is another wish.
    pub digest: u64,
    /// How patient the handler is.
    pub patience: Patience,
}

/// An instance as the API server has it.
#[derive(Clone, Copy, Debug)]
pub enum Instance<'a> {
    /// The API server could not be asked.
    Unsure,
    /// It is there, on another node.
    Elsewhere,
    /// There is none, or another one of the same name.
    Gone,
    /// It is ours.
    Here(&'a Vmi),
}

/// What is on the node.
#[derive(Clone, Copy, Debug)]
pub struct Observed<'a> {
    /// The launcher.
    pub launcher: LauncherView<'a>,
    /// Its machine.
    pub domain: DomainView<'a>,
    /// What was done before.
    pub past: &'a Past,
}

/// A launcher as the node shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LauncherView<'a> {
    /// No launcher was looked for.
    None,
    /// Its socket isn't there.
    NotYet,
    /// It cannot be attached to; the text says why.
    Trouble(&'a str),
    /// It answers.
    Attached {
        /// Instance that it runs.
        uid: &'a str,
        /// Pod that it is in.
        pod_uid: &'a str,
    },
    /// It was there and is no more; the text says why.
    Lost(&'a str),
}

/// A machine as its launcher tells.
#[derive(Clone, Copy, Debug)]
pub enum DomainView<'a> {
    /// The launcher didn't tell.
    Unknown,
    /// The launcher has none.
    Absent,
    /// This one.
    Known(&'a Domain),
}

/// What a machine's states come down to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// Nobody can tell.
    Unknown,
    /// There is none, or it was never started.
    None,
    /// It runs, or could go on.
    Alive,
    /// It ended.
    Ended,
}

/// What is to be done, in this order, each step only when the one before it succeeded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The steps.
    pub actions: Vec<Action>,
    /// When to decide anew if nothing happens before.
    pub requeue_at: Option<Timestamp>,
    /// Why the instance has failed, which its status is to say.
    pub death: Option<Death>,
    /// Why the machine isn't as wanted although no step failed.
    pub trouble: Option<String>,
}

/// A step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Mount container disks into the pod.
    MountDisks,
    /// Give devices and disks to the launcher's user.
    GiveOwnership,
    /// Tell the launcher what the instance wants.
    Sync,
    /// Press the machine's power button.
    Shutdown {
        /// Whether it is the first time.
        is_first: bool,
    },
    /// Pull the machine's plug.
    Kill,
    /// Let the launcher forget the machine.
    DeleteDomain,
    /// Undo what was done on the node for the instance of this uid.
    CleanUp {
        /// The uid.
        uid: String,
    },
}

/// Why an instance has failed although its machine didn't say so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Death {
    /// The launcher went away or fell silent.
    LauncherLost(String),
    /// The launcher never came.
    LauncherNotStarted(Duration),
    /// The launcher has lost its machine.
    DomainVanished,
}

impl Death {
    /// Returns the reason in one word, for programs.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::LauncherLost(_) => "LauncherLost",
            Self::LauncherNotStarted(_) => "LauncherNotStarted",
            Self::DomainVanished => "DomainVanished",
        }
    }
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LauncherLost(why) => write!(f, "the launcher is lost: {why}"),
            Self::LauncherNotStarted(waited) => write!(
                f,
                "no launcher answered within {} s of the instance being scheduled",
                waited.as_secs()
            ),
            Self::DomainVanished => f.write_str("the launcher no longer has a machine"),
        }
    }
}

impl Machine {
    /// Returns what the state of a domain comes down to.
    #[must_use]
    pub fn of(domain: &Domain) -> Self {
        let has_ended = domain.meta.deletion_timestamp.is_some();
        match domain.status.status {
            LifeCycle::NoState if !has_ended => Self::None,
            // libvirt's word for a machine that is defined and not started yet.
            LifeCycle::Shutoff
                if !has_ended && domain.status.reason == StateChangeReason::Unknown =>
            {
                Self::None
            }
            LifeCycle::NoState | LifeCycle::Shutoff | LifeCycle::Crashed => Self::Ended,
            LifeCycle::Unknown | LifeCycle::Other(_) => Self::Unknown,
            LifeCycle::Running
            | LifeCycle::Blocked
            | LifeCycle::Paused
            | LifeCycle::ShuttingDown
            | LifeCycle::PmSuspended => Self::Alive,
        }
    }
}

impl DomainView<'_> {
    fn machine(&self) -> Machine {
        match self {
            Self::Unknown => Machine::Unknown,
            Self::Absent => Machine::None,
            Self::Known(domain) => Machine::of(domain),
        }
    }

    fn is_stopped_by_io_error(&self) -> bool {
        matches!(self, Self::Known(domain) if domain.status.status == LifeCycle::Paused
            && domain.status.reason == StateChangeReason::IoError)
    }
}

impl Plan {
    fn at(requeue_at: Timestamp) -> Self {
        Self {
            requeue_at: Some(requeue_at),
            ..Self::default()
        }
    }

    fn of(actions: Vec<Action>) -> Self {
        Self {
            actions,
            ..Self::default()
        }
    }

    fn death(death: Death) -> Self {
        Self {
            death: Some(death),
            ..Self::default()
        }
    }
}

/// Returns what is to be done at `now` (§2.4).
#[must_use]
pub fn plan(now: Timestamp, observed: &Observed<'_>, desired: &Desired<'_>) -> Plan {
    match desired.instance {
        Instance::Unsure | Instance::Elsewhere => Plan::default(),
        Instance::Gone => end(now, observed, None),
        Instance::Here(vmi) if is_of_another(observed.launcher, vmi) => end(now, observed, None),
        Instance::Here(vmi) if vmi.status.phase.is_final() => end(now, observed, Some(vmi)),
        Instance::Here(vmi) => live(now, observed, desired, vmi),
    }
}

/// Whether a launcher belongs to an earlier instance of the same name.
fn is_of_another(launcher: LauncherView<'_>, vmi: &Vmi) -> bool {
    matches!(launcher, LauncherView::Attached { uid, .. } if uid != vmi.metadata.uid)
}

/// Plans the end of what an instance left that is gone (`None`) or final.
fn end(now: Timestamp, observed: &Observed<'_>, vmi: Option<&Vmi>) -> Plan {
    let LauncherView::Attached { uid, .. } = observed.launcher else {
        return clean_up(observed.past, vmi.map(|vmi| vmi.metadata.uid.as_str()));
    };
    match (observed.domain, observed.domain.machine()) {
        (DomainView::Known(_), Machine::Unknown) => Plan::default(),
        (_, Machine::Alive) if vmi.is_some() => kill(now, observed.past),
        (DomainView::Known(domain), Machine::Alive) => shut_down(now, observed.past, domain, None),
        (view, _) => {
            let mut plan = clean_up(observed.past, Some(uid));
            if matches!(view, DomainView::Known(_)) && !observed.past.is_domain_deleted {
                plan.actions.insert(0, Action::DeleteDomain);
            }
            plan
        }
    }
}

fn clean_up(past: &Past, uid: Option<&str>) -> Plan {
    let uid = uid.unwrap_or(&past.uid);
    if uid.is_empty() || past.cleaned_up.as_deref() == Some(uid) {
        return Plan::default();
    }
    let uid = uid.to_owned();
    Plan::of(vec![Action::CleanUp { uid }])
}

/// Plans for an instance that is neither gone nor final.
fn live(now: Timestamp, observed: &Observed<'_>, desired: &Desired<'_>, vmi: &Vmi) -> Plan {
    let machine = observed.domain.machine();
    let is_running = vmi.status.phase == Phase::Running;
    // A machine's end is for the status to tell; what is left of it goes once the status is final.
    if !is_running && vmi.status.phase != Phase::Scheduled || machine == Machine::Ended {
        return Plan::default();
    }
    if let LauncherView::Lost(why) = observed.launcher {
        return Plan::death(Death::LauncherLost(why.to_owned()));
    }
    let LauncherView::Attached { pod_uid, .. } = observed.launcher else {
        return wait_for_launcher(now, observed, desired, is_running);
    };
    let is_deleted = vmi.metadata.deletion_timestamp.is_some();
    match (observed.domain, machine) {
        (DomainView::Known(domain), Machine::Alive)
            if is_deleted || is_marked_for_shutdown(domain) =>
        {
            shut_down(now, observed.past, domain, Some(vmi))
        }
        (_, Machine::Alive) => update(now, observed, desired, pod_uid),
        (DomainView::Unknown, _) => Plan::at(now + POLL),
        (DomainView::Absent, _) if is_running => Plan::death(Death::DomainVanished),
        (_, Machine::None) if !is_running && !is_deleted => start(now, observed, desired, pod_uid),
        _ => Plan::default(),
    }
}

fn is_marked_for_shutdown(domain: &Domain) -> bool {
    let grace = domain.spec.metadata.kubevirt.grace_period.as_ref();
    grace.is_some_and(|grace| grace.marked_for_graceful_shutdown == Some(true))
}

fn wait_for_launcher(
    now: Timestamp,
    observed: &Observed<'_>,
    desired: &Desired<'_>,
    is_running: bool,
) -> Plan {
    let since = observed.past.waiting_since.unwrap_or(now);
    let patience = if is_running {
        desired.patience.watchdog
    } else {
        desired.patience.launcher_start
    };
    if now >= since + patience {
        return Plan::death(Death::LauncherNotStarted(patience));
    }
    let (wait, trouble) = match observed.launcher {
        LauncherView::Trouble(why) => (TROUBLE_RETRY, Some(why.to_owned())),
        LauncherView::NotYet => (soon(since, now), None),
        LauncherView::None | LauncherView::Attached { .. } | LauncherView::Lost(_) => (POLL, None),
    };
    Plan {
        requeue_at: Some((now + wait).min(since + patience)),
        trouble,
        ..Plan::default()
    }
}

/// Returns when to look again for a launcher that serves nothing yet: its socket is in a folder of its own, where nobody
/// watches. Most serve within a moment.
fn soon(since: Timestamp, now: Timestamp) -> Duration {
    let waited = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    (waited / 4).clamp(POLL_FIRST, POLL)
}

/// Plans the way to a first machine.
fn start(now: Timestamp, observed: &Observed<'_>, desired: &Desired<'_>, pod_uid: &str) -> Plan {
    let past = observed.past;
    if let Some(at) = past.retry_at(desired.digest).filter(|at| now < *at) {
        return Plan::at(at);
    }
    if past.is_synced(desired.digest, pod_uid) {
        // The launcher took the wish; its event about the machine is on the way, or was lost.
        let at = past.synced_at().unwrap_or(now) + REPEAT;
        if now < at {
            return Plan::at(at);
        }
    }
    let mut actions = Vec::with_capacity(3);
    if past.prepared_pod.as_deref() != Some(pod_uid) {
        actions.extend([Action::MountDisks, Action::GiveOwnership]);
    }
    actions.push(Action::Sync);
    Plan {
        actions,
        requeue_at: Some(now + POLL),
        ..Plan::default()
    }
}

/// Plans for a machine that runs.
fn update(now: Timestamp, observed: &Observed<'_>, desired: &Desired<'_>, pod_uid: &str) -> Plan {
    let past = observed.past;
    if let Some(at) = past.retry_at(desired.digest).filter(|at| now < *at) {
        return Plan::at(at);
    }
    if observed.domain.is_stopped_by_io_error() {
        let at = past.io_retry_at().unwrap_or(now + IO_RETRY.0);
        return sync_at(now, at);
    }
    let due = past
        .synced_at()
        .filter(|_| past.is_synced(desired.digest, pod_uid))
        .map_or(now, |at| at + spread(desired.patience.resync, &past.uid));
    sync_at(now, due)
}

fn sync_at(now: Timestamp, due: Timestamp) -> Plan {
    if now < due {
        Plan::at(due)
    } else {
        Plan {
            actions: vec![Action::Sync],
            requeue_at: Some(now + POLL),
            ..Plan::default()
        }
    }
}

/// Lengthens a period by up to a quarter, by the uid, so that many instances don't come at once.
fn spread(period: Duration, uid: &str) -> Duration {
    let sum: u32 = uid.bytes().map(u32::from).sum();
    period + period * (sum % 64) / 256
}

/// Plans an orderly end: the power button until the grace period is over, then the plug.
fn shut_down(now: Timestamp, past: &Past, domain: &Domain, vmi: Option<&Vmi>) -> Plan {
    let grace = grace(domain, vmi);
    if grace.is_zero() || domain.spec.features.acpi.is_none() {
        return kill(now, past);
    }
    let began = shutdown_began(now, past, domain);
    let deadline = began.unwrap_or(now) + grace;
    if now >= deadline {
        return kill(now, past);
    }
    let next = past.shutdown_last.map_or(now, |last| last + REPEAT);
    if now < next {
        return Plan::at(next.min(deadline));
    }
    Plan {
        actions: vec![Action::Shutdown {
            is_first: past.shutdown_first.is_none(),
        }],
        requeue_at: Some((now + REPEAT).min(deadline)),
        ..Plan::default()
    }
}

/// Returns when the power button was first pressed, as we or the launcher remember.
fn shutdown_began(now: Timestamp, past: &Past, domain: &Domain) -> Option<Timestamp> {
    let grace = domain.spec.metadata.kubevirt.grace_period.as_ref();
    let stamped = grace
        .and_then(|grace| {
            grace
                .deletion_timestamp
                .as_deref()?
                .parse::<Timestamp>()
                .ok()
        })
        .filter(|at| *at <= now);
    match (stamped, past.shutdown_first) {
        (Some(theirs), Some(ours)) => Some(theirs.min(ours)),
        (theirs, ours) => theirs.or(ours),
    }
}

/// Returns how long a guest may take to power off.
pub(crate) fn grace(domain: &Domain, vmi: Option<&Vmi>) -> Duration {
    let remembered = domain.spec.metadata.kubevirt.grace_period.as_ref();
    let remembered = remembered.map(|grace| grace.deletion_grace_period_seconds);
    let seconds = match vmi {
        Some(vmi) => vmi.spec.grace_period_seconds(),
        None => u64::try_from(remembered.unwrap_or_default()).unwrap_or_default(),
    };
    // A day is longer than any guest takes, and keeps the arithmetic of times in bounds.
    Duration::from_secs(seconds.min(86_400))
}

fn kill(now: Timestamp, past: &Past) -> Plan {
    let next = past.killed_last.map_or(now, |last| last + REPEAT);
    if now < next {
        return Plan::at(next);
    }
    Plan {
        actions: vec![Action::Kill],
        requeue_at: Some(now + REPEAT),
        ..Plan::default()
    }
}

#[cfg(test)]
mod tests;
