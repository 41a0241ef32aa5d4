//! What is plugged in (`/sys/bus/usb/devices`).

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::place::{Place, controller, controller_label, hub_label, port_text};
use super::selector::{number, port_path};
use super::{UsbMatch, UsbSelector};
use crate::source::Host;
use crate::sysfs;
use crate::unit::Health;

/// Class of hubs (`bDeviceClass`, `bInterfaceClass`).
const CLASS_HUB: u16 = 0x09;
/// Classes of devices that leave it to their interfaces: none, and miscellaneous.
const CLASSES_OF_INTERFACES: [u16; 2] = [0x00, 0xef];

/// A vendor ID and a product ID.
pub(super) type Make = (u16, u16);

/// A device that is plugged in.
#[derive(Clone, Debug)]
pub(super) struct Device {
    /// Its name for the kernel: `1-1.4`.
    pub(super) name: String,
    pub(super) make: Make,
    /// Its serial number, read only where somebody asks for one: the kernel has the reader wait while it resets the device.
    pub(super) serial: Option<String>,
    pub(super) bus: u16,
    /// Its number on the bus, another one after every plug.
    pub(super) number: u16,
    pub(super) place: Place,
    pub(super) health: Health,
    pub(super) numa_node: Option<u32>,
    /// Why it can be offered to nobody, if so.
    pub(super) lack: Option<String>,
}

impl Device {
    /// Its node as the host names it.
    pub(super) fn node(&self) -> PathBuf {
        format!("/dev/bus/usb/{:03}/{:03}", self.bus, self.number).into()
    }

    /// Whether this is what is asked for.
    pub(super) fn fits(&self, asked: &UsbMatch) -> bool {
        let is_made = self.make == (asked.vendor, asked.product);
        let has_serial = asked.serial.is_none() || asked.serial == self.serial;
        let is_there = asked.bus.is_none_or(|bus| bus == self.bus)
            && asked
                .port
                .as_ref()
                .is_none_or(|port| *port == port_text(&self.place.ports));
        is_made && has_serial && is_there
    }
}

/// A root hub.
struct RootHub {
    controller: String,
    label: String,
    numa_node: Option<u32>,
}

/// The devices that the selectors speak of, vendor and product swapped or not, in the order of their places.
pub(super) fn devices(host: &Host, selectors: &[UsbSelector]) -> Vec<Device> {
    let folders = sysfs::entries(&host.sys_dir.join("bus/usb/devices"));
    let makes = makes(selectors);
    let hubs = root_hubs(&folders);
    let mut devices: Vec<Device> = folders
        .iter()
        .filter_map(|folder| device(host, folder, &makes, &hubs))
        .collect();
    devices.sort_by(|one, other| (&one.place, &one.name).cmp(&(&other.place, &other.name)));
    devices
}

/// What is spoken of, and whether a serial number matters.
fn makes(selectors: &[UsbSelector]) -> HashMap<Make, bool> {
    let mut makes = HashMap::new();
    for asked in selectors.iter().flat_map(|selector| &selector.matches) {
        *makes.entry((asked.vendor, asked.product)).or_default() |= asked.serial.is_some();
        makes.entry((asked.product, asked.vendor)).or_default();
    }
    makes
}

/// The root hubs by the numbers of their buses.
fn root_hubs(folders: &[PathBuf]) -> HashMap<u16, RootHub> {
    let bus_of = |folder: &PathBuf| number(name(folder)?.strip_prefix("usb")?);
    let mut buses: Vec<(u16, &PathBuf)> = folders
        .iter()
        .filter_map(|folder| Some((bus_of(folder)?, folder)))
        .collect();
    buses.sort_unstable();
    // The kernel numbers the root hubs of one controller in an order that is the same each time.
    let mut earlier: HashMap<(String, u16), usize> = HashMap::new();
    let hub = |(bus, folder): (u16, &PathBuf)| {
        let controller = controller(&resolved(folder)?)?;
        let label = controller_label(&controller)?;
        let version = sysfs::hex(folder, "idProduct").unwrap_or(0);
        let count = earlier.entry((label.clone(), version)).or_default();
        *count += 1;
        let hub = RootHub {
            label: hub_label(version, *count - 1),
            controller: label,
            numa_node: sysfs::numa_node(&controller),
        };
        Some((bus, hub))
    };
    buses.into_iter().filter_map(hub).collect()
}

/// Where a link of the bus leads.
fn resolved(link: &Path) -> Option<PathBuf> {
    let target = std::fs::read_link(link).ok()?;
    Some(link.parent()?.join(target))
}

fn name(folder: &Path) -> Option<&str> {
    folder.file_name()?.to_str()
}

/// Reads a device, if it is one and of a make that is spoken of.
fn device(
    host: &Host,
    folder: &Path,
    makes: &HashMap<Make, bool>,
    hubs: &HashMap<u16, RootHub>,
) -> Option<Device> {
    // A root hub is `usb1` and an interface `1-1.4:1.0`: neither has such a name.
    let name = name(folder)?;
    let (bus, ports) = name.split_once('-')?;
    let (bus, ports) = (number(bus)?, port_path(ports)?);
    let make = (
        sysfs::hex(folder, "idVendor")?,
        sysfs::hex(folder, "idProduct")?,
    );
    let is_serial_asked = *makes.get(&make)?;
    let hub = hubs.get(&bus);
    let devnum = sysfs::attribute(folder, "devnum").and_then(|text| number(&text));
    let mut device = Device {
        name: name.to_owned(),
        make,
        serial: is_serial_asked
            .then(|| sysfs::attribute(folder, "serial"))
            .flatten(),
        bus,
        number: devnum.unwrap_or(0),
        place: place(bus, hub, ports),
        health: Health::Healthy,
        numa_node: hub.and_then(|hub| hub.numa_node),
        lack: lack(folder, hub.is_some(), devnum),
    };
    device.health = health(host, folder, &device);
    Some(device)
}

fn place(bus: u16, hub: Option<&RootHub>, ports: Vec<u8>) -> Place {
    match hub {
        Some(hub) => Place {
            controller: hub.controller.clone(),
            hub: hub.label.clone(),
            ports,
        },
        None => Place {
            controller: "bus".to_owned(),
            hub: bus.to_string(),
            ports,
        },
    }
}

/// Why a device can be offered to nobody, if so.
fn lack(folder: &Path, has_hub: bool, devnum: Option<u16>) -> Option<String> {
    let reason = if is_hub(folder) {
        "it is a hub, and hubs are never offered: ask for the devices that are plugged into it"
    } else if devnum.is_none() {
        "the kernel gives no number for it (devnum): it is being plugged in or out, or its driver hangs; plug it in again"
    } else if !has_hub {
        "the kernel does not tell which controller its bus belongs to, so it has no name that stays; plug it into another port"
    } else {
        return None;
    };
    Some(reason.to_owned())
}

/// Whether it is a hub, by its own class or by all of its interfaces.
fn is_hub(folder: &Path) -> bool {
    let class = sysfs::hex(folder, "bDeviceClass");
    if class == Some(CLASS_HUB) {
        return true;
    }
    if !class.is_some_and(|class| CLASSES_OF_INTERFACES.contains(&class)) {
        return false;
    }
    let interfaces = sysfs::entries(folder);
    let mut classes = interfaces
        .iter()
        .filter(|interface| name(interface).is_some_and(|name| name.contains(':')))
        .map(|interface| sysfs::hex(interface, "bInterfaceClass"))
        .peekable();
    classes.peek().is_some() && classes.all(|class| class == Some(CLASS_HUB))
}

fn health(host: &Host, folder: &Path, device: &Device) -> Health {
    let name = &device.name;
    if sysfs::attribute(folder, "authorized").as_deref() == Some("0") {
        return Health::Unhealthy(format!(
            "{name} is not authorized on this host: allow it by writing 1 to /sys/bus/usb/devices/{name}/authorized"
        ));
    }
    let node = device.node();
    match host.node(&node).try_exists() {
        Ok(true) => Health::Healthy,
        Ok(false) => Health::Unhealthy(format!(
            "{name} has no node {}: check that devtmpfs or udev makes it, or plug it in again",
            node.display()
        )),
        Err(error) => Health::Unhealthy(format!(
            "the node {} of {name} cannot be looked at: {error}; check the rights of its folder",
            node.display()
        )),
    }
}
