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

use crate::resource::ResourceName;
use crate::source::{Host, Source};
use crate::unit::Offer;

/// Finds USB devices.
#[derive(Clone, Debug, Default)]
pub struct UsbDevices {
    /// What is asked for, in order: a device belongs to the first that fits.
    pub selectors: Vec<UsbSelector>,
    /// What containers have: devices that were given together stay together, whatever is plugged in or out beside them.
    pub held: Vec<HeldUnit>,
}

/// A unit that a container has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldUnit {
    /// Resource under which it was given.
    pub resource: ResourceName,
    /// Its [`parts`](crate::unit::Unit::parts), in their order.
    pub parts: Vec<String>,
}

impl Source for UsbDevices {
    fn discover(&self, host: &Host) -> Vec<Offer> {
        if self.selectors.is_empty() {
            return Vec::new();
        }
        let devices = bus::devices(host, &self.selectors);
        let shares = share::share(&self.selectors, &self.held, &devices);
        offer::offers(&self.selectors, &devices, &shares)
    }

    fn folders(&self) -> Vec<PathBuf> {
        vec!["/dev/bus/usb".into()]
    }
}
