//! Feeds arbitrary bytes as code, in every mode: nothing may panic, hang or grow without bound.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    x86::fuzz::run(input);
});
