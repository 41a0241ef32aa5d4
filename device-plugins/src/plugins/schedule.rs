//! When to look at the host.

use std::time::Duration;

use tokio::time::Instant;

/// How long after the first sign of a change the look begins: a device that is plugged in makes many.
const SETTLING: Duration = Duration::from_millis(100);
/// Least time between the beginnings of two looks: a device that flaps costs three looks a second.
const BETWEEN: Duration = Duration::from_millis(330);

/// How long a look may take before it is remarkable.
const LONG: Duration = Duration::from_secs(10);

/// What is to be looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sight {
    /// The devices; without them only who has which.
    pub(crate) devices: bool,
}

/// Brings looks together.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    due: Option<(Instant, Sight)>,
    last_begin: Option<Instant>,
    is_looking: bool,
    begun: u64,
}

impl Schedule {
    /// Begins as if a look were under way: the first begins after its [`end`](Self::end).
    pub(crate) fn withheld() -> Self {
        Self {
            is_looking: true,
            ..Self::default()
        }
    }

    /// Asks for a look soon, when the signs of one change have come together.
    pub(crate) fn ask(&mut self, devices: bool, now: Instant) {
        self.ask_at(devices, now + SETTLING);
    }

    /// Asks for a look without waiting for further signs. Returns the number of the look that will have seen what is now.
    pub(crate) fn ask_at_once(&mut self, devices: bool, now: Instant) -> u64 {
        self.ask_at(devices, now);
        self.begun + 1
    }

    fn ask_at(&mut self, devices: bool, at: Instant) {
        let rested = self.last_begin.map_or(at, |last| at.max(last + BETWEEN));
        let at = self.due.map_or(rested, |(due, _)| due.min(rested));
        let sight = self.joined(devices);
        self.due = Some((at, sight));
    }

    fn joined(&self, devices: bool) -> Sight {
        let is_due = self.due.is_some_and(|(_, sight)| sight.devices);
        Sight {
            devices: devices || is_due,
        }
    }

    /// When the next look is to begin; none while one is under way.
    pub(crate) fn next(&self) -> Option<Instant> {
        let (at, _) = self.due.filter(|_| !self.is_looking)?;
        Some(at)
    }

    /// Notes that the look that was due begins, and says what it is to look at.
    pub(crate) fn begin(&mut self, now: Instant) -> Sight {
        self.is_looking = true;
        self.last_begin = Some(now);
        self.begun += 1;
        let due = self.due.take();
        due.map(|(_, sight)| sight).unwrap_or_default()
    }

    /// Notes that the look that was under way has ended. Returns its number, counted from 1.
    pub(crate) fn end(&mut self) -> u64 {
        self.is_looking = false;
        self.begun
    }

    /// When the look that is under way has taken too long, if one is.
    pub(crate) fn overdue(&self) -> Option<Instant> {
        let last = self.last_begin.filter(|_| self.is_looking)?;
        Some(last + LONG)
    }
}

#[cfg(test)]
mod tests {
    use super::{BETWEEN, LONG, SETTLING, Schedule, Sight};
    use std::time::Duration;
    use tokio::time::Instant;

    #[test]
    fn a_look_follows_the_first_sign_and_is_not_put_off_by_more() {
        let mut schedule = Schedule::default();
        let start = Instant::now();
        assert_eq!(schedule.next(), None);
        schedule.ask(false, start);
        schedule.ask(true, start + SETTLING / 2);
        assert_eq!(schedule.next(), Some(start + SETTLING));
        assert_eq!(schedule.begin(start + SETTLING), Sight { devices: true });
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn a_device_that_flaps_costs_few_looks_and_its_last_state_is_seen() {
        let mut schedule = Schedule::default();
        let start = Instant::now();
        let mut begun = Vec::new();
        for tick in 0..1000 {
            let now = start + Duration::from_millis(10 * tick);
            schedule.ask(true, now);
            if schedule.next().is_some_and(|at| at <= now) {
                schedule.begin(now);
                schedule.end();
                begun.push(now);
            }
        }
        assert!((24..=31).contains(&begun.len()), "{}", begun.len());
        schedule.ask(true, start + Duration::from_secs(10));
        let last = schedule.next().expect("a look is due after the last sign");
        assert!(last >= start + Duration::from_secs(10));
        assert!(last <= start + Duration::from_secs(10) + BETWEEN);
    }

    #[test]
    fn what_happens_during_a_look_is_looked_at_after_it() {
        let mut schedule = Schedule::default();
        let start = Instant::now();
        schedule.ask_at_once(true, start);
        assert_eq!(schedule.next(), Some(start));
        schedule.begin(start);
        schedule.ask(true, start);
        assert_eq!(schedule.next(), None);
        schedule.end();
        assert_eq!(schedule.next(), Some(start + BETWEEN));
    }

    #[test]
    fn a_look_that_takes_long_is_remarkable_until_it_ends() {
        let mut schedule = Schedule::withheld();
        let start = Instant::now();
        schedule.ask_at_once(true, start);
        assert_eq!((schedule.next(), schedule.overdue()), (None, None));
        assert_eq!(schedule.end(), 0);
        schedule.begin(start);
        assert_eq!(schedule.overdue(), Some(start + LONG));
        assert_eq!(
            schedule.ask_at_once(true, start),
            2,
            "the one under way began before"
        );
        assert_eq!(schedule.end(), 1);
        assert_eq!(schedule.overdue(), None);
    }
}
