//! Feeds arbitrary bytes as lines of a guest agent: nothing may panic, hang or grow without bound.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    launcher::agent::fuzz_line(input);
});
