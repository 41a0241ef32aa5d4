//! Which object to look at next: each at its time, none twice at once.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::key::Key;

/// First and longest wait after a failure.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(60));
/// Doublings after which a wait grows no more.
const DOUBLINGS_MAX: u32 = 10;

/// A queue of keys. Clones are handles of the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Queue {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    due: HashMap<Key, Instant>,
    order: BTreeSet<(Instant, Key)>,
    /// Keys that are being looked at, and when they are due again.
    running: HashMap<Key, Option<Instant>>,
    failures: HashMap<Key, u32>,
}

impl State {
    fn add_at(&mut self, key: &Key, at: Instant) {
        if let Some(again) = self.running.get_mut(key) {
            *again = Some(again.map_or(at, |known| known.min(at)));
            return;
        }
        if let Some(known) = self.due.get(key) {
            if *known <= at {
                return;
            }
            self.order.remove(&(*known, key.clone()));
        }
        self.due.insert(key.clone(), at);
        self.order.insert((at, key.clone()));
    }

    /// Takes a key whose time has come, or returns when the next one's comes.
    fn take(&mut self, now: Instant) -> Result<Key, Option<Instant>> {
        let Some((at, _)) = self.order.first() else {
            return Err(None);
        };
        if *at > now {
            return Err(Some(*at));
        }
        let (_, key) = self.order.pop_first().ok_or(None)?;
        self.due.remove(&key);
        self.running.insert(key.clone(), None);
        Ok(key)
    }

    fn end(&mut self, key: &Key) {
        if let Some(Some(again)) = self.running.remove(key) {
            self.add_at(key, again);
        }
    }

    /// Returns the wait after one more failure; `random` spreads it by half in both directions.
    fn fail(&mut self, key: &Key, random: u8) -> Duration {
        let times = self.failures.entry(key.clone()).or_default();
        let wait = (BACKOFF.0 * (1 << (*times).min(DOUBLINGS_MAX))).min(BACKOFF.1);
        *times = times.saturating_add(1);
        wait / 2 + wait * u32::from(random) / 256
    }
}

impl Queue {
    /// Queues a key at once.
    pub(crate) fn add(&self, key: &Key) {
        self.add_at(key, Instant::now());
    }

    /// Queues a key for a later time, unless it is queued for an earlier one.
    pub(crate) fn add_at(&self, key: &Key, at: Instant) {
        self.lock().add_at(key, at);
        self.shared.changed.notify_one();
    }

    /// Takes the next key, once its time has come. Must be followed by [`Queue::done`] or [`Queue::failed`].
    pub(crate) async fn next(&self) -> Key {
        loop {
            let changed = self.shared.changed.notified();
            let next = self.lock().take(Instant::now());
            match next {
                Ok(key) => {
                    // One wake may stand for several keys.
                    self.shared.changed.notify_one();
                    return key;
                }
                Err(None) => changed.await,
                Err(Some(at)) => tokio::select! {
                    () = changed => {}
                    () = sleep_until(at) => {}
                },
            }
        }
    }

    /// Ends the work on a key that went well.
    pub(crate) fn done(&self, key: &Key) {
        let mut state = self.lock();
        state.failures.remove(key);
        state.end(key);
        drop(state);
        self.shared.changed.notify_one();
    }

    /// Ends the work on a key that failed, and queues it for another attempt, which comes earlier when the object changes.
    pub(crate) fn failed(&self, key: &Key) {
        let mut random = [u8::MAX / 2];
        // Without random numbers the waits are merely equal.
        let _even = getrandom::fill(&mut random);
        let mut state = self.lock();
        let wait = state.fail(key, random[0]);
        state.running.remove(key);
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
    use crate::controller::key::{Key, Kind};

    fn key(name: &str) -> Key {
        Key::new(Kind::Instance, "default", name)
    }

    #[test]
    fn a_key_is_not_taken_twice_at_once() {
        let (mut state, now) = (State::default(), Instant::now());
        state.add_at(&key("a"), now);
        assert_eq!(state.take(now), Ok(key("a")));
        state.add_at(&key("a"), now);
        assert_eq!(state.take(now), Err(None));
        state.end(&key("a"));
        assert_eq!(state.take(now), Ok(key("a")));
        state.end(&key("a"));
        assert_eq!(state.take(now), Err(None));
    }

    #[test]
    fn the_earliest_wish_counts() {
        let (mut state, now) = (State::default(), Instant::now());
        let (soon, late) = (now + Duration::from_secs(1), now + Duration::from_secs(9));
        state.add_at(&key("a"), late);
        state.add_at(&key("b"), late);
        state.add_at(&key("b"), soon);
        state.add_at(&key("b"), late);
        assert_eq!(state.take(now), Err(Some(soon)));
        assert_eq!(state.take(soon), Ok(key("b")));
        assert_eq!(state.take(soon), Err(Some(late)));
        assert_eq!(state.take(late), Ok(key("a")));
        assert_eq!(state.take(late), Err(None));
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
