//! Which instance to look at next: each at its time, none twice at once.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use crate::key::VmiKey;

/// First and longest wait after a failure.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));

/// A queue of keys. Clones are handles of the same.
#[derive(Clone, Debug, Default)]
pub struct Queue {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    due: HashMap<VmiKey, Instant>,
    /// Keys that are being looked at. What is added meanwhile waits until they are done.
    running: HashSet<VmiKey>,
    failures: HashMap<VmiKey, u32>,
}

impl State {
    fn add_at(&mut self, key: &VmiKey, at: Instant) {
        let due = self.due.entry(key.clone()).or_insert(at);
        *due = at.min(*due);
    }

    /// Takes a key whose time has come, or returns when the next one's comes.
    fn take(&mut self, now: Instant) -> Result<VmiKey, Option<Instant>> {
        let waiting = self
            .due
            .iter()
            .filter(|(key, _)| !self.running.contains(*key));
        let Some((key, at)) = waiting.min_by_key(|(_, at)| **at) else {
            return Err(None);
        };
        if *at > now {
            return Err(Some(*at));
        }
        let key = key.clone();
        self.due.remove(&key);
        self.running.insert(key.clone());
        Ok(key)
    }

    /// Returns the wait after one more failure; `random` spreads it by half in both directions.
    fn fail(&mut self, key: &VmiKey, random: u8) -> Duration {
        let times = self.failures.entry(key.clone()).or_default();
        let wait = (BACKOFF.0 * (1 << (*times).min(10))).min(BACKOFF.1);
        *times = times.saturating_add(1);
        wait / 2 + wait * u32::from(random) / 256
    }
}

impl Queue {
    /// Queues a key at once.
    pub fn add(&self, key: &VmiKey) {
        self.add_at(key, Instant::now());
    }

    /// Queues a key for a later time, unless it is queued for an earlier one.
    pub fn add_at(&self, key: &VmiKey, at: Instant) {
        self.lock().add_at(key, at);
        self.shared.changed.notify_one();
    }

    /// Makes everything due that waits after a failure.
    pub fn hurry(&self) {
        let now = Instant::now();
        let mut state = self.lock();
        let failed: Vec<VmiKey> = state.failures.drain().map(|(key, _)| key).collect();
        for key in failed {
            state.add_at(&key, now);
        }
        drop(state);
        self.shared.changed.notify_one();
    }

    /// Takes the next key, once its time has come. Must be followed by [`Queue::done`] or [`Queue::failed`].
    pub async fn next(&self) -> VmiKey {
        loop {
            let next = self.lock().take(Instant::now());
            let changed = self.shared.changed.notified();
            match next {
                Ok(key) => return key,
                Err(None) => changed.await,
                Err(Some(at)) => tokio::select! {
                    () = changed => {}
                    () = sleep_until(at) => {}
                },
            }
        }
    }

    /// Ends the work on a key that went well.
    pub fn done(&self, key: &VmiKey) {
        let mut state = self.lock();
        state.running.remove(key);
        state.failures.remove(key);
        drop(state);
        self.shared.changed.notify_one();
    }

    /// Ends the work on a key that failed, and queues it for another attempt.
    pub fn failed(&self, key: &VmiKey) {
        let mut random = [u8::MAX / 2];
        // Without random numbers the waits are merely equal.
        let _even = getrandom::fill(&mut random);
        let mut state = self.lock();
        state.running.remove(key);
        let wait = state.fail(key, random[0]);
        state.add_at(key, Instant::now() + wait);
        drop(state);
        self.shared.changed.notify_one();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{BACKOFF, State};
    use crate::key::VmiKey;

    fn key(name: &str) -> VmiKey {
        VmiKey::new("default", name)
    }

    #[test]
    fn a_key_is_not_taken_twice_at_once() {
        let (mut state, now) = (State::default(), Instant::now());
        state.add_at(&key("a"), now);
        assert_eq!(state.take(now), Ok(key("a")));
        state.add_at(&key("a"), now);
        assert_eq!(state.take(now), Err(None));
        state.running.remove(&key("a"));
        assert_eq!(state.take(now), Ok(key("a")));
    }

    #[test]
    fn the_earliest_wish_counts() {
        let (mut state, now) = (State::default(), Instant::now());
        let (soon, late) = (now + Duration::from_secs(1), now + Duration::from_secs(9));
        state.add_at(&key("a"), late);
        state.add_at(&key("b"), soon);
        state.add_at(&key("b"), late);
        assert_eq!(state.take(now), Err(Some(soon)));
        assert_eq!(state.take(soon), Ok(key("b")));
        assert_eq!(state.take(soon), Err(Some(late)));
    }

    #[test]
    fn waits_after_failures_grow_to_a_bound() {
        let mut state = State::default();
        let waits: Vec<Duration> = (0..20).map(|_| state.fail(&key("a"), 128)).collect();
        assert_eq!(waits[0], BACKOFF.0);
        assert_eq!(waits[1], BACKOFF.0 * 2);
        assert_eq!(waits[19], BACKOFF.1);
        assert!(state.fail(&key("a"), 0) >= BACKOFF.1 / 2);
    }
}
