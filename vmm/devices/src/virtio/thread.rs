//! The threads that workers run on: one worker's own, or one that several workers share.
//!
//! ```text
//!   take_in            poll, serve, poll, ...            let_go
//!  --------> arrivals ------------------------> guests --------> handed back through a channel
//! ```
//!
//! Whoever wants something of the thread sets a flag and wakes it; the worker that it is serving
//! then returns after the request in hand, so that one busy disk never keeps another from stopping.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::event::{borrow, take};
use super::ring::Rings;
use super::signal::Signals;
use super::worker::{QueueWorker, Turn};
use crate::lock::Lock;

/// Requests that one worker may do before the others of its thread have their turn.
const SHARED_REQUESTS: u32 = 64;

/// What moves into a thread and out again.
pub(super) struct Parts {
    pub(super) worker: Box<dyn QueueWorker>,
    pub(super) rings: Rings,
}

/// A worker on the thread.
struct Entry {
    name: String,
    parts: Parts,
    notify: Vec<EventFd>,
    signals: Arc<Signals>,
    stop: Arc<AtomicBool>,
    back: SyncSender<Parts>,
    /// It was notified, has just come, or was cut short.
    is_ready: bool,
    /// Its driver broke the rules.
    has_failed: bool,
}

/// What the thread and the others share.
pub(super) struct Shared {
    /// Workers that have come; none once the thread has ended.
    arrivals: Lock<Option<Vec<Entry>>>,
    is_wanted: AtomicBool,
    is_over: AtomicBool,
    wake: EventFd,
}

impl Shared {
    /// Tells whether somebody wants something of the thread.
    pub(super) fn is_wanted(&self) -> bool {
        self.is_wanted.load(Ordering::Acquire)
    }

    fn want(&self) {
        self.is_wanted.store(true, Ordering::Release);
        if let Err(error) = self.wake.write(1) {
            tracing::debug!(%error, "a thread was woken already");
        }
    }
}

/// A worker's place on a thread, as its device sees it.
pub(super) struct Guest {
    stop: Arc<AtomicBool>,
    back: Receiver<Parts>,
}

/// A thread that serves the queues of one or several devices. It ends when it is dropped.
pub struct IoThread {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl IoThread {
    /// Starts a thread that several devices may share.
    ///
    /// # Errors
    /// If the host has no room for a thread or event.
    pub fn new(name: &str) -> std::io::Result<Arc<Self>> {
        Self::spawn(name, SHARED_REQUESTS).map(Arc::new)
    }

    /// Starts the thread of one worker.
    pub(super) fn dedicated(name: &str) -> std::io::Result<Self> {
        Self::spawn(name, u32::MAX)
    }

    fn spawn(name: &str, requests: u32) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            arrivals: Lock::new(Some(Vec::new())),
            is_wanted: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            wake: EventFd::new(EFD_NONBLOCK)?,
        });
        let inside = Arc::clone(&shared);
        let thread = Builder::new()
            .name(name.to_owned())
            .spawn(move || run(&inside, requests))?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// Has the thread serve a worker; gives it back if the thread has ended.
    pub(super) fn take_in(
        &self,
        name: String,
        parts: Parts,
        notify: Vec<EventFd>,
        signals: Arc<Signals>,
    ) -> Result<Guest, Parts> {
        let stop = Arc::new(AtomicBool::new(false));
        let (send, back) = sync_channel(1);
        let entry = Entry {
            name,
            parts,
            notify,
            signals,
            stop: Arc::clone(&stop),
            back: send,
            is_ready: true,
            has_failed: false,
        };
        match &mut *self.shared.arrivals.get() {
            Some(arrivals) => arrivals.push(entry),
            None => return Err(entry.parts),
        }
        self.shared.want();
        Ok(Guest { stop, back })
    }

    /// Takes a worker back, after the request in hand; none if the thread panicked.
    pub(super) fn let_go(&self, guest: Guest) -> Option<Parts> {
        let Guest { stop, back } = guest;
        stop.store(true, Ordering::Release);
        self.shared.want();
        back.recv().ok()
    }
}

impl Drop for IoThread {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
        self.shared.want();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread of a device panicked");
        }
    }
}

/// Lets nobody wait for a thread that has ended, whatever ended it.
struct Closing<'a>(&'a Shared);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        drop(self.0.arrivals.get().take());
    }
}

/// Serves and waits until the thread is over.
fn run(shared: &Shared, requests: u32) {
    let _closing = Closing(shared);
    let mut entries: Vec<Entry> = Vec::new();
    while !shared.is_over.load(Ordering::Acquire) {
        shared.is_wanted.store(false, Ordering::SeqCst);
        take(&shared.wake);
        if let Some(arrivals) = &mut *shared.arrivals.get() {
            entries.append(arrivals);
        }
        hand_back(&mut entries);
        for entry in entries.iter_mut().filter(|entry| entry.is_due()) {
            entry.serve(shared, requests);
        }
        wait(shared, &mut entries);
    }
}

/// Gives the workers back whose devices stop.
fn hand_back(entries: &mut Vec<Entry>) {
    for entry in entries.extract_if(.., |entry| entry.stop.load(Ordering::Acquire)) {
        if entry.back.send(entry.parts).is_err() {
            tracing::error!(worker = entry.name, "nobody takes a worker back");
        }
    }
}

impl Entry {
    fn is_due(&self) -> bool {
        self.is_ready && !self.has_failed
    }

    fn serve(&mut self, shared: &Shared, requests: u32) {
        let turn = Turn::new(&self.stop, shared, requests);
        let served = self.parts.worker.serve(&mut self.parts.rings, &turn);
        self.is_ready = turn.was_cut();
        if let Err(error) = served {
            self.has_failed = true;
            self.signals.fail_for(&self.name, &error);
            self.signals.flush();
        }
    }

    fn files(&self) -> Vec<PollFd<'_>> {
        if self.has_failed {
            return Vec::new();
        }
        let notify = self.notify.iter();
        notify
            .map(|event| PollFd::new(borrow(event), PollFlags::POLLIN))
            .chain(self.parts.worker.watch())
            .collect()
    }

    /// Takes the notifications that came.
    fn notice(&mut self, came: &[bool]) {
        self.is_ready |= came.contains(&true);
        for (event, _) in self.notify.iter().zip(came).filter(|(_, came)| **came) {
            take(event);
        }
    }
}

/// Waits for a notification, a watched file or a wish, unless a worker is still due.
fn wait(shared: &Shared, entries: &mut [Entry]) {
    let timeout = if entries.iter().any(Entry::is_due) {
        PollTimeout::ZERO
    } else {
        PollTimeout::NONE
    };
    let mut files = vec![PollFd::new(borrow(&shared.wake), PollFlags::POLLIN)];
    let mut counts = Vec::new();
    for entry in &*entries {
        let own = entry.files();
        counts.push(own.len());
        files.extend(own);
    }
    match poll(&mut files, timeout) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => tracing::error!(%error, "a worker cannot wait"),
    }
    let came: Vec<bool> = files.iter().map(|file| file.any() == Some(true)).collect();
    drop(files);
    let mut at = 1;
    for (entry, count) in entries.iter_mut().zip(counts) {
        entry.notice(&came[at..at + count]);
        at += count;
    }
}
