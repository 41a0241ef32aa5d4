//! What is asked for.

use std::fmt;

use crate::resource::ResourceName;

/// Most characters of a serial number: what fits a string descriptor (USB 2.0 §9.6.7).
const SERIAL_LEN_MAX: usize = 126;
/// Most ports between a root hub and a device (USB 2.0 §4.1.1: seven tiers with the host's).
const PORTS_MAX: usize = 6;
/// Most characters of a wrong text that an error repeats.
const SHOWN_LEN_MAX: usize = 40;

/// Asks for units of USB devices, each with one device for every match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsbSelector {
    /// Resource under which they are offered. Selectors of one resource add up.
    pub resource: ResourceName,
    /// The devices of a unit.
    pub matches: Vec<UsbMatch>,
}

/// Asks for one USB device. Absent fields match any.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
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

/// Why a text asks for no USB device.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsbMatchError {
    /// A vendor or product ID is none.
    #[error("{field} {text:?} is no ID: expected up to four hexadecimal digits, such as 0bda")]
    Id {
        /// `vendor` or `product`.
        field: &'static str,
        /// Its text.
        text: String,
    },
    /// The serial number is none.
    #[error("serial {text:?} is no serial number: expected 1 to 126 characters")]
    Serial {
        /// Its text.
        text: String,
    },
    /// The bus is none.
    #[error("bus {text:?} is no number of a bus: expected a decimal number from 1 on")]
    Bus {
        /// Its text.
        text: String,
    },
    /// The port path is none.
    #[error(
        "port {text:?} is no port path: expected up to six decimal numbers with dots between them, such as 1.4 \
         (for the device 3-1.4 that is bus 3 and port 1.4)"
    )]
    Port {
        /// Its text.
        text: String,
    },
}

impl UsbMatch {
    /// Asks for a device by the texts of its vendor and product IDs: hexadecimal in any case, with or without leading
    /// zeros, `0x` and white space around them.
    ///
    /// # Errors
    ///
    /// Fails if one of them is not a number of up to four hexadecimal digits.
    pub fn parse(vendor: &str, product: &str) -> Result<Self, UsbMatchError> {
        Ok(Self {
            vendor: id("vendor", vendor)?,
            product: id("product", product)?,
            ..Self::default()
        })
    }

    /// Asks for a serial number too.
    ///
    /// # Errors
    ///
    /// Fails if it is empty or longer than a USB string can be.
    pub fn with_serial(mut self, text: &str) -> Result<Self, UsbMatchError> {
        let serial = text.trim();
        if serial.is_empty() || serial.chars().count() > SERIAL_LEN_MAX {
            return Err(UsbMatchError::Serial { text: shown(text) });
        }
        self.serial = Some(serial.to_owned());
        Ok(self)
    }

    /// Asks for a bus too, by its decimal number. Numbers of buses may change with a reboot.
    ///
    /// # Errors
    ///
    /// Fails if it is no number, or 0.
    pub fn with_bus(mut self, text: &str) -> Result<Self, UsbMatchError> {
        let wrong = || UsbMatchError::Bus { text: shown(text) };
        self.bus = Some(number(text.trim()).ok_or_else(wrong)?);
        Ok(self)
    }

    /// Asks for a port path below the bus too, such as `1.4`.
    ///
    /// # Errors
    ///
    /// Fails on anything else than one to six decimal numbers with dots between them.
    pub fn with_port(mut self, text: &str) -> Result<Self, UsbMatchError> {
        let wrong = || UsbMatchError::Port { text: shown(text) };
        let ports = port_path(text.trim()).ok_or_else(wrong)?;
        let ports: Vec<String> = ports.iter().map(u8::to_string).collect();
        self.port = Some(ports.join("."));
        Ok(self)
    }

    /// How many of the optional fields are there: the more, the fewer devices fit.
    pub(super) fn strictness(&self) -> usize {
        usize::from(self.serial.is_some())
            + usize::from(self.bus.is_some())
            + usize::from(self.port.is_some())
    }
}

impl fmt::Display for UsbMatch {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{:04x}:{:04x}", self.vendor, self.product)?;
        if let Some(serial) = &self.serial {
            write!(to, " serial {serial:?}")?;
        }
        if let Some(bus) = self.bus {
            write!(to, " bus {bus}")?;
        }
        match &self.port {
            Some(port) => write!(to, " port {port}"),
            None => Ok(()),
        }
    }
}

/// The numbers of a port path, `1.4`.
pub(super) fn port_path(text: &str) -> Option<Vec<u8>> {
    let ports: Option<Vec<u8>> = text
        .split('.')
        .take(PORTS_MAX + 1)
        .map(|port| u8::try_from(number(port)?).ok())
        .collect();
    ports.filter(|ports| ports.len() <= PORTS_MAX)
}

/// A decimal number from 1 on.
pub(super) fn number(text: &str) -> Option<u16> {
    let is_decimal = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number = is_decimal.then(|| text.parse().ok())?;
    number.filter(|&number| number != 0)
}

fn id(field: &'static str, text: &str) -> Result<u16, UsbMatchError> {
    let digits = text.trim();
    let digits = digits
        .strip_prefix("0x")
        .or_else(|| digits.strip_prefix("0X"))
        .unwrap_or(digits);
    let is_hex = digits.len() <= 4 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let id = is_hex.then(|| u16::from_str_radix(digits, 16).ok());
    id.flatten().ok_or_else(|| UsbMatchError::Id {
        field,
        text: shown(text),
    })
}

/// As much of a wrong text as an error repeats.
fn shown(text: &str) -> String {
    text.chars().take(SHOWN_LEN_MAX).collect()
}
