//! What device plugins offer.

use device_plugins::report::{Report, ResourceReport};
use device_plugins::runner::Registration;

use super::families::{DEVICE_PROBLEMS, DEVICES, DEVICES_ALLOCATED, DEVICES_REGISTERED};
use super::samples::{Labels, Samples};

/// Adds what is known of devices.
pub(super) fn add(samples: &mut Samples, report: &Report) {
    for resource in &report.resources {
        add_resource(samples, resource);
    }
    let problems = count(report.problems.len());
    samples.add(&DEVICE_PROBLEMS, &Labels::default(), Some(problems));
}

fn add_resource(samples: &mut Samples, resource: &ResourceReport) {
    let labels = Labels::new([("resource", resource.resource.as_str())]);
    let (mut healthy, mut unhealthy, mut allocated) = (0.0, 0.0, 0.0);
    for unit in &resource.units {
        let copies = f64::from(unit.copies);
        let of_health = if unit.health.is_healthy() {
            &mut healthy
        } else {
            &mut unhealthy
        };
        *of_health += copies;
        allocated += copies.min(count(unit.holders.len()));
    }
    let left_out = count(resource.left_out.len());
    for (state, devices) in [
        ("healthy", healthy),
        ("unhealthy", unhealthy),
        ("left_out", left_out),
    ] {
        samples.add(&DEVICES, &labels.with([("state", state)]), Some(devices));
    }
    samples.add(&DEVICES_ALLOCATED, &labels, Some(allocated));
    let is_registered = resource.registration == Registration::Registered;
    let is_registered = f64::from(u8::from(is_registered));
    samples.add(&DEVICES_REGISTERED, &labels, Some(is_registered));
}

fn count(of: usize) -> f64 {
    u32::try_from(of).unwrap_or(u32::MAX).into()
}
