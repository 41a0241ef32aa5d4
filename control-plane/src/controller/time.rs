//! Times as Kubernetes writes them.

use std::time::Duration;

use jiff::Timestamp;

/// Returns a time as Kubernetes writes it, in whole seconds.
pub(crate) fn rfc3339(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second())
        .unwrap_or(at)
        .to_string()
}

/// Reads a time of an object.
pub(crate) fn parse(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// Returns how long ago a time was; nothing for one in the future.
pub(crate) fn since(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}
