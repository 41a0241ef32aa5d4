//! Who sits at which console.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio_util::sync::CancellationToken;

use crate::key::VmiKey;

/// How a connection is known to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pulse {
    /// Time between two pings.
    pub every: Duration,
    /// Pings without an answer after which the client is gone.
    pub unanswered_max: u32,
}

impl Default for Pulse {
    /// Common proxies cut what is idle for 60 s, some for 30 s.
    fn default() -> Self {
        Self {
            every: Duration::from_secs(15),
            unanswered_max: 2,
        }
    }
}

/// The consoles of this node. Clones are handles of the same.
#[derive(Clone, Debug, Default)]
pub struct Consoles {
    pulse: Pulse,
    taken: Arc<Mutex<Taken>>,
}

#[derive(Debug, Default)]
struct Taken {
    /// By uid of the instance.
    seats: HashMap<String, Occupant>,
    /// Counts who came.
    visits: u64,
    /// When somebody last came or left, in seconds since 1970.
    last: HashMap<VmiKey, f64>,
}

#[derive(Debug)]
struct Occupant {
    key: VmiKey,
    visit: u64,
    taken_over: CancellationToken,
}

/// A place at a console; it is left when this is dropped.
#[derive(Debug)]
pub(super) struct Seat {
    consoles: Consoles,
    key: VmiKey,
    uid: String,
    visit: u64,
    taken_over: CancellationToken,
}

impl Consoles {
    /// Returns consoles whose connections are known to live in this way.
    #[must_use]
    pub fn new(pulse: Pulse) -> Self {
        Self {
            pulse,
            taken: Arc::default(),
        }
    }

    /// Returns the instances at whose consoles somebody sits.
    #[must_use]
    pub fn active(&self) -> Vec<VmiKey> {
        let taken = self.lock();
        taken.seats.values().map(|seat| seat.key.clone()).collect()
    }

    /// Returns when somebody last came to or left the console of which instance, in seconds since 1970, and forgets
    /// it of those that are not `known`.
    pub fn last_visits(&self, known: impl Fn(&VmiKey) -> bool) -> Vec<(VmiKey, f64)> {
        let mut taken = self.lock();
        taken.last.retain(|key, _| known(key));
        taken
            .last
            .iter()
            .map(|(key, at)| (key.clone(), *at))
            .collect()
    }

    /// Takes the place at a console from whoever sits there.
    pub(super) fn take(&self, key: &VmiKey, uid: &str) -> Seat {
        let taken_over = CancellationToken::new();
        let mut taken = self.lock();
        taken.visits += 1;
        let visit = taken.visits;
        let occupant = Occupant {
            key: key.clone(),
            visit,
            taken_over: taken_over.clone(),
        };
        if let Some(before) = taken.seats.insert(uid.to_owned(), occupant) {
            before.taken_over.cancel();
        }
        taken.last.insert(key.clone(), now());
        Seat {
            consoles: self.clone(),
            key: key.clone(),
            uid: uid.to_owned(),
            visit,
            taken_over,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Returns once somebody else has taken the place.
    pub(super) async fn taken_over(&self) {
        self.taken_over.cancelled().await;
    }

    pub(super) fn pulse(&self) -> Pulse {
        self.consoles.pulse
    }

    pub(super) fn key(&self) -> &VmiKey {
        &self.key
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.consoles.lock();
        let is_ours = taken
            .seats
            .get(&self.uid)
            .is_some_and(|seat| seat.visit == self.visit);
        if is_ours {
            taken.seats.remove(&self.uid);
            taken.last.insert(self.key.clone(), now());
        }
    }
}

fn now() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0.0, |since| since.as_secs_f64())
}
