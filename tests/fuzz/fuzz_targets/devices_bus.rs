//! Feeds arbitrary accesses to any device through the bus: nothing may panic, hang or grow without bound.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    devices::fuzz::drive(input);
});
