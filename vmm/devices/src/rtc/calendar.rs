//! Seconds since 1970 and calendar dates (proleptic Gregorian calendar, UTC).

/// A moment as the clock's registers tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    pub(super) year: u64,
    pub(super) month: u64,
    pub(super) day: u64,
    pub(super) hour: u64,
    pub(super) minute: u64,
    pub(super) second: u64,
}

const DAY_S: u64 = 86_400;

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_of_month(year: u64, month: u64) -> u64 {
    match month {
        2 if is_leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Counts the days from 1970 to the first of January of `year`.
fn days_before_year(year: u64) -> u64 {
    let leap_days = |year: u64| year / 4 - year / 100 + year / 400;
    365 * (year - 1970) + leap_days(year - 1) - leap_days(1969)
}

impl Moment {
    pub(super) fn of_unix(seconds: u64) -> Self {
        let days = seconds / DAY_S;
        let mut year = 1970 + days / 366;
        while days_before_year(year + 1) <= days {
            year += 1;
        }
        let mut rest = days - days_before_year(year);
        let mut month = 1;
        while rest >= days_of_month(year, month) {
            rest -= days_of_month(year, month);
            month += 1;
        }
        Self {
            year,
            month,
            day: rest + 1,
            hour: seconds / 3600 % 24,
            minute: seconds / 60 % 60,
            second: seconds % 60,
        }
    }

    /// Returns the seconds since 1970; fields out of range are moved into it.
    pub(super) fn to_unix(self) -> u64 {
        let year = self.year.clamp(1970, 2399);
        let month = self.month.clamp(1, 12);
        let day = self.day.clamp(1, days_of_month(year, month));
        let days = days_before_year(year)
            + (1..month)
                .map(|month| days_of_month(year, month))
                .sum::<u64>()
            + day
            - 1;
        days * DAY_S + self.hour.min(23) * 3600 + self.minute.min(59) * 60 + self.second.min(59)
    }

    /// Returns the day of the week, 1 for Sunday.
    pub(super) fn weekday(self) -> u64 {
        (self.to_unix() / DAY_S + 4) % 7 + 1
    }
}

#[cfg(test)]
mod tests {
    use super::Moment;

    #[test]
    fn known_moments_convert_both_ways() {
        let leap_day = Moment {
            year: 2024,
            month: 2,
            day: 29,
            hour: 23,
            minute: 59,
            second: 58,
        };
        assert_eq!(leap_day.to_unix(), 1_709_251_198);
        assert_eq!(leap_day.weekday(), 5);
        let century = Moment {
            year: 2100,
            month: 3,
            day: 1,
            hour: 0,
            minute: 0,
            second: 0,
        };
        assert_eq!(century.to_unix(), 4_107_542_400);
        for seconds in (0..8_000_000_000).step_by(1_234_567) {
            assert_eq!(Moment::of_unix(seconds).to_unix(), seconds);
        }
    }
}
