//! Bounds what a guest can make us log.

use std::sync::atomic::{AtomicU64, Ordering};

/// Messages that are all logged; after them each doubling of the count is.
const FIRST: u64 = 8;

/// Counts one kind of message that a guest can trigger, and thins it out.
#[derive(Debug, Default)]
pub(crate) struct GuestLog(AtomicU64);

impl GuestLog {
    /// Counts a message; returns the count if it should be logged.
    pub(crate) fn admit(&self) -> Option<u64> {
        let count = self.0.fetch_add(1, Ordering::Relaxed).wrapping_add(1);
        (count <= FIRST || count.is_power_of_two()).then_some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::GuestLog;

    #[test]
    fn a_flood_is_thinned_to_its_doublings() {
        let log = GuestLog::default();
        assert_eq!((0..1_000_000).filter_map(|_| log.admit()).count(), 8 + 16);
    }
}
