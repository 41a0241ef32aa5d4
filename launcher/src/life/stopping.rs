//! How a machine is stopped: by its power button first, by force when that does not help.
//!
//! ```text
//!   running --asked--> waiting for the guest --asked again, or time is up--> killed
//!      \--asked, no grace----------------------------------------------------^
//! ```

use std::time::{Duration, Instant};

/// What to do to the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    PowerButton,
    Kill,
}

/// Where a machine is on its way to an end.
#[derive(Debug)]
pub(super) struct Stopping {
    grace: Duration,
    state: State,
}

#[derive(Debug)]
enum State {
    Running,
    /// The power button was pressed; `None` where time never runs out.
    Waiting(Option<Instant>),
    Killed,
}

impl Stopping {
    pub(super) fn new(grace: Duration) -> Self {
        Self {
            grace,
            state: State::Running,
        }
    }

    /// Someone asks for the end.
    pub(super) fn asked(&mut self, now: Instant) -> Order {
        match self.state {
            State::Running if !self.grace.is_zero() => {
                self.state = State::Waiting(now.checked_add(self.grace));
                Order::PowerButton
            }
            _ => self.due(),
        }
    }

    /// The deadline has passed.
    pub(super) fn due(&mut self) -> Order {
        self.state = State::Killed;
        Order::Kill
    }

    /// When the guest's time is up, if it runs.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Waiting(deadline) => deadline,
            State::Running | State::Killed => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Order, Stopping};

    #[test]
    fn the_guest_gets_its_grace_period_and_is_then_killed() {
        let now = Instant::now();
        let mut stopping = Stopping::new(Duration::from_secs(30));
        assert_eq!(stopping.deadline(), None);
        assert_eq!(stopping.asked(now), Order::PowerButton);
        assert_eq!(stopping.deadline(), Some(now + Duration::from_secs(30)));
        assert_eq!(stopping.due(), Order::Kill);
        assert_eq!(stopping.deadline(), None);
    }

    #[test]
    fn a_second_request_kills_at_once() {
        let now = Instant::now();
        let mut stopping = Stopping::new(Duration::from_secs(30));
        stopping.asked(now);
        assert_eq!(stopping.asked(now), Order::Kill);
    }

    #[test]
    fn no_grace_is_an_immediate_kill() {
        assert_eq!(
            Stopping::new(Duration::ZERO).asked(Instant::now()),
            Order::Kill
        );
    }

    #[test]
    fn an_endless_grace_period_never_runs_out() {
        let mut stopping = Stopping::new(Duration::from_secs(u64::MAX));
        assert_eq!(stopping.asked(Instant::now()), Order::PowerButton);
        assert_eq!(stopping.deadline(), None);
    }
}
