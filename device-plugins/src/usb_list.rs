//! The `usbList`: USB devices by resource, vendor and product.
//!
//! `kubevirt.io/wifi-dongle;0bda;0811,kubevirt.io/gsm-dongle;0bda;2838`. The vendor comes first, as in the examples and in
//! the chart that the format is from, although texts about it have it the other way round.

use crate::usb::UsbSelector;
use crate::wanted::Problem;

/// Reads a list. Items that make no sense are problems, the others count; items of one resource stay apart here and are
/// added up by the source.
#[must_use]
pub fn parse(_list: &str) -> (Vec<UsbSelector>, Vec<Problem>) {
    (Vec::new(), Vec::new())
}
