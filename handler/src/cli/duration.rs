//! Durations as Go programs write them: `30s`, `5m`, `1h30m`, `1.5s`.

use std::time::Duration;

/// Units with their seconds. A unit reaches to the next digit, so that `m` and `ms` are told apart.
const UNITS: [(&str, f64); 7] = [
    ("h", 3600.0),
    ("m", 60.0),
    ("s", 1.0),
    ("ms", 1e-3),
    ("us", 1e-6),
    ("µs", 1e-6),
    ("ns", 1e-9),
];
/// More than a handler will ever live.
const SECONDS_MAX: f64 = 1e9;

/// Reads a duration (Go's `time.ParseDuration`, without signs).
///
/// # Errors
///
/// Fails with what to write instead.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let is_digit = |c: char| c.is_ascii_digit() || c == '.';
    let mut seconds = (text == "0").then_some(0.0);
    let mut rest = if text == "0" { "" } else { text };
    while !rest.is_empty() {
        let unit_at = rest.find(|c| !is_digit(c)).unwrap_or(rest.len());
        let (number, tail) = rest.split_at(unit_at);
        let (name, tail) = tail.split_at(tail.find(is_digit).unwrap_or(tail.len()));
        let unit = UNITS.iter().find(|(unit, _)| *unit == name);
        let (Some((_, unit)), Ok(number)) = (unit, number.parse::<f64>()) else {
            return Err(wrong(text));
        };
        seconds = Some(seconds.unwrap_or_default() + number * unit);
        rest = tail;
    }
    let seconds = seconds.filter(|seconds| *seconds <= SECONDS_MAX);
    seconds
        .map(Duration::from_secs_f64)
        .ok_or_else(|| wrong(text))
}

fn wrong(text: &str) -> String {
    format!("{text:?} is no duration: write it like 30s, 5m or 1h30m")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::parse;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, expected_ms) in [
            ("0", 0),
            ("30s", 30_000),
            ("5m0s", 300_000),
            ("1h30m", 5_400_000),
            ("1.5s", 1500),
            ("250ms", 250),
        ] {
            assert_eq!(
                parse(text),
                Ok(Duration::from_millis(expected_ms)),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "5", "s", "1x", "-1s", "1.2.3s", "999999999h", "1 s"] {
            assert!(parse(text).unwrap_err().contains("30s"), "{text}");
        }
    }
}
