//! Feeds arbitrary bytes as a list of USB devices: nothing may panic, and what is accepted reads the same once written.
#![no_main]

use device_plugins::usb_list::{item, parse};

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let (selectors, _) = parse(&String::from_utf8_lossy(input));
    let items: Vec<String> = selectors
        .iter()
        .map(|selector| item(&selector.resource, &selector.matches[0]))
        .collect();
    assert_eq!(parse(&items.join(",")).0, selectors);
});
