//! Where a function is on the host's PCI buses.

use std::fmt;
use std::path::Path;

/// Most devices of a bus.
const DEVICES: u8 = 32;
/// Most functions of a device. Those of SR-IOV beyond them take the numbers of further devices.
const FUNCTIONS: u8 = 8;

/// Address of a function: domain, bus, device and function, such as `0000:65:00.2`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Address {
    domain: u32,
    bus: u8,
    device: u8,
    function: u8,
}

impl Address {
    /// Reads an address as sysfs writes it; none for anything else.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (rest, function) = text.split_once('.')?;
        let mut parts = rest.split(':');
        let address = Self {
            domain: u32::from_str_radix(parts.next()?, 16).ok()?,
            bus: u8::from_str_radix(parts.next()?, 16).ok()?,
            device: u8::from_str_radix(parts.next()?, 16).ok()?,
            function: u8::from_str_radix(function, 16).ok()?,
        };
        let is_there = address.device < DEVICES && address.function < FUNCTIONS;
        (is_there && address.to_string() == text).then_some(address)
    }

    /// The address in the name of a folder.
    pub(super) fn of(folder: &Path) -> Option<Self> {
        Self::parse(folder.file_name()?.to_str()?)
    }

    /// Name of a unit whose first function this is. Unlike the number of an IOMMU group it is the same after a reboot.
    pub(super) fn unit_id(self) -> String {
        format!("pci-{}", self.to_string().replace(':', "-"))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            domain,
            bus,
            device,
            function,
        } = self;
        write!(to, "{domain:04x}:{bus:02x}:{device:02x}.{function:x}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

    use super::Address;
    use crate::unit::UNIT_ID_LEN_MAX;

    #[test]
    fn addresses_are_read_as_sysfs_writes_them() {
        for text in [
            "0000:00:00.0",
            "0000:65:1f.7",
            "10000:e1:00.0",
            "ffffffff:ff:1f.7",
        ] {
            assert_eq!(Address::parse(text).unwrap().to_string(), text);
        }
        for text in [
            "",
            ":",
            ".",
            "0000:65:00",
            "65:00.0",
            "0000:65:20.0",
            "0000:65:00.8",
            "0000:65:00.00",
            "0000:65:0.0",
            "0000:65:00:00.0",
            "0000:6A:00.0",
            "+000:65:00.0",
            "0000:65:00.0 ",
        ] {
            assert_eq!(Address::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn addresses_are_in_order_of_their_numbers() {
        let first = Address::parse("9999:ff:1f.7").unwrap();
        let second = Address::parse("10000:00:00.0").unwrap();
        assert!(first < second);
        assert_eq!(second.unit_id(), "pci-10000-00-00.0");
    }

    proptest! {
        #[test]
        fn an_address_is_itself_when_read_again(domain: u32, bus: u8, device in 0_u8..32, function in 0_u8..8) {
            let address = Address { domain, bus, device, function };
            prop_assert_eq!(Address::parse(&address.to_string()), Some(address));
            prop_assert!(address.unit_id().len() <= UNIT_ID_LEN_MAX);
        }

        #[test]
        fn any_text_is_an_address_as_written_or_none(text in any::<String>()) {
            if let Some(address) = Address::parse(&text) {
                prop_assert_eq!(address.to_string(), text);
            }
        }
    }
}
