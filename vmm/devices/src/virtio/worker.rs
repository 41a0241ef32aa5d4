//! The workers that serve virtqueues, and their way to a thread and back.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::poll::PollFd;
use vmm_sys_util::eventfd::EventFd;

use super::ring::{RingError, Rings};
use super::signal::Signals;
use super::thread::{Guest, IoThread, Parts, Shared};
use crate::lifecycle::RestoreError;

/// Tells a worker whether it may go on.
pub struct Turn<'a> {
    stop: &'a AtomicBool,
    thread: &'a Shared,
    left: Cell<u32>,
}

impl<'a> Turn<'a> {
    pub(super) fn new(stop: &'a AtomicBool, thread: &'a Shared, requests: u32) -> Self {
        Self {
            stop,
            thread,
            left: Cell::new(requests),
        }
    }

    /// Tells whether the worker must return, after the request in hand. It is then called again
    /// unless its device stops.
    pub fn must_stop(&self) -> bool {
        let left = self.left.get();
        self.left.set(left.saturating_sub(1));
        left == 0 || self.stop.load(Ordering::Acquire) || self.thread.is_wanted()
    }

    /// Tells whether the worker may have returned with work left.
    pub(super) fn was_cut(&self) -> bool {
        self.left.get() == 0 || self.thread.is_wanted()
    }
}

/// Serves one or several virtqueues of a device.
///
/// It is called on its own thread and woken by notifications of its queues and by the files it
/// watches. Spurious calls happen.
pub trait QueueWorker: Send {
    /// Learns the features that driver and device agreed on, before the first [`QueueWorker::serve`].
    fn start(&mut self, _features: u64) {}

    /// Serves what can be served without waiting.
    ///
    /// # Errors
    /// If the driver broke the rules: the device then needs a reset, and the thread ends.
    fn serve(&mut self, rings: &mut Rings, turn: &Turn<'_>) -> Result<(), RingError>;

    /// Lists files to wait for besides the notifications.
    fn watch(&self) -> Vec<PollFd<'_>> {
        Vec::new()
    }

    /// Returns to the state after power-on.
    fn reset(&mut self) {}

    /// Returns the worker's state besides its rings.
    fn save(&self) -> serde_json::Value {
        serde_json::Value::Null
    }

    /// Takes the worker's state.
    ///
    /// # Errors
    /// If the state is not one of this worker, which then keeps the state it had.
    fn restore(&mut self, _state: &serde_json::Value) -> Result<(), RestoreError> {
        Ok(())
    }
}

/// A worker and what it works on.
pub struct WorkerPlan {
    /// What follows the device's name in the thread's, such as `q0`.
    pub suffix: String,
    /// The numbers of its queues.
    pub queues: Vec<u16>,
    /// The worker.
    pub worker: Box<dyn QueueWorker>,
    /// The thread that it shares with others; one of its own by default.
    pub thread: Option<Arc<IoThread>>,
}

enum Place {
    Idle(Box<dyn QueueWorker>),
    Running(Running),
    /// The thread panicked and took the worker with it.
    Lost,
}

struct Running {
    guest: Guest,
    rings: usize,
    thread: Arc<IoThread>,
}

/// A worker, on its thread or off it.
pub(super) struct Slot {
    name: String,
    pub(super) queues: Vec<u16>,
    thread: Option<Arc<IoThread>>,
    place: Place,
}

impl Slot {
    pub(super) fn new(device: &str, plan: WorkerPlan) -> Self {
        Self {
            name: format!("{device}-{}", plan.suffix),
            queues: plan.queues,
            thread: plan.thread,
            place: Place::Idle(plan.worker),
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        matches!(self.place, Place::Idle(_))
    }

    pub(super) fn is_lost(&self) -> bool {
        matches!(self.place, Place::Lost)
    }

    /// Returns the number of rings that the worker runs with.
    pub(super) fn ring_count(&self) -> usize {
        match &self.place {
            Place::Running(running) => running.rings,
            Place::Idle(_) | Place::Lost => 0,
        }
    }

    /// Returns the worker if it is off its thread.
    pub(super) fn idle(&mut self) -> Option<&mut dyn QueueWorker> {
        match &mut self.place {
            Place::Idle(worker) => Some(worker.as_mut()),
            Place::Running(_) | Place::Lost => None,
        }
    }

    /// Moves an idle worker to its thread.
    ///
    /// # Errors
    /// If the host has no room for a thread or event; the worker stays idle.
    pub(super) fn start(
        &mut self,
        rings: Rings,
        notify: Vec<EventFd>,
        features: u64,
        signals: Arc<Signals>,
    ) -> std::io::Result<()> {
        let thread = match &self.thread {
            Some(shared) => Arc::clone(shared),
            None => Arc::new(IoThread::dedicated(&self.name)?),
        };
        let mut worker = match std::mem::replace(&mut self.place, Place::Lost) {
            Place::Idle(worker) => worker,
            other @ (Place::Running(_) | Place::Lost) => {
                self.place = other;
                return Ok(());
            }
        };
        let count = rings.0.iter().flatten().count();
        worker.start(features);
        let parts = Parts { worker, rings };
        match thread.take_in(self.name.clone(), parts, notify, signals) {
            Ok(guest) => {
                self.place = Place::Running(Running {
                    guest,
                    rings: count,
                    thread,
                });
                Ok(())
            }
            Err(parts) => {
                self.place = Place::Idle(parts.worker);
                Err(std::io::Error::other("its thread has ended"))
            }
        }
    }

    /// Takes the worker off its thread, after the request in hand; returns the rings that it used.
    pub(super) fn stop(&mut self) -> Rings {
        let running = match std::mem::replace(&mut self.place, Place::Lost) {
            Place::Running(running) => running,
            other @ (Place::Idle(_) | Place::Lost) => {
                self.place = other;
                return Rings::default();
            }
        };
        match running.thread.let_go(running.guest) {
            Some(parts) => {
                self.place = Place::Idle(parts.worker);
                parts.rings
            }
            None => {
                tracing::error!(worker = self.name, "a worker panicked; its device is lost");
                Rings::default()
            }
        }
    }
}
