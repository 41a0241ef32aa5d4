//! When the agent is asked what.

use std::time::{Duration, Instant};

use super::report::{AgentReport, Intervals};

/// The shortest interval, whatever was configured.
const SHORTEST: Duration = Duration::from_millis(10);

/// How long the agent goes on being asked for what somebody wished for: monitoring asks again within a minute or two.
const WISH_LASTS: Duration = Duration::from_secs(300);

/// A question that the agent is asked again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// The agent's version and commands.
    Info,
    /// Whether file systems are frozen.
    Freeze,
    /// Who is logged in.
    Users,
    /// The operating system.
    Os,
    /// The host name.
    HostName,
    /// The time zone.
    Timezone,
    /// Network interfaces.
    Interfaces,
    /// Load averages.
    Load,
    /// Processors.
    Vcpus,
    /// Mounted file systems.
    Filesystems,
    /// Time that each processor spent at what; like all that follow asked only while somebody wishes it.
    CpuStats,
    /// Counters of disks.
    DiskStats,
    /// The clock, in nanoseconds since the epoch.
    Time,
    /// Disks and partitions.
    Disks,
    /// Routes.
    Routes,
    /// The size of memory blocks.
    MemoryBlockInfo,
    /// Memory blocks.
    MemoryBlocks,
}

impl Question {
    /// All of them, in the order in which they are asked: the first says what the others may be.
    pub(super) const ALL: [Self; 17] = [
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
        Self::CpuStats,
        Self::DiskStats,
        Self::Time,
        Self::Disks,
        Self::Routes,
        Self::MemoryBlockInfo,
        Self::MemoryBlocks,
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
            Self::CpuStats => "guest-get-cpustats",
            Self::DiskStats => "guest-get-diskstats",
            Self::Time => "guest-get-time",
            Self::Disks => "guest-get-disks",
            Self::Routes => "guest-network-get-route",
            Self::MemoryBlockInfo => "guest-get-memory-block-info",
            Self::MemoryBlocks => "guest-get-memory-blocks",
        }
    }

    fn is_by_wish(self) -> bool {
        self as usize >= Self::CpuStats as usize
    }

    /// Whether a report allows the question: an agent lets itself be asked little while file systems are frozen.
    fn is_open(self, report: &AgentReport) -> bool {
        let frozen = report.is_frozen();
        match self {
            Self::Info => !frozen,
            Self::Freeze => report.offers(self.command()),
            _ => !frozen && report.offers(self.command()),
        }
    }

    fn interval(self, intervals: &Intervals, report: &AgentReport) -> Duration {
        let interval = match self {
            Self::Info => intervals.version,
            Self::Freeze if report.is_frozen() => intervals.fsfreeze,
            // Nobody but us freezes through the agent: with the users it costs no wake-up of its own.
            Self::Freeze => intervals.fsfreeze.max(intervals.users),
            Self::Users | Self::CpuStats | Self::DiskStats | Self::Time => intervals.users,
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
    /// Until when somebody wishes the answer.
    wished: [Option<Instant>; Question::ALL.len()],
    /// What falls due this much later is asked now.
    slack: Duration,
}

impl Schedule {
    pub(super) fn new(intervals: Intervals, now: Instant) -> Self {
        let shortest = intervals.users.min(intervals.fsfreeze).max(SHORTEST);
        Self {
            intervals,
            due: [now; Question::ALL.len()],
            wished: [None; Question::ALL.len()],
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

    /// Notes that somebody wishes the answer.
    pub(super) fn wish(&mut self, question: Question, now: Instant) {
        self.wished[question as usize] = Some(now + WISH_LASTS);
    }

    /// Returns whether the agent is still to be asked; a question may be [closed](Question::is_open) all the same.
    pub(super) fn is_due(&self, question: Question, now: Instant) -> bool {
        self.due[question as usize] <= now
    }

    fn is_open(&self, question: Question, report: &AgentReport) -> bool {
        let due = self.due[question as usize];
        let is_wished = || self.wished[question as usize].is_some_and(|until| due <= until);
        question.is_open(report) && (!question.is_by_wish() || is_wished())
    }

    /// Returns when there is something to ask.
    pub(super) fn next(&self, report: &AgentReport) -> Option<Instant> {
        let open = Question::ALL.iter();
        let open = open.filter(|question| self.is_open(**question, report));
        open.map(|question| self.due[*question as usize]).min()
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
        let question =
            questions.find(|it| self.due[*it as usize] <= limit && self.is_open(*it, report))?;
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
