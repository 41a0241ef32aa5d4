//! What a resource has to offer.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::resource::ResourceName;

/// Longest identifier that the kubelet takes.
pub const UNIT_ID_LEN_MAX: usize = 63;

/// What containers can be given of one resource at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// The resource.
    pub resource: ResourceName,
    /// Which environment variable tells the container the addresses of its devices, if any does.
    pub variable: Option<VariablePrefix>,
    /// The units in the order in which they would best be given.
    pub units: Vec<Unit>,
    /// Devices that were asked for and are not offered.
    pub left_out: Vec<LeftOut>,
}

/// The least that a container can be given: a device, or several that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// Name of the unit, made of where the devices are plugged in, so that it is the same after restarts, re-plugs and
    /// reboots. At most [`UNIT_ID_LEN_MAX`] bytes of letters, digits, `-`, `_`, `.` and `+`, less what
    /// [`copies`](Self::copies) need.
    pub id: String,
    /// How many containers may have it at the same time. Where that is more than one, each has a number after the
    /// [`id`](Self::id): `kvm0`, `kvm1`.
    pub copies: u32,
    /// Names of the devices that it consists of, the same in whichever resource they are. No two units on offer share one.
    /// Empty for what can be shared.
    pub parts: Vec<String>,
    /// Whether it can be given.
    pub health: Health,
    /// The NUMA node that it is near to.
    pub numa_node: Option<u32>,
    /// The device nodes that a container needs for it.
    pub nodes: Vec<Node>,
    /// The devices' addresses in the variable of the [`Offer`]: `0000:65:00.0`, `1:7`, a UUID.
    pub addresses: Vec<String>,
}

/// Whether a unit can be given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "state", content = "reason")]
pub enum Health {
    /// It can.
    Healthy,
    /// It cannot; the reason and its cure.
    Unhealthy(String),
}

/// A device node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its path on the host, and in the container: `/dev/bus/usb/001/007`.
    pub path: PathBuf,
    /// What the container may do: letters of `rwm`.
    pub permissions: String,
    /// Whether it is made the launcher's own while a container has it.
    pub is_owned: bool,
}

/// A device that was asked for and is not offered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LeftOut {
    /// The device: `0000:65:00.2`, `1-1.4`.
    pub device: String,
    /// Why, and what to do about it.
    pub reason: String,
}

/// Which environment variable tells a container the addresses of its devices (KubeVirt).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VariablePrefix {
    /// Addresses on the PCI bus.
    Pci,
    /// UUIDs of mediated devices.
    Mediated,
    /// Bus and device numbers of USB devices.
    Usb,
}

impl VariablePrefix {
    /// The start of the variable's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pci => "PCI_RESOURCE",
            Self::Mediated => "MDEV_PCI_RESOURCE",
            Self::Usb => "USB_RESOURCE",
        }
    }
}

impl Health {
    /// Whether a unit of this health can be given.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        *self == Self::Healthy
    }
}

impl Unit {
    /// Whether the kubelet means this unit by an identifier: its own, or that of one of its [`copies`](Self::copies).
    #[must_use]
    pub fn is_named(&self, id: &str) -> bool {
        if self.copies <= 1 {
            return self.id == id;
        }
        let number = id.strip_prefix(&self.id).unwrap_or_default();
        let is_plain = number == "0" || !number.starts_with(['0', '+']);
        is_plain && number.parse().is_ok_and(|number: u32| number < self.copies)
    }
}
