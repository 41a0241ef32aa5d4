//! Bounded byte queues between threads.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

/// A bounded queue of bytes.
#[derive(Debug)]
pub struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    capacity: usize,
}

#[derive(Debug, Default)]
struct State {
    bytes: VecDeque<u8>,
    closed: bool,
}

impl Queue {
    /// Returns an empty queue.
    pub fn new(capacity: usize) -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            capacity,
        }
    }

    /// A thread that panicked while holding the lock leaves bytes that are still bytes.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends bytes and drops the oldest ones that don't fit; never blocks. What comes after
    /// [`close`](Self::close) is dropped.
    pub fn push_lossy(&self, bytes: &[u8]) {
        let mut state = self.lock();
        if state.closed {
            return;
        }
        let kept = &bytes[bytes.len().saturating_sub(self.capacity)..];
        let excess = (state.bytes.len() + kept.len()).saturating_sub(self.capacity);
        state.bytes.drain(..excess);
        state.bytes.extend(kept);
        self.changed.notify_all();
    }

    /// Appends bytes, waiting for room; what comes after [`close`](Self::close) is dropped.
    pub fn push_blocking(&self, mut bytes: &[u8]) {
        let mut state = self.lock();
        while !bytes.is_empty() && !state.closed {
            let room = self.capacity - state.bytes.len();
            if room == 0 {
                state = self
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            state.bytes.extend(now);
            bytes = later;
            self.changed.notify_all();
        }
    }

    /// Takes up to `limit` bytes, waiting for some; `None` once the queue is closed and empty.
    pub fn take(&self, limit: usize) -> Option<Vec<u8>> {
        let mut state = self.lock();
        loop {
            if !state.bytes.is_empty() {
                let count = limit.min(state.bytes.len());
                let taken = state.bytes.drain(..count).collect();
                self.changed.notify_all();
                return Some(taken);
            }
            if state.closed {
                return None;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Forgets what waits.
    pub fn discard(&self) {
        self.lock().bytes.clear();
        self.changed.notify_all();
    }

    /// Lets nothing more in and wakes everyone who waits.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    fn is_closed(&self) -> bool {
        self.lock().closed
    }
}

/// The queues of everyone who looks.
#[derive(Debug, Default)]
pub(super) struct Viewers {
    /// Lock order: this one, then a queue's.
    queues: Mutex<Vec<Weak<Queue>>>,
}

impl Viewers {
    pub(super) fn add(&self, queue: &Arc<Queue>) {
        self.lock().push(Arc::downgrade(queue));
    }

    pub(super) fn push(&self, bytes: &[u8]) {
        self.lock().retain(|queue| {
            let queue = queue.upgrade().filter(|queue| !queue.is_closed());
            queue.inspect(|queue| queue.push_lossy(bytes)).is_some()
        });
    }

    pub(super) fn close(&self) {
        for queue in self.lock().drain(..) {
            if let Some(queue) = queue.upgrade() {
                queue.close();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Weak<Queue>>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
