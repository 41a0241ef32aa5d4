//! Arithmetic against a second opinion that works bit by bit, for every width, mode and operand form.

use super::bench::{Bench, Form, Stop};
use crate::cpu::rflags::{AF, CF, OF, PF, SF, STATUS, ZF};

pub(super) const WIDTHS: [u32; 4] = [8, 16, 32, 64];
/// What registers hold besides their operands.
pub(super) const JUNK: u64 = 0x5a5a_a5a5_c3c3_3c3c;
/// Where operands in memory are.
pub(super) const CELL: u64 = 0x2000;
pub(super) const RAX: usize = 0;
pub(super) const RCX: usize = 1;
pub(super) const RDX: usize = 2;
pub(super) const RBX: usize = 3;

pub(super) fn ones(width: u32) -> u64 {
    u64::MAX >> (64 - width)
}

pub(super) fn bit(value: u64, n: u32) -> bool {
    value >> n & 1 == 1
}

pub(super) fn when(set: bool, flag: u64) -> u64 {
    if set { flag } else { 0 }
}

pub(super) fn sign_zero_parity(value: u64, width: u32) -> u64 {
    let odd = (0..8).fold(false, |odd, n| odd ^ bit(value, n));
    when(bit(value, width - 1), SF) | when(value & ones(width) == 0, ZF) | when(!odd, PF)
}

/// A result, its flags, and which of the flags are defined.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub(super) value: u64,
    pub(super) flags: u64,
    pub(super) defined: u64,
}

pub(super) fn answer(value: u64, flags: u64) -> Answer {
    Answer {
        value,
        flags,
        defined: STATUS,
    }
}

/// Sum by a chain of full adders, with the carries that the flags come from.
pub(super) fn adder(a: u64, b: u64, carry: bool, width: u32, borrows: bool) -> Answer {
    let (mut carry, mut into_sign, mut half, mut sum) = (carry, false, false, 0);
    for n in 0..width {
        let (x, y) = (bit(a, n), bit(b, n));
        into_sign = carry;
        sum |= u64::from(x ^ y ^ carry) << n;
        carry = x & y | x & carry | y & carry;
        if n == 3 {
            half = carry;
        }
    }
    let flags = sign_zero_parity(sum, width)
        | when(carry != borrows, CF)
        | when(half != borrows, AF)
        | when(carry != into_sign, OF);
    answer(sum, flags)
}

pub(super) fn subtract(a: u64, b: u64, borrow: bool, width: u32) -> Answer {
    adder(a, !b, !borrow, width, true)
}

pub(super) fn logic(value: u64, width: u32) -> Answer {
    Answer {
        value: value & ones(width),
        flags: sign_zero_parity(value & ones(width), width),
        defined: STATUS & !AF,
    }
}

/// A two-operand operation: its number in the opcode map (SDM vol. 2 appendix A).
pub(super) fn binary(row: u8, a: u64, b: u64, carry: bool, width: u32) -> Answer {
    match row {
        0 => adder(a, b, false, width, false),
        1 => logic(a | b, width),
        2 => adder(a, b, carry, width, false),
        3 => subtract(a, b, carry, width),
        4 | TEST => logic(a & b, width),
        5 | CMP => subtract(a, b, false, width),
        _ => logic(a ^ b, width),
    }
}

pub(super) const CMP: u8 = 7;
pub(super) const TEST: u8 = 8;

pub(super) fn writes(row: u8) -> bool {
    row != CMP && row != TEST
}

/// Values where carries, signs and halves change.
pub(super) fn edges(width: u32) -> Vec<u64> {
    let top = 1u64 << (width - 1);
    let values = [
        0,
        1,
        0xf,
        0x10,
        top - 1,
        top,
        top + 1,
        ones(width),
        0x9e37_79b9_7f4a_7c15,
    ];
    values.iter().map(|v| v & ones(width)).collect()
}

/// The modes that have operands of a width.
pub(super) fn modes(width: u32) -> &'static [u8] {
    if width == 64 { &[64] } else { &[16, 32, 64] }
}

/// Prefixes that give an operand size.
pub(super) fn size_prefix(bits: u8, width: u32) -> &'static [u8] {
    match (bits, width) {
        (_, 64) => &[0x48],
        (16, 32) | (32 | 64, 16) => &[0x66],
        _ => &[],
    }
}

/// An instruction with prefixes for its width, whose opcode has the width in its lowest bit.
pub(super) fn sized(bits: u8, width: u32, before: &[u8], opcode: &[u8], after: &[u8]) -> Vec<u8> {
    let mut code = before.to_vec();
    code.extend(size_prefix(bits, width));
    code.extend(opcode);
    *code.last_mut().unwrap() |= u8::from(width > 8);
    code.extend(after);
    code
}

/// Without a width in the opcode.
pub(super) fn words(bits: u8, width: u32, before: &[u8], code: &[u8]) -> Vec<u8> {
    [before, size_prefix(bits, width), code].concat()
}

pub(super) fn junk(bits: u8) -> u64 {
    if bits == 64 { JUNK } else { JUNK & 0xffff_ffff }
}

/// A register after a write of `width` bits to it.
pub(super) fn merged(old: u64, value: u64, width: u32) -> u64 {
    match width {
        32 => value,
        _ => old & !ones(width) | value & ones(width),
    }
}

/// ModRM of `[RBX]` with register field `reg`, which is `[BX]` in 16-bit code.
pub(super) fn at_bx(bits: u8, reg: u8) -> u8 {
    reg << 3 | if bits == 16 { 7 } else { 3 }
}

pub(super) fn immediate(value: u64, width: u32) -> Vec<u8> {
    value.to_le_bytes()[..(width.min(32) / 8) as usize].to_vec()
}

/// Operands in registers and memory, as bits of the width; the rest of the registers is junk.
pub(super) struct Inputs {
    pub(super) registers: Vec<(usize, u64)>,
    pub(super) cell: Option<u64>,
    pub(super) flags: u64,
}

/// Runs a form; gives the registers before and after it.
pub(super) fn go(
    bench: &mut Bench,
    form: Form,
    bits: u8,
    width: u32,
    inputs: &Inputs,
) -> ([u64; 4], [u64; 4], Stop) {
    if let Some(value) = inputs.cell {
        let cell = JUNK & !ones(width) | value;
        bench.ram.write(CELL, &cell.to_le_bytes());
    }
    let cpu = bench.start(form);
    cpu.regs[..4].fill(junk(bits));
    for (n, value) in &inputs.registers {
        cpu.regs[*n] = junk(bits) & !ones(width) | value;
    }
    if inputs.cell.is_some() {
        cpu.regs[RBX] = CELL;
    }
    cpu.set_flags(inputs.flags | 2);
    let before = first_four(cpu.regs);
    let stop = bench.run(form);
    (before, first_four(bench.cpu().regs), stop)
}

pub(super) fn first_four(regs: [u64; 18]) -> [u64; 4] {
    [regs[0], regs[1], regs[2], regs[3]]
}

pub(super) fn cell(bench: &Bench, width: u32) -> u64 {
    u64::from_le_bytes(bench.ram.read(CELL)) & ones(width)
}

/// Where the first operand of a form is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    Register(usize),
    Memory,
}

/// Checks one run of a form whose first operand is also its target.
#[expect(clippy::too_many_arguments, reason = "a row of a table")]
pub(super) fn expect(
    bench: &mut Bench,
    form: Form,
    (bits, width): (u8, u32),
    first: First,
    a: u64,
    others: &[(usize, u64)],
    flags: u64,
    expected: Answer,
    name: &str,
) {
    let mut inputs = Inputs {
        registers: others.to_vec(),
        cell: None,
        flags,
    };
    match first {
        First::Register(n) => inputs.registers.push((n, a)),
        First::Memory => inputs.cell = Some(a),
    }
    let (mut before, after, stop) = go(bench, form, bits, width, &inputs);
    let what =
        || format!("{name} of {width} bits in mode {bits}: {a:x} {others:x?} flags {flags:x}");
    assert_eq!(stop, Stop::Next, "{}", what());
    match first {
        First::Register(n) => before[n] = merged(before[n], expected.value, width),
        First::Memory => assert_eq!(cell(bench, width), expected.value, "{}", what()),
    }
    assert_eq!(after, before, "{}", what());
    let differ = (bench.status() ^ expected.flags) & expected.defined;
    assert_eq!(differ, 0, "flags {:x}: {}", bench.status(), what());
}

/// `op r/m, r`, `op r, r/m`, `op m, r` and with LOCK.
pub(super) fn binary_forms(row: u8, bits: u8, width: u32) -> Vec<(Vec<u8>, First)> {
    let opcode = if row == TEST { 0x84 } else { row << 3 };
    let memory = sized(bits, width, &[], &[opcode], &[at_bx(bits, 2)]);
    let mut forms = vec![
        (
            sized(bits, width, &[], &[opcode], &[0xd1]),
            First::Register(RCX),
        ),
        (memory.clone(), First::Memory),
    ];
    if row != TEST {
        forms.push((
            sized(bits, width, &[], &[opcode | 2], &[0xca]),
            First::Register(RCX),
        ));
    }
    if writes(row) {
        forms.push(([vec![0xf0], memory].concat(), First::Memory));
    }
    forms
}

#[test]
fn two_operand_arithmetic_follows_a_chain_of_full_adders() {
    let mut bench = Bench::new();
    for width in WIDTHS {
        for (&bits, row) in modes(width)
            .iter()
            .flat_map(|b| (0..=TEST).map(move |r| (b, r)))
        {
            for (code, first) in binary_forms(row, bits, width) {
                let form = bench.form(bits, &code);
                for (a, b) in pairs(width) {
                    for flags in [0, STATUS] {
                        let mut expected = binary(row, a, b, flags & CF != 0, width);
                        if !writes(row) {
                            expected.value = a;
                        }
                        if !writes(row) && width == 32 && first != First::Memory {
                            // Comparisons leave the upper half alone.
                            expected.value |= junk(bits) & !ones(32);
                        }
                        let name = format!("operation {row}, {code:02x?}");
                        expect(
                            &mut bench,
                            form,
                            (bits, width),
                            first,
                            a,
                            &[(RDX, b)],
                            flags,
                            expected,
                            &name,
                        );
                    }
                }
            }
        }
    }
}

pub(super) fn pairs(width: u32) -> Vec<(u64, u64)> {
    let values = edges(width);
    values
        .iter()
        .flat_map(|a| values.iter().map(move |b| (*a, *b)))
        .collect()
}

#[test]
fn immediates_are_sign_extended_to_the_operand() {
    let mut bench = Bench::new();
    for width in WIDTHS {
        for (&bits, row) in modes(width)
            .iter()
            .flat_map(|b| (0..CMP).map(move |r| (b, r)))
        {
            for b in [0, 1, 0x7f, 0x80, 0xff] {
                let long = u64::from(b as u8) | 0x8000_0000 | 0x8000;
                let short = b as u8 as i8 as i64 as u64 & ones(width);
                let long_value = if width == 64 {
                    long as u32 as i32 as i64 as u64
                } else {
                    long & ones(width)
                };
                let ib = [b as u8];
                let iz = immediate(long, width);
                let forms = [
                    (
                        words(bits, width, &[], &[0x83, 0xc1 | row << 3, ib[0]]),
                        RCX,
                        short,
                    ),
                    (
                        sized(
                            bits,
                            width,
                            &[],
                            &[0x80],
                            &[&[0xc1 | row << 3], &iz[..]].concat(),
                        ),
                        RCX,
                        long_value,
                    ),
                    (
                        sized(bits, width, &[], &[row << 3 | 4], &iz),
                        RAX,
                        long_value,
                    ),
                ];
                for (code, register, b) in forms.into_iter().skip(usize::from(width == 8)) {
                    let form = bench.form(bits, &code);
                    for a in edges(width) {
                        let expected = binary(row, a, b, true, width);
                        let name = format!("operation {row} by {b:x}, {code:02x?}");
                        expect(
                            &mut bench,
                            form,
                            (bits, width),
                            First::Register(register),
                            a,
                            &[],
                            CF,
                            expected,
                            &name,
                        );
                    }
                }
            }
        }
    }
}

/// INC DEC NOT NEG: opcode and ModRM register field.
pub(super) fn unary(kind: u8, a: u64, flags: u64, width: u32) -> Answer {
    let carry = flags & CF;
    match kind {
        0 => {
            let sum = adder(a, 1, false, width, false);
            answer(sum.value, sum.flags & !CF | carry)
        }
        1 => {
            let rest = subtract(a, 1, false, width);
            answer(rest.value, rest.flags & !CF | carry)
        }
        2 => answer(!a & ones(width), flags),
        _ => subtract(0, a, false, width),
    }
}

#[test]
fn one_operand_arithmetic_keeps_the_flags_it_must() {
    let mut bench = Bench::new();
    for width in WIDTHS {
        for (&bits, kind) in modes(width)
            .iter()
            .flat_map(|b| (0..4).map(move |k| (b, k)))
        {
            let opcode = if kind < 2 { 0xfe } else { 0xf6 };
            let memory = sized(bits, width, &[], &[opcode], &[at_bx(bits, kind)]);
            let mut forms = vec![
                (
                    sized(bits, width, &[], &[opcode], &[0xc1 | kind << 3]),
                    First::Register(RCX),
                ),
                ([vec![0xf0], memory.clone()].concat(), First::Memory),
                (memory, First::Memory),
            ];
            if kind < 2 && bits != 64 && width > 8 {
                forms.push((
                    words(bits, width, &[], &[0x41 | kind << 3]),
                    First::Register(RCX),
                ));
            }
            for (code, first) in forms {
                let form = bench.form(bits, &code);
                for (a, flags) in edges(width)
                    .into_iter()
                    .flat_map(|a| [(a, 0), (a, STATUS), (a, CF)])
                {
                    let expected = unary(kind, a, flags, width);
                    expect(
                        &mut bench,
                        form,
                        (bits, width),
                        first,
                        a,
                        &[],
                        flags,
                        expected,
                        &format!("{code:02x?}"),
                    );
                }
            }
        }
    }
}

/// A shift or rotate, one place at a time; the number is that of the ModRM register field.
pub(super) fn shifted(kind: u8, a: u64, count: u32, flags: u64, width: u32) -> Answer {
    let count = count & if width == 64 { 63 } else { 31 };
    if count == 0 {
        return answer(a, flags);
    }
    let (mut value, mut carry) = (a, flags & CF != 0);
    for _ in 0..count {
        let (top, low) = (bit(value, width - 1), bit(value, 0));
        let (left, right) = (value << 1 & ones(width), value >> 1);
        let high = |set: bool| u64::from(set) << (width - 1);
        (value, carry) = match kind {
            0 => (left | u64::from(top), top),
            1 => (right | high(low), low),
            2 => (left | u64::from(carry), top),
            3 => (right | high(carry), low),
            4 | 6 => (left, top),
            5 => (right, low),
            _ => (right | high(top), low),
        };
    }
    let rotates = kind < 4;
    let overflow = match kind {
        1 | 3 => bit(value, width - 1) != bit(value, width - 2),
        5 => bit(a, width - 1),
        7 => false,
        _ => bit(value, width - 1) != carry,
    };
    let kept = if rotates {
        flags & (SF | ZF | AF | PF)
    } else {
        sign_zero_parity(value, width)
    };
    let mut defined = STATUS & !when(count != 1, OF) & !when(!rotates, AF);
    if matches!(kind, 4..=6) && count >= width {
        defined &= !CF;
    }
    Answer {
        value,
        flags: kept | when(carry, CF) | when(overflow, OF),
        defined,
    }
}

pub(super) const COUNTS: [u32; 20] = [
    0, 1, 2, 7, 8, 9, 10, 15, 16, 17, 18, 24, 27, 31, 32, 33, 40, 63, 64, 255,
];

#[test]
fn shifts_and_rotates_go_one_place_at_a_time() {
    let mut bench = Bench::new();
    for width in WIDTHS {
        for (&bits, kind) in modes(width)
            .iter()
            .flat_map(|b| (0..8).map(move |k| (b, k)))
        {
            let register = 0xc2 | kind << 3;
            let mut forms = vec![
                (
                    sized(bits, width, &[], &[0xd0], &[register]),
                    First::Register(RDX),
                    Some(1),
                ),
                (
                    sized(bits, width, &[], &[0xd2], &[register]),
                    First::Register(RDX),
                    None,
                ),
                (
                    sized(bits, width, &[], &[0xd2], &[at_bx(bits, kind)]),
                    First::Memory,
                    None,
                ),
            ];
            for count in COUNTS {
                let code = sized(bits, width, &[], &[0xc0], &[register, count as u8]);
                forms.push((code, First::Register(RDX), Some(count)));
                let code = sized(bits, width, &[], &[0xc0], &[at_bx(bits, kind), count as u8]);
                forms.push((code, First::Memory, Some(count)));
            }
            for (code, first, fixed) in forms {
                let form = bench.form(bits, &code);
                let counts = fixed.map_or(COUNTS.to_vec(), |count| vec![count]);
                for (count, a) in counts
                    .iter()
                    .flat_map(|c| edges(width).into_iter().map(move |a| (*c, a)))
                {
                    for flags in [0, STATUS, CF] {
                        let expected = shifted(kind, a, count, flags, width);
                        let name = format!("shift {kind} by {count:x}, {code:02x?}");
                        let cl = u64::from(count) & ones(width);
                        expect(
                            &mut bench,
                            form,
                            (bits, width),
                            first,
                            a,
                            &[(RCX, cl)],
                            flags,
                            expected,
                            &name,
                        );
                    }
                }
            }
        }
    }
}

/// SHLD or SHRD, one place at a time.
pub(super) fn double(
    left: bool,
    a: u64,
    b: u64,
    count: u32,
    flags: u64,
    width: u32,
) -> Option<Answer> {
    let count = count & if width == 64 { 63 } else { 31 };
    if count == 0 {
        return Some(answer(a, flags));
    }
    if count > width {
        return None;
    }
    let (mut value, mut carry) = (a, false);
    for n in 0..count {
        if left {
            carry = bit(value, width - 1);
            value = value << 1 & ones(width) | u64::from(bit(b, width - 1 - n));
        } else {
            carry = bit(value, 0);
            value = value >> 1 | u64::from(bit(b, n)) << (width - 1);
        }
    }
    let flags = sign_zero_parity(value, width)
        | when(carry, CF)
        | when(bit(a, width - 1) != bit(value, width - 1), OF);
    let defined = STATUS & !AF & !when(count != 1, OF);
    Some(Answer {
        value,
        flags,
        defined,
    })
}

#[test]
fn double_shifts_take_bits_from_the_second_operand() {
    let mut bench = Bench::new();
    for width in [16, 32, 64] {
        for (&bits, left) in modes(width).iter().flat_map(|b| [(b, true), (b, false)]) {
            let opcode = if left { 0xa4 } else { 0xac };
            let mut forms = Vec::new();
            for (modrm, first) in [
                (0xc2, First::Register(RDX)),
                (at_bx(bits, 0), First::Memory),
            ] {
                forms.push((
                    words(bits, width, &[], &[0x0f, opcode | 1, modrm]),
                    first,
                    None,
                ));
                for count in COUNTS {
                    let code = words(bits, width, &[], &[0x0f, opcode, modrm, count as u8]);
                    forms.push((code, first, Some(count)));
                }
            }
            for (code, first, fixed) in forms {
                let form = bench.form(bits, &code);
                let counts = fixed.map_or(COUNTS.to_vec(), |count| vec![count]);
                for (count, (a, b)) in counts
                    .iter()
                    .flat_map(|c| pairs(width).into_iter().map(move |p| (*c, p)))
                {
                    let Some(expected) = double(left, a, b, count, STATUS, width) else {
                        continue;
                    };
                    let name = format!("by {count:x}, {code:02x?}");
                    let others = [(RCX, u64::from(count)), (RAX, b)];
                    expect(
                        &mut bench,
                        form,
                        (bits, width),
                        first,
                        a,
                        &others,
                        STATUS,
                        expected,
                        &name,
                    );
                }
            }
        }
    }
}
