//! USB devices, alone or several to a unit.
//!
//! ```text
//!  /sys/bus/usb/devices ──bus──► Device ──share──► Shares ──offer──► Offer: units with their
//!  (links, attributes)   │       (place,  ▲        (who has          nodes, and why others
//!                        │        make)   │         which)           are left out
//!                      place         selectors,
//!                                    held units
//! ```
//!
//! A device is known by the place that it is plugged into, never by its bus and device numbers: these change with every
//! plug and with the order in which controllers are found.

mod bus;
mod offer;
mod place;
mod selector;
mod share;
#[cfg(test)]
mod tests;

pub use selector::{UsbMatch, UsbMatchError, UsbSelector};

use std::path::PathBuf;

use crate::source::{HeldUnit, Host, Source};
use crate::unit::Offer;

/// Finds USB devices.
#[derive(Clone, Debug, Default)]
pub struct UsbDevices {
    /// What is asked for, in order: a device belongs to the first that fits.
    pub selectors: Vec<UsbSelector>,
}

impl Source for UsbDevices {
    fn discover(&self, host: &Host) -> Vec<Offer> {
        self.discover_beside(host, &[])
    }

    fn discover_beside(&self, host: &Host, held: &[HeldUnit]) -> Vec<Offer> {
        if self.selectors.is_empty() {
            return Vec::new();
        }
        let devices = bus::devices(host, &self.selectors);
        let shares = share::share(&self.selectors, held, &devices);
        offer::offers(&self.selectors, &devices, &shares)
    }

    fn folders(&self) -> Vec<PathBuf> {
        vec!["/dev/bus/usb".into()]
    }
}
