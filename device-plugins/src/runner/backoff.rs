//! How long to wait before something is tried again.

use std::time::Duration;

/// First wait: between a socket's appearance and its being listened at lies less.
const FIRST: Duration = Duration::from_millis(5);
/// Longest wait.
pub(super) const LONGEST: Duration = Duration::from_secs(10);

/// Waits that double.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Backoff {
    times: u32,
}

impl Backoff {
    /// The next wait, somewhat shortened by chance, so that plugins that failed together do not try together.
    pub(super) fn next(&mut self) -> Duration {
        let wait = whole(self.times);
        self.times = self.times.saturating_add(1);
        shortened(wait, chance())
    }

    /// Whether the last wait was so short that nobody need be told yet.
    pub(super) fn is_young(self) -> bool {
        whole(self.times) < Duration::from_millis(500)
    }

    /// Begins again with the shortest wait.
    pub(super) fn reset(&mut self) {
        self.times = 0;
    }
}

fn whole(times: u32) -> Duration {
    let factor = 1_u32.checked_shl(times).unwrap_or(u32::MAX);
    FIRST.saturating_mul(factor).min(LONGEST)
}

/// A part of a wait: between half of it and all, by a chance of 0 to 255.
fn shortened(wait: Duration, chance: u8) -> Duration {
    wait / 2 + wait / 2 * u32::from(chance) / u32::from(u8::MAX)
}

fn chance() -> u8 {
    let mut byte = [u8::MAX / 2];
    // Without random numbers the waits are merely equal.
    let _even = getrandom::fill(&mut byte);
    byte[0]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Backoff, LONGEST, shortened, whole};

    #[test]
    fn waits_double_from_milliseconds_to_ten_seconds() {
        assert_eq!(whole(0), Duration::from_millis(5));
        assert_eq!(whole(3), Duration::from_millis(40));
        for times in [11, 31, 32, 1_000] {
            assert_eq!(whole(times), LONGEST);
        }
    }

    #[test]
    fn chance_takes_at_most_half_of_a_wait() {
        let wait = Duration::from_secs(10);
        assert_eq!(shortened(wait, 0), wait / 2);
        assert_eq!(shortened(wait, u8::MAX), wait);
    }

    #[test]
    fn the_first_second_of_failing_is_young() {
        let mut backoff = Backoff::default();
        let mut waited = Duration::ZERO;
        while backoff.is_young() {
            waited += backoff.next();
        }
        assert!(waited < Duration::from_secs(1), "{waited:?}");
        backoff.reset();
        assert!(backoff.is_young());
    }
}
