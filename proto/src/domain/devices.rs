//! The devices of a domain.

use serde::{Deserialize, Serialize};

use crate::list;

/// The devices of a domain that a handler looks at.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Devices {
    /// Network interfaces.
    #[serde(deserialize_with = "list::bounded")]
    pub interfaces: Vec<Interface>,
    /// Ports of the serial bus; the agent's is [`ChannelTarget::GUEST_AGENT`].
    #[serde(deserialize_with = "list::bounded")]
    pub channels: Vec<Channel>,
    /// Devices of the host given to the guest.
    #[serde(deserialize_with = "list::bounded")]
    pub host_devices: Vec<HostDevice>,
    /// Disks.
    #[serde(deserialize_with = "list::bounded")]
    pub disks: Vec<Disk>,
}

/// Something that is there or not and has no properties.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Present {}

/// A device's name, which the specification gave or the launcher.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Alias {
    /// The name; of a disk, the name of its volume.
    pub name: String,
    /// Whether the specification gave it (libvirt then writes it as `ua-<name>`).
    pub user_defined: bool,
}

impl Alias {
    /// Makes the alias of a device that the specification names.
    #[must_use]
    pub fn user_defined(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            user_defined: true,
        }
    }
}

/// A disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Disk {
    /// "disk", "cdrom" or "lun".
    pub device: String,
    /// "file" or "block".
    #[serde(rename = "Type")]
    pub type_: String,
    /// Where the content is; empty for a drive without medium.
    pub source: DiskSource,
    /// What the guest sees.
    pub target: DiskTarget,
    /// Serial number.
    pub serial: String,
    /// Whether writes are refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_only: Option<Present>,
    /// Whose disk it is: the alias is the volume's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alias: Option<Alias>,
    /// Size in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<i64>,
}

/// Where a disk's content is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DiskSource {
    /// Path of a block device.
    pub dev: String,
    /// Path of a file.
    pub file: String,
    /// Name in a network store.
    pub name: String,
}

/// What the guest sees of a disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct DiskTarget {
    /// "virtio", "scsi", "sata" or "usb".
    pub bus: String,
    /// Name of the device ("vda"), which the handler copies to the volume's status.
    pub device: String,
    /// "open" or "closed"; empty for what has no tray.
    pub tray: String,
}

/// A network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Interface {
    /// "ethernet", "bridge" or another kind of attachment.
    #[serde(rename = "Type")]
    pub type_: String,
    /// What it is attached to.
    pub source: InterfaceSource,
    /// The host's side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<InterfaceTarget>,
    /// The device that the guest sees.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<InterfaceModel>,
    /// Hardware address.
    #[serde(rename = "MAC", skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// Whether the cable is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link_state: Option<LinkState>,
    /// Whose interface it is: the alias is its name in the specification.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alias: Option<Alias>,
    /// How packets are moved.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<InterfaceDriver>,
}

/// What a network interface is attached to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct InterfaceSource {
    /// A network by its name.
    pub network: String,
    /// A device of the pod.
    pub device: String,
    /// A bridge of the pod.
    pub bridge: String,
    /// The mode of a direct attachment.
    pub mode: String,
}

/// The host's side of a network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct InterfaceTarget {
    /// Name of the tap device.
    pub device: String,
    /// "no" when the tap was made by somebody else.
    pub managed: String,
}

/// The network device that a guest sees.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InterfaceModel {
    /// "virtio-non-transitional" or another of libvirt's models.
    #[serde(rename = "Type")]
    pub type_: String,
}

/// A hardware address.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Mac {
    /// Six octets in hexadecimal, with colons.
    #[serde(rename = "MAC")]
    pub mac: String,
}

/// Whether a network cable is in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct LinkState {
    /// "up" or "down".
    pub state: String,
}

/// How an interface's packets are moved.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct InterfaceDriver {
    /// "vhost" or "qemu".
    pub name: String,
    /// How many queue pairs; without, one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queues: Option<u32>,
}

/// A port of the serial bus.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Channel {
    /// "unix" for a socket of the host.
    #[serde(rename = "Type")]
    pub type_: String,
    /// The host's side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<ChannelSource>,
    /// The guest's side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<ChannelTarget>,
}

/// The host's side of a port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ChannelSource {
    /// "bind" when the host listens.
    pub mode: String,
    /// Path of the socket.
    pub path: String,
}

/// The guest's side of a port.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct ChannelTarget {
    /// Name of the port.
    pub name: String,
    /// "virtio".
    #[serde(rename = "Type")]
    pub type_: String,
    /// [`ChannelTarget::CONNECTED`] or [`ChannelTarget::DISCONNECTED`].
    pub state: String,
}

impl ChannelTarget {
    /// The name of the guest agent's port.
    pub const GUEST_AGENT: &str = "org.qemu.guest_agent.0";
    /// The guest has the port open.
    pub const CONNECTED: &str = "connected";
    /// The guest does not have the port open.
    pub const DISCONNECTED: &str = "disconnected";
}

/// A device of the host given to the guest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct HostDevice {
    /// "pci", "mdev" or "usb".
    #[serde(rename = "Type")]
    pub type_: String,
    /// Which device of the host.
    pub source: HostDeviceSource,
    /// "no" when the host's driver was changed by somebody else.
    pub managed: String,
    /// "subsystem".
    pub mode: String,
    /// Where the guest sees it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
    /// Whose device it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alias: Option<Alias>,
}

/// Which device of the host.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct HostDeviceSource {
    /// Where the host has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<Address>,
}

/// A place on a bus. The numbers are texts as libvirt writes them ("0x0000").
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Address {
    /// Kind of bus ("pci").
    #[serde(rename = "Type")]
    pub type_: String,
    /// PCI segment.
    pub domain: String,
    /// Number of the bus.
    pub bus: String,
    /// Place on the bus.
    pub slot: String,
    /// Function of the device.
    pub function: String,
    /// UUID of a mediated device.
    #[serde(rename = "UUID")]
    pub uuid: String,
    /// Number of a USB device.
    pub device: String,
}
