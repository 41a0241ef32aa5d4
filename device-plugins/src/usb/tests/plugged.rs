//! Devices to plug in and out, and selectors to ask for them.

use tempfile::TempDir;

use crate::resource::ResourceName;
use crate::source::{HeldUnit, Source};
use crate::tree::{add, host};
use crate::unit::Offer;
use crate::usb::{UsbDevices, UsbMatch, UsbSelector};

/// Makes a root hub of a controller.
pub(super) fn root_hub(tree: &TempDir, controller: &str, bus: u16, version: u16) {
    let folder = format!("devices/{controller}/usb{bus}");
    add(
        tree,
        &format!(
            "l sys/bus/usb/devices/usb{bus} -> ../../../{folder}\n\
             f sys/{folder}/idVendor 1d6b\\n\nf sys/{folder}/idProduct {version:04x}\\n\n\
             f sys/{folder}/bDeviceClass 09\\n\nf sys/{folder}/devnum 1\\n"
        ),
    );
}

/// Plugs a device in: `1-1.4` with a number on its bus and a make, `0bda:0811`.
pub(super) fn plug(tree: &TempDir, controller: &str, name: &str, number: u16, make: &str) {
    let (vendor, product) = make.split_once(':').unwrap();
    let bus = name.split('-').next().unwrap();
    let folder = format!("devices/{controller}/usb{bus}/{name}");
    add(
        tree,
        &format!(
            "l sys/bus/usb/devices/{name} -> ../../../{folder}\n\
             f sys/{folder}/idVendor {vendor}\\n\nf sys/{folder}/idProduct {product}\\n\n\
             f sys/{folder}/bDeviceClass 00\\n\nf sys/{folder}/devnum {number}\\n\n\
             f sys/{folder}/authorized 1\\n\nf sys/{folder}/{name}:1.0/bInterfaceClass ff\\n\n\
             f dev/bus/usb/{bus:0>3}/{number:03}"
        ),
    );
}

/// Pulls a device out.
pub(super) fn unplug(tree: &TempDir, name: &str, number: u16) {
    let bus = name.split('-').next().unwrap();
    let node = format!("dev/bus/usb/{bus:0>3}/{number:03}");
    for path in [format!("sys/bus/usb/devices/{name}"), node] {
        std::fs::remove_file(tree.path().join(path)).unwrap();
    }
}

/// A match by its make.
pub(super) fn match_of(make: &str) -> UsbMatch {
    let (vendor, product) = make.split_once(':').unwrap();
    UsbMatch::parse(vendor, product).unwrap()
}

pub(super) fn selector(resource: &str, matches: Vec<UsbMatch>) -> UsbSelector {
    UsbSelector {
        resource: ResourceName::new(resource).unwrap(),
        matches,
    }
}

/// Selectors by resource and makes: `0bda:0811 with 0bda:2838` for two devices to a unit.
pub(super) fn usb(asked: &[(&str, &str)]) -> UsbDevices {
    let selector = |(resource, makes): &(&str, &str)| {
        selector(resource, makes.split(" with ").map(match_of).collect())
    };
    UsbDevices {
        selectors: asked.iter().map(selector).collect(),
    }
}

/// The offer of the one resource that is asked for.
pub(super) fn offer(asked: &UsbDevices, tree: &TempDir) -> Offer {
    offer_beside(asked, tree, &[])
}

/// The same while containers have units.
pub(super) fn offer_beside(asked: &UsbDevices, tree: &TempDir, held: &[HeldUnit]) -> Offer {
    let mut offers = asked.discover_beside(&host(tree), held);
    assert_eq!(offers.len(), 1);
    offers.remove(0)
}

pub(super) fn ids(offer: &Offer) -> Vec<String> {
    offer.units.iter().map(|unit| unit.id.clone()).collect()
}

/// The one entry of a list.
pub(super) fn only<T: std::fmt::Debug>(list: &[T]) -> &T {
    assert_eq!(list.len(), 1, "{list:?}");
    &list[0]
}
