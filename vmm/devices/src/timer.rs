//! The thread that fires the board's timers: PIT, RTC and PM timer.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::clock::Clock;
use crate::interrupt::Wake;

/// Most timers of one board: it has three, and each look costs a call to every one.
const MAX_SOURCES: usize = 16;

/// A chip with a timer. The chip wakes the timer thread whenever its next event moves.
pub trait TimerSource: Send + Sync {
    /// Returns when the chip next has something to do, in nanoseconds on the machine's clock.
    fn next_event_ns(&self) -> Option<u64>;

    /// Does what is due at `now_ns`.
    fn fire(&self, now_ns: u64);
}

/// The board already has all the timers it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("add a timer: the board has {MAX_SOURCES} already")]
pub struct TooManyTimers;

#[derive(Default)]
struct State {
    sources: Vec<Arc<dyn TimerSource>>,
    changed: bool,
    paused: bool,
    stopped: bool,
}

struct Shared {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    signal: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, update: impl FnOnce(&mut State)) {
        let mut state = self.state();
        update(&mut state);
        state.changed = true;
        drop(state);
        self.signal.notify_one();
    }

    /// Fires what is due and returns when to look again.
    fn run_due(&self) -> Option<u64> {
        let sources = self.state().sources.clone();
        let now_ns = self.clock.now_ns();
        for source in &sources {
            if source
                .next_event_ns()
                .is_some_and(|due_ns| due_ns <= now_ns)
            {
                source.fire(now_ns);
            }
        }
        sources
            .iter()
            .filter_map(|source| source.next_event_ns())
            .min()
    }

    /// Waits until `due_ns`, a wake or a change; tells whether the thread should go on.
    fn wait(&self, due_ns: Option<u64>) -> bool {
        let mut state = self.state();
        loop {
            if state.stopped {
                return false;
            }
            if state.changed && !state.paused {
                return true;
            }
            let left_ns = due_ns.map(|due_ns| due_ns.saturating_sub(self.clock.now_ns()));
            state = match left_ns.filter(|_| !state.paused) {
                Some(0) => return true,
                Some(left_ns) => {
                    let waited = self
                        .signal
                        .wait_timeout(state, Duration::from_nanos(left_ns));
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self
                    .signal
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn run(&self) {
        let mut due_ns = None;
        while self.wait(due_ns) {
            self.state().changed = false;
            due_ns = self.run_due();
        }
    }
}

impl Wake for Shared {
    fn wake(&self) {
        self.update(|_| ());
    }
}

/// The board's timers and the thread `board-timer` that fires them.
pub struct BoardTimer {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl BoardTimer {
    /// Makes the timers' owner on the machine's clock; nothing fires before [`BoardTimer::start`].
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let state = Mutex::new(State::default());
        let shared = Shared {
            clock,
            state,
            signal: Condvar::new(),
        };
        Self {
            shared: Arc::new(shared),
            thread: Mutex::new(None),
        }
    }

    /// Returns what a chip calls when its next event has moved.
    pub fn waker(&self) -> Arc<dyn Wake> {
        Arc::clone(&self.shared) as Arc<dyn Wake>
    }

    /// Adds a chip.
    ///
    /// # Errors
    /// If there are as many as may be.
    pub fn add(&self, source: Arc<dyn TimerSource>) -> Result<(), TooManyTimers> {
        if self.shared.state().sources.len() >= MAX_SOURCES {
            return Err(TooManyTimers);
        }
        self.shared.update(|state| state.sources.push(source));
        Ok(())
    }

    /// Starts the thread; does nothing if it runs.
    ///
    /// # Errors
    /// If the host has no thread to give.
    pub fn start(&self) -> io::Result<()> {
        let mut thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        if thread.is_none() {
            let shared = Arc::clone(&self.shared);
            let builder = thread::Builder::new().name("board-timer".to_owned());
            *thread = Some(builder.spawn(move || shared.run())?);
        }
        Ok(())
    }

    /// Stops firing. An event that is being fired ends on its own.
    pub fn pause(&self) {
        self.shared.update(|state| state.paused = true);
    }

    /// Goes on firing.
    pub fn resume(&self) {
        self.shared.update(|state| state.paused = false);
    }

    /// Fires what is due on the calling thread: for tests and fuzzing, without the thread.
    pub fn run_due(&self) {
        self.shared.run_due();
    }
}

impl Drop for BoardTimer {
    fn drop(&mut self) {
        self.shared.update(|state| {
            state.stopped = true;
            state.sources.clear();
        });
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        // The last owner may be the thread itself, through a chip; it then ends on its own.
        if let Some(thread) = thread.filter(|other| other.thread().id() != thread::current().id()) {
            // A panic of the thread has been reported by the panic hook.
            drop(thread.join());
        }
    }
}

#[cfg(test)]
mod tests;
