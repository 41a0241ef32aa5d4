//! Which requests may still use a mapping that they looked up earlier.
//!
//! A request looks up where its bytes lie, then moves them without holding a lock. A cluster that
//! is unlinked meanwhile must not get a new owner before the last such request is through.

use std::collections::BTreeMap;
use std::sync::Mutex;

use super::locked;

/// The requests under way, by the epoch in which they began.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    epochs: Mutex<Epochs>,
}

#[derive(Debug, Default)]
struct Epochs {
    current: u64,
    active: BTreeMap<u64, usize>,
}

/// A request under way, until it is dropped.
pub(super) struct Request<'a> {
    in_flight: &'a InFlight,
    epoch: u64,
}

impl InFlight {
    /// Notes that a request begins; to be called before its first lookup.
    pub(super) fn enter(&self) -> Request<'_> {
        let mut epochs = locked(&self.epochs);
        let epoch = epochs.current;
        *epochs.active.entry(epoch).or_default() += 1;
        Request {
            in_flight: self,
            epoch,
        }
    }

    /// Begins a new epoch and returns the one that ended, whose requests may know what was unlinked
    /// so far.
    pub(super) fn end_epoch(&self) -> u64 {
        let mut epochs = locked(&self.epochs);
        epochs.current += 1;
        epochs.current - 1
    }

    /// Tells whether every request of `epoch` and of those before is through.
    pub(super) fn is_drained(&self, epoch: u64) -> bool {
        locked(&self.epochs)
            .active
            .keys()
            .next()
            .is_none_or(|oldest| *oldest > epoch)
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        let mut epochs = locked(&self.in_flight.epochs);
        let count = epochs
            .active
            .get_mut(&self.epoch)
            .expect("the request was entered");
        *count -= 1;
        if *count == 0 {
            epochs.active.remove(&self.epoch);
        }
    }
}
