//! `permittedHostDevices`: devices of nodes that machines may have.

use crate::object::object;

object! {
    /// Devices of nodes that machines may have.
    pub struct PermittedHostDevices {
        /// PCI devices.
        pub pci_host_devices: Vec<PciHostDevice>,
        /// Mediated devices.
        pub mediated_devices: Vec<MediatedHostDevice>,
        /// USB devices.
        pub usb: Vec<UsbHostDevice>,
    }

    /// PCI devices of one make.
    pub struct PciHostDevice {
        /// Vendor and product, `10DE:1EB8`; case doesn't matter.
        pub pci_vendor_selector: String,
        /// Resource under which nodes offer them.
        pub resource_name: String,
        /// Whether somebody else's device plugin offers them.
        pub external_resource_provider: Option<bool>,
    }

    /// Mediated devices of one type.
    pub struct MediatedHostDevice {
        /// Name of the type, `GRID T4-1Q`.
        pub mdev_name_selector: String,
        /// Resource under which nodes offer them.
        pub resource_name: String,
        /// Whether somebody else's device plugin offers them.
        pub external_resource_provider: Option<bool>,
    }

    /// Groups of USB devices; each group has one device for every selector.
    pub struct UsbHostDevice {
        /// Resource under which nodes offer them.
        pub resource_name: String,
        /// The devices of a group.
        pub selectors: Vec<UsbSelector>,
        /// Whether somebody else's device plugin offers them.
        pub external_resource_provider: Option<bool>,
    }

    /// A make of USB devices.
    pub struct UsbSelector {
        /// Vendor, hexadecimal.
        pub vendor: String,
        /// Product, hexadecimal.
        pub product: String,
    }
}
