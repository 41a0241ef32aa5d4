//! A machine's life in this process: it starts, stops when it is told to, and ends.

mod stopping;

use std::io;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal};
use tracing::Span;
use vmm::config::MachineConfig;
use vmm::machine::{Machine, MachineEnd, MachineError, MachineEvent, MachineHandle, RETRY};

use self::stopping::{Order, Stopping};
use crate::console::{Console, GuestEnd, RawMode, Terminal};

/// Signals that ask for an orderly end.
const STOP_SIGNALS: [Signal; 4] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
];

/// Why a machine did not run to its end.
#[derive(Debug, thiserror::Error)]
pub enum LifeError {
    /// The machine cannot be started.
    #[error("start the machine")]
    Start(#[source] Box<MachineError>),
    /// The host has no threads or signals to give.
    #[error("watch over the machine")]
    Host(#[from] io::Error),
    /// The machine could not go on.
    #[error("keep the machine running: {0}")]
    Failed(String),
}

/// What a life is told.
enum Happening {
    /// Someone wants the machine to stop.
    StopAsked(&'static str),
    Ended(MachineEnd),
}

/// Keeps signals for [`run`] instead of letting them end the process. To be called before any thread
/// is started.
///
/// # Errors
///
/// Fails when the host refuses.
pub fn hold_signals() -> io::Result<()> {
    Ok(STOP_SIGNALS
        .into_iter()
        .collect::<SigSet>()
        .thread_block()?)
}

/// Runs a machine until it ends, with the terminal as its console if asked. `started` is called once
/// the guest runs.
///
/// # Errors
///
/// Fails when the machine cannot start or go on.
pub fn run(
    config: MachineConfig,
    console: &Console,
    with_terminal: bool,
    grace: Duration,
    started: impl FnOnce(),
) -> Result<(), LifeError> {
    let (guest, io) = GuestEnd::new(console);
    let (happenings, inbox) = mpsc::channel();
    watch_signals(happenings.clone())?;
    let terminal = with_terminal
        .then(|| attach_terminal(console, happenings.clone()))
        .transpose()?;
    let machine = Machine::start(config, io).map_err(|error| LifeError::Start(Box::new(error)))?;
    let backend = machine.backend();
    tracing::info!(backend = %backend.backend, reason = backend.reason, "machine runs");
    started();
    watch_machine(&machine, happenings)?;
    guest.pump_input(&machine)?;
    let raw_mode = terminal.as_ref().and_then(|_| RawMode::enter());
    if raw_mode.is_some() {
        tracing::info!("console attached: Ctrl-] presses the power button, twice switches off");
    }
    let end = wait(&inbox, &machine, grace);
    console.close();
    if let Some(terminal) = terminal {
        terminal.drain();
    }
    drop(raw_mode);
    match end {
        MachineEnd::PoweredOff | MachineEnd::Killed => Ok(()),
        MachineEnd::Failed(reason) => Err(LifeError::Failed(reason)),
    }
}

fn attach_terminal(console: &Console, happenings: Sender<Happening>) -> io::Result<Terminal> {
    Terminal::attach(console, move || {
        // A life that is over needs no escape.
        let _over = happenings.send(Happening::StopAsked("Ctrl-]"));
    })
}

/// Obeys until the machine has ended.
fn wait(inbox: &Receiver<Happening>, machine: &MachineHandle, grace: Duration) -> MachineEnd {
    let mut stopping = Stopping::new(grace);
    loop {
        let now = Instant::now();
        let order = match stopping.deadline() {
            None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(deadline) => inbox.recv_timeout(deadline.saturating_duration_since(now)),
        };
        let order = match order {
            Ok(Happening::Ended(end)) => return end,
            Ok(Happening::StopAsked(by)) => {
                tracing::info!(by, "machine is asked to stop");
                stopping.asked(Instant::now())
            }
            Err(RecvTimeoutError::Timeout) => {
                tracing::warn!(
                    grace_s = grace.as_secs(),
                    "guest did not power off in its grace period"
                );
                stopping.due()
            }
            Err(RecvTimeoutError::Disconnected) => return machine.wait(),
        };
        let done = match order {
            Order::PowerButton => machine.power_button(),
            Order::Kill => machine.kill(),
        };
        if let Err(error) = done {
            tracing::debug!(%error, "the order came too late");
        }
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let span = Span::current();
    let thread = thread::Builder::new().name(name.to_owned());
    thread.spawn(move || span.in_scope(work)).map(drop)
}

fn watch_signals(happenings: Sender<Happening>) -> io::Result<()> {
    let signals: SigSet = STOP_SIGNALS.into_iter().collect();
    spawn("signals", move || {
        while let Ok(signal) = signals.wait() {
            if happenings
                .send(Happening::StopAsked(signal.as_str()))
                .is_err()
            {
                break;
            }
        }
    })
}

/// Logs what happens to the machine, and reports its end.
fn watch_machine(machine: &MachineHandle, happenings: Sender<Happening>) -> io::Result<()> {
    let machine = machine.clone();
    spawn("machine-events", move || {
        machine.watch_and_retry(log_event);
        let _over = happenings.send(Happening::Ended(machine.wait()));
    })
}

fn log_event(event: &MachineEvent) {
    match event {
        MachineEvent::Panicked => tracing::warn!("guest kernel has panicked"),
        MachineEvent::TripleFault { vcpu } => {
            tracing::warn!(vcpu, "guest has shut a processor down");
        }
        MachineEvent::DiskError(error) => tracing::error!(?error, "host refused a disk request"),
        MachineEvent::DiskStopped { disk, reason } => tracing::error!(
            disk,
            reason,
            retry_s = RETRY.as_secs(),
            "disk has stopped the machine: mend the cause (a full host: make room), it is tried again"
        ),
        MachineEvent::Failed(reason) => tracing::error!(reason, "machine cannot go on"),
        other => tracing::debug!(?other, "machine event"),
    }
}
