//! The sixteen conditions over all combinations of the flags (SDM vol. 1 appendix B).

use super::bench::{Bench, Stop};
use crate::cpu::rflags::{CF, FIXED, OF, PF, SF, STATUS, ZF};

/// The conditions in order of their encoding; the odd ones are the opposites.
fn holds(condition: u8, flags: u64) -> bool {
    let is = |flag: u64| flags & flag == flag;
    let holds = match condition / 2 {
        0 => is(OF),
        1 => is(CF),
        2 => is(ZF),
        3 => is(CF) || is(ZF),
        4 => is(SF),
        5 => is(PF),
        6 => is(SF) ^ is(OF),
        _ => is(ZF) || is(SF) ^ is(OF),
    };
    holds == condition.is_multiple_of(2)
}

/// All subsets of the status flags.
fn combinations() -> impl Iterator<Item = u64> {
    (0..=STATUS).filter(|flags| flags & !STATUS == 0)
}

/// Runs a form with RCX and RDX set; gives RDX afterwards and where it stopped.
fn check(bits: u8, code: &[u8], flags: u64, rdx: u64, expected: (u64, Stop), bench: &mut Bench) {
    let form = bench.form(bits, code);
    let cpu = bench.start(form);
    (cpu.regs[1], cpu.regs[2]) = (0x1122_3344, rdx);
    cpu.set_flags(flags | FIXED);
    let stop = bench.run(form);
    let got = (bench.cpu().regs[2], stop);
    assert_eq!(got, expected, "{code:02x?} in mode {bits} with {flags:x}");
    assert_eq!(bench.status(), flags, "{code:02x?}");
}

#[test]
fn setcc_stores_whether_the_condition_holds() {
    let mut bench = Bench::new();
    for (condition, flags) in (0..16).flat_map(|c| combinations().map(move |f| (c, f))) {
        for bits in [16, 32, 64] {
            let code = [0x0f, 0x90 | condition, 0xc2];
            let value = 0x7777_7700 | u64::from(holds(condition, flags));
            check(
                bits,
                &code,
                flags,
                0x7777_7777,
                (value, Stop::Next),
                &mut bench,
            );
        }
    }
}

#[test]
fn cmovcc_moves_where_the_condition_holds_and_clears_the_upper_half_always() {
    let mut bench = Bench::new();
    for (condition, flags) in (0..16).flat_map(|c| combinations().map(move |f| (c, f))) {
        let yes = holds(condition, flags);
        let opcode = [0x0f, 0x40 | condition, 0xd1];
        let pick = |moved: u64, kept: u64| (if yes { moved } else { kept }, Stop::Next);
        let old = 0xffff_ffff_8888_8888;
        check(
            16,
            &opcode,
            flags,
            0x8888_8888,
            pick(0x8888_3344, 0x8888_8888),
            &mut bench,
        );
        check(
            32,
            &opcode,
            flags,
            0x8888_8888,
            pick(0x1122_3344, 0x8888_8888),
            &mut bench,
        );
        check(
            64,
            &opcode,
            flags,
            old,
            pick(0x1122_3344, 0x8888_8888),
            &mut bench,
        );
        let wide = [&[0x48], &opcode[..]].concat();
        check(64, &wide, flags, old, pick(0x1122_3344, old), &mut bench);
    }
}

#[test]
fn jcc_is_taken_where_the_condition_holds() {
    let mut bench = Bench::new();
    for (condition, flags) in (0..16).flat_map(|c| combinations().map(move |f| (c, f))) {
        let yes = holds(condition, flags);
        let stop = |target| if yes { Stop::At(target) } else { Stop::Next };
        for bits in [16, 32, 64] {
            check(
                bits,
                &[0x70 | condition, 0x20],
                flags,
                0,
                (0, stop(0x122)),
                &mut bench,
            );
        }
        let near = [0x66, 0x0f, 0x80 | condition, 0x20, 0];
        check(32, &near, flags, 0, (0, stop(0x125)), &mut bench);
    }
}
