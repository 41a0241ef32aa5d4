//! What a machine reports.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};

use devices::ResetSource;
use devices::virtio::DiskEvent;

/// Events that are kept for later subscribers.
const HISTORY_MAX: usize = 64;
/// Events that wait for one subscriber.
const WAITING_MAX: usize = 256;

/// An event of a machine.
#[derive(Clone, Debug, PartialEq)]
pub enum MachineEvent {
    /// The machine starts anew: by the guest's doing, or by [`super::MachineHandle::reset`] if `None`.
    Reset(Option<ResetSource>),
    /// The guest has switched itself off.
    PoweredOff,
    /// The guest's kernel has panicked. The guest goes on: it may reboot itself.
    Panicked,
    /// The guest's kernel has panicked and starts its crash kernel.
    CrashLoaded,
    /// A vCPU could not deliver a fault; the machine starts anew.
    TripleFault {
        /// The vCPU.
        vcpu: u32,
    },
    /// The host refused a disk request.
    DiskError(DiskEvent),
    /// The host refused a disk request and the disk's error policy has stopped the machine: it is paused, and
    /// [`super::MachineHandle::resume`] tries the request again.
    DiskStopped {
        /// The disk's name.
        disk: String,
        /// The host's answer.
        reason: String,
    },
    /// The guest has ejected the medium of a CD-ROM drive: it lies in the open tray until it is changed.
    MediumEjected {
        /// The drive's name.
        disk: String,
    },
    /// A program in the guest has opened or closed a console port.
    PortOpened {
        /// The port's name.
        name: String,
        /// Whether it is open now.
        open: bool,
    },
    /// Every vCPU and device stands still.
    Paused,
    /// The machine goes on.
    Resumed,
    /// The machine cannot go on.
    Failed(String),
}

/// How a machine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MachineEnd {
    /// The guest switched itself off.
    PoweredOff,
    /// Somebody killed it.
    Killed,
    /// It could not go on, for this reason.
    Failed(String),
}

#[derive(Default)]
struct State {
    history: VecDeque<MachineEvent>,
    subscribers: Vec<SyncSender<MachineEvent>>,
    is_closed: bool,
}

/// Hands events to everyone who listens.
#[derive(Default)]
pub(super) struct EventLog(Mutex<State>);

impl EventLog {
    pub(super) fn report(&self, event: MachineEvent) {
        tracing::info!(?event, "machine");
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.history.len() == HISTORY_MAX {
            state.history.pop_front();
        }
        let gone = |error| matches!(error, TrySendError::Disconnected(_));
        state
            .subscribers
            .retain(|subscriber| !subscriber.try_send(event.clone()).is_err_and(gone));
        state.history.push_back(event);
    }

    pub(super) fn subscribe(&self) -> Receiver<MachineEvent> {
        let (sender, receiver) = sync_channel(WAITING_MAX);
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for event in &state.history {
            // The history is shorter than the channel.
            drop(sender.try_send(event.clone()));
        }
        if !state.is_closed {
            state.subscribers.push(sender);
        }
        receiver
    }

    /// Ends every subscription.
    pub(super) fn close(&self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.subscribers.clear();
        state.is_closed = true;
    }
}
