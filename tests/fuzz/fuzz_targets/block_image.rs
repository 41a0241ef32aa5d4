//! Feeds arbitrary bytes as a disk image: nothing may panic, hang or grow without bound.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    block::fuzz::open(input);
});
