//! Bit scans, checksums and decimal digits, one bit at a time.

use super::bench::{Bench, Stop};
use super::model::{
    Inputs, RAX, RCX, RDX, WIDTHS, at_bx, bit, edges, go, merged, modes, ones, pairs,
    sign_zero_parity, when, words,
};
use crate::cpu::rflags::{AF, CF, OF, STATUS, ZF};

/// What BSF BSR TZCNT LZCNT POPCNT find; none where the target stays as it is.
fn scanned(kind: &str, source: u64, width: u32) -> (Option<u64>, u64, u64) {
    let first = |mut places: Box<dyn Iterator<Item = u32>>| places.find(|n| bit(source, *n));
    let lowest = first(Box::new(0..width));
    let highest = first(Box::new((0..width).rev()));
    match kind {
        "bsf" => (lowest.map(u64::from), when(source == 0, ZF), ZF),
        "bsr" => (highest.map(u64::from), when(source == 0, ZF), ZF),
        "tzcnt" => {
            let count = u64::from(lowest.unwrap_or(width));
            (
                Some(count),
                when(source == 0, CF) | when(count == 0, ZF),
                CF | ZF,
            )
        }
        "lzcnt" => {
            let count = u64::from(highest.map_or(width, |n| width - 1 - n));
            (
                Some(count),
                when(source == 0, CF) | when(count == 0, ZF),
                CF | ZF,
            )
        }
        _ => {
            let count = (0..width).filter(|n| bit(source, *n)).count() as u64;
            (Some(count), when(source == 0, ZF), STATUS)
        }
    }
}

#[test]
fn scans_look_at_one_bit_after_the_other() {
    let rows: [(&str, &[u8], u8); 5] = [
        ("bsf", &[], 0xbc),
        ("bsr", &[], 0xbd),
        ("tzcnt", &[0xf3], 0xbc),
        ("lzcnt", &[0xf3], 0xbd),
        ("popcnt", &[0xf3], 0xb8),
    ];
    let mut bench = Bench::new();
    for width in [16, 32, 64] {
        for (&bits, (kind, prefix, opcode)) in
            modes(width).iter().flat_map(|b| rows.map(|r| (b, r)))
        {
            let in_register = bench.form(bits, &words(bits, width, prefix, &[0x0f, opcode, 0xd1]));
            let in_memory = bench.form(
                bits,
                &words(bits, width, prefix, &[0x0f, opcode, at_bx(bits, 2)]),
            );
            let places = (0..width).map(|n| 1 << n | 1 << (n / 2));
            for source in edges(width).into_iter().chain(places) {
                let (result, flags, defined) = scanned(kind, source, width);
                for (form, memory) in [(in_register, false), (in_memory, true)] {
                    let mut inputs = Inputs {
                        registers: vec![(RCX, source)],
                        cell: None,
                        flags: STATUS,
                    };
                    inputs.cell = memory.then_some(source);
                    let (mut regs, after, stop) = go(&mut bench, form, bits, width, &inputs);
                    if let Some(result) = result {
                        regs[RDX] = merged(regs[RDX], result, width);
                    }
                    assert_eq!(
                        (stop, after),
                        (Stop::Next, regs),
                        "{kind} of {source:x}, {width} bits"
                    );
                    assert_eq!(
                        (bench.status() ^ flags) & defined,
                        0,
                        "{kind} of {source:x}, {width} bits"
                    );
                }
            }
        }
    }
}

/// The remainder of a polynomial division, a bit at a time, lowest bit first (SDM vol. 2, CRC32).
fn crc(mut sum: u32, data: u64, width: u32) -> u32 {
    const REFLECTED: u32 = 0x82f6_3b78;
    for n in 0..width {
        let odd = (sum & 1 == 1) != bit(data, n);
        sum = sum >> 1 ^ if odd { REFLECTED } else { 0 };
    }
    sum
}

#[test]
fn crc32_divides_polynomials_and_leaves_the_flags_alone() {
    let mut bench = Bench::new();
    for width in WIDTHS {
        for &bits in modes(width) {
            let opcode = if width == 8 { 0xf0 } else { 0xf1 };
            let code = words(bits, width, &[0xf2], &[0x0f, 0x38, opcode, 0xd1]);
            let form = bench.form(bits, &code);
            for (data, seed) in pairs(width) {
                let cpu = bench.start(form);
                (cpu.regs[RCX], cpu.regs[RDX]) = (data, seed & ones(32));
                cpu.set_flags(STATUS | 2);
                assert_eq!(bench.run(form), Stop::Next, "{code:02x?}");
                let sum = u64::from(crc(seed as u32, data, width));
                assert_eq!(
                    (bench.cpu().regs[RDX], bench.status()),
                    (sum, STATUS),
                    "{code:02x?} {data:x}"
                );
            }
        }
    }
}

/// DAA and DAS as the manual's operation sections have them, in decimal digits.
fn decimal(subtracts: bool, al: u8, flags: u64) -> (u8, u64) {
    let (low, high) = (
        al & 0xf > 9 || flags & AF != 0,
        al > 0x99 || flags & CF != 0,
    );
    let by = if low { 6 } else { 0 } + if high { 0x60 } else { 0 };
    let value = if subtracts {
        al.wrapping_sub(by)
    } else {
        al.wrapping_add(by)
    };
    let borrow = subtracts && low && al < 6;
    (
        value,
        sign_zero_parity(u64::from(value), 8) | when(low, AF) | when(high || borrow, CF),
    )
}

#[test]
fn every_byte_is_adjusted_to_decimal_digits() {
    let mut bench = Bench::new();
    for (bits, opcode) in [(16, 0x27), (16, 0x2f), (32, 0x27), (32, 0x2f)] {
        let form = bench.form(bits, &[opcode]);
        for (al, flags) in (0..=255u8).flat_map(|al| [0, AF, CF, AF | CF].map(|f| (al, f))) {
            let cpu = bench.start(form);
            cpu.regs[RAX] = 0x1234_5600 | u64::from(al);
            cpu.set_flags(flags | 2);
            assert_eq!(bench.run(form), Stop::Next);
            let (value, after) = decimal(opcode == 0x2f, al, flags);
            let rax = 0x1234_5600 | u64::from(value);
            let got = (bench.cpu().regs[RAX], bench.status() & !OF);
            assert_eq!(got, (rax, after), "{opcode:x} of {al:x} with {flags:x}");
        }
    }
}

#[test]
fn every_byte_is_adjusted_to_unpacked_digits() {
    let mut bench = Bench::new();
    for (opcode, sign) in [(0x37u8, 1i32), (0x3f, -1)] {
        let form = bench.form(32, &[opcode]);
        for (ax, af) in
            (0..=255u16).flat_map(|al| [(al | 0x300, 0), (al | 0x300, AF), (al | 0xff00, 0)])
        {
            let cpu = bench.start(form);
            cpu.regs[RAX] = u64::from(ax);
            cpu.set_flags(af | 2);
            assert_eq!(bench.run(form), Stop::Next);
            let carries = ax & 0xf > 9 || af != 0;
            let value = if carries {
                (i32::from(ax) + sign * 0x106) & 0xffff
            } else {
                i32::from(ax)
            };
            let got = (bench.cpu().regs[RAX], bench.status() & (AF | CF));
            assert_eq!(
                got,
                ((value & 0xff0f) as u64, when(carries, AF | CF)),
                "{opcode:x} of {ax:x}"
            );
        }
    }
}
