//! Shifts and rotates.

#![expect(unsafe_code, reason = "arithmetic on the host's own instructions")]

use std::arch::asm;

use iced_x86::{Instruction, Mnemonic, OpKind};

use crate::cpu::{Cpu, Mode};
use crate::int::operand::{
    AnyMemory, Immediate, Kind, Place, Register, Source, Target, Width, by_place, by_width,
    by_word, set_source, set_target, width_of,
};
use crate::lower::Lowered;
use crate::op::{Done, Handler, Op, called, register_offset, then_next};

/// A shift of one operand.
trait Shift<T: Width>: 'static {
    /// Result and status flags; a masked count of 0 changes neither.
    fn run(a: T, count: u8, status: u32) -> (T, u32);
    /// The same for a masked count that is not 0, of shifts that write all flags then.
    fn run_some(a: T, count: u8) -> (T, u32);
}

/// A shift that takes bits from a second operand.
trait DoubleShift<T: Width>: 'static {
    fn run(a: T, b: T, count: u8, status: u32) -> (T, u32);
}

macro_rules! shift_width {
    ($name:ident, $mnemonic:literal, $t:ty, $class:ident, $mark:literal) => {
        impl Shift<$t> for $name {
            #[inline(always)]
            fn run(a: $t, count: u8, status: u32) -> ($t, u32) {
                let (mut result, mut status) = (a, status);
                // SAFETY: arithmetic on registers.
                unsafe {
                    asm!("add al, 0x7f", "sahf", concat!($mnemonic, " {a", $mark, "}, cl"),
                         "lahf", "seto al",
                         a = inout($class) result, in("cl") count, inout("eax") status,
                         options(pure, nomem, nostack));
                }
                (result, status)
            }
            #[inline(always)]
            fn run_some(a: $t, count: u8) -> ($t, u32) {
                let (mut result, mut status) = (a, 0u32);
                // SAFETY: arithmetic on registers.
                unsafe {
                    asm!(concat!($mnemonic, " {a", $mark, "}, cl"), "lahf", "seto al",
                         a = inout($class) result, in("cl") count, inout("eax") status,
                         options(pure, nomem, nostack));
                }
                (result, status)
            }
        }
    };
}

macro_rules! double_shift_width {
    ($name:ident, $mnemonic:literal, $t:ty, $mark:literal) => {
        impl DoubleShift<$t> for $name {
            #[inline(always)]
            fn run(a: $t, b: $t, count: u8, status: u32) -> ($t, u32) {
                let (mut result, mut status) = (a, status);
                // SAFETY: arithmetic on registers.
                unsafe {
                    asm!("add al, 0x7f", "sahf",
                         concat!($mnemonic, " {a", $mark, "}, {b", $mark, "}, cl"), "lahf", "seto al",
                         a = inout(reg) result, b = in(reg) b, in("cl") count,
                         inout("eax") status, options(pure, nomem, nostack));
                }
                (result, status)
            }
        }
    };
}

macro_rules! shifts {
    ($($name:ident $mnemonic:literal;)*) => {$(
        struct $name;
        shift_width!($name, $mnemonic, u8, reg_byte, "");
        shift_width!($name, $mnemonic, u16, reg, ":x");
        shift_width!($name, $mnemonic, u32, reg, ":e");
        shift_width!($name, $mnemonic, u64, reg, "");
    )*};
}

macro_rules! double_shifts {
    ($($name:ident $mnemonic:literal;)*) => {$(
        struct $name;
        double_shift_width!($name, $mnemonic, u16, ":x");
        double_shift_width!($name, $mnemonic, u32, ":e");
        double_shift_width!($name, $mnemonic, u64, "");
    )*};
}

shifts! {
    Rol "rol";
    Ror "ror";
    Rcl "rcl";
    Rcr "rcr";
    Shl "shl";
    Shr "shr";
    Sar "sar";
}

double_shifts! {
    Shld "shld";
    Shrd "shrd";
}

/// A register by a count in CL or an immediate one.
#[inline(always)]
fn on_register<A: Shift<T>, T: Width, S: Source<u8>>(cpu: &mut Cpu, op: &Op) -> Done {
    let count = S::get(cpu, op)?;
    let (result, status) = A::run(cpu.reg(op.dst), count, cpu.status);
    result.assign(cpu, op.dst);
    cpu.status = status;
    Ok(())
}

/// A register by an immediate count that is not 0.
#[inline(always)]
fn on_register_some<A: Shift<T>, T: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    let (result, status) = A::run_some(cpu.reg(op.dst), op.imm as u8);
    result.assign(cpu, op.dst);
    cpu.status = status;
    Ok(())
}

fn on_memory<A: Shift<T>, T: Width, S: Source<u8>>(cpu: &mut Cpu, op: &Op) -> Done {
    let count = S::get(cpu, op)?;
    let mut status = cpu.status;
    <AnyMemory as Place<T>>::update(cpu, op, &mut |a| {
        let (result, after) = A::run(a, count, status);
        status = after;
        result
    })?;
    cpu.status = status;
    Ok(())
}

fn double<A: DoubleShift<T>, T: Width, P: Place<T>>(cpu: &mut Cpu, op: &Op) -> Done {
    // The count is CL where `extra` says so.
    let count = if op.extra == 0 {
        op.imm as u8
    } else {
        cpu.reg(8)
    };
    let (b, mut status) = (cpu.reg::<T>(op.src), cpu.status);
    P::update(cpu, op, &mut |a| {
        let (result, after) = A::run(a, b, count, status);
        status = after;
        result
    })?;
    cpu.status = status;
    Ok(())
}

fn shift<A>(width: usize, target: Kind, count: Kind) -> Handler
where
    A: Shift<u8> + Shift<u16> + Shift<u32> + Shift<u64>,
{
    match (target, count) {
        (Kind::Memory(_), Kind::Register) => {
            by_width!(width, T => called::then_next(on_memory::<A, T, Register>))
        }
        (Kind::Memory(_), _) => {
            by_width!(width, T => called::then_next(on_memory::<A, T, Immediate>))
        }
        (_, Kind::Register) => by_width!(width, T => then_next(on_register::<A, T, Register>)),
        _ => by_width!(width, T => then_next(on_register::<A, T, Immediate>)),
    }
}

/// As [`shift`], for shifts that write all flags unless the count is 0.
fn shift_all<A>(width: usize, target: Kind, count: Kind, imm: u64) -> Handler
where
    A: Shift<u8> + Shift<u16> + Shift<u32> + Shift<u64>,
{
    let masked = imm & if width == 8 { 63 } else { 31 };
    if target == Kind::Register && count == Kind::Immediate && masked != 0 {
        return by_width!(width, T => then_next(on_register_some::<A, T>));
    }
    shift::<A>(width, target, count)
}

fn double_shift<A>(op: &mut Op, insn: &Instruction, mode: Mode) -> Handler
where
    A: DoubleShift<u16> + DoubleShift<u32> + DoubleShift<u64>,
{
    let target = set_target(op, insn, 0, mode);
    op.src = register_offset(insn.op1_register());
    if insn.op2_kind() == OpKind::Register {
        op.extra = 1;
    } else {
        op.imm = insn.immediate(2);
    }
    by_word!(width_of(insn, 0), T => by_place!(called target, P => (Target) called::then_next(double::<A, T, P>)))
}

/// The record of a shift or rotate.
pub(crate) fn lower(insn: &Instruction, mode: Mode) -> Option<Lowered> {
    let mut op = Op::new(then_next(on_register::<Rol, u8, Register>));
    let target = set_target(&mut op, insn, 0, mode);
    let count = set_source(&mut op, insn, 1, mode);
    let (width, imm) = (width_of(insn, 0), op.imm);
    op.run = match insn.mnemonic() {
        Mnemonic::Rol => shift::<Rol>(width, target, count),
        Mnemonic::Ror => shift::<Ror>(width, target, count),
        Mnemonic::Rcl => shift::<Rcl>(width, target, count),
        Mnemonic::Rcr => shift::<Rcr>(width, target, count),
        Mnemonic::Shl | Mnemonic::Sal => shift_all::<Shl>(width, target, count, imm),
        Mnemonic::Shr => shift_all::<Shr>(width, target, count, imm),
        Mnemonic::Sar => shift_all::<Sar>(width, target, count, imm),
        Mnemonic::Shld => double_shift::<Shld>(&mut op, insn, mode),
        Mnemonic::Shrd => double_shift::<Shrd>(&mut op, insn, mode),
        _ => return None,
    };
    Some(Lowered::Next(op))
}
