//! Who sits at consoles, and when somebody last did.

use super::MetricsSetup;
use super::families::{CONSOLES, LAST_CONNECTION};
use super::samples::{Labels, Samples};
use crate::key::VmiKey;

/// Adds what is known of consoles.
pub(super) fn add(samples: &mut Samples, setup: &MetricsSetup) {
    let labels = |key: &VmiKey| {
        Labels::new([
            ("namespace", key.namespace.as_str()),
            ("vmi", key.name.as_str()),
        ])
    };
    for key in setup.consoles.active() {
        samples.add(&CONSOLES, &labels(&key), Some(1.0));
    }
    let is_known = |key: &VmiKey| setup.instances.has(key);
    for (key, at) in setup.consoles.last_visits(is_known) {
        samples.add(&LAST_CONNECTION, &labels(&key), Some(at));
    }
}
