//! Operands of integer instructions: widths, and where values come from and go to.

#![expect(
    unsafe_code,
    reason = "read-modify-write goes through host pointers that the TLB gave"
)]

use std::marker::PhantomData;

use iced_x86::{Instruction, OpKind};

use crate::cpu::{Cpu, Mode};
use crate::mem::{Word, peek, poke};
use crate::op::{Done, Ea, EaKind, Legacy, Op, register_offset};

/// A width of integer operands.
pub(crate) trait Width: Word + Eq {
    const BITS: u32 = Self::SIZE as u32 * 8;
    /// The low bits of `value`.
    fn of(value: u64) -> Self;
    /// The value, zero-extended.
    fn wide(self) -> u64;
    /// The value, sign-extended.
    fn signed(self) -> i64;
    /// Writes a general register by byte offset; 32-bit values clear the upper half.
    fn assign(self, cpu: &mut Cpu, offset: u8);
}

macro_rules! width {
    ($($t:ty, $signed:ty, $kept:ty;)*) => {$(
        impl Width for $t {
            #[inline(always)]
            fn of(value: u64) -> Self {
                value as $t
            }
            #[inline(always)]
            fn wide(self) -> u64 {
                self as u64
            }
            #[inline(always)]
            fn signed(self) -> i64 {
                self as $signed as i64
            }
            #[inline(always)]
            fn assign(self, cpu: &mut Cpu, offset: u8) {
                cpu.set_reg(offset, self as $kept);
            }
        }
    )*};
}
width! {
    u8, i8, u8;
    u16, i16, u16;
    u32, i32, u64;
    u64, i64, u64;
}

/// Where an instruction reads an operand.
pub(crate) trait Source<T: Width>: 'static {
    fn get(cpu: &mut Cpu, op: &Op) -> Done<T>;
}

/// The register in `src`.
pub(crate) struct Register;
/// The immediate.
pub(crate) struct Immediate;
/// The memory operand.
pub(crate) struct Memory<E>(PhantomData<E>);

impl<T: Width> Source<T> for Register {
    #[inline(always)]
    fn get(cpu: &mut Cpu, op: &Op) -> Done<T> {
        Ok(cpu.reg(op.src))
    }
}

impl<T: Width> Source<T> for Immediate {
    #[inline(always)]
    fn get(_cpu: &mut Cpu, op: &Op) -> Done<T> {
        Ok(T::of(op.imm))
    }
}

impl<T: Width, E: Ea> Source<T> for Memory<E> {
    #[inline(always)]
    fn get(cpu: &mut Cpu, op: &Op) -> Done<T> {
        let la = E::linear(cpu, op, T::SIZE, false)?;
        cpu.read(la, usize::from(op.seg))
    }
}

/// Where an instruction that is not hot writes its result.
pub(crate) trait Place<T: Width>: 'static {
    /// Replaces the value by what `change` makes of it.
    fn update(cpu: &mut Cpu, op: &Op, change: &mut dyn FnMut(T) -> T) -> Done;
    /// Writes without reading.
    fn put(cpu: &mut Cpu, op: &Op, value: T) -> Done;
}

/// The register in `dst`, as a [`Place`].
pub(crate) struct Target;

impl<T: Width> Place<T> for Target {
    fn update(cpu: &mut Cpu, op: &Op, change: &mut dyn FnMut(T) -> T) -> Done {
        change(cpu.reg(op.dst)).assign(cpu, op.dst);
        Ok(())
    }
    #[inline(always)]
    fn put(cpu: &mut Cpu, op: &Op, value: T) -> Done {
        value.assign(cpu, op.dst);
        Ok(())
    }
}

impl<T: Width, E: Ea> Place<T> for Memory<E> {
    fn update(cpu: &mut Cpu, op: &Op, change: &mut dyn FnMut(T) -> T) -> Done {
        let la = E::linear(cpu, op, T::SIZE, true)?;
        let host = cpu.pointer_for_update(la, usize::from(op.seg), T::SIZE)?;
        if host.is_null() {
            return cpu.modify(la, usize::from(op.seg), change);
        }
        // SAFETY: `pointer_for_update` vouches for the range.
        let old = unsafe { peek(host) };
        // SAFETY: as above.
        unsafe { poke(host, change(old)) };
        Ok(())
    }
    #[inline(always)]
    fn put(cpu: &mut Cpu, op: &Op, value: T) -> Done {
        let la = E::linear(cpu, op, T::SIZE, true)?;
        cpu.write(la, usize::from(op.seg), value)
    }
}

/// What kind of operand an instruction has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Register,
    Immediate,
    Memory(EaKind),
}

/// Enters operand `n`, which is read, into the record.
pub(crate) fn set_source(op: &mut Op, insn: &Instruction, n: u32, mode: Mode) -> Kind {
    match insn.op_kind(n) {
        OpKind::Register => {
            op.src = register_offset(insn.op_register(n));
            Kind::Register
        }
        OpKind::Memory => Kind::Memory(op.set_memory(insn, mode.bits)),
        _ => {
            op.imm = insn.immediate(n);
            Kind::Immediate
        }
    }
}

/// Enters operand `n`, which is written, into the record.
pub(crate) fn set_target(op: &mut Op, insn: &Instruction, n: u32, mode: Mode) -> Kind {
    if insn.op_kind(n) == OpKind::Memory {
        return Kind::Memory(op.set_memory(insn, mode.bits));
    }
    op.dst = register_offset(insn.op_register(n));
    Kind::Register
}

/// Width in bytes of operand `n`.
pub(crate) fn width_of(insn: &Instruction, n: u32) -> usize {
    match insn.op_kind(n) {
        OpKind::Register => insn.op_register(n).size(),
        _ => insn.memory_size().size(),
    }
}

/// The memory operand of an instruction that is not hot, in any mode.
pub(crate) type AnyMemory = Memory<Legacy>;

/// Picks the monomorphic handler for a width in bytes: `by_width!(4, T => f::<T>)`.
macro_rules! by_width {
    ($bytes:expr, $t:ident => $handler:expr) => {
        match $bytes {
            1 => {
                type $t = u8;
                $handler
            }
            bytes => crate::int::operand::by_word!(bytes, $t => $handler),
        }
    };
}

/// As [`by_width`], for instructions without a byte form.
macro_rules! by_word {
    ($bytes:expr, $t:ident => $handler:expr) => {
        match $bytes {
            2 => {
                type $t = u16;
                $handler
            }
            4 => {
                type $t = u32;
                $handler
            }
            _ => {
                type $t = u64;
                $handler
            }
        }
    };
}

/// As [`by_width`], for instructions on 32 and 64 bits.
macro_rules! by_long {
    ($bytes:expr, $t:ident => $handler:expr) => {
        match $bytes {
            4 => {
                type $t = u32;
                $handler
            }
            _ => {
                type $t = u64;
                $handler
            }
        }
    };
}

/// Picks the monomorphic handler for a source, all address forms apart.
macro_rules! by_source {
    ($kind:expr, $s:ident => $handler:expr) => {
        match $kind {
            crate::int::operand::Kind::Register => {
                type $s = crate::int::operand::Register;
                $handler
            }
            crate::int::operand::Kind::Immediate => {
                type $s = crate::int::operand::Immediate;
                $handler
            }
            crate::int::operand::Kind::Memory(kind) => crate::op::ea!(kind, E => {
                type $s = crate::int::operand::Memory<E>;
                $handler
            }),
        }
    };
}

/// Picks the monomorphic handler for a source that is a register or memory, for what is not hot: with
/// memory `then_next` is the one of [`crate::op::called`], and with `called` the caller names it himself.
macro_rules! by_place {
    (called $kind:expr, $p:ident => ($register:path) $handler:expr) => {
        match $kind {
            crate::int::operand::Kind::Memory(_) => {
                type $p = crate::int::operand::AnyMemory;
                $handler
            }
            _ => {
                type $p = $register;
                $handler
            }
        }
    };
    ($kind:expr, $p:ident => ($register:path) $handler:expr) => {
        match $kind {
            crate::int::operand::Kind::Memory(_) => {
                use crate::op::called::*;
                type $p = crate::int::operand::AnyMemory;
                $handler
            }
            _ => {
                type $p = $register;
                $handler
            }
        }
    };
}

pub(crate) use {by_long, by_place, by_source, by_width, by_word};
