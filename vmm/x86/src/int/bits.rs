//! Bit tests, bit scans, counts, CRC32, random numbers.

#![expect(unsafe_code, reason = "the host's own instructions")]

use std::arch::asm;

use iced_x86::{Instruction, Mnemonic, OpKind};

use crate::cpu::{Cpu, Mode};
use crate::flags::CF;
use crate::int::operand::{
    Kind, Register, Source, Width, by_place, by_source, by_word, set_source, set_target, width_of,
};
use crate::lower::Lowered;
use crate::op::called::then_next;
use crate::op::{Done, Handler, Op, register_offset};

/// What a bit test does to the bit besides copying it to CF.
trait BitOp<T: Width>: 'static {
    const WRITES: bool;
    /// Of a register; the index is taken modulo the width.
    fn run(a: T, index: T, status: u32) -> (T, u32);
    /// Of memory; the index is below the width.
    ///
    /// # Safety
    /// `host` is writable for the size of `T`.
    unsafe fn run_at(host: *mut u8, index: T, status: u32, locked: bool) -> u32;
}

/// A bit scan or count: result and status flags; the old target shows through where the source is 0.
trait Scan<T: Width>: 'static {
    /// Whether a source of 0 gives a result; where not, the target keeps all of its bits.
    const COUNTS: bool;
    fn run(old: T, source: T, status: u32) -> (T, u32);
}

macro_rules! bit_at {
    ($lock:literal, $mnemonic:literal, $ptr:literal, $mark:literal, $host:ident, $index:ident,
     $status:ident) => {
        // SAFETY: the caller vouches for the pointer.
        unsafe {
            asm!("add al, 0x7f", "sahf",
                 concat!($lock, $mnemonic, " ", $ptr, " ptr [{p}], {i", $mark, "}"), "lahf", "seto al",
                 p = in(reg) $host, i = in(reg) $index, inout("eax") $status, options(nostack));
        }
    };
}

macro_rules! bit_width {
    ($name:ident, $mnemonic:literal, $writes:literal, $lock:literal, $t:ty, $mark:literal,
     $ptr:literal) => {
        impl BitOp<$t> for $name {
            const WRITES: bool = $writes;
            #[inline(always)]
            fn run(a: $t, index: $t, status: u32) -> ($t, u32) {
                let (mut result, mut status) = (a, status);
                // SAFETY: arithmetic on registers.
                unsafe {
                    asm!("add al, 0x7f", "sahf",
                         concat!($mnemonic, " {a", $mark, "}, {i", $mark, "}"), "lahf", "seto al",
                         a = inout(reg) result, i = in(reg) index, inout("eax") status,
                         options(pure, nomem, nostack));
                }
                (result, status)
            }
            #[inline(always)]
            unsafe fn run_at(host: *mut u8, index: $t, status: u32, locked: bool) -> u32 {
                let mut status = status;
                if locked {
                    bit_at!($lock, $mnemonic, $ptr, $mark, host, index, status);
                } else {
                    bit_at!("", $mnemonic, $ptr, $mark, host, index, status);
                }
                status
            }
        }
    };
}

macro_rules! bit_ops {
    ($($name:ident $mnemonic:literal $writes:literal $lock:literal;)*) => {$(
        struct $name;
        bit_width!($name, $mnemonic, $writes, $lock, u16, ":x", "word");
        bit_width!($name, $mnemonic, $writes, $lock, u32, ":e", "dword");
        bit_width!($name, $mnemonic, $writes, $lock, u64, "", "qword");
    )*};
}

bit_ops! {
    Test       "bt"  false "";
    Set        "bts" true  "lock ";
    Reset      "btr" true  "lock ";
    Complement "btc" true  "lock ";
}

macro_rules! scan_width {
    ($name:ident, $mnemonic:literal, $counts:literal, $t:ty, $mark:literal) => {
        impl Scan<$t> for $name {
            const COUNTS: bool = $counts;
            #[inline(always)]
            fn run(old: $t, source: $t, status: u32) -> ($t, u32) {
                let (mut result, mut status) = (old, status);
                // SAFETY: arithmetic on registers.
                unsafe {
                    asm!("add al, 0x7f", "sahf",
                         concat!($mnemonic, " {a", $mark, "}, {b", $mark, "}"), "lahf", "seto al",
                         a = inout(reg) result, b = in(reg) source, inout("eax") status,
                         options(pure, nomem, nostack));
                }
                (result, status)
            }
        }
    };
}

macro_rules! scans {
    ($($name:ident $mnemonic:literal $counts:literal;)*) => {$(
        struct $name;
        scan_width!($name, $mnemonic, $counts, u16, ":x");
        scan_width!($name, $mnemonic, $counts, u32, ":e");
        scan_width!($name, $mnemonic, $counts, u64, "");
    )*};
}

scans! {
    Forward "bsf"    false;
    Reverse "bsr"    false;
    Count   "popcnt" true;
}

fn bit_of_register<A: BitOp<T>, T: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    let index = bit_index::<T>(cpu, op);
    let (result, status) = A::run(cpu.reg(op.dst), index, cpu.status);
    if A::WRITES {
        result.assign(cpu, op.dst);
    }
    cpu.status = status;
    Ok(())
}

/// [`Op::extra`]: the bit index is in a register.
const INDEXED: u8 = 1;

fn bit_index<T: Width>(cpu: &Cpu, op: &Op) -> T {
    if op.extra == INDEXED {
        cpu.reg(op.src)
    } else {
        T::of(op.imm)
    }
}

/// The word that holds a bit and its index there: an index in a register reaches beyond the operand
/// (SDM vol. 2, BT).
fn bit_address<T: Width>(cpu: &Cpu, op: &Op, write: bool) -> Done<(u64, T)> {
    let index = bit_index::<T>(cpu, op);
    let inside = T::of(index.wide() & u64::from(T::BITS - 1));
    let mut offset = cpu.effective_offset(op);
    if op.extra == INDEXED {
        let words = index.signed() >> T::BITS.trailing_zeros();
        offset = offset.wrapping_add((words as u64).wrapping_mul(T::SIZE));
        offset &= u64::MAX >> (64 - op.address_bits);
    }
    let la = cpu.segment_address(usize::from(op.seg), offset, T::SIZE, write)?;
    Ok((la, inside))
}

fn bit_in_memory<A: BitOp<T>, T: Width, const LOCKED: bool>(cpu: &mut Cpu, op: &Op) -> Done {
    let (la, index) = bit_address::<T>(cpu, op, A::WRITES)?;
    let seg = usize::from(op.seg);
    if !A::WRITES {
        let value = cpu.read::<T>(la, seg)?;
        cpu.status = A::run(value, index, cpu.status).1;
        return Ok(());
    }
    let host = cpu.pointer_for_update(la, seg, T::SIZE)?;
    if !host.is_null() {
        // SAFETY: `pointer_for_update` vouches for the range, the index is inside.
        cpu.status = unsafe { A::run_at(host, index, cpu.status, LOCKED) };
        return Ok(());
    }
    let mut status = cpu.status;
    cpu.modify(la, seg, &mut |a| {
        let (result, after) = A::run(a, index, status);
        status = after;
        result
    })?;
    cpu.status = status;
    Ok(())
}

fn scan<A: Scan<T>, T: Width, S: Source<T>>(cpu: &mut Cpu, op: &Op) -> Done {
    let source = S::get(cpu, op)?;
    let old = cpu.reg::<T>(op.dst);
    let (result, status) = A::run(old, source, cpu.status);
    if A::COUNTS || source.wide() != 0 {
        result.assign(cpu, op.dst);
    }
    cpu.status = status;
    Ok(())
}

macro_rules! crc {
    ($name:ident, $t:ty, $class:ident, $mark:literal, $ptr:literal) => {
        fn $name<S: Source<$t>>(cpu: &mut Cpu, op: &Op) -> Done {
            let data = S::get(cpu, op)?;
            let mut sum = u64::from(cpu.reg::<u32>(op.dst));
            // SAFETY: arithmetic on registers.
            unsafe {
                asm!(concat!("crc32 {s", $ptr, "}, {d", $mark, "}"), s = inout(reg) sum,
                     d = in($class) data, options(pure, nomem, nostack, preserves_flags));
            }
            cpu.set_reg(op.dst, sum & 0xffff_ffff);
            Ok(())
        }
    };
}
crc!(crc_byte, u8, reg_byte, "", ":e");
crc!(crc_word, u16, reg, ":x", ":e");
crc!(crc_long, u32, reg, ":e", ":e");
crc!(crc_quad, u64, reg, "", "");

fn random<T: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    let value = crate::int::random::word();
    T::of(value.unwrap_or(0)).assign(cpu, op.dst);
    cpu.status = if value.is_some() { CF } else { 0 };
    Ok(())
}

fn bit_op<A>(insn: &Instruction, target: Kind) -> Handler
where
    A: BitOp<u16> + BitOp<u32> + BitOp<u64>,
{
    let width = width_of(insn, 0);
    match (target, insn.has_lock_prefix()) {
        (Kind::Memory(_), true) => by_word!(width, T => then_next(bit_in_memory::<A, T, true>)),
        (Kind::Memory(_), false) => by_word!(width, T => then_next(bit_in_memory::<A, T, false>)),
        _ => by_word!(width, T => then_next(bit_of_register::<A, T>)),
    }
}

fn scanner<A>(op: &mut Op, insn: &Instruction, mode: Mode) -> Handler
where
    A: Scan<u16> + Scan<u32> + Scan<u64>,
{
    op.dst = register_offset(insn.op0_register());
    let source = set_source(op, insn, 1, mode);
    by_word!(width_of(insn, 0), T => by_source!(source, S => then_next(scan::<A, T, S>)))
}

fn crc(op: &mut Op, insn: &Instruction, mode: Mode) -> Handler {
    op.dst = register_offset(insn.op0_register());
    let source = set_source(op, insn, 1, mode);
    match width_of(insn, 1) {
        1 => by_place!(source, S => (Register) then_next(crc_byte::<S>)),
        2 => by_place!(source, S => (Register) then_next(crc_word::<S>)),
        4 => by_place!(source, S => (Register) then_next(crc_long::<S>)),
        _ => by_place!(source, S => (Register) then_next(crc_quad::<S>)),
    }
}

fn bit_test(op: &mut Op, insn: &Instruction, mode: Mode) -> Option<Handler> {
    let target = set_target(op, insn, 0, mode);
    if insn.op1_kind() == OpKind::Register {
        op.src = register_offset(insn.op1_register());
        op.extra = INDEXED;
    } else {
        op.imm = insn.immediate(1);
    }
    Some(match insn.mnemonic() {
        Mnemonic::Bt => bit_op::<Test>(insn, target),
        Mnemonic::Bts => bit_op::<Set>(insn, target),
        Mnemonic::Btr => bit_op::<Reset>(insn, target),
        Mnemonic::Btc => bit_op::<Complement>(insn, target),
        _ => return None,
    })
}

/// The record of an instruction of this family.
pub(crate) fn lower(insn: &Instruction, mode: Mode) -> Option<Lowered> {
    let mut op = Op::new(then_next(random::<u64>));
    op.run = match insn.mnemonic() {
        Mnemonic::Bsf => scanner::<Forward>(&mut op, insn, mode),
        Mnemonic::Bsr => scanner::<Reverse>(&mut op, insn, mode),
        Mnemonic::Popcnt => scanner::<Count>(&mut op, insn, mode),
        Mnemonic::Crc32 => crc(&mut op, insn, mode),
        Mnemonic::Rdrand | Mnemonic::Rdseed => {
            op.dst = register_offset(insn.op0_register());
            by_word!(width_of(insn, 0), T => then_next(random::<T>))
        }
        _ => bit_test(&mut op, insn, mode)?,
    };
    Some(Lowered::Next(op))
}
