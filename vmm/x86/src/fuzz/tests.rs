//! Replays cases that are made from fixed seeds.

use iced_x86::{Decoder, DecoderOptions};

use super::{HEADER_BYTES, run};

/// A fixed sequence of numbers (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| (self.next() >> 24) as u8).collect()
    }

    /// An instruction that decodes in code of `bits`.
    fn instruction(&mut self, bits: u32) -> Vec<u8> {
        loop {
            let mut bytes = self.bytes(15);
            if self.next() & 1 == 0 {
                bytes.insert(0, 0x0f);
            }
            if self.next() & 3 == 0 {
                bytes.insert(
                    0,
                    [0x66, 0xf2, 0xf3, 0xf0, 0x67, 0x48][self.next() as usize % 6],
                );
            }
            let insn = Decoder::new(bits, &bytes, DecoderOptions::NONE).decode();
            if !insn.is_invalid() {
                bytes.truncate(insn.len());
                return bytes;
            }
        }
    }
}

/// The case of a seed: a world and mostly instructions.
fn case(seed: u64) -> Vec<u8> {
    let mut numbers = Numbers(seed);
    let mut data = numbers.bytes(HEADER_BYTES);
    let bits = [16, 32, 64][numbers.next() as usize % 3];
    for _ in 0..numbers.next() % 64 {
        if numbers.next().is_multiple_of(16) {
            let len = numbers.next() as usize % 8;
            data.extend(numbers.bytes(len));
        } else {
            data.extend(numbers.instruction(bits));
        }
    }
    data
}

/// Number of cases; `FERROVIRT_FUZZ_CASES` asks for more of them, `FERROVIRT_FUZZ_FIRST` for others.
fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(default)
}

#[test]
fn arbitrary_code_neither_panics_nor_escapes() {
    let first = number("FERROVIRT_FUZZ_FIRST", 0);
    let mut slowest = (0, first);
    for seed in first..first + number("FERROVIRT_FUZZ_CASES", 1_000) {
        let data = case(seed);
        let start = std::time::Instant::now();
        if let Err(panic) = std::panic::catch_unwind(|| run(&data)) {
            println!("the case of seed {seed} failed");
            std::panic::resume_unwind(panic);
        }
        slowest = slowest.max((start.elapsed().as_micros(), seed));
    }
    println!("the slowest case took {} µs: seed {}", slowest.0, slowest.1);
}
