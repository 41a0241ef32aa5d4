//! Time as the board sees it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::lock::Lock;

/// A source of time. The machine's clock stands still while the machine is paused.
pub trait Clock: Send + Sync {
    /// Returns the time in nanoseconds from the clock's origin; never goes back.
    fn now_ns(&self) -> u64;
}

/// The machine's clock: host time since start without the time spent paused.
#[derive(Debug)]
pub struct MachineClock {
    state: Lock<Running>,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    base_ns: u64,
    since: Option<Instant>,
}

impl Running {
    fn now_ns(self) -> u64 {
        let ran_ns = self.since.map_or(0, |since| since.elapsed().as_nanos());
        self.base_ns
            .saturating_add(u64::try_from(ran_ns).unwrap_or(u64::MAX))
    }
}

impl MachineClock {
    /// Makes a running clock that reads 0.
    pub fn new() -> Self {
        Self {
            state: Lock::new(Running {
                base_ns: 0,
                since: Some(Instant::now()),
            }),
        }
    }

    /// Stops the clock.
    pub fn pause(&self) {
        let mut state = self.state.get();
        *state = Running {
            base_ns: state.now_ns(),
            since: None,
        };
    }

    /// Lets the clock run on.
    pub fn resume(&self) {
        let mut state = self.state.get();
        *state = Running {
            base_ns: state.now_ns(),
            since: Some(Instant::now()),
        };
    }

    /// Sets the clock to the time of a saved machine, whose chips hold times on its clock.
    pub fn set_ns(&self, now_ns: u64) {
        let mut state = self.state.get();
        *state = Running {
            base_ns: now_ns,
            since: state.since.map(|_| Instant::now()),
        };
    }
}

impl Default for MachineClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for MachineClock {
    fn now_ns(&self) -> u64 {
        self.state.get().now_ns()
    }
}

/// The host's coordinated universal time, in nanoseconds since 1970.
#[derive(Clone, Copy, Debug, Default)]
pub struct UtcClock;

impl Clock for UtcClock {
    fn now_ns(&self) -> u64 {
        let since_1970 = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        u64::try_from(since_1970.as_nanos()).unwrap_or(u64::MAX)
    }
}

/// A clock that moves only when told, for tests and fuzzing.
#[derive(Debug, Default)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// Makes a clock that reads `now_ns`.
    pub fn new(now_ns: u64) -> Self {
        Self(AtomicU64::new(now_ns))
    }

    /// Moves the clock on by `by_ns`.
    pub fn advance_ns(&self, by_ns: u64) {
        self.0.fetch_add(by_ns, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now_ns(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}
