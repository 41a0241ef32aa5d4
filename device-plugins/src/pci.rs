//! PCI devices and SR-IOV virtual functions, by IOMMU group.

use std::path::PathBuf;

use crate::resource::ResourceName;
use crate::source::{Host, Source};
use crate::unit::Offer;

/// Asks for the PCI functions of one make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciSelector {
    /// Resource under which they are offered.
    pub resource: ResourceName,
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
}

/// Finds PCI devices that are bound to vfio-pci.
#[derive(Clone, Debug, Default)]
pub struct PciDevices {
    /// What is asked for, in order: a device belongs to the first that fits.
    pub selectors: Vec<PciSelector>,
    /// Whether functions that are asked for are bound to vfio-pci where they are not.
    pub bind_vfio: bool,
}

impl Source for PciDevices {
    fn discover(&self, _host: &Host) -> Vec<Offer> {
        Vec::new()
    }

    fn folders(&self) -> Vec<PathBuf> {
        vec!["/dev/vfio".into(), "/dev/vfio/devices".into()]
    }
}
