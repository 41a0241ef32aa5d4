//! What is wrong with devices.

use std::collections::BTreeMap;

use device_plugins::report::{Report, ResourceReport};
use device_plugins::runner::Registration;
use device_plugins::unit::Health;
use tracing::{info, warn};

/// Resources that a node need not have: that one is missing is worth a word and nothing more.
const SHARED_PREFIX: &str = "devices.kubevirt.io/";

/// One device of a resource.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Subject {
    pub(super) resource: String,
    pub(super) device: String,
}

impl Subject {
    fn new(resource: &ResourceReport, device: &str) -> Self {
        Self {
            resource: resource.resource.to_string(),
            device: device.to_owned(),
        }
    }

    /// Whether a node may do without it.
    pub(super) fn is_optional(&self) -> bool {
        self.resource.starts_with(SHARED_PREFIX)
    }
}

/// Tells of devices that cannot be given: when that begins, when the reason changes, and when it is over.
#[derive(Debug, Default)]
pub(super) struct Complaints {
    told: BTreeMap<Subject, String>,
}

impl Complaints {
    /// Logs what is news in a report; returns how many devices it complained of, and how many are well again.
    pub(super) fn tell(&mut self, report: &Report) -> (usize, usize) {
        let all: BTreeMap<_, _> = report.resources.iter().flat_map(unhealthy).collect();
        let is_news =
            |(subject, reason): &(&Subject, &String)| self.told.get(*subject) != Some(*reason);
        let news = all.iter().filter(is_news);
        let begun = news.inspect(|(subject, reason)| begin(subject, reason));
        let begun = begun.count();
        let over = self.told.keys().filter(|it| !all.contains_key(*it));
        let ended = over.inspect(|subject| end(subject)).count();
        self.told = all;
        (begun, ended)
    }
}

fn begin(subject: &Subject, reason: &str) {
    let Subject { resource, device } = subject;
    if subject.is_optional() {
        info!(resource, reason, "the device cannot be given to machines");
    } else {
        warn!(resource, device, reason, "a device cannot be given");
    }
}

fn end(Subject { resource, device }: &Subject) {
    info!(resource, device, "the device is well or gone");
}

/// Returns the devices that cannot be given, and those that were asked for and are not offered, with the reasons. Pure.
pub(super) fn complaints(report: &Report) -> BTreeMap<Subject, String> {
    let resources = report.resources.iter();
    resources
        .flat_map(|resource| unhealthy(resource).chain(left_out(resource)))
        .collect()
}

fn left_out(resource: &ResourceReport) -> impl Iterator<Item = (Subject, String)> {
    let devices = resource.left_out.iter();
    devices.map(move |it| (Subject::new(resource, &it.device), it.reason.clone()))
}

fn unhealthy(resource: &ResourceReport) -> impl Iterator<Item = (Subject, String)> {
    let units = resource.units.iter();
    units.filter_map(move |unit| match &unit.health {
        Health::Healthy => None,
        Health::Unhealthy(reason) => Some((Subject::new(resource, &unit.id), reason.clone())),
    })
}

/// Returns why the kubelet does not have a plugin, if it told why.
pub(super) fn refusal(resource: &ResourceReport) -> Option<&str> {
    match &resource.registration {
        Registration::Failed(reason) => Some(reason),
        Registration::Waiting | Registration::Registered => None,
    }
}
