//! How long ago something was, in the few characters that `kubectl` shows.

use jiff::Timestamp;
use serde_json::Value;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// Returns how long ago a time in an object was.
pub(super) fn since(time: &Value, now: Timestamp) -> String {
    let Some(text) = time.as_str().filter(|it| !it.is_empty()) else {
        return "<unknown>".to_owned();
    };
    match text.parse::<Timestamp>() {
        Ok(time) => duration(now.as_second() - time.as_second()),
        Err(_) => "<invalid>".to_owned(),
    }
}

/// Returns how long some seconds are: two units while the second one says something, `5m3s`, `2d4h`.
pub(super) fn duration(seconds: i64) -> String {
    let two = |large: (i64, char), small: (i64, char)| {
        let (first, rest) = (seconds / large.0, seconds % large.0 / small.0);
        if rest == 0 {
            format!("{first}{}", large.1)
        } else {
            format!("{first}{}{rest}{}", large.1, small.1)
        }
    };
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1..0 => "0s".to_owned(),
        _ if seconds < 2 * MINUTE => format!("{seconds}s"),
        _ if seconds < 10 * MINUTE => two((MINUTE, 'm'), (1, 's')),
        _ if seconds < 3 * HOUR => format!("{}m", seconds / MINUTE),
        _ if seconds < 8 * HOUR => two((HOUR, 'h'), (MINUTE, 'm')),
        _ if seconds < 2 * DAY => format!("{}h", seconds / HOUR),
        _ if seconds < 8 * DAY => two((DAY, 'd'), (HOUR, 'h')),
        _ if seconds < 2 * YEAR => format!("{}d", seconds / DAY),
        _ if seconds < 8 * YEAR => two((YEAR, 'y'), (DAY, 'd')),
        _ => format!("{}y", seconds / YEAR),
    }
}
