//! Tables of instruction forms as text.
//!
//! A row is `mode: code | before | after | undefined`, numbers in hexadecimal:
//! - mode: 16, 32 or 64; a 16-bit mode with `w` has a 32-bit stack, a 32-bit one with `n` a 16-bit stack;
//! - before: what differs from zero: registers (`rax=12`), RAM in the order of its bytes
//!   (`[2000]=0102`), status flags and DF (`CF`), limits (`ds.limit=ff`);
//! - after: registers and RAM that changed, and all status flags that are set; `~` for flags that stay as
//!   they were; `#GP` for a fault; `rip=` where the form goes on elsewhere;
//! - undefined: flags that are not compared.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use super::bench::{Bench, Form, Stop};
use crate::cpu::rflags;
use crate::fault::vector;

const REGISTERS: [&str; 16] = [
    "rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13",
    "r14", "r15",
];
const SEGMENTS: [&str; 6] = ["es", "cs", "ss", "ds", "fs", "gs"];
const FLAGS: [(&str, u64); 7] = [
    ("OF", rflags::OF),
    ("DF", rflags::DF),
    ("SF", rflags::SF),
    ("ZF", rflags::ZF),
    ("AF", rflags::AF),
    ("PF", rflags::PF),
    ("CF", rflags::CF),
];
const FAULTS: [(&str, u8); 5] = [
    ("#DE", vector::DE),
    ("#BR", vector::BR),
    ("#UD", vector::UD),
    ("#SS", vector::SS),
    ("#GP", vector::GP),
];

/// One side of a row.
#[derive(Debug, Default)]
struct Side {
    registers: Vec<(usize, u64)>,
    ram: BTreeMap<u64, Vec<u8>>,
    limits: Vec<(usize, u32)>,
    flags: u64,
    keeps_flags: bool,
    fault: Option<u8>,
    rip: Option<u64>,
}

fn hex(text: &str) -> u64 {
    u64::from_str_radix(text, 16).unwrap_or_else(|_| panic!("{text:?} is a number"))
}

fn bytes(text: &str) -> Vec<u8> {
    let digits = text.replace(' ', "");
    let pairs = (0..digits.len()).step_by(2);
    pairs.map(|at| hex(&digits[at..at + 2]) as u8).collect()
}

fn find<T: Copy>(table: &[(&str, T)], name: &str) -> Option<T> {
    table.iter().find(|row| row.0 == name).map(|row| row.1)
}

fn side(text: &str) -> Side {
    let mut side = Side::default();
    for item in text.split_whitespace() {
        match item.split_once('=') {
            None => word(&mut side, item),
            Some(("rip", value)) => side.rip = Some(hex(value)),
            Some((place, value)) if place.starts_with('[') => {
                let gpa = hex(place.trim_matches(['[', ']']));
                side.ram.insert(gpa, bytes(value));
            }
            Some((place, value)) => match place.strip_suffix(".limit") {
                Some(segment) => {
                    let n = SEGMENTS.iter().position(|s| *s == segment).unwrap();
                    side.limits.push((n, hex(value) as u32));
                }
                None => {
                    let n = REGISTERS.iter().position(|r| *r == place);
                    let n = n.unwrap_or_else(|| panic!("{place} is a register"));
                    side.registers.push((n, hex(value)));
                }
            },
        }
    }
    side
}

fn word(side: &mut Side, item: &str) {
    if item == "~" {
        side.keeps_flags = true;
    } else if let Some(fault) = find(&FAULTS, item) {
        side.fault = Some(fault);
    } else {
        side.flags |= find(&FLAGS, item).unwrap_or_else(|| panic!("{item} is a flag"));
    }
}

fn prepare(bench: &mut Bench, mode: &str, code: &str, before: &Side) -> Form {
    let bits = mode.trim_end_matches(['w', 'n']).parse().unwrap();
    let form = bench.form(bits, &bytes(code));
    for (gpa, value) in &before.ram {
        bench.ram.write(*gpa, value);
    }
    let cpu = bench.start(form);
    for (n, value) in &before.registers {
        cpu.regs[*n] = *value;
    }
    for (n, limit) in &before.limits {
        cpu.segs[*n].limit = *limit;
    }
    cpu.set_flags(before.flags | rflags::FIXED);
    if mode.ends_with(['w', 'n']) {
        bench.widen_stack(mode.ends_with('w'));
    }
    form
}

/// Runs a row on its own.
fn check(bench: &mut Bench, row: &str) {
    let (mode, rest) = row.split_once(':').expect("a row has a mode");
    let mut columns = rest.split('|').map(str::trim);
    let mut column = || columns.next().unwrap_or("");
    let (code, before, after) = (column(), side(column()), side(column()));
    let undefined = side(column()).flags;
    let form = prepare(bench, mode.trim(), code, &before);
    let mut registers = bench.cpu().regs;
    let stop = bench.run(form);
    let expected_stop = match (after.fault, after.rip) {
        (Some(_), _) => None,
        (_, Some(rip)) => Some(Stop::At(rip)),
        _ => Some(Stop::Next),
    };
    match (stop, expected_stop) {
        (Stop::Fault(fault), None) => assert_eq!(Some(fault.vector), after.fault, "{row}"),
        (stop, expected) => assert_eq!(Some(stop), expected, "{row}"),
    }
    for (n, value) in &after.registers {
        registers[*n] = *value;
    }
    for (n, name) in REGISTERS.iter().enumerate() {
        let value = bench.cpu().regs[n];
        assert_eq!(value, registers[n], "{name} is {value:x} after {row}");
    }
    let keeps = after.keeps_flags || after.fault.is_some();
    let flags = if keeps { before.flags } else { after.flags } & rflags::STATUS;
    let differ = (bench.status() ^ flags) & !undefined;
    let names = FLAGS.iter().filter(|f| differ & f.1 != 0).map(|f| f.0);
    assert_eq!(
        differ,
        0,
        "{:?} wrong after {row}",
        names.collect::<Vec<_>>()
    );
    for (gpa, expected) in before.ram.iter().chain(&after.ram) {
        let expected = after.ram.get(gpa).unwrap_or(expected);
        for (n, byte) in expected.iter().enumerate() {
            let [value] = bench.ram.read(gpa + n as u64);
            assert_eq!(
                value,
                *byte,
                "[{:x}] is {value:x} after {row}",
                gpa + n as u64
            );
        }
    }
    // The next row finds no traces of this one.
    for (gpa, used) in before.ram.iter().chain(&after.ram) {
        bench.ram.write(*gpa, &vec![0; used.len()]);
    }
}

/// Runs every row of a table and names all that fail; empty lines and those that start with `//` are for
/// the reader.
pub(super) fn check_all(table: &str) {
    let mut bench = Bench::new();
    let mut failed = Vec::new();
    for row in table.lines().map(str::trim) {
        if row.is_empty() || row.starts_with("//") {
            continue;
        }
        let run = AssertUnwindSafe(|| check(&mut bench, row));
        if catch_unwind(run).is_err() {
            failed.push(row);
            bench = Bench::new();
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}
