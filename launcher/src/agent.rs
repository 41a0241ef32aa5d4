//! The QEMU guest agent protocol: JSON lines over the virtio-serial port `org.qemu.guest_agent.0`.
//!
//! A thread named `guest-agent` owns the connection to the port's socket, which the machine listens on. It asks for what a
//! VMI's status shows at the [`Intervals`], and passes on what callers ask; the protocol has no dependable request numbers,
//! so one question is open at a time.
//!
//! ```text
//!            socket there                 our number comes back
//!   down ------------------> syncing ------------------------------> ready
//!    ^  ^                    |  ^  |                                  | |
//!    |  '---- flood, end ----'  |  '--- no answer: again, later       | |
//!    |                          '---- no answer, guest was reset -----' |
//!    '-------------------- end, or lines that nobody asked for ---------'
//! ```
//!
//! While *syncing* our number lies in the socket until an agent opens the port, so a guest without an agent costs a line of
//! text now and then and nothing else. Everything the guest sends is hostile: lines have a longest length, lists and texts
//! are cut, and a guest that says what it was not asked is left alone for longer and longer.

mod answers;
mod report;
mod schedule;
mod session;
mod wire;

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::mpsc::{self, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tracing::Span;

pub use self::report::{
    Address, AgentCommand, AgentReport, ExecOutcome, Figure, Filesystem, FilesystemDisk,
    FreezeStatus, Interface, Intervals, Mode, OsInfo, Timezone, User,
};
pub use self::schedule::Question;
pub use self::wire::fuzz_line;

use self::answers::{ExecStarted, ExecStatus, Freeze, Nothing};
use self::session::{Order, Owner, Request, Session, Wish};
use self::wire::AnswerError;

/// Name of the port in the guest.
pub const PORT_NAME: &str = "org.qemu.guest_agent.0";

/// Callers' orders that wait for the thread: more than any probe, backup and user send at once.
const MAX_ORDERS: usize = 64;
/// How long the agent has for what it does at once.
const PROMPT: Duration = Duration::from_secs(5);
/// How long the agent has to freeze or thaw every file system; upstream's clients wait as long.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a refusal to shut down may take; a guest that obeys says nothing.
const SHUTDOWN_REFUSAL: Duration = Duration::from_secs(2);
/// First and longest pause between two looks at a program in the guest.
const EXEC_PAUSES: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));

/// Why the guest agent did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// No agent answers.
    #[error("reach the guest agent: it is not connected")]
    NotConnected,
    /// Too many callers wait.
    #[error("ask the guest agent: more than {MAX_ORDERS} requests wait")]
    Busy,
    /// The agent did not answer in time.
    #[error("wait for the guest agent's answer to {command}: nothing came in time")]
    Timeout {
        /// The command.
        command: &'static str,
    },
    /// The agent answered with an error.
    #[error("run {command} in the guest agent: {class}: {description}")]
    Refused {
        /// The command.
        command: &'static str,
        /// The error's class.
        class: String,
        /// The agent's words, cut to a sane length.
        description: String,
    },
    /// The agent's answer has another shape than the protocol's.
    #[error("read the guest agent's answer to {command}")]
    Answer {
        /// The command.
        command: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// The answer is longer than we take.
    #[error(
        "read the guest agent's answer to {command}: it is longer than {} bytes",
        wire::MAX_LINE_BYTES
    )]
    TooLong {
        /// The command.
        command: &'static str,
    },
    /// The connection was lost while the agent was at it.
    #[error("wait for the guest agent's answer to {command}: the connection was lost")]
    Lost {
        /// The command.
        command: &'static str,
    },
    /// The guest stands still, or its file systems do.
    #[error(
        "run {command} in the guest agent: nothing is asked while the machine is paused or its file systems are frozen"
    )]
    Resting {
        /// The command.
        command: &'static str,
    },
    /// The agent's thread has ended.
    #[error("ask the guest agent: its thread has ended")]
    Ended,
}

/// The guest agent of one machine. Clones share it; its thread ends with the last.
#[derive(Clone)]
pub struct Agent(Arc<Inner>);

struct Inner {
    orders: SyncSender<Order>,
    wake: UnixStream,
    report: Arc<Mutex<Arc<AgentReport>>>,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Agent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Agent")
    }
}

impl Agent {
    /// Starts the thread, which connects to `socket` as soon as something listens there. `listener` is called on that
    /// thread with every report that differs from the one before, and must not block for long.
    ///
    /// # Errors
    ///
    /// Fails when the host gives no thread or socket pair.
    pub fn start(
        socket: PathBuf,
        listener: Box<dyn Fn(AgentReport) + Send>,
        intervals: Intervals,
    ) -> io::Result<Self> {
        let (orders, inbox) = mpsc::sync_channel(MAX_ORDERS);
        let (wake, woken) = UnixStream::pair()?;
        wake.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let report = Arc::<Mutex<Arc<AgentReport>>>::default();
        let publish = {
            let report = Arc::clone(&report);
            Box::new(move |new: &AgentReport| {
                *lock(&report) = Arc::new(new.clone());
                listener(new.clone());
            })
        };
        let session = Session::new(socket, inbox, woken, publish, intervals);
        let span = Span::current();
        let thread = thread::Builder::new()
            .name("guest-agent".to_owned())
            .spawn(move || span.in_scope(|| session.run()))?;
        Ok(Self(Arc::new(Inner {
            orders,
            wake,
            report,
            thread: Some(thread),
        })))
    }

    /// Returns what is known now, without asking.
    pub fn report(&self) -> AgentReport {
        AgentReport::clone(&lock(&self.0.report).clone())
    }

    /// Tells that the guest was reset: its old agent is forgotten and a new one looked for at once.
    pub fn guest_reset(&self) {
        self.tell(Order::Reset);
    }

    /// Tells that a program in the guest has opened or closed the port. An agent is found and missed without it, but later.
    pub fn port_opened(&self, open: bool) {
        self.tell(Order::PortOpened(open));
    }

    /// Tells whether the machine is paused; a paused guest is not asked and not taken for gone.
    pub fn set_paused(&self, paused: bool) {
        self.tell(Order::Paused(paused));
    }

    /// Returns what the agent answers to each question, as old as the [`Intervals`] let it be. What only monitoring wants
    /// is asked for some minutes longer, so that who comes again need not wait. What has no answer within `timeout` has
    /// the last one, or an error.
    ///
    /// # Errors
    ///
    /// Fails when too many callers wait; what the agent refuses is an error of its own.
    pub fn figures(
        &self,
        questions: &[Question],
        timeout: Duration,
    ) -> Result<Vec<Figure>, AgentError> {
        let (answer, answered) = mpsc::sync_channel(1);
        self.order(Order::Wish(Wish {
            questions: questions.to_vec(),
            deadline: Instant::now() + timeout,
            answer,
        }))?;
        answered.recv().map_err(|_| AgentError::Ended)
    }

    /// Waits until the agent answers (`guest-ping`).
    ///
    /// # Errors
    ///
    /// Fails when it does not within `timeout`.
    pub fn ping(&self, timeout: Duration) -> Result<(), AgentError> {
        self.ask::<Nothing>("guest-ping", None, timeout).map(drop)
    }

    /// Runs a program in the guest and waits for its end (`guest-exec`). A program that takes longer than `timeout` runs
    /// on: the protocol cannot end it.
    ///
    /// # Errors
    ///
    /// Fails when the program cannot be started or takes longer.
    pub fn exec(
        &self,
        command: &str,
        args: &[String],
        timeout: Duration,
    ) -> Result<ExecOutcome, AgentError> {
        let deadline = Instant::now() + timeout;
        let arguments = json!({"path": command, "arg": args, "capture-output": true});
        let ExecStarted { pid } = self.ask("guest-exec", Some(&arguments), timeout)?;
        let mut pause = EXEC_PAUSES.0;
        loop {
            let due = Instant::now() + pause;
            let arguments = json!({ "pid": pid });
            let status: ExecStatus =
                self.ask_at("guest-exec-status", Some(&arguments), due, deadline)?;
            if let Some(outcome) = status.outcome("guest-exec-status")? {
                return Ok(outcome);
            }
            pause = (pause * 2).min(EXEC_PAUSES.1);
        }
    }

    /// Freezes the guest's file systems and returns how many (`guest-fsfreeze-freeze`). With `unfreeze_after` they are
    /// thawed by this process when that time has gone, unless a thaw came first. Freezing what is frozen is a success of 0
    /// that only sets the time anew.
    ///
    /// # Errors
    ///
    /// Fails when the agent cannot freeze; it then has thawed what it had frozen.
    pub fn freeze(&self, unfreeze_after: Option<Duration>) -> Result<u64, AgentError> {
        let frozen = if self.freeze_status()? == FreezeStatus::Frozen {
            0
        } else {
            self.ask("guest-fsfreeze-freeze", None, FREEZE_TIMEOUT)
                .inspect_err(|error| self.undo_freeze(error))?
        };
        self.tell(Order::Frozen {
            thaw_at: unfreeze_after.map(|after| Instant::now() + after),
        });
        Ok(frozen)
    }

    /// A guest that was told to freeze and never said whether it did is thawed as soon as it answers again.
    fn undo_freeze(&self, error: &AgentError) {
        if matches!(error, AgentError::Timeout { .. } | AgentError::Lost { .. }) {
            let thaw_at = Some(Instant::now());
            self.tell(Order::Frozen { thaw_at });
        }
    }

    /// Thaws the guest's file systems and returns how many (`guest-fsfreeze-thaw`).
    ///
    /// # Errors
    ///
    /// Fails when the agent cannot.
    pub fn thaw(&self) -> Result<u64, AgentError> {
        let thawed = self.ask("guest-fsfreeze-thaw", None, FREEZE_TIMEOUT)?;
        self.tell(Order::Thawed);
        Ok(thawed)
    }

    /// Asks whether file systems are frozen (`guest-fsfreeze-status`).
    ///
    /// # Errors
    ///
    /// Fails when the agent does not say.
    pub fn freeze_status(&self) -> Result<FreezeStatus, AgentError> {
        let Freeze(status) = self.ask("guest-fsfreeze-status", None, PROMPT)?;
        Ok(status)
    }

    /// Asks the guest to stop (`guest-shutdown`). It may take its time, and says nothing when it obeys.
    ///
    /// # Errors
    ///
    /// Fails when the agent refuses.
    pub fn shutdown(&self, mode: Mode) -> Result<(), AgentError> {
        let mode = match mode {
            Mode::PowerDown => "powerdown",
            Mode::Reboot => "reboot",
        };
        let arguments = json!({ "mode": mode });
        match self.ask::<Nothing>("guest-shutdown", Some(&arguments), SHUTDOWN_REFUSAL) {
            Ok(_) | Err(AgentError::Timeout { .. } | AgentError::Lost { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Sets a user's password, plain or (`crypted`) as crypt(3) writes it (`guest-set-user-password`).
    ///
    /// # Errors
    ///
    /// Fails when the agent refuses.
    pub fn set_user_password(
        &self,
        user: &str,
        password: &str,
        crypted: bool,
    ) -> Result<(), AgentError> {
        let password = BASE64.encode(password);
        let arguments = json!({"username": user, "password": password, "crypted": crypted});
        let asked = self.ask::<Nothing>("guest-set-user-password", Some(&arguments), PROMPT);
        asked.map(drop)
    }

    /// Adds public keys to a user's `authorized_keys`, or replaces them if `reset` (`guest-ssh-add-authorized-keys`).
    ///
    /// # Errors
    ///
    /// Fails when the agent refuses.
    pub fn add_ssh_keys(&self, user: &str, keys: &[String], reset: bool) -> Result<(), AgentError> {
        let arguments = json!({"username": user, "keys": keys, "reset": reset});
        let asked = self.ask::<Nothing>("guest-ssh-add-authorized-keys", Some(&arguments), PROMPT);
        asked.map(drop)
    }

    fn ask<T: DeserializeOwned>(
        &self,
        command: &'static str,
        arguments: Option<&Value>,
        timeout: Duration,
    ) -> Result<T, AgentError> {
        let now = Instant::now();
        self.ask_at(command, arguments, now, now + timeout)
    }

    /// Asks at `due` and waits for the answer until `deadline`.
    fn ask_at<T: DeserializeOwned>(
        &self,
        command: &'static str,
        arguments: Option<&Value>,
        due: Instant,
        deadline: Instant,
    ) -> Result<T, AgentError> {
        let (answer, answered) = mpsc::sync_channel(1);
        let request = Request {
            command,
            line: wire::request(command, arguments),
            owner: Owner::Caller(answer),
            due,
            deadline,
        };
        self.order(Order::Ask(request))?;
        // The thread answers by the deadline, or drops the sender.
        let line = answered.recv().map_err(|_| AgentError::Ended)??;
        wire::answer(&line).map_err(|error| error.of(command))
    }

    fn order(&self, order: Order) -> Result<(), AgentError> {
        self.0.orders.try_send(order).map_err(|error| match error {
            TrySendError::Full(_) => AgentError::Busy,
            TrySendError::Disconnected(_) => AgentError::Ended,
        })?;
        self.wake();
        Ok(())
    }

    fn tell(&self, order: Order) {
        // The thread takes orders at any time; it is gone only when its machine is.
        let _gone = self.0.orders.send(order);
        self.wake();
    }

    fn wake(&self) {
        self.0.wake();
    }
}

impl Inner {
    fn wake(&self) {
        // A full pipe wakes as well.
        let _full = (&self.wake).write(&[0]);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let _gone = self.orders.send(Order::Stop);
        self.wake();
        let own = thread::current().id();
        if let Some(thread) = self
            .thread
            .take()
            .filter(|thread| thread.thread().id() != own)
            && thread.join().is_err()
        {
            tracing::error!("guest agent thread panicked");
        }
    }
}

impl AnswerError {
    fn of(self, command: &'static str) -> AgentError {
        match self {
            Self::Malformed(source) => AgentError::Answer { command, source },
            Self::Refused { class, description } => AgentError::Refused {
                command,
                class,
                description,
            },
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind it is replaced whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
