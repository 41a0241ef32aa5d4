//! What the node was asked to offer.

use std::fmt;

use crate::char_device::CharDevices;
use crate::mediated::{MediatedDevices, MediatedSelector};
use crate::pci::{PciDevices, PciSelector};
use crate::source::Source;
use crate::usb::{UsbDevices, UsbSelector};

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

impl Wanted {
    /// What finds the devices that are wanted, in the order in which they get a device that several ask for. A kind of device
    /// that nobody asked for is not looked for.
    #[must_use]
    pub fn sources(&self) -> Vec<Box<dyn Source>> {
        let mut sources: Vec<Box<dyn Source>> = vec![Box::new(self.char_devices.clone())];
        if !self.pci.is_empty() {
            sources.push(Box::new(PciDevices {
                selectors: self.pci.clone(),
                bind_vfio: self.bind_vfio,
            }));
        }
        if !self.mediated.is_empty() {
            let selectors = self.mediated.clone();
            sources.push(Box::new(MediatedDevices { selectors }));
        }
        if !self.usb.is_empty() {
            let selectors = self.usb.clone();
            sources.push(Box::new(UsbDevices { selectors }));
        }
        sources
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}: {}", self.field, self.text)
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::Wanted;
    use crate::usb_list;

    fn folders(wanted: &Wanted) -> Vec<PathBuf> {
        let sources = wanted.sources();
        sources.iter().flat_map(|source| source.folders()).collect()
    }

    #[test]
    fn only_kinds_that_somebody_asked_for_are_looked_for() {
        let mut wanted = Wanted::default();
        assert_eq!(wanted.sources().len(), 1);
        assert!(!folders(&wanted).contains(&"/dev/bus/usb".into()));
        (wanted.usb, wanted.problems) = usb_list::parse("kubevirt.io/wifi;0bda;0811,nonsense");
        assert_eq!(wanted.sources().len(), 2);
        assert!(folders(&wanted).contains(&"/dev/bus/usb".into()));
        let problem = wanted.problems[0].to_string();
        let (field, text) = problem.split_once(": ").unwrap();
        assert_eq!(field, wanted.problems[0].field);
        assert_eq!(text, wanted.problems[0].text);
    }
}
