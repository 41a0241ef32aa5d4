//! What waits to be told to the rest of the handler. Each launcher has a bounded queue of its own and they take
//! turns, so one that talks much delays no other and a slow reader delays no launcher.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc};

use super::Seen;

/// Kubernetes events of one launcher that wait; more are refused.
const EVENTS_MAX: usize = 64;

#[derive(Debug, Default)]
struct Queues {
    /// By UID of the instance; none is empty.
    waiting: HashMap<String, VecDeque<Seen>>,
    /// The keys of the former, in the order in which they have their turn.
    turns: VecDeque<String>,
}

/// The queues.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    queues: Mutex<Queues>,
    filled: Notify,
}

impl Outbox {
    /// Queues what the launcher of the instance `uid` tells, and returns whether there was room. Of states, only the
    /// newest waits.
    pub(super) fn push(&self, uid: &str, seen: Seen) -> bool {
        let mut queues = self.lock();
        if !queues.waiting.contains_key(uid) {
            queues.turns.push_back(uid.to_owned());
        }
        let queue = queues.waiting.entry(uid.to_owned()).or_default();
        let is_event = matches!(seen, Seen::Event { .. });
        if is_event && queue.len() >= EVENTS_MAX {
            return false;
        }
        if !is_event {
            queue.retain(|old| matches!(old, Seen::Event { .. } | Seen::Lost { .. }));
        }
        queue.push_back(seen);
        drop(queues);
        self.filled.notify_one();
        true
    }

    /// Forgets what waits of one launcher.
    pub(super) fn forget(&self, uid: &str) {
        let mut queues = self.lock();
        queues.waiting.remove(uid);
        queues.turns.retain(|turn| turn != uid);
    }

    /// Hands over what waits until nobody listens any more.
    pub(super) async fn deliver(&self, seen: mpsc::Sender<Seen>) {
        loop {
            // Nothing is taken before there is room, so that it can still become newer.
            let Ok(room) = seen.reserve().await else {
                return;
            };
            match self.next() {
                Some(next) => room.send(next),
                None => self.filled.notified().await,
            }
        }
    }

    fn next(&self) -> Option<Seen> {
        let mut queues = self.lock();
        let uid = queues.turns.pop_front()?;
        let queue = queues.waiting.get_mut(&uid)?;
        let next = queue.pop_front();
        if queue.is_empty() {
            queues.waiting.remove(&uid);
        } else {
            queues.turns.push_back(uid);
        }
        next
    }

    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{EVENTS_MAX, Outbox};
    use crate::key::VmiKey;
    use crate::launchers::Seen;

    fn event(name: &str, number: usize) -> Seen {
        Seen::Event {
            key: VmiKey::new("default", name),
            event: json!(number),
        }
    }

    fn no_domain(name: &str) -> Seen {
        Seen::NoDomain {
            key: VmiKey::new("default", name),
            uid: name.to_owned(),
        }
    }

    #[test]
    fn launchers_take_turns() {
        let outbox = Outbox::default();
        for number in 0..3 {
            assert!(outbox.push("a", event("a", number)));
        }
        assert!(outbox.push("b", event("b", 0)));
        let order: Vec<_> = std::iter::from_fn(|| outbox.next()).collect();
        let expected = [event("a", 0), event("b", 0), event("a", 1), event("a", 2)];
        assert_eq!(order, expected);
    }

    #[test]
    fn only_the_newest_state_waits_and_no_event_is_left_out_for_it() {
        let outbox = Outbox::default();
        outbox.push("a", no_domain("a"));
        outbox.push("a", event("a", 0));
        outbox.push("a", no_domain("a"));
        let order: Vec<_> = std::iter::from_fn(|| outbox.next()).collect();
        assert_eq!(order, [event("a", 0), no_domain("a")]);
    }

    #[test]
    fn events_beyond_the_bound_are_refused_and_states_are_not() {
        let outbox = Outbox::default();
        for number in 0..EVENTS_MAX {
            assert!(outbox.push("a", event("a", number)));
        }
        assert!(!outbox.push("a", event("a", EVENTS_MAX)));
        assert!(outbox.push("a", no_domain("a")));
        assert!(outbox.push("b", event("b", 0)));
    }

    #[test]
    fn what_is_forgotten_is_not_told() {
        let outbox = Outbox::default();
        outbox.push("a", event("a", 0));
        outbox.push("b", event("b", 0));
        outbox.forget("a");
        assert_eq!(outbox.next(), Some(event("b", 0)));
        assert_eq!(outbox.next(), None);
    }
}
