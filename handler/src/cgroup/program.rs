//! Rules for devices as programs of the kernel's, which decide in control groups of version 2 (RFC 9669 for the
//! instructions, `struct bpf_cgroup_dev_ctx` of `linux/bpf.h` for what they read).
//!
//! A program that the container runtime attached is kept: our rules go before it, between two marks, and what they do
//! not decide falls through to it. So nothing that the runtime allows is forgotten, and putting other rules in later
//! replaces what is between the marks.

mod decide;

use super::rules::{DeviceKind, DeviceRule};
pub(super) use decide::{Request, decide, is_plain};

/// Most instructions of a program: far more than for the 1024 devices that are looked at, and a sixteenth of the kernel's
/// own limit.
pub(super) const LEN_MAX: usize = 1 << 16;

/// First instructions before and after our rules: they set the register of the result, which is set again before
/// anyone reads it, to numbers that nobody else has a reason to use.
const MARKS: [Instruction; 2] = [
    Instruction::set(0, 0x0fe2_2001),
    Instruction::set(0, 0x0fe2_2002),
];

/// Registers of a program while it goes through the rules. The first argument, the request, stays in 1.
const RESULT: u8 = 0;
const REQUEST: u8 = 1;
const KIND: u8 = 2;
/// Accesses that no rule has decided yet.
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// Where fields of the request are, in bytes: kind (low half) with accesses (high half), then the device's numbers.
const AT_KIND_AND_ACCESS: i16 = 0;
const AT_MAJOR: i16 = 4;
const AT_MINOR: i16 = 8;

/// Accesses (`BPF_DEVCG_ACC_*`).
const MAKE: i32 = 1;
const READ: i32 = 2;
const WRITE: i32 = 4;

/// One instruction of the kernel's machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub(super) struct Instruction([u8; 8]);

impl Instruction {
    pub(super) const fn new(code: u8, to: u8, from: u8, offset: i16, value: i32) -> Self {
        let ([o0, o1], [v0, v1, v2, v3]) = (offset.to_ne_bytes(), value.to_ne_bytes());
        Self([code, to | from << 4, o0, o1, v0, v1, v2, v3])
    }

    const fn set(to: u8, value: i32) -> Self {
        Self::new(0xb7, to, 0, 0, value)
    }

    const fn copy(to: u8, from: u8) -> Self {
        Self::new(0xbf, to, from, 0, 0)
    }

    const fn and(to: u8, value: i32) -> Self {
        Self::new(0x57, to, 0, 0, value)
    }

    const fn shift_right(to: u8, bits: i32) -> Self {
        Self::new(0x77, to, 0, 0, bits)
    }

    /// Loads 32 bits.
    const fn load(to: u8, from: u8, offset: i16) -> Self {
        Self::new(0x61, to, from, offset, 0)
    }

    const fn jump_if_equal(register: u8, value: i32, skipped: i16) -> Self {
        Self::new(0x15, register, 0, skipped, value)
    }

    const fn jump_unless_equal(register: u8, value: i32, skipped: i16) -> Self {
        Self::new(0x55, register, 0, skipped, value)
    }

    const fn exit() -> Self {
        Self::new(0x95, 0, 0, 0, 0)
    }
}

/// Returns a program that allows what the rules allow and nothing else.
pub(super) fn whole(rules: &[DeviceRule]) -> Vec<Instruction> {
    let mut program = section(rules);
    program.extend(verdict(false));
    program
}

/// Returns a program that decides as the rules do, and what they do not decide as another program does. Rules that were
/// put into that one before are replaced.
pub(super) fn extended(rules: &[DeviceRule], program: &[Instruction]) -> Vec<Instruction> {
    let mut extended = vec![MARKS[0]];
    extended.extend(section(rules));
    extended.push(MARKS[1]);
    extended.extend(original(program));
    extended
}

/// Returns the part of a program that is not ours.
fn original(program: &[Instruction]) -> &[Instruction] {
    if program.first() != Some(&MARKS[0]) {
        return program;
    }
    let end = program.iter().position(|it| *it == MARKS[1]);
    end.map_or(program, |end| &program[end + 1..])
}

/// Of each access the last rule that is about it decides, so the rules are gone through from the end.
fn section(rules: &[DeviceRule]) -> Vec<Instruction> {
    let mut section = vec![
        Instruction::load(KIND, REQUEST, AT_KIND_AND_ACCESS),
        Instruction::copy(ACCESS, KIND),
        Instruction::and(KIND, 0xffff),
        Instruction::shift_right(ACCESS, 16),
        Instruction::load(MAJOR, REQUEST, AT_MAJOR),
        Instruction::load(MINOR, REQUEST, AT_MINOR),
    ];
    section.extend(rules.iter().rev().filter_map(block).flatten());
    section
}

/// Returns the instructions for one rule; none for numbers that no device has (the kernel's have 12 and 20 bits).
fn block(rule: &DeviceRule) -> Option<Vec<Instruction>> {
    let number = |register, number: Option<u32>| -> Option<Option<(u8, i32)>> {
        let Some(number) = number else {
            return Some(None);
        };
        Some(Some((register, i32::try_from(number).ok()?)))
    };
    let (major, minor) = (number(MAJOR, rule.major)?, number(MINOR, rule.minor)?);
    let conditions = [Some((KIND, kind(rule.kind))), major, minor];
    let mut block = judged(rule);
    for (register, value) in conditions.into_iter().flatten().rev() {
        let skipped = i16::try_from(block.len()).expect("a block has about ten instructions");
        block.insert(0, Instruction::jump_unless_equal(register, value, skipped));
    }
    Some(block)
}

/// Returns what is done for a device that a rule is about.
fn judged(rule: &DeviceRule) -> Vec<Instruction> {
    let accesses = accesses(rule.access);
    let mut judged = match (rule.is_allowed, accesses) {
        (true, 7) => vec![],
        (true, _) => vec![
            Instruction::and(ACCESS, !accesses),
            Instruction::jump_unless_equal(ACCESS, 0, 2),
        ],
        (false, _) => vec![
            Instruction::copy(RESULT, ACCESS),
            Instruction::and(RESULT, accesses),
            Instruction::jump_if_equal(RESULT, 0, 2),
        ],
    };
    judged.extend(verdict(rule.is_allowed));
    judged
}

fn verdict(is_allowed: bool) -> [Instruction; 2] {
    [
        Instruction::set(RESULT, i32::from(is_allowed)),
        Instruction::exit(),
    ]
}

/// `BPF_DEVCG_DEV_*`.
fn kind(kind: DeviceKind) -> i32 {
    match kind {
        DeviceKind::Block => 1,
        DeviceKind::Character => 2,
    }
}

fn accesses(letters: &str) -> i32 {
    let access = |letter| match letter {
        'm' => MAKE,
        'r' => READ,
        'w' => WRITE,
        _ => 0,
    };
    letters.chars().map(access).fold(0, |all, one| all | one)
}

#[cfg(test)]
mod tests;
