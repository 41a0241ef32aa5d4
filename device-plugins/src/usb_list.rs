//! The `usbList`: USB devices by resource, vendor and product.
//!
//! `kubevirt.io/wifi-dongle;0bda;0811,kubevirt.io/gsm-dongle;0bda;2838`. The vendor comes first, as in the examples and in
//! the chart that the format is from, although texts about it have it the other way round.
//!
//! More parts may follow in any order, each once, to tell devices of one make apart:
//!
//! | part | asks for |
//! | --- | --- |
//! | `serial=0123ABCD` | the serial number, as in `/sys/bus/usb/devices/1-1.4/serial` |
//! | `bus=1` | the number of the bus, which may be another after a reboot |
//! | `port=1.4` | the port path below the bus, which stays as long as nobody plugs it elsewhere |
//!
//! Accepted besides: white space around every part, empty items, a comma at the end, `0x`, capital digits, and IDs whose
//! leading zeros were lost on the way here.

use std::collections::HashMap;

use crate::resource::{ResourceName, ResourceNameError};
use crate::usb::{UsbMatch, UsbMatchError, UsbSelector};
use crate::wanted::Problem;

#[cfg(test)]
mod tests;

/// Most bytes of a list that are read: a flag that is longer than this is a mistake.
const LIST_LEN_MAX: usize = 64 << 10;
/// Most items that count: more kinds of devices than eight full buses hold devices.
const ITEMS_MAX: usize = 1024;
/// Most problems of items that are told apart.
const PROBLEMS_MAX: usize = 32;
/// Most characters of a wrong item that a problem repeats.
const SHOWN_LEN_MAX: usize = 120;
/// What an item looks like.
const EXPECTED: &str = "expected resource;vendor;product, such as kubevirt.io/wifi-dongle;0bda;0811, and if need be \
                        ;serial=…, ;bus=… or ;port=… after it";

/// Why an item makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum ItemError {
    #[error("it has {0} of 3 parts")]
    Short(usize),
    #[error(transparent)]
    Resource(#[from] ResourceNameError),
    #[error(transparent)]
    Match(#[from] UsbMatchError),
    #[error("part {0} is none of serial=…, bus=… and port=…")]
    Part(usize),
    #[error("{0} is there twice")]
    Twice(&'static str),
}

/// Reads a list. Items that make no sense are problems, the others count; items of one resource stay apart here and are
/// added up by the source. An item that is there twice counts once, since one asks for all devices of its kind already.
#[must_use]
pub fn parse(list: &str) -> (Vec<UsbSelector>, Vec<Problem>) {
    let mut reading = Reading::default();
    let mut end = 0;
    for (index, text) in list.split(',').enumerate() {
        end += text.len() + 1;
        if text.trim().is_empty() {
            continue;
        }
        if end > LIST_LEN_MAX + 1 || reading.selectors.len() >= ITEMS_MAX {
            reading.stop(index + 1);
            break;
        }
        reading.item(index + 1, text.trim());
    }
    reading.end()
}

/// An item of a list that asks for a device.
#[must_use]
pub fn item(resource: &ResourceName, asked: &UsbMatch) -> String {
    let mut text = format!("{resource};{:04x};{:04x}", asked.vendor, asked.product);
    let bus = asked.bus.map(|bus| bus.to_string());
    for (key, value) in [
        ("serial", &asked.serial),
        ("bus", &bus),
        ("port", &asked.port),
    ] {
        if let Some(value) = value {
            text = format!("{text};{key}={value}");
        }
    }
    text
}

/// What was read so far.
#[derive(Default)]
struct Reading {
    selectors: Vec<UsbSelector>,
    problems: Vec<Problem>,
    /// Problems that were too many to be told.
    untold: usize,
    /// Which item asked for it first.
    seen: HashMap<(ResourceName, UsbMatch), usize>,
}

impl Reading {
    fn item(&mut self, number: usize, text: &str) {
        let (resource, asked) = match read_item(text) {
            Ok(read) => read,
            Err(error) => {
                return self.tell(number, format!("{:?}: {error}; {EXPECTED}", shown(text)));
            }
        };
        let first = *self
            .seen
            .entry((resource.clone(), asked.clone()))
            .or_insert(number);
        if first != number {
            let text = format!(
                "{:?} repeats item {first} and counts once: an item stands for every device of its kind; remove it",
                shown(text)
            );
            return self.tell(number, text);
        }
        self.selectors.push(UsbSelector {
            resource,
            matches: vec![asked],
        });
    }

    fn tell(&mut self, number: usize, text: String) {
        if self.problems.len() >= PROBLEMS_MAX {
            self.untold += 1;
            return;
        }
        let field = format!("--usb-list item {number}");
        self.problems.push(Problem { field, text });
    }

    fn stop(&mut self, number: usize) {
        let field = format!("--usb-list from item {number} on");
        let text = format!(
            "not read: a list has at most {ITEMS_MAX} items in {LIST_LEN_MAX} bytes; remove items"
        );
        self.problems.push(Problem { field, text });
    }

    fn end(mut self) -> (Vec<UsbSelector>, Vec<Problem>) {
        if self.untold > 0 {
            let field = "--usb-list".to_owned();
            let text = format!("{} more items make no sense; {EXPECTED}", self.untold);
            self.problems.push(Problem { field, text });
        }
        (self.selectors, self.problems)
    }
}

fn read_item(text: &str) -> Result<(ResourceName, UsbMatch), ItemError> {
    let mut parts = text.split(';').map(str::trim);
    let (Some(resource), Some(vendor), Some(product)) = (parts.next(), parts.next(), parts.next())
    else {
        return Err(ItemError::Short(text.split(';').count()));
    };
    let resource = ResourceName::new(resource)?;
    let mut asked = UsbMatch::parse(vendor, product)?;
    for (index, part) in parts.enumerate() {
        asked = read_part(asked, part, index + 4)?;
    }
    Ok((resource, asked))
}

fn read_part(asked: UsbMatch, part: &str, number: usize) -> Result<UsbMatch, ItemError> {
    let (key, value) = part.split_once('=').ok_or(ItemError::Part(number))?;
    let read = match key.trim() {
        "serial" if asked.serial.is_some() => return Err(ItemError::Twice("serial")),
        "serial" => asked.with_serial(value),
        "bus" if asked.bus.is_some() => return Err(ItemError::Twice("bus")),
        "bus" => asked.with_bus(value),
        "port" if asked.port.is_some() => return Err(ItemError::Twice("port")),
        "port" => asked.with_port(value),
        _ => return Err(ItemError::Part(number)),
    };
    Ok(read?)
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_LEN_MAX).collect()
}
