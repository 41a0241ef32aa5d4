//! Two-operand arithmetic and logic, INC DEC NEG NOT.

#![expect(unsafe_code, reason = "arithmetic on the host's own instructions")]

use std::arch::asm;

use iced_x86::{Instruction, Mnemonic, OpKind};

use crate::cpu::{Cpu, Mode};
use crate::flags::{PF, ZF};
use crate::int::operand::{
    Immediate, Kind, Register, Source, Width, by_source, by_width, set_source, set_target, width_of,
};
use crate::lower::Lowered;
use crate::op::{Done, Ea, Handler, Op, ea, then_next};

/// An operation of two operands.
pub(crate) trait Binary<T: Width>: 'static {
    /// Whether the first operand is written.
    const WRITES: bool;
    /// Result and status flags.
    fn run(a: T, b: T, status: u32) -> (T, u32);
    /// The same on memory, in one host instruction.
    ///
    /// # Safety
    /// `host` is writable for the size of `T`.
    unsafe fn run_at(host: *mut u8, b: T, status: u32, locked: bool) -> u32;
}

/// An operation of one operand.
pub(crate) trait Unary<T: Width>: 'static {
    /// Result and status flags.
    fn run(a: T, status: u32) -> (T, u32);
    /// The same on memory, in one host instruction.
    ///
    /// # Safety
    /// `host` is writable for the size of `T`.
    unsafe fn run_at(host: *mut u8, status: u32, locked: bool) -> u32;
}

macro_rules! binary_at {
    ($t:ty, $lock:literal, $mnemonic:literal, $before:literal, $class:ident, $mark:literal, $ptr:literal,
     $host:ident, $b:ident, $status:ident) => {
        // SAFETY: the caller vouches for the pointer; flags and EAX are declared.
        unsafe {
            asm!($before, concat!($lock, $mnemonic, " ", $ptr, " ptr [{p}], {b", $mark, "}"),
                 "lahf", "seto al",
                 p = in(reg) $host, b = in($class) $b, inout("eax") $status, options(nostack));
        }
    };
}

macro_rules! binary_width {
    ($name:ident, $mnemonic:literal, $before:literal, $carry:literal, $writes:literal, $lock:literal,
     $t:ty, $class:ident, $mark:literal, $ptr:literal) => {
        impl Binary<$t> for $name {
            const WRITES: bool = $writes;
            #[inline(always)]
            fn run(a: $t, b: $t, status: u32) -> ($t, u32) {
                let mut result = a;
                let mut status = if $carry { status } else { 0 };
                // SAFETY: arithmetic on registers.
                unsafe {
                    asm!($before, concat!($mnemonic, " {a", $mark, "}, {b", $mark, "}"), "lahf", "seto al",
                         a = inout($class) result, b = in($class) b, inout("eax") status,
                         options(pure, nomem, nostack));
                }
                (result, status)
            }
            #[inline(always)]
            unsafe fn run_at(host: *mut u8, b: $t, status: u32, locked: bool) -> u32 {
                let mut status = if $carry { status } else { 0 };
                if locked {
                    binary_at!($t, $lock, $mnemonic, $before, $class, $mark, $ptr, host, b, status);
                } else {
                    binary_at!($t, "", $mnemonic, $before, $class, $mark, $ptr, host, b, status);
                }
                status
            }
        }
    };
}

/// One row per operation: name, host instruction, what restores its input flags, whether it has any,
/// whether it writes its first operand, the LOCK prefix if it takes one.
macro_rules! binaries {
    ($($name:ident $mnemonic:literal $before:literal $carry:literal $writes:literal $lock:literal;)*) => {$(
        pub(crate) struct $name;
        binary_width!($name, $mnemonic, $before, $carry, $writes, $lock, u8, reg_byte, "", "byte");
        binary_width!($name, $mnemonic, $before, $carry, $writes, $lock, u16, reg, ":x", "word");
        binary_width!($name, $mnemonic, $before, $carry, $writes, $lock, u32, reg, ":e", "dword");
        binary_width!($name, $mnemonic, $before, $carry, $writes, $lock, u64, reg, "", "qword");
    )*};
}

binaries! {
    Add  "add"  ""          false true  "lock ";
    Or   "or"   ""          false true  "lock ";
    Adc  "adc"  "bt eax, 8" true  true  "lock ";
    Sbb  "sbb"  "bt eax, 8" true  true  "lock ";
    And  "and"  ""          false true  "lock ";
    Sub  "sub"  ""          false true  "lock ";
    Xor  "xor"  ""          false true  "lock ";
    Cmp  "cmp"  ""          false false "";
    Test "test" ""          false false "";
}

macro_rules! unary_at {
    ($lock:literal, $mnemonic:literal, $before:literal, $after:literal, $ptr:literal, $host:ident,
     $status:ident) => {
        // SAFETY: the caller vouches for the pointer; flags and EAX are declared.
        unsafe {
            asm!($before, concat!($lock, $mnemonic, " ", $ptr, " ptr [{p}]"), $after,
                 p = in(reg) $host, inout("eax") $status, options(nostack));
        }
    };
}

macro_rules! unary_width {
    ($name:ident, $mnemonic:literal, $before:literal, $after:literal, $t:ty, $class:ident,
     $mark:literal, $ptr:literal) => {
        impl Unary<$t> for $name {
            #[inline(always)]
            fn run(a: $t, status: u32) -> ($t, u32) {
                let (mut result, mut status) = (a, status);
                // SAFETY: arithmetic on registers.
                unsafe {
                    asm!($before, concat!($mnemonic, " {a", $mark, "}"), $after,
                         a = inout($class) result, inout("eax") status,
                         options(pure, nomem, nostack));
                }
                (result, status)
            }
            #[inline(always)]
            unsafe fn run_at(host: *mut u8, status: u32, locked: bool) -> u32 {
                let mut status = status;
                if locked {
                    unary_at!("lock ", $mnemonic, $before, $after, $ptr, host, status);
                } else {
                    unary_at!("", $mnemonic, $before, $after, $ptr, host, status);
                }
                status
            }
        }
    };
}

/// One row per operation: name, host instruction, what comes before and after it for the flags.
macro_rules! unaries {
    ($($name:ident $mnemonic:literal $before:literal $after:literal;)*) => {$(
        pub(crate) struct $name;
        unary_width!($name, $mnemonic, $before, $after, u8, reg_byte, "", "byte");
        unary_width!($name, $mnemonic, $before, $after, u16, reg, ":x", "word");
        unary_width!($name, $mnemonic, $before, $after, u32, reg, ":e", "dword");
        unary_width!($name, $mnemonic, $before, $after, u64, reg, "", "qword");
    )*};
}

unaries! {
    Inc "inc" "bt eax, 8" "lahf\nseto al";
    Dec "dec" "bt eax, 8" "lahf\nseto al";
    Neg "neg" ""          "lahf\nseto al";
    Not "not" ""          "";
}

#[inline(always)]
fn into_register<A: Binary<T>, T: Width, S: Source<T>>(cpu: &mut Cpu, op: &Op) -> Done {
    let b = S::get(cpu, op)?;
    let (result, status) = A::run(cpu.reg(op.dst), b, cpu.status);
    if A::WRITES {
        result.assign(cpu, op.dst);
    }
    cpu.status = status;
    Ok(())
}

/// The first operand is in memory and is only read.
#[inline(always)]
fn with_memory<A: Binary<T>, T: Width, E: Ea, S: Source<T>>(cpu: &mut Cpu, op: &Op) -> Done {
    let la = E::linear(cpu, op, T::SIZE, false)?;
    let a = cpu.read::<T>(la, usize::from(op.seg))?;
    let b = S::get(cpu, op)?;
    cpu.status = A::run(a, b, cpu.status).1;
    Ok(())
}

#[inline(always)]
fn into_memory<A: Binary<T>, T: Width, E: Ea, S: Source<T>, const LOCKED: bool>(
    cpu: &mut Cpu,
    op: &Op,
) -> Done {
    let la = E::linear(cpu, op, T::SIZE, true)?;
    let b = S::get(cpu, op)?;
    let host = cpu.pointer_for_update(la, usize::from(op.seg), T::SIZE)?;
    if host.is_null() {
        cpu.park(b);
        return cpu.aside(la, usize::from(op.seg), T::SIZE, into_memory_aside::<A, T>);
    }
    // SAFETY: `pointer_for_update` vouches for the range.
    cpu.status = unsafe { A::run_at(host, b, cpu.status, LOCKED) };
    Ok(())
}

extern "C" fn into_memory_aside<A: Binary<T>, T: Width>(
    cpu: &mut Cpu,
    la: u64,
    seg: usize,
    _size: u64,
) -> bool {
    let (b, mut status) = (cpu.parked_value::<T>(), cpu.status);
    let done = cpu.modify(la, seg, &mut |a| {
        let (result, after) = A::run(a, b, status);
        status = after;
        result
    });
    if done.is_ok() {
        cpu.status = status;
    }
    cpu.settle(done.map(|()| 0u64))
}

#[inline(always)]
fn on_register<A: Unary<T>, T: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    let (result, status) = A::run(cpu.reg(op.dst), cpu.status);
    result.assign(cpu, op.dst);
    cpu.status = status;
    Ok(())
}

#[inline(always)]
fn on_memory<A: Unary<T>, T: Width, E: Ea, const LOCKED: bool>(cpu: &mut Cpu, op: &Op) -> Done {
    let la = E::linear(cpu, op, T::SIZE, true)?;
    let host = cpu.pointer_for_update(la, usize::from(op.seg), T::SIZE)?;
    if host.is_null() {
        return cpu.aside(la, usize::from(op.seg), T::SIZE, on_memory_aside::<A, T>);
    }
    // SAFETY: `pointer_for_update` vouches for the range.
    cpu.status = unsafe { A::run_at(host, cpu.status, LOCKED) };
    Ok(())
}

extern "C" fn on_memory_aside<A: Unary<T>, T: Width>(
    cpu: &mut Cpu,
    la: u64,
    seg: usize,
    _size: u64,
) -> bool {
    let mut status = cpu.status;
    let done = cpu.modify(la, seg, &mut |a| {
        let (result, after) = A::run(a, status);
        status = after;
        result
    });
    if done.is_ok() {
        cpu.status = status;
    }
    cpu.settle(done.map(|()| 0u64))
}

/// XOR or SUB of a register with itself.
#[inline(always)]
fn zero(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.set_reg(op.dst, 0u64);
    cpu.status = ZF | PF;
    Ok(())
}

/// The handler of a binary operation whose operands [`lower_binary`] has entered.
fn binary<A>(width: usize, target: Kind, source: Kind, locked: bool) -> Handler
where
    A: Binary<u8> + Binary<u16> + Binary<u32> + Binary<u64>,
{
    let Kind::Memory(kind) = target else {
        return by_width!(width, T => by_source!(source, S => then_next(into_register::<A, T, S>)));
    };
    macro_rules! memory {
        ($s:ident) => {
            match (<A as Binary<u8>>::WRITES, locked) {
                (false, _) => {
                    by_width!(width, T => ea!(kind, E => then_next(with_memory::<A, T, E, $s>)))
                }
                (true, false) => {
                    by_width!(width, T => ea!(kind, E => then_next(into_memory::<A, T, E, $s, false>)))
                }
                (true, true) => {
                    by_width!(width, T => ea!(kind, E => then_next(into_memory::<A, T, E, $s, true>)))
                }
            }
        };
    }
    match source {
        Kind::Register => memory!(Register),
        _ => memory!(Immediate),
    }
}

fn unary<A>(width: usize, target: Kind, locked: bool) -> Handler
where
    A: Unary<u8> + Unary<u16> + Unary<u32> + Unary<u64>,
{
    match (target, locked) {
        (Kind::Memory(kind), false) => {
            by_width!(width, T => ea!(kind, E => then_next(on_memory::<A, T, E, false>)))
        }
        (Kind::Memory(kind), true) => {
            by_width!(width, T => ea!(kind, E => then_next(on_memory::<A, T, E, true>)))
        }
        _ => by_width!(width, T => then_next(on_register::<A, T>)),
    }
}

fn clears(insn: &Instruction) -> bool {
    matches!(insn.mnemonic(), Mnemonic::Xor | Mnemonic::Sub)
        && insn.op1_kind() == OpKind::Register
        && insn.op0_register() == insn.op1_register()
        && insn.op0_register().size() >= 4
}

/// The record of an instruction of this family.
pub(crate) fn lower(insn: &Instruction, mode: Mode) -> Option<Lowered> {
    let mut op = Op::new(then_next(zero));
    let target = set_target(&mut op, insn, 0, mode);
    let (width, locked) = (width_of(insn, 0), insn.has_lock_prefix());
    let source = match insn.op_count() {
        2 => set_source(&mut op, insn, 1, mode),
        _ => Kind::Immediate,
    };
    if clears(insn) {
        return Some(Lowered::Next(op));
    }
    op.run = match insn.mnemonic() {
        Mnemonic::Add => binary::<Add>(width, target, source, locked),
        Mnemonic::Or => binary::<Or>(width, target, source, locked),
        Mnemonic::Adc => binary::<Adc>(width, target, source, locked),
        Mnemonic::Sbb => binary::<Sbb>(width, target, source, locked),
        Mnemonic::And => binary::<And>(width, target, source, locked),
        Mnemonic::Sub => binary::<Sub>(width, target, source, locked),
        Mnemonic::Xor => binary::<Xor>(width, target, source, locked),
        Mnemonic::Cmp => binary::<Cmp>(width, target, source, locked),
        Mnemonic::Test => binary::<Test>(width, target, source, locked),
        Mnemonic::Inc => unary::<Inc>(width, target, locked),
        Mnemonic::Dec => unary::<Dec>(width, target, locked),
        Mnemonic::Neg => unary::<Neg>(width, target, locked),
        Mnemonic::Not => unary::<Not>(width, target, locked),
        _ => return None,
    };
    Some(Lowered::Next(op))
}
