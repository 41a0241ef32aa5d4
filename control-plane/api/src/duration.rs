//! Durations as Kubernetes and Go programs write them: `30s`, `5m0s`, `1h30m`, `1.5s`
//! (`metav1.Duration`, Go's `time.ParseDuration`).

use std::time::Duration;

/// Units with their nanoseconds.
const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    // The micro sign and the Greek letter.
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];
/// The longest duration that Go has: 292 years.
const NANOS_MAX: u64 = i64::MAX.unsigned_abs();
/// More characters than Go writes for any duration; bounds the arithmetic.
const TEXT_LEN_MAX: usize = 32;
/// Decimal places that count: those of an hour that make a nanosecond.
const PLACES_MAX: usize = 13;

/// Text that is no duration of use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// The text doesn't follow the grammar.
    #[error("{0:?} is no duration: write numbers with their units, such as 30s, 5m or 1h30m")]
    Malformed(String),
    /// The duration is negative, which no time to wait can be.
    #[error("{0:?} is negative: write a duration such as 30s, 5m or 1h30m")]
    Negative(String),
    /// The duration is longer than Go can tell.
    #[error("{0:?} is too long: the longest duration is 2562047h")]
    TooLong(String),
}

/// Reads a duration of numbers with units, or `0`; what is finer than a nanosecond is left out.
///
/// # Errors
///
/// Fails when the text doesn't follow the grammar, or names a time that is negative or longer than 292 years.
pub fn parse(text: &str) -> Result<Duration, DurationError> {
    let shown = || text.chars().take(TEXT_LEN_MAX).collect();
    if text.len() > TEXT_LEN_MAX {
        return Err(DurationError::Malformed(shown()));
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    let nanos = nanos(unsigned).ok_or_else(|| DurationError::Malformed(shown()))?;
    if text.starts_with('-') && nanos > 0 {
        return Err(DurationError::Negative(shown()));
    }
    let nanos = u64::try_from(nanos).ok();
    let nanos = nanos.filter(|nanos| *nanos <= NANOS_MAX);
    nanos
        .map(Duration::from_nanos)
        .ok_or_else(|| DurationError::TooLong(shown()))
}

/// Sums up the numbers with units of a text.
fn nanos(text: &str) -> Option<u128> {
    if text == "0" {
        return Some(0);
    }
    let (mut total, mut rest) = term(text)?;
    while !rest.is_empty() {
        let (more, tail) = term(rest)?;
        total = total.saturating_add(more);
        rest = tail;
    }
    Some(total)
}

/// Reads the first number with its unit, and returns what follows. A unit reaches to the next number, so that `m` and
/// `ms` are told apart.
fn term(text: &str) -> Option<(u128, &str)> {
    let is_number = |c: char| c.is_ascii_digit() || c == '.';
    let (number, tail) = text.split_at(text.find(|c| !is_number(c))?);
    let (name, tail) = tail.split_at(tail.find(is_number).unwrap_or(tail.len()));
    let (_, unit) = UNITS.iter().find(|(unit, _)| *unit == name)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let places = fraction.get(..PLACES_MAX).unwrap_or(fraction);
    let scale = 10_u128.pow(u32::try_from(places.len()).ok()?);
    let nanos = digits(whole)?.saturating_mul(*unit);
    let finer = digits(places)? * unit / scale;
    Some((nanos.saturating_add(finer), tail))
}

/// Reads decimal digits; none are zero.
fn digits(text: &str) -> Option<u128> {
    if text.is_empty() {
        return Some(0);
    }
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::{prop_assert_eq, proptest};

    use super::{DurationError, parse};

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, expected_ms) in [
            ("0", 0),
            ("-0", 0),
            ("0s", 0),
            ("30s", 30_000),
            ("+30s", 30_000),
            ("331s", 331_000),
            ("4m0s", 240_000),
            ("1h30m", 5_400_000),
            ("1.5s", 1500),
            (".5s", 500),
            ("1.s", 1000),
            ("250ms", 250),
            ("1000µs", 1),
            ("1000μs", 1),
            ("2000us", 2),
            ("3000000ns", 3),
        ] {
            let expected = Duration::from_millis(expected_ms);
            assert_eq!(parse(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn nanoseconds_are_exact() {
        assert_eq!(
            parse("2562047h47m16.854775807s"),
            Ok(Duration::from_nanos(i64::MAX as u64))
        );
        assert_eq!(parse("0.1h"), Ok(Duration::from_secs(360)));
        assert_eq!(parse("1.0000000005s"), Ok(Duration::from_secs(1)));
        let third = parse("0.33333333333333333333h");
        assert_eq!(third, Ok(Duration::from_nanos(1_199_999_999_999)));
    }

    #[test]
    fn what_is_no_duration_is_refused_with_what_to_write() {
        let long = "1s".repeat(1000);
        for text in [
            "", "5", "s", "1x", "1.2.3s", ".s", "1 s", "1s ", "--1s", "+-1s", "1e3s", "1s5", &long,
        ] {
            let error = parse(text).unwrap_err();
            assert!(
                matches!(error, DurationError::Malformed(_)),
                "{text}: {error}"
            );
            let message = error.to_string();
            assert!(message.contains("30s") && message.len() < 200, "{message}");
        }
    }

    #[test]
    fn negative_and_endless_durations_are_refused() {
        for text in ["-1s", "-1h0m"] {
            assert!(
                matches!(parse(text), Err(DurationError::Negative(_))),
                "{text}"
            );
        }
        for text in [
            "2562047h47m16.854775808s",
            "999999999999999999999999999999h",
        ] {
            assert!(
                matches!(parse(text), Err(DurationError::TooLong(_))),
                "{text}"
            );
        }
    }

    proptest! {
        #[test]
        fn whole_units_are_read_back(hours in 0_u64..1000, millis in 0_u64..3_600_000) {
            let expected = Duration::from_secs(hours * 3600) + Duration::from_millis(millis);
            let read = parse(&format!("{hours}h{millis}ms"));
            prop_assert_eq!(read, Ok(expected));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[-+0-9.hmsuµn]{0,40}") {
            drop(parse(&text));
        }
    }
}
