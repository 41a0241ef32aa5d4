//! What the agent answered last, in its own words, for those who wish to read it.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Instant;

use serde::de::Error as _;
use serde_json::{Error, Value};

use super::MAX_ORDERS;
use crate::agent::answers::Cut;
use crate::agent::schedule::{Question, Schedule};
use crate::agent::wire::{self, AnswerError};
use crate::agent::{AgentError, AgentReport, Figure};

/// Answers that somebody waits for.
pub(in crate::agent) struct Wish {
    pub(in crate::agent) questions: Vec<Question>,
    pub(in crate::agent) deadline: Instant,
    /// Takes an answer for each question.
    pub(in crate::agent) answer: SyncSender<Vec<Figure>>,
}

/// The last answers, and who waits for newer ones.
#[derive(Default)]
pub(super) struct Figures {
    known: [Option<Result<Arc<str>, Arc<AgentError>>>; Question::ALL.len()],
    /// At most [`MAX_ORDERS`].
    waiting: Vec<Wish>,
}

/// What may be asked now.
pub(super) struct Moment<'a> {
    pub(super) now: Instant,
    pub(super) report: &'a AgentReport,
    pub(super) schedule: &'a Schedule,
    /// What the agent was asked and has not answered.
    pub(super) asked: Option<Question>,
    /// The guest stands still.
    pub(super) is_paused: bool,
}

impl Figures {
    pub(super) fn wish(&mut self, wish: Wish) {
        if self.waiting.len() < MAX_ORDERS {
            self.waiting.push(wish);
        } else {
            let busy = Arc::new(AgentError::Busy);
            wish.grant(|_| Err(Arc::clone(&busy)));
        }
    }

    /// Takes an answer.
    pub(super) fn learn(&mut self, question: Question, line: &[u8]) {
        let text = wire::answer::<Cut>(line).and_then(|Cut(value)| figure(question, &value));
        let text = text.map_err(|error| Arc::new(error.of(question.command())));
        self.known[question as usize] = Some(text);
    }

    /// Takes it that there was no answer.
    pub(super) fn fail(&mut self, question: Question, error: AgentError) {
        self.known[question as usize] = Some(Err(Arc::new(error)));
    }

    /// Forgets the answers of an agent that has gone.
    pub(super) fn forget(&mut self) {
        self.known = <[_; Question::ALL.len()]>::default();
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.waiting.iter().map(|wish| wish.deadline).min()
    }

    /// Answers those who need not wait any longer.
    pub(super) fn grant(&mut self, moment: &Moment<'_>) {
        let waits = |wish: &Wish| {
            let mut questions = wish.questions.iter();
            wish.deadline > moment.now && questions.any(|question| moment.is_coming(*question))
        };
        let (waiting, ready): (Vec<_>, Vec<_>) = std::mem::take(&mut self.waiting)
            .into_iter()
            .partition(waits);
        self.waiting = waiting;
        for wish in ready {
            wish.grant(|question| self.figure(question, moment));
        }
    }

    fn figure(&self, question: Question, moment: &Moment<'_>) -> Figure {
        let command = question.command();
        if !moment.report.connected {
            return Err(Arc::new(AgentError::NotConnected));
        }
        match &self.known[question as usize] {
            Some(known) => known.clone().map(Some),
            None if moment.is_resting() => Err(Arc::new(AgentError::Resting { command })),
            None if moment.is_coming(question) || moment.report.offers(command) => {
                Err(Arc::new(AgentError::Timeout { command }))
            }
            None => Ok(None),
        }
    }
}

impl Moment<'_> {
    /// The guest is not asked: its questions would have to wait.
    fn is_resting(&self) -> bool {
        self.is_paused || self.report.is_frozen()
    }

    /// The agent answers soon, if it does at all.
    fn is_coming(&self, question: Question) -> bool {
        let is_open = |it: Question| self.schedule.is_due(it, self.now) || self.asked == Some(it);
        self.report.connected
            && !self.is_resting()
            // Whether it has the command is known only by its first answer.
            && (is_open(Question::Info)
                || self.report.offers(question.command()) && is_open(question))
    }
}

impl Wish {
    fn grant(self, figure: impl Fn(Question) -> Figure) {
        let figures = self.questions.iter().map(|question| figure(*question));
        // Who wished waits, or has gone with its thread.
        drop(self.answer.send(figures.collect()));
    }
}

/// Returns an answer as text if it has the shape that the protocol gives it.
fn figure(question: Question, value: &Value) -> Result<Arc<str>, AnswerError> {
    let (fits, shape) = match question {
        Question::Time => (value.is_i64() || value.is_u64(), "a whole number"),
        Question::Freeze => (value.is_string(), "a text"),
        Question::Info
        | Question::Os
        | Question::HostName
        | Question::Timezone
        | Question::Load
        | Question::MemoryBlockInfo => (value.is_object(), "an object"),
        Question::Users
        | Question::Interfaces
        | Question::Vcpus
        | Question::Filesystems
        | Question::CpuStats
        | Question::DiskStats
        | Question::Disks
        | Question::Routes
        | Question::MemoryBlocks => (value.is_array(), "a list"),
    };
    if fits {
        Ok(value.to_string().into())
    } else {
        Err(Error::custom(format_args!("expected {shape}")).into())
    }
}
