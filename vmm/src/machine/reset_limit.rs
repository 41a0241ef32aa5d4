//! How often a guest may end in a triple fault before that is no way to reboot but a broken guest.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

const FAULTS_MAX: usize = 3;
const WINDOW: Duration = Duration::from_secs(60);

/// Counts triple faults.
#[derive(Debug, Default)]
pub(super) struct ResetLimit(VecDeque<Instant>);

impl ResetLimit {
    /// Counts a triple fault; tells whether the guest may start anew.
    pub(super) fn admit(&mut self, now: Instant) -> bool {
        while self
            .0
            .front()
            .is_some_and(|then| now.duration_since(*then) > WINDOW)
        {
            self.0.pop_front();
        }
        self.0.push_back(now);
        self.0.len() <= FAULTS_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_of_faults_is_stopped_and_rare_ones_are_not() {
        let start = Instant::now();
        let mut quick = ResetLimit::default();
        let admitted = (0..5).filter(|_| quick.admit(start)).count();
        assert_eq!(admitted, FAULTS_MAX);
        let mut rare = ResetLimit::default();
        assert!((0..10).all(|n| rare.admit(start + WINDOW * n)));
    }
}
