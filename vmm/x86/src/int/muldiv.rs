//! MUL IMUL DIV IDIV.

#![expect(unsafe_code, reason = "arithmetic on the host's own instructions")]

use std::arch::asm;

use iced_x86::{Instruction, Mnemonic};

use crate::cpu::{Cpu, Mode, RAX, RDX};
use crate::fault::Fault;
use crate::int::operand::{
    Register, Source, Width, by_place, by_source, by_word, set_source, width_of,
};
use crate::lower::Lowered;
use crate::op::{Done, Handler, Op, called, then_next};

const AX: u8 = RAX as u8 * 8;
const DX: u8 = RDX as u8 * 8;

/// Widening multiplication and its inverse, as the host does them.
trait Long: Width {
    /// Low and high half of a product, status flags.
    fn mul(a: Self, b: Self) -> (Self, Self, u32);
    fn imul(a: Self, b: Self) -> (Self, Self, u32);
    /// Low half of a signed product, status flags.
    fn imul_low(a: Self, b: Self) -> (Self, u32);
    /// Quotient and remainder of `high:low`, when the quotient fits.
    fn div(low: Self, high: Self, by: Self, status: u32) -> Option<(Self, Self, u32)>;
    fn idiv(low: Self, high: Self, by: Self, status: u32) -> Option<(Self, Self, u32)>;
}

macro_rules! product {
    ($name:ident, $mnemonic:literal, $t:ty, $mark:literal) => {
        #[inline(always)]
        fn $name(a: $t, b: $t) -> ($t, $t, u32) {
            let (low, high, status): (u64, u64, u64);
            // SAFETY: arithmetic on registers.
            unsafe {
                asm!(concat!($mnemonic, " {b", $mark, "}"), "mov {low}, rax", "mov eax, 0", "lahf",
                     "seto al", b = in(reg) b, low = out(reg) low, inout("rax") a.wide() => status,
                     out("rdx") high, options(pure, nomem, nostack));
            }
            (<$t>::of(low), <$t>::of(high), status as u32)
        }
    };
}

macro_rules! quotient {
    ($name:ident, $mnemonic:literal, $fits:path, $t:ty, $mark:literal) => {
        #[inline(always)]
        fn $name(low: $t, high: $t, by: $t, status: u32) -> Option<($t, $t, u32)> {
            if !$fits(low, high, by) {
                return None;
            }
            let (quotient, remainder, after): (u64, u64, u64);
            // SAFETY: the quotient fits, so the instruction does not fault.
            unsafe {
                asm!("xchg rax, {s}", "add al, 0x7f", "sahf", "xchg rax, {s}",
                     concat!($mnemonic, " {by", $mark, "}"),
                     "mov {s}, rax", "mov eax, 0", "lahf", "seto al",
                     by = in(reg) by, s = inout(reg) u64::from(status) => quotient,
                     inout("rax") low.wide() => after, inout("rdx") high.wide() => remainder,
                     options(pure, nomem, nostack));
            }
            Some((<$t>::of(quotient), <$t>::of(remainder), after as u32))
        }
    };
}

macro_rules! long {
    ($($t:ty, $signed:ty, $wide:ty, $swide:ty, $mark:literal, $udiv:ident, $sdiv:ident;)*) => {$(
        fn $udiv(_low: $t, high: $t, by: $t) -> bool {
            high < by
        }
        /// Whether the quotient of a signed division fits.
        fn $sdiv(low: $t, high: $t, by: $t) -> bool {
            if by == 0 {
                return false;
            }
            let sign = (low as $signed) < 0;
            if (high == 0 && !sign) || (high == <$t>::MAX && sign) {
                return !(by == <$t>::MAX && low == 1 << (<$t>::BITS - 1));
            }
            let dividend = ((high as $wide) << <$t>::BITS | low as $wide) as $swide;
            let by = by as $signed as $swide;
            dividend
                .checked_div(by)
                .is_some_and(|q| <$signed>::try_from(q).is_ok())
        }
        impl Long for $t {
            product!(mul, "mul", $t, $mark);
            product!(imul, "imul", $t, $mark);
            quotient!(div, "div", $udiv, $t, $mark);
            quotient!(idiv, "idiv", $sdiv, $t, $mark);
            #[inline(always)]
            fn imul_low(a: $t, b: $t) -> ($t, u32) {
                let (mut result, mut status) = (a, 0u32);
                // SAFETY: arithmetic on registers.
                unsafe {
                    asm!(concat!("imul {a", $mark, "}, {b", $mark, "}"), "lahf", "seto al",
                         a = inout(reg) result, b = in(reg) b, inout("eax") status,
                         options(pure, nomem, nostack));
                }
                (result, status)
            }
        }
    )*};
}

long! {
    u16, i16, u32, i32, ":x", unsigned_fits16, signed_fits16;
    u32, i32, u64, i64, ":e", unsigned_fits32, signed_fits32;
    u64, i64, u128, i128, "", unsigned_fits64, signed_fits64;
}

#[inline(always)]
fn multiply<T: Long, S: Source<T>, const SIGNED: bool>(cpu: &mut Cpu, op: &Op) -> Done {
    let b = S::get(cpu, op)?;
    let a = cpu.reg::<T>(AX);
    let (low, high, status) = if SIGNED { T::imul(a, b) } else { T::mul(a, b) };
    low.assign(cpu, AX);
    high.assign(cpu, DX);
    cpu.status = status;
    Ok(())
}

/// IMUL with two or three operands: the product of a register and `S`.
#[inline(always)]
fn multiply_low<T: Long, S: Source<T>>(cpu: &mut Cpu, op: &Op) -> Done {
    let b = S::get(cpu, op)?;
    let (result, status) = T::imul_low(cpu.reg(op.dst), b);
    result.assign(cpu, op.dst);
    cpu.status = status;
    Ok(())
}

/// IMUL with three operands: the product of `S` and the immediate.
#[inline(always)]
fn multiply_immediate<T: Long, S: Source<T>>(cpu: &mut Cpu, op: &Op) -> Done {
    let a = S::get(cpu, op)?;
    let (result, status) = T::imul_low(a, T::of(op.imm));
    result.assign(cpu, op.dst);
    cpu.status = status;
    Ok(())
}

fn divide<T: Long, S: Source<T>, const SIGNED: bool>(cpu: &mut Cpu, op: &Op) -> Done {
    let by = S::get(cpu, op)?;
    let (low, high, status) = (cpu.reg::<T>(AX), cpu.reg::<T>(DX), cpu.status);
    let result = if SIGNED {
        T::idiv(low, high, by, status)
    } else {
        T::div(low, high, by, status)
    };
    let (quotient, remainder, status) = result.ok_or(Fault::DE)?;
    quotient.assign(cpu, AX);
    remainder.assign(cpu, DX);
    cpu.status = status;
    Ok(())
}

macro_rules! byte_product {
    ($name:ident, $mnemonic:literal) => {
        fn $name(a: u8, b: u8) -> (u16, u32) {
            let (result, status): (u32, u32);
            // SAFETY: arithmetic on registers.
            unsafe {
                asm!(concat!($mnemonic, " {b}"), "mov {r:e}, eax", "mov eax, 0", "lahf", "seto al",
                     b = in(reg_byte) b, r = out(reg) result,
                     inout("eax") u32::from(a) => status, options(pure, nomem, nostack));
            }
            (result as u16, status)
        }
    };
}
byte_product!(mul_byte, "mul");
byte_product!(imul_byte, "imul");

fn multiply_byte<S: Source<u8>, const SIGNED: bool>(cpu: &mut Cpu, op: &Op) -> Done {
    let b = S::get(cpu, op)?;
    let a = cpu.reg::<u8>(AX);
    let (result, status) = if SIGNED {
        imul_byte(a, b)
    } else {
        mul_byte(a, b)
    };
    cpu.set_reg(AX, result);
    cpu.status = status;
    Ok(())
}

macro_rules! byte_quotient {
    ($name:ident, $mnemonic:literal) => {
        /// The quotient fits.
        fn $name(a: u16, by: u8, status: u32) -> (u16, u32) {
            let (result, after): (u32, u32);
            // SAFETY: callers have checked that the quotient fits, so the instruction does not fault.
            unsafe {
                asm!("xchg eax, {s:e}", "add al, 0x7f", "sahf", "xchg eax, {s:e}",
                     concat!($mnemonic, " {by}"), "mov {s:e}, eax", "mov eax, 0", "lahf", "seto al",
                     by = in(reg_byte) by, s = inout(reg) status => result,
                     inout("eax") u32::from(a) => after, options(pure, nomem, nostack));
            }
            (result as u16, after)
        }
    };
}
byte_quotient!(div_byte, "div");
byte_quotient!(idiv_byte, "idiv");

fn divide_byte<S: Source<u8>, const SIGNED: bool>(cpu: &mut Cpu, op: &Op) -> Done {
    let by = S::get(cpu, op)?;
    let a = cpu.reg::<u16>(AX);
    let fits = if SIGNED {
        (i32::from(a as i16))
            .checked_div(i32::from(by as i8))
            .is_some_and(|q| i8::try_from(q).is_ok())
    } else {
        a >> 8 < u16::from(by)
    };
    if !fits {
        return Err(Fault::DE);
    }
    let (result, status) = if SIGNED {
        idiv_byte(a, by, cpu.status)
    } else {
        div_byte(a, by, cpu.status)
    };
    cpu.set_reg(AX, result);
    cpu.status = status;
    Ok(())
}

fn imul(op: &mut Op, insn: &Instruction, mode: Mode) -> Handler {
    op.dst = crate::op::register_offset(insn.op0_register());
    let source = set_source(op, insn, 1, mode);
    let width = width_of(insn, 0);
    if insn.op_count() == 3 {
        op.imm = insn.immediate(2);
        return by_word!(width, T => by_source!(source, S => then_next(multiply_immediate::<T, S>)));
    }
    by_word!(width, T => by_source!(source, S => then_next(multiply_low::<T, S>)))
}

/// The record of a multiplication or division.
pub(crate) fn lower(insn: &Instruction, mode: Mode) -> Option<Lowered> {
    let mut op = Op::new(then_next(multiply_byte::<Register, false>));
    if insn.op_count() > 1 {
        op.run = imul(&mut op, insn, mode);
        return Some(Lowered::Next(op));
    }
    let source = set_source(&mut op, insn, 0, mode);
    let width = width_of(insn, 0);
    macro_rules! product {
        ($signed:literal) => {
            match width {
                1 => by_place!(called source, S => (Register) called::then_next(multiply_byte::<S, $signed>)),
                _ => by_word!(width, T => by_source!(source, S => then_next(multiply::<T, S, $signed>))),
            }
        };
    }
    macro_rules! quotient {
        ($signed:literal) => {
            match width {
                1 => by_place!(called source, S => (Register) called::then_next(divide_byte::<S, $signed>)),
                _ => by_word!(width, T => by_place!(called source, S => (Register)
                    called::then_next(divide::<T, S, $signed>))),
            }
        };
    }
    op.run = match insn.mnemonic() {
        Mnemonic::Mul => product!(false),
        Mnemonic::Imul => product!(true),
        Mnemonic::Div => quotient!(false),
        Mnemonic::Idiv => quotient!(true),
        _ => return None,
    };
    Some(Lowered::Next(op))
}
