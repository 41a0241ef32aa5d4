//! Durations as Go programs write them: `331s`, `4m`, `1h30m`, `1.5s`.

use std::time::Duration;

/// Units with their nanoseconds, longer names before those they end with.
const UNITS: [(&str, f64); 7] = [
    ("ns", 1.0),
    ("us", 1e3),
    ("µs", 1e3),
    ("ms", 1e6),
    ("s", 1e9),
    ("m", 60e9),
    ("h", 3600e9),
];
/// Longest duration: Go's is 292 years, a century is enough to mean *never*.
const MAX_NS: f64 = 100.0 * 365.0 * 86_400e9;

/// Reads a duration (Go's `time.ParseDuration`, without signs).
///
/// # Errors
///
/// Fails with what to write instead.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no duration: write it like 331s, 4m or 1h30m");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut total_ns = 0.0;
    while !rest.is_empty() {
        let number_len = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(wrong)?;
        let (number, tail) = rest.split_at(number_len);
        let unit_len = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_len);
        let (_, unit_ns) = UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(wrong)?;
        total_ns += number.parse::<f64>().map_err(|_| wrong())? * unit_ns;
        rest = tail;
    }
    if text.is_empty() || total_ns > MAX_NS {
        return Err(wrong());
    }
    Ok(Duration::from_secs_f64(total_ns / 1e9))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::parse;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, expected_ms) in [
            ("0", 0),
            ("331s", 331_000),
            ("4m", 240_000),
            ("4m0s", 240_000),
            ("1h30m", 5_400_000),
            ("1.5s", 1500),
            ("250ms", 250),
            ("1000µs", 1),
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
        for text in ["", "5", "s", "1x", "-1s", "1.2.3s", "99999999h", "1 s"] {
            assert!(parse(text).unwrap_err().contains("331s"), "{text}");
        }
    }
}
