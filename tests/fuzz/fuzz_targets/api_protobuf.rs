//! Feeds arbitrary bytes as the body of a request in protobuf: nothing may panic.
#![no_main]

use apiserver::protobuf::decode;

/// With which such bodies begin, and the names of the kind that it is said to be.
const ENVELOPES: [&[u8]; 3] = [
    b"k8s\0\x0a\x0a\x0a\x02v1\x12\x04Pod ",
    b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap",
    b"k8s\0",
];

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    // An error is an answer too.
    let _raw = decode(input);
    for envelope in ENVELOPES {
        // The object is the second field of the envelope; longer ones take longer lengths.
        let Ok(len) = u8::try_from(input.len()) else { continue };
        if len < 128 {
            let _read = decode(&[envelope, &[0x12, len], input].concat());
        }
    }
});
