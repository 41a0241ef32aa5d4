//! The agent's thread: one connection, one open question.

mod figures;
mod link;

use std::collections::VecDeque;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

pub(super) use self::figures::Wish;
use self::figures::{Figures, Moment};
use self::link::{Heard, Link};
use super::answers::{
    Filesystems, Freeze, HostName, Info, Interfaces, Load, Os, Users, Vcpus, Zone,
};
use super::report::{AgentReport, FreezeStatus, Intervals};
use super::schedule::{Question, Schedule};
use super::wire::{self, AnswerError, Line};
use super::{AgentError, FREEZE_TIMEOUT, MAX_ORDERS};

/// How long the agent has for what it is asked regularly: guests on a software CPU are slow, and no one waits.
const POLL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long until a thaw that failed is tried again.
const THAW_RETRY: Duration = Duration::from_secs(5);

/// What the thread is told.
pub(super) enum Order {
    Ask(Request),
    Wish(Wish),
    /// A freeze succeeded.
    Frozen {
        thaw_at: Option<Instant>,
    },
    Thawed,
    Reset,
    PortOpened(bool),
    Paused(bool),
    Stop,
}

/// Who waits for an answer.
pub(super) enum Owner {
    Caller(SyncSender<Result<Vec<u8>, AgentError>>),
    Poll(Question),
    Thaw,
}

/// A question to the agent.
pub(super) struct Request {
    pub(super) command: &'static str,
    pub(super) line: Vec<u8>,
    pub(super) owner: Owner,
    /// Not asked before.
    pub(super) due: Instant,
    pub(super) deadline: Instant,
}

impl Request {
    fn refuse(self, error: AgentError) {
        if let Owner::Caller(answer) = self.owner {
            // The caller waits, or has gone with its thread.
            let _gone = answer.send(Err(error));
        }
    }
}

/// Whether the thread goes on.
enum Turn {
    Go,
    Stop,
}

pub(super) struct Session {
    inbox: Receiver<Order>,
    woken: UnixStream,
    publish: Box<dyn Fn(&AgentReport) + Send>,
    link: Link,
    schedule: Schedule,
    /// Callers' requests, at most [`MAX_ORDERS`].
    waiting: VecDeque<Request>,
    asked: Option<Request>,
    figures: Figures,
    /// The question that the agent did not answer in time.
    unanswered: Option<Question>,
    /// The guest is awake for a question of the schedule.
    in_batch: bool,
    thaw_at: Option<Instant>,
    paused: bool,
    report: AgentReport,
    published: AgentReport,
}

impl Session {
    pub(super) fn new(
        socket: PathBuf,
        inbox: Receiver<Order>,
        woken: UnixStream,
        publish: Box<dyn Fn(&AgentReport) + Send>,
        intervals: Intervals,
    ) -> Self {
        let now = Instant::now();
        Self {
            inbox,
            woken,
            publish,
            link: Link::new(socket, now),
            schedule: Schedule::new(intervals, now),
            waiting: VecDeque::new(),
            asked: None,
            figures: Figures::default(),
            unanswered: None,
            in_batch: false,
            thaw_at: None,
            paused: false,
            report: AgentReport::default(),
            published: AgentReport::default(),
        }
    }

    pub(super) fn run(mut self) {
        while let Turn::Go = self.obey() {
            let now = Instant::now();
            self.expire(now);
            self.keep_link(now);
            self.ask_next(now);
            self.grant_wishes(now);
            self.publish_changes();
            self.wait();
            self.hear();
        }
    }

    /// Takes what callers sent.
    fn obey(&mut self) -> Turn {
        loop {
            match self.inbox.try_recv() {
                Ok(Order::Ask(request)) => self.queue(request),
                Ok(Order::Wish(wish)) => self.wish(wish),
                Ok(Order::Frozen { thaw_at }) => self.note_freeze(FreezeStatus::Frozen, thaw_at),
                Ok(Order::Thawed) => self.note_freeze(FreezeStatus::Thawed, None),
                Ok(Order::Reset) => self.forget_guest(),
                Ok(Order::PortOpened(open)) => self.port_opened(open),
                Ok(Order::Paused(paused)) => self.pause(paused),
                Ok(Order::Stop) | Err(TryRecvError::Disconnected) => return Turn::Stop,
                Err(TryRecvError::Empty) => return Turn::Go,
            }
        }
    }

    fn queue(&mut self, request: Request) {
        if !self.report.connected {
            request.refuse(AgentError::NotConnected);
        } else if self.waiting.len() >= MAX_ORDERS {
            request.refuse(AgentError::Busy);
        } else {
            self.waiting.push_back(request);
        }
    }

    fn wish(&mut self, wish: Wish) {
        let now = Instant::now();
        for question in &wish.questions {
            self.schedule.wish(*question, now);
        }
        self.figures.wish(wish);
    }

    fn grant_wishes(&mut self, now: Instant) {
        let asked = self.asked.as_ref().and_then(|request| match request.owner {
            Owner::Poll(question) => Some(question),
            Owner::Caller(_) | Owner::Thaw => None,
        });
        self.figures.grant(&Moment {
            now,
            report: &self.report,
            schedule: &self.schedule,
            asked,
            is_paused: self.paused,
        });
    }

    fn note_freeze(&mut self, status: FreezeStatus, thaw_at: Option<Instant>) {
        self.report.fs_freeze = Some(status);
        self.thaw_at = thaw_at;
        self.schedule.hasten(Question::Freeze, Instant::now());
    }

    fn forget_guest(&mut self) {
        self.thaw_at = None;
        self.ended();
        self.link.start_over(Instant::now());
    }

    /// A port that opens shows an agent that has answered already, or one that shall be asked now. A guest that is left
    /// alone stays so: it opens and closes its port as often as it likes.
    fn port_opened(&mut self, open: bool) {
        if !open {
            self.ended();
        }
        if self.link.is_up() && (!open || !self.link.is_ready()) {
            self.link.sync(Instant::now());
        }
    }

    fn pause(&mut self, paused: bool) {
        if self.paused && !paused {
            let now = Instant::now();
            self.link.extend(now);
            if let Some(asked) = self.asked.as_mut().filter(|asked| !is_callers(asked)) {
                asked.deadline = now + POLL_TIMEOUT;
            }
        }
        self.paused = paused;
    }

    /// Ends what took too long.
    fn expire(&mut self, now: Instant) {
        let waiting = std::mem::take(&mut self.waiting);
        let (late, waiting): (VecDeque<_>, _) = waiting
            .into_iter()
            .partition(|request| request.deadline <= now);
        self.waiting = waiting;
        for request in late {
            let command = request.command;
            request.refuse(AgentError::Timeout { command });
        }
        let paused = self.paused;
        let is_late = |asked: &Request| asked.deadline <= now && (is_callers(asked) || !paused);
        if self.asked.as_ref().is_some_and(is_late) {
            self.give_up(now, |command| AgentError::Timeout { command });
        }
    }

    /// Ends the open question, whose answer may still come.
    fn give_up(&mut self, now: Instant, why: impl Fn(&'static str) -> AgentError) {
        let Some(request) = self.asked.take() else {
            return;
        };
        let error = why(request.command);
        tracing::debug!(%error, "guest agent was given up for now");
        if let Owner::Poll(question) = request.owner {
            self.unanswered = Some(question);
            self.figures.fail(question, why(request.command));
        }
        request.refuse(error);
        self.in_batch = false;
        self.link.sync(now);
    }

    fn keep_link(&mut self, now: Instant) {
        if self.paused && self.link.is_up() {
            return;
        }
        if self.link.keep(now) {
            self.disconnected();
        }
    }

    /// Notes that no agent answers any more.
    fn disconnected(&mut self) {
        if self.report.connected {
            tracing::info!("guest agent disconnected");
        }
        self.report.connected = false;
        self.figures.forget();
        for request in std::mem::take(&mut self.waiting) {
            request.refuse(AgentError::NotConnected);
        }
    }

    /// Ends the open question.
    fn lose(&mut self) {
        self.in_batch = false;
        if let Some(request) = self.asked.take() {
            let command = request.command;
            request.refuse(AgentError::Lost { command });
        }
    }

    fn ask_next(&mut self, now: Instant) {
        if self.asked.is_some() || !self.link.is_ready() {
            return;
        }
        let callers = self.waiting.iter().position(|request| request.due <= now);
        let request = match callers.and_then(|at| self.waiting.remove(at)) {
            Some(request) => Some(request),
            None => self.next_own(now),
        };
        match request {
            Some(request) => {
                self.link.send(&request.line);
                self.asked = Some(request);
            }
            None => self.in_batch = false,
        }
    }

    fn next_own(&mut self, now: Instant) -> Option<Request> {
        if self.paused {
            return None;
        }
        if self.thaw_at.is_some_and(|at| at <= now) {
            tracing::warn!("file systems of the guest were frozen for too long, thawing");
            self.thaw_at = Some(now + FREEZE_TIMEOUT);
            return Some(own(
                "guest-fsfreeze-thaw",
                Owner::Thaw,
                now + FREEZE_TIMEOUT,
            ));
        }
        let question = self.schedule.take(now, self.in_batch, &self.report)?;
        self.in_batch = true;
        let deadline = now + POLL_TIMEOUT;
        Some(own(question.command(), Owner::Poll(question), deadline))
    }

    /// Tells the listener, between batches and when the agent came or went.
    fn publish_changes(&mut self) {
        let urgent = self.report.connected != self.published.connected
            || self.report.fs_freeze != self.published.fs_freeze;
        if (urgent || !self.in_batch) && self.report != self.published {
            (self.publish)(&self.report);
            self.published = self.report.clone();
        }
    }

    /// Blocks until there is something to do.
    fn wait(&self) {
        let mut files = vec![PollFd::new(self.woken.as_fd(), PollFlags::POLLIN)];
        files.extend(self.link.watch());
        let timeout = self
            .next_deadline()
            .map(|at| at.saturating_duration_since(Instant::now()));
        match poll(&mut files, timeout.map_or(PollTimeout::NONE, millis)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => tracing::error!(%error, "guest agent cannot wait"),
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let own = match &self.asked {
            Some(request) => Some(request.deadline).filter(|_| is_callers(request) || !self.paused),
            None if self.paused || !self.link.is_ready() => None,
            None => [self.thaw_at, self.schedule.next(&self.report)]
                .into_iter()
                .flatten()
                .min(),
        };
        let idle = self.asked.is_none() && self.link.is_ready();
        let callers = self.waiting.iter();
        let callers = callers.map(|request| {
            if idle {
                request.due.min(request.deadline)
            } else {
                request.deadline
            }
        });
        let link = self
            .link
            .deadline()
            .filter(|_| !(self.paused && self.link.is_up()));
        let wishes = self.figures.deadline();
        callers.chain(own).chain(link).chain(wishes).min()
    }

    /// Takes what the agent sent.
    fn hear(&mut self) {
        let mut bytes = [0; 64];
        while matches!(self.woken.read(&mut bytes), Ok(count) if count == bytes.len()) {}
        let now = Instant::now();
        for heard in self.link.hear(now) {
            match heard {
                Heard::Synced => self.synced(now),
                Heard::Line(Line::Whole(line))
                    if self.asked.is_some() && wire::is_answer(&line) =>
                {
                    self.answered(line, now);
                }
                Heard::Line(Line::TooLong) if self.asked.is_some() => {
                    self.give_up(now, |command| AgentError::TooLong { command });
                    return;
                }
                Heard::Line(_) => {
                    tracing::debug!("guest agent said what it was not asked");
                    self.link.fail(now);
                    return self.ended();
                }
                Heard::Ended => self.ended(),
            }
        }
    }

    fn ended(&mut self) {
        self.lose();
        self.disconnected();
    }

    fn synced(&mut self, now: Instant) {
        if !self.report.connected {
            tracing::info!("guest agent connected");
            self.schedule.restart(now, self.unanswered.take());
        }
        self.report.connected = true;
    }

    fn answered(&mut self, line: Vec<u8>, now: Instant) {
        let Some(request) = self.asked.take() else {
            return;
        };
        match request.owner {
            // The caller waits, or has gone with its thread.
            Owner::Caller(answer) => drop(answer.send(Ok(line))),
            Owner::Poll(question) => self.learn(question, &line),
            Owner::Thaw => self.thawed(&line, now),
        }
    }

    fn thawed(&mut self, line: &[u8], now: Instant) {
        match wire::answer::<u64>(line) {
            Ok(count) => {
                tracing::info!(count, "file systems of the guest thawed");
                self.note_freeze(FreezeStatus::Thawed, None);
            }
            Err(error) => {
                tracing::warn!(%error, "file systems of the guest cannot be thawed, trying again");
                self.thaw_at = Some(now + THAW_RETRY);
            }
        }
    }

    fn learn(&mut self, question: Question, line: &[u8]) {
        self.figures.learn(question, line);
        if let Err(error) = learn(&mut self.report, question, line) {
            let error: &dyn std::error::Error = &error;
            tracing::debug!(
                command = question.command(),
                error,
                "guest agent gave no answer"
            );
        }
        if question == Question::Freeze && self.report.fs_freeze == Some(FreezeStatus::Thawed) {
            self.thaw_at = None;
        }
    }
}

/// Puts an answer into the report.
fn learn(report: &mut AgentReport, question: Question, line: &[u8]) -> Result<(), AnswerError> {
    match question {
        Question::Info => {
            let (version, commands) = wire::answer::<Info>(line)?.into_parts();
            (report.version, report.supported_commands) = (Some(version), commands);
        }
        Question::Freeze => report.fs_freeze = Some(wire::answer::<Freeze>(line)?.0),
        Question::Users => report.users = wire::answer::<Users>(line)?.into(),
        Question::Os => report.os = Some(wire::answer::<Os>(line)?.into()),
        Question::HostName => report.hostname = Some(wire::answer::<HostName>(line)?.host_name.0),
        Question::Timezone => report.timezone = Some(wire::answer::<Zone>(line)?.into()),
        Question::Interfaces => report.interfaces = wire::answer::<Interfaces>(line)?.into(),
        Question::Load => report.load = Some(wire::answer::<Load>(line)?.into()),
        Question::Vcpus => report.vcpus_online = Some(wire::answer::<Vcpus>(line)?.online()),
        Question::Filesystems => report.filesystems = wire::answer::<Filesystems>(line)?.into(),
        // Nothing here depends on them.
        Question::CpuStats
        | Question::DiskStats
        | Question::Time
        | Question::Disks
        | Question::Routes
        | Question::MemoryBlockInfo
        | Question::MemoryBlocks => {}
    }
    Ok(())
}

fn own(command: &'static str, owner: Owner, deadline: Instant) -> Request {
    Request {
        command,
        line: wire::request(command, None),
        owner,
        due: deadline,
        deadline,
    }
}

fn is_callers(request: &Request) -> bool {
    matches!(request.owner, Owner::Caller(_))
}

/// Rounds up, so that a wait does not end just before its time.
fn millis(duration: Duration) -> PollTimeout {
    let millis = duration.as_micros().div_ceil(1000);
    PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
}
