//! USB devices, alone or several to a unit.

use std::path::PathBuf;

use crate::resource::ResourceName;
use crate::source::{Host, Source};
use crate::unit::Offer;

/// Asks for units of USB devices, each with one device for every match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsbSelector {
    /// Resource under which they are offered. Selectors of one resource add up.
    pub resource: ResourceName,
    /// The devices of a unit.
    pub matches: Vec<UsbMatch>,
}

/// Asks for one USB device. Absent fields match any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsbMatch {
    /// `idVendor`.
    pub vendor: u16,
    /// `idProduct`.
    pub product: u16,
    /// Serial number string.
    pub serial: Option<String>,
    /// Number of the bus.
    pub bus: Option<u16>,
    /// Port path below the bus: `1.4`.
    pub port: Option<String>,
}

/// Finds USB devices.
#[derive(Clone, Debug, Default)]
pub struct UsbDevices {
    /// What is asked for, in order: a device belongs to the first that fits.
    pub selectors: Vec<UsbSelector>,
}

impl Source for UsbDevices {
    fn discover(&self, _host: &Host) -> Vec<Offer> {
        Vec::new()
    }

    fn folders(&self) -> Vec<PathBuf> {
        vec!["/dev/bus/usb".into()]
    }
}
