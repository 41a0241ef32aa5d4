//! When the agent is asked what.

use std::time::{Duration, Instant};

use super::report::{AgentReport, FreezeStatus, Intervals};

/// The shortest interval, whatever was configured.
const SHORTEST: Duration = Duration::from_millis(10);

/// A question that the agent is asked again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Question {
    Info,
    Freeze,
    Users,
    Os,
    HostName,
    Timezone,
    Interfaces,
    Load,
    Vcpus,
    Filesystems,
}

impl Question {
    /// All of them, in the order in which they are asked: the first says what the others may be.
    pub(super) const ALL: [Self; 10] = [
        Self::Info,
        Self::Freeze,
        Self::Users,
        Self::Os,
        Self::HostName,
        Self::Timezone,
        Self::Interfaces,
        Self::Load,
        Self::Vcpus,
        Self::Filesystems,
    ];

    pub(super) fn command(self) -> &'static str {
        match self {
            Self::Info => "guest-info",
            Self::Freeze => "guest-fsfreeze-status",
            Self::Users => "guest-get-users",
            Self::Os => "guest-get-osinfo",
            Self::HostName => "guest-get-host-name",
            Self::Timezone => "guest-get-timezone",
            Self::Interfaces => "guest-network-get-interfaces",
            Self::Load => "guest-get-load",
            Self::Vcpus => "guest-get-vcpus",
            Self::Filesystems => "guest-get-fsinfo",
        }
    }

    /// Whether a report allows the question: an agent lets itself be asked little while file systems are frozen.
    fn is_open(self, report: &AgentReport) -> bool {
        let frozen = report.fs_freeze == Some(FreezeStatus::Frozen);
        match self {
            Self::Info => !frozen,
            Self::Freeze => report.offers(self.command()),
            _ => !frozen && report.offers(self.command()),
        }
    }

    fn interval(self, intervals: &Intervals, report: &AgentReport) -> Duration {
        let interval = match self {
            Self::Info => intervals.version,
            Self::Freeze if report.fs_freeze == Some(FreezeStatus::Frozen) => intervals.fsfreeze,
            // Nobody but us freezes through the agent: with the users it costs no wake-up of its own.
            Self::Freeze => intervals.fsfreeze.max(intervals.users),
            Self::Users => intervals.users,
            Self::Filesystems => intervals.filesystem,
            _ => intervals.sys,
        };
        interval.max(SHORTEST)
    }
}

/// When each question is next due. Intervals count from when the last was due, not from when it was asked, so questions
/// stay on one grid and a guest is woken once for all of them.
#[derive(Debug)]
pub(super) struct Schedule {
    intervals: Intervals,
    due: [Instant; Question::ALL.len()],
    /// What falls due this much later is asked now.
    slack: Duration,
}

impl Schedule {
    pub(super) fn new(intervals: Intervals, now: Instant) -> Self {
        let shortest = intervals.users.min(intervals.fsfreeze).max(SHORTEST);
        Self {
            intervals,
            due: [now; Question::ALL.len()],
            slack: shortest / 4,
        }
    }

    /// Makes everything due, but what was asked lately in vain.
    pub(super) fn restart(&mut self, now: Instant, unanswered: Option<Question>) {
        for (question, due) in Question::ALL.iter().zip(&mut self.due) {
            if Some(*question) != unanswered {
                *due = now;
            }
        }
    }

    /// Makes one question due.
    pub(super) fn hasten(&mut self, question: Question, now: Instant) {
        self.due[question as usize] = now;
    }

    /// Returns when there is something to ask.
    pub(super) fn next(&self, report: &AgentReport) -> Option<Instant> {
        let open = Question::ALL.iter().zip(&self.due);
        let open = open.filter(|(question, _)| question.is_open(report));
        open.map(|(_, due)| *due).min()
    }

    /// Takes the next question that is to be asked now. `in_batch` says that the guest is awake for another one already.
    pub(super) fn take(
        &mut self,
        now: Instant,
        in_batch: bool,
        report: &AgentReport,
    ) -> Option<Question> {
        let limit = if in_batch { now + self.slack } else { now };
        let mut questions = Question::ALL.into_iter();
        let question = questions
            .find(|question| self.due[*question as usize] <= limit && question.is_open(report))?;
        let interval = question.interval(&self.intervals, report);
        let due = &mut self.due[question as usize];
        *due += interval;
        if *due <= limit {
            // Asking was not possible for longer than the interval.
            *due = now + interval;
        }
        Some(question)
    }
}
