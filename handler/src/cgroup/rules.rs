//! Rules for devices, as control groups of version 1 write them (`Documentation/admin-guide/cgroup-v1/devices.rst`).

use std::fmt;

/// How a device is read and written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// In characters.
    Character,
    /// In blocks.
    Block,
}

/// A device that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceNode {
    /// Its kind.
    pub kind: DeviceKind,
    /// The number of its driver.
    pub major: u32,
    /// The number that the driver gave it.
    pub minor: u32,
}

/// What a group may or may not do with devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    /// Kind of the devices.
    pub kind: DeviceKind,
    /// Driver of the devices; every one when `None`.
    pub major: Option<u32>,
    /// Number of the device; every one when `None`.
    pub minor: Option<u32>,
    /// Which of `r` (read), `w` (write) and `m` (make a node) it is about.
    pub access: &'static str,
    /// Whether it may.
    pub is_allowed: bool,
}

impl fmt::Display for DeviceRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |number: Option<u32>| number.map_or("*".to_owned(), |it| it.to_string());
        let kind = match self.kind {
            DeviceKind::Character => 'c',
            DeviceKind::Block => 'b',
        };
        let (major, minor) = (number(self.major), number(self.minor));
        write!(f, "{kind} {major}:{minor} {}", self.access)
    }
}

impl DeviceRule {
    /// Allows the use of a device.
    #[must_use]
    pub fn allow(node: DeviceNode) -> Self {
        Self {
            kind: node.kind,
            major: Some(node.major),
            minor: Some(node.minor),
            access: "rwm",
            is_allowed: true,
        }
    }
}

/// Devices that every launcher may use (§2.13): ptmx, null, tun, vhost-net, and all pts.
const DEFAULTS: [(u32, Option<u32>); 5] = [
    (5, Some(2)),
    (1, Some(3)),
    (10, Some(200)),
    (10, Some(238)),
    (136, None),
];

/// Returns the rules that let a launcher use the devices, and those that every launcher needs. The list is whole: what
/// replaces a group's rules with it forgets nothing.
#[must_use]
pub fn rules(devices: &[DeviceNode]) -> Vec<DeviceRule> {
    let defaults = DEFAULTS.into_iter().map(|(major, minor)| DeviceRule {
        kind: DeviceKind::Character,
        major: Some(major),
        minor,
        access: "rwm",
        is_allowed: true,
    });
    let mut rules: Vec<_> = defaults.collect();
    for rule in devices.iter().copied().map(DeviceRule::allow) {
        if !rules.contains(&rule) {
            rules.push(rule);
        }
    }
    rules
}

/// Character devices that container runtimes let everybody use (OCI runtime specification, "Default Devices"): null, zero,
/// full, random, urandom, tty, console, ptmx and all pts.
const RUNTIME_DEFAULTS: [(u32, Option<u32>); 9] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(1)),
    (5, Some(2)),
    (136, None),
];

/// Returns the rules that container runtimes begin with: those devices, and nodes of all devices may be made.
pub(super) fn runtime_rules() -> Vec<DeviceRule> {
    let rule = |kind, major, minor, access| DeviceRule {
        kind,
        major,
        minor,
        access,
        is_allowed: true,
    };
    let kinds = [DeviceKind::Character, DeviceKind::Block].into_iter();
    let nodes = kinds.map(|kind| rule(kind, None, None, "m"));
    let devices = RUNTIME_DEFAULTS.into_iter();
    let devices =
        devices.map(|(major, minor)| rule(DeviceKind::Character, Some(major), minor, "rwm"));
    nodes.chain(devices).collect()
}
