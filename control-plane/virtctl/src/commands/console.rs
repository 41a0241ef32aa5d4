//! `virtctl console`: the serial console of an instance.
//!
//! ```text
//!   readiness ──wait──▶ readiness ──connect──▶ connected ──Ctrl-], end of input──▶ left
//!       │                   ▲                      │
//!       └──give up          └──machine restarts────┴──taken over, network──▶ error
//! ```

mod readiness;

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::Value;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use self::readiness::{Step, readiness};
use super::Session;
use crate::argument;
use crate::cluster::{Cluster, Kind};
use crate::failure::{Failure, Refusal};
use crate::report::{self, Progress};
use crate::standard_streams::{self, Output};
use crate::stream::{self, End, Socket, Use};
use crate::terminal::{self, Raw};

/// Ctrl-].
const ESCAPE: u8 = 0x1d;
/// Time between two looks at an instance that does not run yet.
const LOOK: Duration = Duration::from_millis(500);
/// Time for the news that a machine is off to arrive.
const NEWS: Duration = Duration::from_secs(3);
/// Times that a console that fell silent for other reasons than its machine is opened again.
const RECONNECTS_MAX: u32 = 5;

/// Connect to the serial console of a virtual machine instance.
///
/// Waits until the instance runs. Keys go to the guest as they are; Ctrl+] leaves. When standard input is no terminal, its
/// lines are sent, and the command ends when the guest falls silent after the last of them.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # Connect to the console of an instance called 'myvmi':
  virtctl console myvmi

  # Wait for one minute at most:
  virtctl console --timeout=1 myvmi

  # Let a script type, and read on for 10 seconds:
  printf '\\nroot\\nuname -a\\n' | virtctl console myvmi --linger=10s")]
pub(crate) struct Console {
    /// Instance, or the virtual machine of that name
    #[arg(value_name = "VMI", value_parser = argument::instance)]
    name: String,
    /// Minutes to wait for the instance to run; 30s and the like work too
    #[arg(long, value_name = "MINUTES", default_value = "5", value_parser = argument::minutes)]
    timeout: Duration,
    /// How long the guest may be silent after the end of an input that is no terminal
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = argument::seconds)]
    linger: Duration,
}

/// An instance's console, open.
struct Seat {
    socket: Socket,
    /// Which instance it is; empty when that is hidden from the user.
    uid: String,
}

/// What follows the end of a connection.
enum Next {
    Leave,
    /// The machine runs again soon.
    Wait,
}

impl Console {
    /// Connects, and returns when the user leaves or the console is gone.
    pub(super) async fn run(&self, session: &Session) -> Result<ExitCode, Failure> {
        let cluster = session.cluster().await?;
        let mut signals = Signals::listen()?;
        tokio::select! {
            outcome = self.sit(&cluster) => outcome.map(|()| ExitCode::SUCCESS),
            number = signals.next() => Ok(ExitCode::from(128 + number)),
        }
    }

    /// Waits for the machine, connects, and does so again when it restarts.
    async fn sit(&self, cluster: &Cluster) -> Result<(), Failure> {
        let mut input = None;
        for _ in 0..=RECONNECTS_MAX {
            let seat = self.wait(cluster).await?;
            let input = match &mut input {
                Some(input) => input,
                None => input.insert(standard_streams::input()?),
            };
            let end = self.attach(seat.socket, input).await?;
            match self.next(cluster, end, &seat.uid).await? {
                Next::Leave => return Ok(()),
                Next::Wait => {}
            }
        }
        Err(self.disconnected("the connection breaks again and again"))
    }

    /// Waits until the machine runs and its console opens.
    async fn wait(&self, cluster: &Cluster) -> Result<Seat, Failure> {
        let begin = Instant::now();
        let mut progress = Progress::default();
        loop {
            let waits_for = match self.look(cluster).await? {
                Step::Connect { uid } => match self.open(cluster).await? {
                    Ok(socket) => return Ok(Seat { socket, uid }),
                    Err(waits_for) => waits_for,
                },
                Step::Wait(waits_for) => waits_for,
                Step::GiveUp(why) => return Err(Failure::Waiting(why)),
            };
            let elapsed = begin.elapsed();
            if elapsed >= self.timeout {
                progress.clear();
                return Err(self.timed_out(&waits_for));
            }
            progress.show(&waits_for, elapsed.as_secs());
            sleep(LOOK.min(self.timeout.saturating_sub(elapsed))).await;
        }
    }

    fn timed_out(&self, waits_for: &str) -> Failure {
        let name = &self.name;
        Failure::Waiting(format!(
            "Timeout trying to connect to the virtual machine instance {name} after {:?}: {waits_for}. See `kubectl describe vmi {name}`, or wait longer with --timeout.",
            self.timeout
        ))
    }

    /// Opens the console; the inner error is what has to change before that works.
    async fn open(&self, cluster: &Cluster) -> Result<Result<Socket, String>, Failure> {
        let path = cluster.action(Kind::Instance, &self.name, "console");
        match stream::open(cluster, &path).await {
            Ok(socket) => Ok(Ok(socket)),
            Err(refusal) if matches!(refusal.code(), 400 | 404 | 409 | 502..=504) => {
                Ok(Err(refusal.to_string()))
            }
            Err(refusal) => Err(refusal.of(format!("Can't access VMI {}:", self.name))),
        }
    }

    /// Looks at the instance and its machine; who may not see them may have the console all the same.
    async fn look(&self, cluster: &Cluster) -> Result<Step, Failure> {
        let vmi = match find(cluster, Kind::Instance, &self.name).await {
            Err(refusal) if refusal.code() == 403 => {
                let uid = String::new();
                return Ok(Step::Connect { uid });
            }
            found => found.map_err(|refusal| refusal.of("Can't look at the instance:"))?,
        };
        let vm = match find(cluster, Kind::Machine, &self.name).await {
            Err(refusal) if refusal.code() == 403 => None,
            found => found.map_err(|refusal| refusal.of("Can't look at the virtual machine:"))?,
        };
        let place = format!("namespace {}", cluster.namespace);
        Ok(readiness(&self.name, &place, vmi.as_ref(), vm.as_ref()))
    }

    /// Connects keys and screen with the console.
    async fn attach(
        &self,
        socket: Socket,
        input: &mut mpsc::Receiver<Vec<u8>>,
    ) -> Result<End, Failure> {
        let output = Output::open()?;
        let raw = Raw::enter()?;
        let line_end = if raw.is_some() { "\r" } else { "" };
        report::problem(&format!(
            "Successfully connected to {} console. Press Ctrl+] or Ctrl+5 to exit console.{line_end}",
            self.name
        ));
        let how = Use {
            leave_with: Some(ESCAPE),
            linger: self.linger,
        };
        let end = stream::relay(socket, input, output.sender(), how).await;
        output.close().await;
        if raw.is_some() {
            // The cursor is where the guest left it.
            report::problem("\r");
        }
        Ok(end)
    }

    /// Decides what follows the end of a connection.
    async fn next(&self, cluster: &Cluster, end: End, uid: &str) -> Result<Next, Failure> {
        let words = match end {
            End::InputEnded | End::Left | End::OutputGone => return Ok(Next::Leave),
            End::Closed { may_return, .. } if may_return => return Ok(Next::Wait),
            End::Closed { words, .. } | End::Broken(words) => words,
        };
        if !terminal::is_interactive() || words.contains("another") {
            return Err(self.disconnected(&words));
        }
        let begin = Instant::now();
        while begin.elapsed() < NEWS {
            match self.look(cluster).await? {
                Step::GiveUp(why) => return Err(Failure::Disconnected(why)),
                Step::Connect { uid: now } if now == uid => sleep(LOOK).await,
                Step::Connect { .. } | Step::Wait(_) => {
                    report::problem("The machine restarts. Press Ctrl+C to exit console.");
                    return Ok(Next::Wait);
                }
            }
        }
        Err(self.disconnected(&words))
    }

    fn disconnected(&self, words: &str) -> Failure {
        let name = &self.name;
        let words = if words.is_empty() {
            "the other side has closed it"
        } else {
            words
        };
        Failure::Disconnected(format!(
            "The console of {name} is disconnected: {words}. Either the machine is off, somebody else opened its console, or the network is cut."
        ))
    }
}

/// Reads an object if there is one.
async fn find(cluster: &Cluster, kind: Kind, name: &str) -> Result<Option<Value>, Refusal> {
    match cluster.get(&cluster.object(kind, name)).await {
        Ok(object) => Ok(Some(object)),
        Err(refusal) if refusal.code() == 404 => Ok(None),
        Err(refusal) => Err(refusal),
    }
}

/// Signals that end the program, so that the terminal is restored before.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|source| Failure::Local {
                attempt: "listen to signals".to_owned(),
                source,
            })
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hang_up: listen(SignalKind::hangup())?,
        })
    }

    /// Returns the number of the next signal.
    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => 2,
            _ = self.terminate.recv() => 15,
            _ = self.hang_up.recv() => 1,
        }
    }
}
