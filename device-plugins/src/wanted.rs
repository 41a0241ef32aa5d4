//! What the node was asked to offer.

use crate::char_device::CharDevices;
use crate::mediated::MediatedSelector;
use crate::pci::PciSelector;
use crate::usb::UsbSelector;

/// What the node was asked to offer, by flags and by the `KubeVirt` object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// `/dev/kvm` and its like.
    pub char_devices: CharDevices,
    /// PCI devices.
    pub pci: Vec<PciSelector>,
    /// Whether PCI functions that are asked for are bound to vfio-pci where they are not.
    pub bind_vfio: bool,
    /// Mediated devices.
    pub mediated: Vec<MediatedSelector>,
    /// USB devices: of the `KubeVirt` object first, then of the `usbList`.
    pub usb: Vec<UsbSelector>,
    /// What was asked for and makes no sense.
    pub problems: Vec<Problem>,
}

/// Something that was asked for and makes no sense; everything else still works.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where it was asked for: `--usb-list item 2`, `permittedHostDevices.pciHostDevices[0].pciVendorSelector`.
    pub field: String,
    /// What is wrong and what was expected.
    pub text: String,
}
