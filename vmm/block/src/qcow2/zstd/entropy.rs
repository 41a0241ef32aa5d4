//! Finite state entropy and Huffman codes (RFC 8878 §4.1 and §4.2).

use crate::width::to_u64;

/// The longest Huffman code.
const MAX_HUFFMAN_BITS: u32 = 11;
/// The finest table of Huffman weights.
const MAX_WEIGHT_BITS: u32 = 6;
/// Symbols are bytes.
const MAX_SYMBOLS: usize = 256;

/// Bits that are read from the end, the highest first. Before the first there are zeroes.
pub(super) struct BackwardBits<'a> {
    bytes: &'a [u8],
    /// How many bits are left; below zero after reading past the start.
    left: i64,
}

impl<'a> BackwardBits<'a> {
    /// Starts below the highest bit that is set in the last byte.
    pub(super) fn new(bytes: &'a [u8]) -> Option<Self> {
        let padding = bytes.last()?.checked_ilog2()?;
        let left = i64::try_from(bytes.len()).ok()? * 8 - 8 + i64::from(padding);
        Some(Self { bytes, left })
    }

    /// Reads at most 32 bits.
    pub(super) fn read(&mut self, count: u32) -> u64 {
        self.left -= i64::from(count);
        let Ok(at) = usize::try_from(self.left) else {
            let missing = self.left.unsigned_abs();
            let kept = u64::from(count).saturating_sub(missing);
            return if kept == 0 {
                0
            } else {
                self.bits_from(0, kept) << missing
            };
        };
        self.bits_from(at, u64::from(count))
    }

    fn bits_from(&self, at: usize, count: u64) -> u64 {
        let mut window = [0; 8];
        let bytes = self.bytes.get(at / 8..).unwrap_or_default();
        let len = bytes.len().min(8);
        window[..len].copy_from_slice(&bytes[..len]);
        u64::from_le_bytes(window) >> (at % 8) & ((1 << count) - 1)
    }

    /// Tells whether every bit was read, and none before the first.
    pub(super) fn is_at_start(&self) -> bool {
        self.left == 0
    }
}

/// Bits that are read from the start, the lowest first.
struct ForwardBits<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl ForwardBits<'_> {
    fn read(&mut self, count: u32) -> Option<u32> {
        let mut value = 0;
        for bit in 0..count {
            let byte = *self.bytes.get(self.at / 8)?;
            value |= u32::from(byte >> (self.at % 8) & 1) << bit;
            self.at += 1;
        }
        Some(value)
    }
}

/// One state of a decoding table.
#[derive(Debug, Clone, Copy, Default)]
struct State {
    symbol: u8,
    bits: u32,
    base: u64,
}

/// A table of finite state entropy decoding.
#[derive(Debug)]
pub(super) struct Fse {
    states: Vec<State>,
    accuracy_bits: u32,
}

impl Fse {
    /// Makes a table that always gives one symbol.
    pub(super) fn constant(symbol: u8) -> Self {
        Self {
            states: vec![State {
                symbol,
                bits: 0,
                base: 0,
            }],
            accuracy_bits: 0,
        }
    }

    /// Reads the description of a table from the front of `input`.
    pub(super) fn read(input: &mut &[u8], most_bits: u32) -> Option<Self> {
        let mut bits = ForwardBits {
            bytes: input,
            at: 0,
        };
        let accuracy_bits = bits.read(4)? + 5;
        if accuracy_bits > most_bits {
            return None;
        }
        let mut left = 1i32 << accuracy_bits;
        let mut shares = Vec::new();
        while left > 0 {
            let share = read_share(&mut bits, left)?;
            left -= i32::from(share.abs());
            shares.push(share);
            // Runs of zeroes come in threes, until a part of one ends them.
            let mut zeroes = if share == 0 { 3 } else { 0 };
            while zeroes == 3 && shares.len() <= MAX_SYMBOLS {
                zeroes = bits.read(2)?;
                shares.extend((0..zeroes).map(|_| 0));
            }
            if shares.len() > MAX_SYMBOLS {
                return None;
            }
        }
        *input = input.get(bits.at.div_ceil(8)..)?;
        Self::new(&shares, accuracy_bits).filter(|_| left == 0)
    }

    /// Spreads the symbols over the states by their shares; -1 is a share below one state.
    pub(super) fn new(shares: &[i16], accuracy_bits: u32) -> Option<Self> {
        let size = 1usize << accuracy_bits;
        let mut states = vec![State::default(); size];
        let mut end = size;
        for (symbol, _) in (0u8..=255).zip(shares).filter(|(_, share)| **share < 0) {
            end = end.checked_sub(1)?;
            states[end].symbol = symbol;
        }
        let mut at = 0;
        for (symbol, share) in (0u8..=255).zip(shares) {
            for _ in 0..*share {
                states[at].symbol = symbol;
                at = (at + (size >> 1) + (size >> 3) + 3) % size;
                while at >= end && end > 0 {
                    at = (at + (size >> 1) + (size >> 3) + 3) % size;
                }
            }
        }
        // Each state of a symbol gets the next number from the symbol's share on.
        let mut numbers: Vec<u64> = shares.iter().map(|s| u64::from(s.unsigned_abs())).collect();
        for state in &mut states {
            let number = numbers.get_mut(usize::from(state.symbol))?;
            state.bits = accuracy_bits.checked_sub(number.checked_ilog2()?)?;
            state.base = (*number << state.bits).checked_sub(to_u64(size))?;
            *number += 1;
        }
        (at == 0).then_some(Self {
            states,
            accuracy_bits,
        })
    }

    /// Reads the first state.
    pub(super) fn start(&self, bits: &mut BackwardBits<'_>) -> u64 {
        bits.read(self.accuracy_bits)
    }

    /// Returns the symbol of a state.
    pub(super) fn symbol(&self, state: u64) -> u8 {
        self.at(state).symbol
    }

    /// Reads the state after a state.
    pub(super) fn next(&self, state: u64, bits: &mut BackwardBits<'_>) -> u64 {
        let State {
            base, bits: count, ..
        } = self.at(state);
        base + bits.read(count)
    }

    fn at(&self, state: u64) -> State {
        self.states[crate::width::to_usize(state)]
    }
}

/// Reads how many of the states left a symbol gets. Small numbers take one bit less where there are
/// fewer values than the bits could tell.
fn read_share(bits: &mut ForwardBits<'_>, left: i32) -> Option<i16> {
    let values = left.unsigned_abs() + 2;
    let long = (values - 1).ilog2() + 1;
    let short_values = (1 << long) - values;
    let low = bits.read(long - 1)?;
    let value = if low < short_values {
        low
    } else {
        let value = low | bits.read(1)? << (long - 1);
        if value >> (long - 1) != 0 {
            value - short_values
        } else {
            value
        }
    };
    i16::try_from(value).ok().map(|value| value - 1)
}

/// A table of Huffman decoding, indexed by as many bits as the longest code has.
#[derive(Debug)]
pub(super) struct Huffman {
    codes: Vec<(u8, u32)>,
    bits: u32,
}

impl Huffman {
    /// Reads the description of a tree from the front of `input` (RFC 8878 §4.2.1).
    pub(super) fn read(input: &mut &[u8]) -> Option<Self> {
        let (header, rest) = input.split_first()?;
        let count = usize::from(header.saturating_sub(127));
        let len = if count > 0 {
            count.div_ceil(2)
        } else {
            usize::from(*header)
        };
        let (bytes, rest) = rest.split_at_checked(len)?;
        *input = rest;
        let weights = if count > 0 {
            bytes
                .iter()
                .flat_map(|byte| [byte >> 4, byte & 15])
                .take(count)
                .collect()
        } else {
            read_weights(bytes)?
        };
        Self::from_weights(weights)
    }

    /// Makes the table. The last weight is not described: it fills what the others leave.
    fn from_weights(mut weights: Vec<u8>) -> Option<Self> {
        if weights.len() >= MAX_SYMBOLS || weights.iter().any(|w| u32::from(*w) > MAX_HUFFMAN_BITS)
        {
            return None;
        }
        let share = |weight: u8| (1u32 << weight) >> 1;
        let sum: u32 = weights.iter().map(|weight| share(*weight)).sum();
        let bits = sum.checked_ilog2()? + 1;
        let left = (1 << bits) - sum;
        if bits > MAX_HUFFMAN_BITS || !left.is_power_of_two() {
            return None;
        }
        weights.push(u8::try_from(left.ilog2() + 1).ok()?);
        let mut codes = Vec::new();
        for weight in 1..=u8::try_from(bits).ok()? {
            for (symbol, _) in (0u8..=255).zip(&weights).filter(|(_, w)| **w == weight) {
                let code = (symbol, bits + 1 - u32::from(weight));
                codes.extend((0..share(weight)).map(|_| code));
            }
        }
        (codes.len() == 1 << bits).then_some(Self { codes, bits })
    }

    /// Fills `output` from a stream that holds exactly that many symbols.
    pub(super) fn decode(&self, stream: &[u8], output: &mut [u8]) -> Option<()> {
        let mut bits = BackwardBits::new(stream)?;
        let mask = (1 << self.bits) - 1;
        let mut state = bits.read(self.bits);
        for byte in output {
            let (symbol, used) = self.codes[crate::width::to_usize(state)];
            *byte = symbol;
            state = (state << used | bits.read(used)) & mask;
        }
        (bits.left == -i64::from(self.bits)).then_some(())
    }
}

/// Decodes Huffman weights, which two states take turns to give.
fn read_weights(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let table = Fse::read(&mut bytes, MAX_WEIGHT_BITS)?;
    let mut bits = BackwardBits::new(bytes)?;
    let mut states = [table.start(&mut bits), table.start(&mut bits)];
    let mut weights = Vec::new();
    while weights.len() < MAX_SYMBOLS {
        weights.push(table.symbol(states[0]));
        states[0] = table.next(states[0], &mut bits);
        states.swap(0, 1);
        // The bits ended with this state's; the other one still has its symbol.
        if bits.left < 0 {
            weights.push(table.symbol(states[0]));
            return Some(weights);
        }
    }
    None
}
