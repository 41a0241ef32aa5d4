//! Decompressing Zstandard frames (RFC 8878) into memory of a fixed size.
//!
//! A hostile frame of some hundred bytes can stand for gigabytes. Here the output is the cluster,
//! whose size is known, so nothing grows: a frame that wants more is refused where it does. A cluster
//! is one frame without a dictionary. Its checksum is not looked at, as QEMU's frames have none.

mod entropy;

use crate::width::to_usize;
use entropy::{BackwardBits, Fse, Huffman};

const MAGIC: u32 = 0xfd2f_b528;
/// The most that a block may hold (RFC 8878 §3.1.1.2.4).
const MAX_BLOCK_BYTES: usize = 128 << 10;

/// Literal lengths by code: lowest value and extra bits (RFC 8878 §3.1.1.3.2.1.1), from code 16 on.
const LITERAL_LENGTHS: [(usize, u32); 20] = [
    (16, 1),
    (18, 1),
    (20, 1),
    (22, 1),
    (24, 2),
    (28, 2),
    (32, 3),
    (40, 3),
    (48, 4),
    (64, 6),
    (128, 7),
    (256, 8),
    (512, 9),
    (1024, 10),
    (2048, 11),
    (4096, 12),
    (8192, 13),
    (16384, 14),
    (32768, 15),
    (65536, 16),
];
/// Match lengths by code: lowest value and extra bits, from code 32 on.
const MATCH_LENGTHS: [(usize, u32); 21] = [
    (35, 1),
    (37, 1),
    (39, 1),
    (41, 1),
    (43, 2),
    (47, 2),
    (51, 3),
    (59, 3),
    (67, 4),
    (83, 4),
    (99, 5),
    (131, 7),
    (259, 8),
    (515, 9),
    (1027, 10),
    (2051, 11),
    (4099, 12),
    (8195, 13),
    (16387, 14),
    (32771, 15),
    (65539, 16),
];
/// The distributions that need no description (RFC 8878 §3.1.1.3.2.2).
const DEFAULT_LITERAL_LENGTHS: [i16; 36] = [
    4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1,
    -1, -1, -1, -1,
];
const DEFAULT_OFFSETS: [i16; 29] = [
    1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1,
];
const DEFAULT_MATCH_LENGTHS: [i16; 53] = [
    1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1,
];

/// Fills `output` from the frame at the start of `input`; none if that is not what the frame holds.
pub(super) fn decompress(input: &[u8], output: &mut [u8]) -> Option<()> {
    let mut input = Input { bytes: input };
    frame_header(&mut input)?;
    let mut decoder = Decoder::new(output);
    loop {
        let header = input.number(3)?;
        let size = header >> 3;
        match (header >> 1) & 3 {
            0 => decoder.literals(input.take(size)?)?,
            1 => {
                let byte = input.number(1)?.to_le_bytes()[0];
                decoder.room(size)?.fill(byte);
                decoder.done += size;
            }
            2 => decoder.compressed_block(input.take(size)?)?,
            _ => return None,
        }
        if header & 1 != 0 {
            return (decoder.done == decoder.output.len()).then_some(());
        }
    }
}

/// Skips the header of a frame; the size of the output bounds what it may announce.
fn frame_header(input: &mut Input<'_>) -> Option<()> {
    let magic = input.number(4)?;
    let descriptor = input.number(1)?;
    let (single_segment, dictionary) = (descriptor & 0x20 != 0, descriptor & 3);
    // Bit 3 is reserved.
    if u32::try_from(magic).ok()? != MAGIC || descriptor & 8 != 0 || dictionary != 0 {
        return None;
    }
    let size_bytes = match descriptor >> 6 {
        0 => usize::from(single_segment),
        1 => 2,
        2 => 4,
        _ => 8,
    };
    input
        .take(usize::from(!single_segment) + size_bytes)
        .map(|_| ())
}

/// Bytes that are taken from the front.
struct Input<'a> {
    bytes: &'a [u8],
}

impl<'a> Input<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(len)?;
        self.bytes = rest;
        Some(taken)
    }

    /// Takes a little-endian number of at most seven bytes.
    fn number(&mut self, len: usize) -> Option<usize> {
        let bytes = self.take(len)?;
        Some(
            bytes
                .iter()
                .rev()
                .fold(0, |number, byte| number << 8 | usize::from(*byte)),
        )
    }
}

/// What one block leaves to the next, and the output.
struct Decoder<'a> {
    output: &'a mut [u8],
    done: usize,
    huffman: Option<Huffman>,
    literal_lengths: Option<Fse>,
    offsets: Option<Fse>,
    match_lengths: Option<Fse>,
    recent: [usize; 3],
}

impl<'a> Decoder<'a> {
    fn new(output: &'a mut [u8]) -> Self {
        Self {
            output,
            done: 0,
            huffman: None,
            literal_lengths: None,
            offsets: None,
            match_lengths: None,
            recent: [1, 4, 8],
        }
    }

    fn room(&mut self, len: usize) -> Option<&mut [u8]> {
        self.output.get_mut(self.done..)?.get_mut(..len)
    }

    fn literals(&mut self, bytes: &[u8]) -> Option<()> {
        self.room(bytes.len())?.copy_from_slice(bytes);
        self.done += bytes.len();
        Some(())
    }

    /// Repeats `len` bytes from `offset` back, which may overlap what is written.
    fn repeat(&mut self, offset: usize, len: usize) -> Option<()> {
        self.room(len)?;
        let from = self.done.checked_sub(offset)?;
        for at in 0..len {
            self.output[self.done + at] = self.output[from + at];
        }
        self.done += len;
        Some(())
    }

    fn compressed_block(&mut self, block: &[u8]) -> Option<()> {
        let mut input = Input { bytes: block };
        let literals = self.literals_section(&mut input)?;
        self.sequences_section(&mut input, &literals)
    }

    /// Decodes the literals of a block (RFC 8878 §3.1.1.3.1).
    fn literals_section(&mut self, input: &mut Input<'_>) -> Option<Vec<u8>> {
        let first = usize::from(*input.bytes.first()?);
        let (kind, format) = (first & 3, (first >> 2) & 3);
        if kind < 2 {
            let (header_bytes, shift) = [(1, 3), (2, 4), (1, 3), (3, 4)][format];
            let len = input.number(header_bytes)? >> shift;
            return match kind {
                _ if len > MAX_BLOCK_BYTES => None,
                0 => input.take(len).map(<[u8]>::to_vec),
                _ => Some(vec![input.take(1)?[0]; len]),
            };
        }
        let (header_bytes, size_bits) = [(3, 10), (3, 10), (4, 14), (5, 18)][format];
        let header = input.number(header_bytes)? >> 4;
        let len = header & ((1 << size_bits) - 1);
        let mut compressed = Input {
            bytes: input.take(header >> size_bits)?,
        };
        if len > MAX_BLOCK_BYTES {
            return None;
        }
        if kind == 2 {
            self.huffman = Some(Huffman::read(&mut compressed.bytes)?);
        }
        let huffman = self.huffman.as_ref()?;
        let mut literals = vec![0; len];
        if format == 0 {
            huffman.decode(compressed.bytes, &mut literals)?;
        } else {
            decode_four_streams(huffman, &mut compressed, &mut literals)?;
        }
        Some(literals)
    }

    /// Interleaves literals and matches (RFC 8878 §3.1.1.3.2 and §3.1.1.4).
    fn sequences_section(&mut self, input: &mut Input<'_>, literals: &[u8]) -> Option<()> {
        let count = sequence_count(input)?;
        let mut literals = Input { bytes: literals };
        if count > 0 {
            let modes = input.number(1)?;
            let table = |input: &mut Input<'_>, mode, default: &[i16], bits, most, last: &mut _| {
                *last = Some(read_table(
                    input,
                    mode & 3,
                    default,
                    bits,
                    most,
                    Option::take(last),
                )?);
                Some(())
            };
            let Self {
                literal_lengths,
                offsets,
                match_lengths,
                ..
            } = self;
            table(
                input,
                modes >> 6,
                &DEFAULT_LITERAL_LENGTHS,
                6,
                9,
                literal_lengths,
            )?;
            table(input, modes >> 4, &DEFAULT_OFFSETS, 5, 8, offsets)?;
            table(
                input,
                modes >> 2,
                &DEFAULT_MATCH_LENGTHS,
                6,
                9,
                match_lengths,
            )?;
            self.sequences(count, input.bytes, &mut literals)?;
        }
        self.literals(literals.bytes)
    }

    fn sequences(&mut self, count: usize, bytes: &[u8], literals: &mut Input<'_>) -> Option<()> {
        let mut bits = BackwardBits::new(bytes)?;
        let tables = (
            self.literal_lengths.take()?,
            self.offsets.take()?,
            self.match_lengths.take()?,
        );
        let mut states = (
            tables.0.start(&mut bits),
            tables.1.start(&mut bits),
            tables.2.start(&mut bits),
        );
        for sequence in 0..count {
            let offset_code = u32::from(tables.1.symbol(states.1));
            if offset_code > 31 {
                return None;
            }
            let offset_value = (1 << offset_code) + bits.read(offset_code);
            let match_code = tables.2.symbol(states.2);
            let (base, extra) = length(&MATCH_LENGTHS, 32, 3, match_code)?;
            let match_len = base + to_usize(bits.read(extra));
            let (base, extra) = length(&LITERAL_LENGTHS, 16, 0, tables.0.symbol(states.0))?;
            let literal_len = base + to_usize(bits.read(extra));
            self.literals(literals.take(literal_len)?)?;
            let offset = self.offset(to_usize(offset_value), literal_len)?;
            self.repeat(offset, match_len)?;
            if sequence + 1 < count {
                states.0 = tables.0.next(states.0, &mut bits);
                states.2 = tables.2.next(states.2, &mut bits);
                states.1 = tables.1.next(states.1, &mut bits);
            }
        }
        (self.literal_lengths, self.offsets, self.match_lengths) =
            (Some(tables.0), Some(tables.1), Some(tables.2));
        bits.is_at_start().then_some(())
    }

    /// Turns an offset value into an offset; the lowest stand for recent ones (RFC 8878 §3.1.1.5).
    fn offset(&mut self, value: usize, literal_len: usize) -> Option<usize> {
        let [a, b, c] = self.recent;
        let (offset, recent) = match (value, literal_len) {
            (4.., _) => (value - 3, [value - 3, a, b]),
            (1, 1..) => (a, [a, b, c]),
            (2, 1..) | (1, 0) => (b, [b, a, c]),
            (3, 1..) | (2, 0) => (c, [c, a, b]),
            _ => (a - 1, [a - 1, a, b]),
        };
        self.recent = recent;
        Some(offset).filter(|offset| *offset > 0)
    }
}

fn decode_four_streams(
    huffman: &Huffman,
    input: &mut Input<'_>,
    literals: &mut [u8],
) -> Option<()> {
    let sizes = [input.number(2)?, input.number(2)?, input.number(2)?];
    let part = literals.len().div_ceil(4);
    let mut rest = literals;
    for size in sizes {
        let (one, others) = rest.split_at_mut_checked(part)?;
        huffman.decode(input.take(size)?, one)?;
        rest = others;
    }
    huffman.decode(input.bytes, rest)
}

fn sequence_count(input: &mut Input<'_>) -> Option<usize> {
    Some(match input.number(1)? {
        255 => input.number(2)? + 0x7f00,
        high @ 128.. => (high - 128) << 8 | input.number(1)?,
        count => count,
    })
}

/// Reads the table of one kind of code as the block's mode says.
fn read_table(
    input: &mut Input<'_>,
    mode: usize,
    default: &[i16],
    default_bits: u32,
    most_bits: u32,
    last: Option<Fse>,
) -> Option<Fse> {
    match mode {
        0 => Fse::new(default, default_bits),
        1 => Some(Fse::constant(input.take(1)?[0])),
        2 => Fse::read(&mut input.bytes, most_bits),
        _ => last,
    }
}

/// Returns the lowest length of a code and its extra bits; low codes are lengths themselves.
fn length(table: &[(usize, u32)], first: u8, lowest: usize, code: u8) -> Option<(usize, u32)> {
    match code.checked_sub(first) {
        None => Some((usize::from(code) + lowest, 0)),
        Some(index) => table.get(usize::from(index)).copied(),
    }
}

#[cfg(test)]
mod tests {
    use super::decompress;
    use ruzstd::encoding::{CompressionLevel, compress_to_vec};
    use std::process::Command;

    fn sample() -> Vec<u8> {
        let line = |i: u64| format!("line {} of {}\n", i * i % 97, i / 7);
        (0..6000)
            .flat_map(|i| line(i).into_bytes())
            .take(65_536)
            .collect()
    }

    #[test]
    fn frames_of_another_encoder_are_read() {
        for bytes in [
            sample(),
            vec![9; 65_536],
            (0..=255).cycle().take(4096).collect(),
        ] {
            let frame = compress_to_vec(bytes.as_slice(), CompressionLevel::Fastest);
            let mut output = vec![0; bytes.len()];
            decompress(&frame, &mut output).unwrap();
            assert!(output == bytes);
            // Neither a smaller nor a larger cluster is what this frame holds.
            assert_eq!(decompress(&frame, &mut output[1..]), None);
            assert_eq!(decompress(&frame, &mut vec![0; bytes.len() + 1]), None);
        }
    }

    #[test]
    fn frames_of_every_level_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sample");
        let text = include_bytes!("zstd.rs");
        let mixed: Vec<u8> = sample()
            .iter()
            .zip(text.iter().cycle())
            .map(|(a, b)| a ^ b & 3)
            .collect();
        for bytes in [sample(), text.to_vec(), mixed, text[..900].to_vec()] {
            std::fs::write(&path, &bytes).unwrap();
            for level in ["-1", "--fast=5", "-3", "-9", "-19", "-22"] {
                let args = ["--ultra", "-q", "-c", level];
                let frame = match Command::new("zstd").args(args).arg(&path).output() {
                    Ok(output) => output.stdout,
                    Err(error) => return println!("skipped: zstd cannot be run: {error}"),
                };
                let mut output = vec![0; bytes.len()];
                decompress(&frame, &mut output).unwrap();
                assert!(output == bytes, "level {level}");
            }
        }
    }

    #[test]
    fn damaged_frames_are_refused_or_read_but_never_panic() {
        let frame = compress_to_vec(sample().as_slice(), CompressionLevel::Fastest);
        let mut output = vec![0; 65_536];
        for (index, change) in (0..frame.len()).zip((1..=255).cycle()) {
            let mut damaged = frame.clone();
            damaged[index] ^= change;
            let _ = decompress(&damaged, &mut output);
            let _ = decompress(&frame[..index], &mut output);
        }
    }
}
