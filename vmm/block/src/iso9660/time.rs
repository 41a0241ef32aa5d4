//! Dates as ECMA-119 writes them, in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

/// The last second of the year 2155, which is the last that a directory record can express.
const LAST_SECOND: u64 = 5_869_583_999;

/// A point in time, in the parts that the format wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Time {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
}

impl Time {
    /// Takes a time apart; one that the format cannot express becomes the nearest that it can.
    pub(super) fn new(time: SystemTime) -> Self {
        let seconds = time
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_secs())
            .min(LAST_SECOND);
        let (year, month, day) = date(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        Self {
            year,
            month,
            day,
            hour,
            minute,
            second,
        }
    }

    /// Returns the seven bytes of a directory record (ECMA-119 §9.1.5).
    pub(super) fn record(self) -> [u8; 7] {
        let parts = [
            self.year - 1900,
            self.month,
            self.day,
            self.hour,
            self.minute,
            self.second,
            0,
        ];
        parts.map(|part| u8::try_from(part).expect("the parts of a date fit a byte"))
    }

    /// Returns the seventeen bytes of a volume descriptor (ECMA-119 §8.4.26.1).
    pub(super) fn descriptor(self) -> Vec<u8> {
        let Self {
            year,
            month,
            day,
            hour,
            minute,
            second,
        } = self;
        let text = format!("{year:04}{month:02}{day:02}{hour:02}{minute:02}{second:02}00\0");
        text.into_bytes()
    }
}

/// Turns days since 1970 into a date.
fn date(days: u64) -> (u64, u64, u64) {
    let is_leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let (mut year, mut day) = (1970, days);
    while day >= 365 + u64::from(is_leap(year)) {
        day -= 365 + u64::from(is_leap(year));
        year += 1;
    }
    let february = 28 + u64::from(is_leap(year));
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    (year, month, day + 1)
}

#[cfg(test)]
mod tests {
    use super::Time;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn dates_agree_with_the_calendar() {
        let text = |seconds| {
            let time = Time::new(UNIX_EPOCH + Duration::from_secs(seconds));
            String::from_utf8(time.descriptor()).unwrap()
        };
        assert_eq!(text(0), "1970010100000000\0");
        assert_eq!(text(951_782_399), "2000022823595900\0");
        assert_eq!(text(951_868_799), "2000022923595900\0");
        assert_eq!(text(1_709_251_200), "2024030100000000\0");
        assert_eq!(text(u64::MAX >> 2), "2155123123595900\0");
        assert_eq!(Time::new(UNIX_EPOCH).record(), [70, 1, 1, 0, 0, 0, 0]);
    }
}
