//! Products and quotients, one bit at a time.

use super::bench::{Bench, Form, Stop};
use super::model::{
    Answer, First, Inputs, RAX, RCX, RDX, WIDTHS, bit, edges, expect, first_four, go, immediate,
    junk, merged, modes, ones, pairs, sized, when, words,
};
use crate::cpu::rflags::{CF, OF};
use crate::fault::Fault;

/// Product by shifting and adding.
fn product(a: u64, b: u64, width: u32) -> u128 {
    (0..width)
        .filter(|n| bit(b, *n))
        .map(|n| u128::from(a) << n)
        .fold(0, u128::wrapping_add)
}

fn negative(value: u64, width: u32) -> bool {
    bit(value, width - 1)
}

fn magnitude(value: u64, width: u32) -> u64 {
    if negative(value, width) {
        (!value).wrapping_add(1) & ones(width)
    } else {
        value
    }
}

fn signed_product(a: u64, b: u64, width: u32) -> u128 {
    let size = product(magnitude(a, width), magnitude(b, width), width);
    if negative(a, width) == negative(b, width) {
        size
    } else {
        (!size).wrapping_add(1)
    }
}

/// Low and high half, and whether the high half says something.
fn halves(product: u128, width: u32, signed: bool) -> (u64, u64, bool) {
    let low = product as u64 & ones(width);
    let high = (product >> width) as u64 & ones(width);
    let rest = if signed && negative(low, width) {
        ones(width)
    } else {
        0
    };
    (low, high, high != rest)
}

#[test]
fn products_are_sums_of_shifted_operands() {
    let mut bench = Bench::new();
    for width in WIDTHS {
        for (&bits, signed) in modes(width).iter().flat_map(|b| [(b, false), (b, true)]) {
            let kind = if signed { 5 } else { 4 };
            let code = sized(bits, width, &[], &[0xf6], &[0xc1 | kind << 3]);
            let form = bench.form(bits, &code);
            for (a, b) in pairs(width) {
                let whole = if signed {
                    signed_product(a, b, width)
                } else {
                    product(a, b, width)
                };
                let (low, high, big) = halves(whole, width, signed);
                let inputs = Inputs {
                    registers: vec![(RAX, a), (RCX, b)],
                    cell: None,
                    flags: 0,
                };
                let (mut regs, after, stop) = go(&mut bench, form, bits, width, &inputs);
                if width == 8 {
                    regs[RAX] = merged(regs[RAX], high << 8 | low, 16);
                } else {
                    regs[RAX] = merged(regs[RAX], low, width);
                    regs[RDX] = merged(regs[RDX], high, width);
                }
                assert_eq!(
                    (stop, after),
                    (Stop::Next, regs),
                    "{a:x} * {b:x} {code:02x?}"
                );
                assert_eq!(
                    bench.status() & (CF | OF),
                    when(big, CF | OF),
                    "{a:x} * {b:x} {code:02x?}"
                );
            }
        }
    }
}

#[test]
fn products_with_a_target_keep_the_low_half() {
    let mut bench = Bench::new();
    for width in [16, 32, 64] {
        for &bits in modes(width) {
            let two = bench.form(bits, &words(bits, width, &[], &[0x0f, 0xaf, 0xd1]));
            for b in edges(width) {
                let short = b as u8 as i8 as i64 as u64 & ones(width);
                let iz = immediate(b, width);
                let long = if width == 64 {
                    b as u32 as i32 as i64 as u64
                } else {
                    b
                };
                let short_form = bench.form(bits, &words(bits, width, &[], &[0x6b, 0xd1, b as u8]));
                let long_code = words(bits, width, &[], &[&[0x69, 0xd1], &iz[..]].concat());
                let long_form = bench.form(bits, &long_code);
                for a in edges(width) {
                    for (form, x, y) in [(two, a, b), (short_form, a, short), (long_form, a, long)]
                    {
                        let (low, _, big) = halves(signed_product(x, y, width), width, true);
                        let old = if form.same(two) { y } else { 0 };
                        let expected = Answer {
                            value: low,
                            flags: when(big, CF | OF),
                            defined: CF | OF,
                        };
                        let name = format!("IMUL by {y:x}");
                        expect(
                            &mut bench,
                            form,
                            (bits, width),
                            First::Register(RDX),
                            old,
                            &[(RCX, x)],
                            0,
                            expected,
                            &name,
                        );
                    }
                }
            }
        }
    }
}

/// Long division of a double-width dividend, one bit at a time; none where the quotient does not fit.
fn quotient(low: u64, high: u64, by: u64, width: u32) -> Option<(u64, u64)> {
    let (mut rest, mut result, mut over) = (0u128, 0u128, false);
    if by == 0 {
        return None;
    }
    for n in (0..2 * width).rev() {
        let next = if n >= width {
            bit(high, n - width)
        } else {
            bit(low, n)
        };
        rest = rest << 1 | u128::from(next);
        let fits = rest >= u128::from(by);
        rest -= if fits { u128::from(by) } else { 0 };
        over |= fits && n >= width;
        result |= u128::from(fits && n < width) << n.min(127);
    }
    (!over).then_some((result as u64, rest as u64))
}

fn signed_quotient(low: u64, high: u64, by: u64, width: u32) -> Option<(u64, u64)> {
    let below = negative(high, width);
    let (mut l, mut h) = (low, high);
    if below {
        l = (!low).wrapping_add(1) & ones(width);
        h = (!high).wrapping_add(u64::from(l == 0)) & ones(width);
    }
    let (size, rest) = quotient(l, h, magnitude(by, width), width)?;
    let opposite = below != negative(by, width);
    let largest = ones(width) >> 1;
    if size > largest + u64::from(opposite) {
        return None;
    }
    let negate = |v: u64, yes: bool| {
        if yes {
            (!v).wrapping_add(1) & ones(width)
        } else {
            v
        }
    };
    Some((negate(size, opposite), negate(rest, below)))
}

#[test]
fn quotients_are_found_bit_by_bit_or_fault() {
    let mut bench = Bench::new();
    for width in WIDTHS {
        for (&bits, signed) in modes(width).iter().flat_map(|b| [(b, false), (b, true)]) {
            let kind = if signed { 7 } else { 6 };
            let code = sized(bits, width, &[], &[0xf6], &[0xc1 | kind << 3]);
            let form = bench.form(bits, &code);
            for ((low, high), by) in pairs(width)
                .into_iter()
                .flat_map(|p| edges(width).into_iter().map(move |b| (p, b)))
            {
                let expected = if signed {
                    signed_quotient(low, high, by, width)
                } else {
                    quotient(low, high, by, width)
                };
                let mut inputs = Inputs {
                    registers: vec![(RAX, low), (RDX, high), (RCX, by)],
                    cell: None,
                    flags: 0,
                };
                if width == 8 {
                    inputs.registers = vec![(RCX, by)];
                    inputs.registers.push((RAX, low | high << 8));
                }
                let (mut regs, after, stop) = divide(&mut bench, form, bits, width, &inputs);
                match expected {
                    Some((q, r)) if width == 8 => regs[RAX] = merged(regs[RAX], q | r << 8, 16),
                    Some((q, r)) => {
                        regs[RAX] = merged(regs[RAX], q, width);
                        regs[RDX] = merged(regs[RDX], r, width);
                    }
                    None => {}
                }
                let end = expected.map_or(Stop::Fault(Fault::DE), |_| Stop::Next);
                assert_eq!(
                    (stop, after),
                    (end, regs),
                    "{high:x}:{low:x} / {by:x} {code:02x?}"
                );
            }
        }
    }
}

/// As [`go`], with AX as the dividend of a byte.
fn divide(
    bench: &mut Bench,
    form: Form,
    bits: u8,
    width: u32,
    inputs: &Inputs,
) -> ([u64; 4], [u64; 4], Stop) {
    if width > 8 {
        return go(bench, form, bits, width, inputs);
    }
    let cpu = bench.start(form);
    cpu.regs[..4].fill(junk(bits));
    for (n, value) in &inputs.registers {
        let kept = if *n == RAX { ones(16) } else { ones(8) };
        cpu.regs[*n] = junk(bits) & !kept | value;
    }
    let before = first_four(cpu.regs);
    let stop = bench.run(form);
    (before, first_four(bench.cpu().regs), stop)
}
