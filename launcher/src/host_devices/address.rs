//! Addresses of host devices as device plugins write them.

use std::fmt;

use uuid::Uuid;

/// Most characters of a text that are repeated in an error.
const QUOTED_MAX: usize = 64;
/// Length of a UUID as Linux names mediated devices by it.
const UUID_LEN: usize = 36;
/// Highest device on a PCI bus, and highest function of a device (PCI 3.0 §3.2.2.3.2).
const PCI_MAX: (u8, u8) = (0x1f, 7);
/// Highest address of a USB device (USB 2.0 §9.4.6).
const USB_DEVICE_MAX: u8 = 127;

/// Where a device of the host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Address {
    /// A PCI function.
    Pci {
        /// Domain; Linux makes up some beyond 16 bits.
        domain: u32,
        /// Bus.
        bus: u8,
        /// Device on the bus, at most 31.
        device: u8,
        /// Function of the device, at most 7.
        function: u8,
    },
    /// A mediated device.
    Mediated(Uuid),
    /// A USB device.
    Usb {
        /// Bus, from 1.
        bus: u16,
        /// Device on the bus, 1 to 127.
        device: u8,
    },
}

/// Why a text is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?}, which is no {expected}")]
pub struct AddressError {
    /// The text, shortened.
    pub text: String,
    /// What was expected.
    pub expected: &'static str,
}

impl Address {
    /// Reads the address of a PCI function, `0000:65:00.0`.
    ///
    /// # Errors
    ///
    /// Fails on anything else.
    pub fn pci(text: &str) -> Result<Self, AddressError> {
        read_pci(text).ok_or_else(|| wrong(text, "PCI address such as 0000:65:00.0"))
    }

    /// Reads the UUID of a mediated device.
    ///
    /// # Errors
    ///
    /// Fails on anything else.
    pub fn mediated(text: &str) -> Result<Self, AddressError> {
        let uuid = Uuid::try_parse(text).ok();
        uuid.filter(|_| text.len() == UUID_LEN)
            .map(Self::Mediated)
            .ok_or_else(|| wrong(text, "UUID of a mediated device"))
    }

    /// Reads bus and device number of a USB device, `1:7`.
    ///
    /// # Errors
    ///
    /// Fails on anything else.
    pub fn usb(text: &str) -> Result<Self, AddressError> {
        read_usb(text).ok_or_else(|| wrong(text, "bus and device number such as 1:7"))
    }
}

fn wrong(text: &str, expected: &'static str) -> AddressError {
    AddressError {
        text: text.chars().take(QUOTED_MAX).collect(),
        expected,
    }
}

fn read_pci(text: &str) -> Option<Address> {
    let (rest, function) = text.split_once('.')?;
    let mut parts = rest.split(':');
    let (domain, bus, device) = (parts.next()?, parts.next()?, parts.next()?);
    let is_whole = parts.next().is_none() && (4..=8).contains(&domain.len());
    let device = hexadecimal(device, 2).and_then(|device| u8::try_from(device).ok())?;
    let function = hexadecimal(function, 1).and_then(|function| u8::try_from(function).ok())?;
    let address = Address::Pci {
        domain: hexadecimal(domain, domain.len())?,
        bus: u8::try_from(hexadecimal(bus, 2)?).ok()?,
        device,
        function,
    };
    (is_whole && device <= PCI_MAX.0 && function <= PCI_MAX.1).then_some(address)
}

/// Reads a number of as many digits.
fn hexadecimal(text: &str, digits: usize) -> Option<u32> {
    let is_number = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    u32::from_str_radix(text, 16).ok().filter(|_| is_number)
}

fn read_usb(text: &str) -> Option<Address> {
    let (bus, device) = text.split_once(':')?;
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let bus: u16 = bus.parse().ok().filter(|_| is_number(bus))?;
    let device: u8 = device.parse().ok().filter(|_| is_number(device))?;
    let is_there = bus > 0 && (1..=USB_DEVICE_MAX).contains(&device);
    is_there.then_some(Address::Usb { bus, device })
}

impl fmt::Display for Address {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pci {
                domain,
                bus,
                device,
                function,
            } => write!(
                to,
                "PCI function {domain:04x}:{bus:02x}:{device:02x}.{function}"
            ),
            Self::Mediated(uuid) => write!(to, "mediated device {uuid}"),
            Self::Usb { bus, device } => write!(to, "USB device {bus}:{device}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Address;

    #[test]
    fn addresses_are_read_and_told() {
        let pci = Address::pci("0000:65:00.7").unwrap();
        assert_eq!(pci.to_string(), "PCI function 0000:65:00.7");
        let far = Address::pci("10000:E1:1f.0").unwrap();
        assert_eq!(far.to_string(), "PCI function 10000:e1:1f.0");
        let uuid = "6a5bd3a3-0a2f-4a6a-9ca4-f0c2d0d8a9a1";
        let mediated = Address::mediated(uuid).unwrap();
        assert_eq!(mediated.to_string(), format!("mediated device {uuid}"));
        let usb = Address::usb("001:007").unwrap();
        assert_eq!(usb.to_string(), "USB device 1:7");
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "65:00.0",
            "0000:65:00",
            "0000:65:00.8",
            "0000:65:20.0",
            "0000:65:0.0",
            "0000:65:00.00",
            "0000:65:+1.0",
            "0000:0:65:00.0",
            "000:65:00.0",
            "000000000:65:00.0",
            "../0:65:00.0",
        ] {
            let error = Address::pci(text).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{text:?}, ")), "{error}");
        }
        for text in [
            "", "1", "1:", ":7", "0:7", "1:0", "1:128", "1:+7", "1:7:1", "1-7", "65536:1",
        ] {
            assert!(Address::usb(text).is_err(), "{text}");
        }
        for text in ["", "6a5bd3a30a2f4a6a9ca4f0c2d0d8a9a1", "GRID"] {
            assert!(Address::mediated(text).is_err(), "{text}");
        }
        let error = Address::usb(&"é".repeat(4096)).unwrap_err();
        assert_eq!(error.text.chars().count(), 64);
    }
}
