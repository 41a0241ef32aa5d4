//! The threads that serve virtqueues.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vmm_sys_util::eventfd::EventFd;

use super::event::{borrow, take};
use super::ring::{RingError, Rings};
use super::signal::Signals;
use crate::lifecycle::RestoreError;

/// Tells a worker whether it may go on.
pub struct Turn<'a> {
    stop: &'a AtomicBool,
}

impl Turn<'_> {
    /// Tells whether the worker must return, after the request in hand.
    pub fn must_stop(&self) -> bool {
        self.stop.load(Ordering::Acquire)
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
}

/// What moves into a worker's thread and out again.
struct Parts {
    worker: Box<dyn QueueWorker>,
    rings: Rings,
}

struct Control {
    stop: AtomicBool,
    wake: EventFd,
}

struct Running {
    control: Arc<Control>,
    rings: usize,
    thread: JoinHandle<Parts>,
}

enum Place {
    Idle(Box<dyn QueueWorker>),
    Running(Running),
    /// The thread panicked and took the worker with it.
    Lost,
}

/// A worker, on its thread or off it.
pub(super) struct Slot {
    name: String,
    pub(super) queues: Vec<u16>,
    place: Place,
}

impl Slot {
    pub(super) fn new(device: &str, plan: WorkerPlan) -> Self {
        Self {
            name: format!("{device}-{}", plan.suffix),
            queues: plan.queues,
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

    /// Starts the thread of an idle worker.
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
        if !self.is_idle() {
            return Ok(());
        }
        let control = Arc::new(Control {
            stop: AtomicBool::new(false),
            wake: EventFd::new(0)?,
        });
        let (send, receive) = mpsc::sync_channel::<Parts>(1);
        let inside = Arc::clone(&control);
        let name = self.name.clone();
        let thread = thread::Builder::new().name(name.clone()).spawn(move || {
            let parts = receive.recv().expect("the starter sends the parts");
            run(&name, parts, &inside, &notify, &signals)
        })?;
        let count = rings.0.iter().flatten().count();
        let running = Place::Running(Running {
            control,
            rings: count,
            thread,
        });
        if let Place::Idle(mut worker) = std::mem::replace(&mut self.place, running) {
            worker.start(features);
            send.send(Parts { worker, rings })
                .expect("the thread waits for its parts");
        }
        Ok(())
    }

    /// Ends the thread, after the request in hand; returns the rings that it used.
    pub(super) fn stop(&mut self) -> Rings {
        let running = match std::mem::replace(&mut self.place, Place::Lost) {
            Place::Running(running) => running,
            other @ (Place::Idle(_) | Place::Lost) => {
                self.place = other;
                return Rings::default();
            }
        };
        running.control.stop.store(true, Ordering::Release);
        if let Err(error) = running.control.wake.write(1) {
            tracing::error!(worker = self.name, %error, "a worker cannot be woken");
        }
        match running.thread.join() {
            Ok(parts) => {
                self.place = Place::Idle(parts.worker);
                parts.rings
            }
            Err(_) => {
                tracing::error!(worker = self.name, "a worker panicked; its device is lost");
                Rings::default()
            }
        }
    }
}

/// Serves and waits until told to stop or the driver breaks the rules.
fn run(
    name: &str,
    mut parts: Parts,
    control: &Control,
    notify: &[EventFd],
    signals: &Signals,
) -> Parts {
    let turn = Turn {
        stop: &control.stop,
    };
    while !turn.must_stop() {
        if let Err(error) = parts.worker.serve(&mut parts.rings, &turn) {
            signals.fail_for(name, &error);
            signals.flush();
            break;
        }
        wait(control, notify, parts.worker.as_ref());
    }
    parts
}

/// Waits for a notification, a watched file or the stop, and takes the notifications.
fn wait(control: &Control, notify: &[EventFd], worker: &dyn QueueWorker) {
    let own = std::iter::once(&control.wake).chain(notify);
    let mut files: Vec<PollFd<'_>> = own
        .map(|event| PollFd::new(borrow(event), PollFlags::POLLIN))
        .chain(worker.watch())
        .collect();
    match poll(&mut files, PollTimeout::NONE) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => tracing::error!(%error, "a worker cannot wait"),
    }
    for (event, file) in notify.iter().zip(files.iter().skip(1)) {
        if file.any() == Some(true) {
            take(event);
        }
    }
}
