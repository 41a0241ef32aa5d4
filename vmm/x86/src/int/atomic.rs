//! XCHG XADD CMPXCHG CMPXCHG8B CMPXCHG16B: on memory always one host instruction.

#![expect(unsafe_code, reason = "the host's own instructions on host pointers")]

use std::arch::asm;

use iced_x86::{Instruction, Mnemonic};

use crate::cpu::{Cpu, Mode, RAX, RBX, RCX, RDX};
use crate::fault::Fault;
use crate::flags::ZF;
use crate::int::alu::{Add, Binary, Cmp};
use crate::int::operand::{Kind, Width, by_width, set_target, width_of};
use crate::lower::Lowered;
use crate::op::called::then_next;
use crate::op::{BaseDisp, Done, Ea, EaKind, Handler, Legacy, Op, register_offset};

/// Exchanges as the host does them.
trait Atomic: Width {
    /// # Safety
    /// `host` is writable for the size of the value.
    unsafe fn exchange(host: *mut u8, value: Self) -> Self;
    /// Gives the old value and the flags.
    ///
    /// # Safety
    /// As for `exchange`.
    unsafe fn exchange_add(host: *mut u8, value: Self, locked: bool) -> (Self, u32);
    /// Gives the accumulator afterwards and the flags.
    ///
    /// # Safety
    /// As for `exchange`.
    unsafe fn compare_exchange(
        host: *mut u8,
        expected: Self,
        value: Self,
        locked: bool,
    ) -> (Self, u32);
}

macro_rules! atomic {
    ($($t:ty, $class:ident, $mark:literal, $ptr:literal, $acc:literal;)*) => {$(
        impl Atomic for $t {
            #[inline(always)]
            unsafe fn exchange(host: *mut u8, value: Self) -> Self {
                let mut value = value;
                // SAFETY: the caller vouches for the pointer.
                unsafe {
                    asm!(concat!("xchg ", $ptr, " ptr [{p}], {v", $mark, "}"),
                         p = in(reg) host, v = inout($class) value, options(nostack, preserves_flags));
                }
                value
            }
            #[inline(always)]
            unsafe fn exchange_add(host: *mut u8, value: Self, locked: bool) -> (Self, u32) {
                let (mut value, mut status) = (value, 0u32);
                macro_rules! run { ($lock:literal) => {
                    // SAFETY: the caller vouches for the pointer.
                    unsafe {
                        asm!(concat!($lock, "xadd ", $ptr, " ptr [{p}], {v", $mark, "}"), "lahf", "seto al",
                             p = in(reg) host, v = inout($class) value, inout("eax") status,
                             options(nostack));
                    }
                } }
                if locked { run!("lock "); } else { run!(""); }
                (value, status)
            }
            #[inline(always)]
            unsafe fn compare_exchange(host: *mut u8, expected: Self, value: Self, locked: bool)
                -> (Self, u32)
            {
                let (after, status): (u64, u64);
                macro_rules! run { ($lock:literal) => {
                    // SAFETY: the caller vouches for the pointer.
                    unsafe {
                        asm!(concat!($lock, "cmpxchg ", $ptr, " ptr [{p}], {v", $mark, "}"),
                             "mov {after}, rax", "mov eax, 0", "lahf", "seto al",
                             p = in(reg) host, v = in($class) value, after = out(reg) after,
                             inout("rax") expected.wide() => status, options(nostack));
                    }
                } }
                if locked { run!("lock "); } else { run!(""); }
                (<$t>::of(after), status as u32)
            }
        }
    )*};
}

atomic! {
    u8, reg_byte, "", "byte", "al";
    u16, reg, ":x", "word", "ax";
    u32, reg, ":e", "dword", "eax";
    u64, reg, "", "qword", "rax";
}

fn swap_registers<T: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    let (a, b) = (cpu.reg::<T>(op.dst), cpu.reg::<T>(op.src));
    b.assign(cpu, op.dst);
    a.assign(cpu, op.src);
    Ok(())
}

#[inline(always)]
fn swap_memory<T: Atomic, E: Ea>(cpu: &mut Cpu, op: &Op) -> Done {
    let la = E::linear(cpu, op, T::SIZE, true)?;
    let host = cpu.pointer_for_update(la, usize::from(op.seg), T::SIZE)?;
    let value = cpu.reg::<T>(op.src);
    let old = if host.is_null() {
        swap_slow(cpu, op, la, value)?
    } else {
        // SAFETY: `pointer_for_update` vouches for the range.
        unsafe { T::exchange(host, value) }
    };
    old.assign(cpu, op.src);
    Ok(())
}

#[cold]
#[inline(never)]
fn swap_slow<T: Width>(cpu: &mut Cpu, op: &Op, la: u64, value: T) -> Done<T> {
    let mut old = value;
    cpu.modify(la, usize::from(op.seg), &mut |was| {
        old = was;
        value
    })?;
    Ok(old)
}

/// XADD: the source gets the old value first, so that with one register twice the sum stays.
fn add_registers<T: Width>(cpu: &mut Cpu, op: &Op) -> Done
where
    Add: Binary<T>,
{
    let (a, b) = (cpu.reg::<T>(op.dst), cpu.reg::<T>(op.src));
    let (sum, status) = Add::run(a, b, 0);
    a.assign(cpu, op.src);
    sum.assign(cpu, op.dst);
    cpu.status = status;
    Ok(())
}

#[inline(always)]
fn add_memory<T: Atomic, E: Ea, const LOCKED: bool>(cpu: &mut Cpu, op: &Op) -> Done
where
    Add: Binary<T>,
{
    let la = E::linear(cpu, op, T::SIZE, true)?;
    let host = cpu.pointer_for_update(la, usize::from(op.seg), T::SIZE)?;
    let value = cpu.reg::<T>(op.src);
    let (old, status) = if host.is_null() {
        add_slow(cpu, op, la, value)?
    } else {
        // SAFETY: `pointer_for_update` vouches for the range.
        unsafe { T::exchange_add(host, value, LOCKED) }
    };
    old.assign(cpu, op.src);
    cpu.status = status;
    Ok(())
}

#[cold]
#[inline(never)]
fn add_slow<T: Width>(cpu: &mut Cpu, op: &Op, la: u64, value: T) -> Done<(T, u32)>
where
    Add: Binary<T>,
{
    let (mut old, mut status) = (value, 0);
    cpu.modify(la, usize::from(op.seg), &mut |was| {
        old = was;
        let (sum, after) = Add::run(was, value, 0);
        status = after;
        sum
    })?;
    Ok((old, status))
}

/// CMPXCHG of two registers.
fn compare_registers<T: Width>(cpu: &mut Cpu, op: &Op) -> Done
where
    Cmp: Binary<T>,
{
    let (a, b) = (cpu.reg::<T>(op.dst), cpu.reg::<T>(op.src));
    let status = Cmp::run(cpu.reg(RAX as u8 * 8), a, 0).1;
    if status & ZF != 0 {
        b.assign(cpu, op.dst);
    } else {
        a.assign(cpu, RAX as u8 * 8);
    }
    cpu.status = status;
    Ok(())
}

#[inline(always)]
fn compare_memory<T: Atomic, E: Ea, const LOCKED: bool>(cpu: &mut Cpu, op: &Op) -> Done
where
    Cmp: Binary<T>,
{
    let la = E::linear(cpu, op, T::SIZE, true)?;
    let host = cpu.pointer_for_update(la, usize::from(op.seg), T::SIZE)?;
    let (expected, value) = (cpu.reg::<T>(RAX as u8 * 8), cpu.reg::<T>(op.src));
    let (after, status) = if host.is_null() {
        compare_slow(cpu, op, la, expected, value)?
    } else {
        // SAFETY: `pointer_for_update` vouches for the range.
        unsafe { T::compare_exchange(host, expected, value, LOCKED) }
    };
    if status & ZF == 0 {
        after.assign(cpu, RAX as u8 * 8);
    }
    cpu.status = status;
    Ok(())
}

#[cold]
#[inline(never)]
fn compare_slow<T: Width>(cpu: &mut Cpu, op: &Op, la: u64, expected: T, value: T) -> Done<(T, u32)>
where
    Cmp: Binary<T>,
{
    let mut old = expected;
    cpu.modify(la, usize::from(op.seg), &mut |was| {
        old = was;
        if was == expected { value } else { was }
    })?;
    Ok((old, Cmp::run(expected, old, 0).1))
}

fn joined(low: u64, high: u64) -> u64 {
    low & 0xffff_ffff | high << 32
}

fn compare_8_bytes<const LOCKED: bool>(cpu: &mut Cpu, op: &Op) -> Done {
    let la = cpu.operand_address(op, 8, true)?;
    let host = cpu.pointer_for_update(la, usize::from(op.seg), 8)?;
    let expected = joined(cpu.regs[RAX], cpu.regs[RDX]);
    let value = joined(cpu.regs[RBX], cpu.regs[RCX]);
    let after = if host.is_null() {
        compare_slow::<u64>(cpu, op, la, expected, value)?.0
    } else {
        // SAFETY: `pointer_for_update` vouches for the range.
        unsafe { u64::compare_exchange(host, expected, value, LOCKED) }.0
    };
    if after != expected {
        cpu.set_reg32(RAX as u8 * 8, after as u32);
        cpu.set_reg32(RDX as u8 * 8, (after >> 32) as u32);
    }
    set_zero_flag(cpu, after == expected);
    Ok(())
}

fn set_zero_flag(cpu: &mut Cpu, set: bool) {
    cpu.status = cpu.status & !ZF | if set { ZF } else { 0 };
}

/// Exchanges 16 bytes if they are as expected; gives the old ones.
///
/// # Safety
/// `host` is writable for 16 bytes and a multiple of 16.
unsafe fn compare_exchange_16(host: *mut u8, expected: u128, value: u128) -> u128 {
    let (low, high): (u64, u64);
    // SAFETY: the caller vouches for the pointer; RBX is put back.
    unsafe {
        asm!("xchg rbx, {b}", "lock cmpxchg16b xmmword ptr [rdi]", "mov rbx, {b}",
             b = in(reg) value as u64, in("rcx") (value >> 64) as u64, in("rdi") host,
             inout("rax") expected as u64 => low, inout("rdx") (expected >> 64) as u64 => high,
             options(nostack));
    }
    u128::from(low) | u128::from(high) << 64
}

fn compare_16_bytes(cpu: &mut Cpu, op: &Op) -> Done {
    let la = cpu.operand_address(op, 16, true)?;
    if la & 15 != 0 {
        return Err(Fault::GP0);
    }
    let host = cpu.pointer_for_update(la, usize::from(op.seg), 16)?;
    let wide = |low: u64, high: u64| u128::from(low) | u128::from(high) << 64;
    let expected = wide(cpu.regs[RAX], cpu.regs[RDX]);
    let value = wide(cpu.regs[RBX], cpu.regs[RCX]);
    let old = if host.is_null() {
        compare_16_slow(cpu, op, la, expected, value)?
    } else {
        // SAFETY: `pointer_for_update` vouches for the range, which is aligned as `la` is.
        unsafe { compare_exchange_16(host, expected, value) }
    };
    if old != expected {
        cpu.regs[RAX] = old as u64;
        cpu.regs[RDX] = (old >> 64) as u64;
    }
    set_zero_flag(cpu, old == expected);
    Ok(())
}

fn compare_16_slow(cpu: &mut Cpu, op: &Op, la: u64, expected: u128, value: u128) -> Done<u128> {
    let mut old = expected;
    cpu.modify(la, usize::from(op.seg), &mut |was: u128| {
        old = was;
        if was == expected { value } else { was }
    })?;
    Ok(old)
}

/// Picks between the address form that is hot and the one for all others.
macro_rules! by_ea {
    ($kind:expr, $e:ident => $handler:expr) => {
        match $kind {
            EaKind::BaseDisp => {
                type $e = BaseDisp;
                $handler
            }
            _ => {
                type $e = Legacy;
                $handler
            }
        }
    };
}

fn handler(insn: &Instruction, target: Kind, width: usize) -> Option<Handler> {
    let locked = insn.has_lock_prefix();
    Some(match (insn.mnemonic(), target, locked) {
        (Mnemonic::Xchg, Kind::Memory(kind), _) => {
            by_width!(width, T => by_ea!(kind, E => then_next(swap_memory::<T, E>)))
        }
        (Mnemonic::Xchg, ..) => by_width!(width, T => then_next(swap_registers::<T>)),
        (Mnemonic::Xadd, Kind::Memory(kind), true) => {
            by_width!(width, T => by_ea!(kind, E => then_next(add_memory::<T, E, true>)))
        }
        (Mnemonic::Xadd, Kind::Memory(_), false) => {
            by_width!(width, T => then_next(add_memory::<T, Legacy, false>))
        }
        (Mnemonic::Xadd, ..) => by_width!(width, T => then_next(add_registers::<T>)),
        (Mnemonic::Cmpxchg, Kind::Memory(kind), true) => {
            by_width!(width, T => by_ea!(kind, E => then_next(compare_memory::<T, E, true>)))
        }
        (Mnemonic::Cmpxchg, Kind::Memory(_), false) => {
            by_width!(width, T => then_next(compare_memory::<T, Legacy, false>))
        }
        (Mnemonic::Cmpxchg, ..) => by_width!(width, T => then_next(compare_registers::<T>)),
        (Mnemonic::Cmpxchg8b, _, true) => then_next(compare_8_bytes::<true>),
        (Mnemonic::Cmpxchg8b, _, false) => then_next(compare_8_bytes::<false>),
        (Mnemonic::Cmpxchg16b, ..) => then_next(compare_16_bytes),
        _ => return None,
    })
}

/// The record of an exchange.
pub(crate) fn lower(insn: &Instruction, mode: Mode) -> Option<Lowered> {
    let mut op = Op::new(then_next(compare_16_bytes));
    let memory_second = insn.op_count() == 2 && insn.op1_kind() == iced_x86::OpKind::Memory;
    let (target, source) = if memory_second { (1, 0) } else { (0, 1) };
    let kind = set_target(&mut op, insn, target, mode);
    if insn.op_count() == 2 {
        op.src = register_offset(insn.op_register(source));
    }
    op.run = handler(insn, kind, width_of(insn, target))?;
    Some(Lowered::Next(op))
}
