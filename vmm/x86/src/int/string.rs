//! MOVS CMPS SCAS LODS STOS, with and without repetition.
//!
//! A repeated instruction is a branch to itself until it is done: each round does as many elements as
//! lie in one page, or a few one by one, so that interrupts get their turn in between.

#![expect(
    unsafe_code,
    reason = "runs of elements are copied between host pointers that the TLB gave"
)]

use std::arch::asm;

use iced_x86::{Instruction, Mnemonic, OpKind};

use crate::cpu::{Cpu, ES, Mode, RCX, RDI, RSI, rflags};
use crate::flags::ZF;
use crate::int::alu::{Binary, Cmp};
use crate::int::operand::{Width, by_width};
use crate::lower::Lowered;
use crate::op::called::{then_branch, then_next};
use crate::op::{Done, Handler, Op};

/// Elements that are done one by one before others get a turn.
const SINGLE_MAX: u64 = 256;

/// [`Op::extra`]: which prefix the instruction has.
const ONCE: u8 = 0;
const REPE: u8 = 1;
const REPNE: u8 = 2;

/// A string instruction: one element of it. `REP` ends when it gives false.
trait Step<T: Width>: 'static {
    fn one(cpu: &mut Cpu, op: &Op) -> Done<bool>;
    /// Whether `many` ever does anything.
    const RUNS: bool = false;
    /// Does up to `most` elements at once; gives how many it did, 0 when they have to be done singly.
    fn many(_cpu: &mut Cpu, _op: &Op, _most: u64) -> u64 {
        0
    }
}

struct Movs;
struct Cmps;
struct Scas;
struct Lods;
struct Stos;

impl Cpu {
    fn index_mask(op: &Op) -> u64 {
        u64::MAX >> (64 - op.address_bits)
    }

    /// Adds to RSI, RDI or RCX at the address size.
    fn add_index(&mut self, op: &Op, register: usize, by: u64) {
        let sum = self.regs[register].wrapping_add(by);
        match op.address_bits {
            16 => self.set_reg(register as u8 * 8, sum as u16),
            32 => self.regs[register] = sum & 0xffff_ffff,
            _ => self.regs[register] = sum,
        }
    }

    fn step_of<T: Width>(&self) -> u64 {
        if self.rflags & rflags::DF == 0 {
            T::SIZE
        } else {
            T::SIZE.wrapping_neg()
        }
    }

    fn source_address<T: Width>(&self, op: &Op) -> Done<u64> {
        let offset = self.regs[RSI] & Self::index_mask(op);
        self.segment_address(usize::from(op.seg), offset, T::SIZE, false)
    }

    fn target_address<T: Width>(&self, op: &Op, write: bool) -> Done<u64> {
        let offset = self.regs[RDI] & Self::index_mask(op);
        self.segment_address(ES, offset, T::SIZE, write)
    }

    /// Linear address and number of the elements from `register` upwards that lie in one page, in the
    /// segment and below the end of the address size; 0 of them where single steps have to look.
    fn run_length<T: Width>(&self, op: &Op, seg: usize, register: usize, most: u64) -> (u64, u64) {
        let offset = self.regs[register] & Self::index_mask(op);
        let Ok(la) = self.segment_address(seg, offset, T::SIZE, false) else {
            return (0, 0);
        };
        let in_page = (0x1000 - (la & 0xfff)) / T::SIZE;
        let below_end = (Self::index_mask(op) - offset) / T::SIZE;
        let count = most.min(in_page).min(below_end);
        let whole = count > 0
            && self
                .segment_address(seg, offset, count * T::SIZE, register == RDI)
                .is_ok();
        (la, if whole { count } else { 0 })
    }
}

impl<T: Width> Step<T> for Movs {
    const RUNS: bool = true;
    #[inline(always)]
    fn one(cpu: &mut Cpu, op: &Op) -> Done<bool> {
        let from = cpu.source_address::<T>(op)?;
        let to = cpu.target_address::<T>(op, true)?;
        let value = cpu.read::<T>(from, usize::from(op.seg))?;
        cpu.write(to, ES, value)?;
        let by = cpu.step_of::<T>();
        cpu.add_index(op, RSI, by);
        cpu.add_index(op, RDI, by);
        Ok(true)
    }

    fn many(cpu: &mut Cpu, op: &Op, most: u64) -> u64 {
        let (from, count) = cpu.run_length::<T>(op, usize::from(op.seg), RSI, most);
        let (to, count) = cpu.run_length::<T>(op, ES, RDI, count);
        if count == 0 {
            return 0;
        }
        let source = cpu.hit_read(from, T::SIZE * count);
        let target = cpu.hit_write(to, T::SIZE * count);
        if source.is_null() || target.is_null() {
            return 0;
        }
        // SAFETY: the TLB vouches for both pages, and the elements lie inside them. The host's own
        // instruction gives overlapping runs the same result as element by element.
        unsafe { copy_run::<T>(source, target, count) };
        cpu.add_index(op, RSI, T::SIZE * count);
        cpu.add_index(op, RDI, T::SIZE * count);
        count
    }
}

impl<T: Width> Step<T> for Stos {
    const RUNS: bool = true;
    #[inline(always)]
    fn one(cpu: &mut Cpu, op: &Op) -> Done<bool> {
        let to = cpu.target_address::<T>(op, true)?;
        cpu.write(to, ES, cpu.reg::<T>(0))?;
        let by = cpu.step_of::<T>();
        cpu.add_index(op, RDI, by);
        Ok(true)
    }

    fn many(cpu: &mut Cpu, op: &Op, most: u64) -> u64 {
        let (to, count) = cpu.run_length::<T>(op, ES, RDI, most);
        if count == 0 {
            return 0;
        }
        let target = cpu.hit_write(to, T::SIZE * count);
        if target.is_null() {
            return 0;
        }
        // SAFETY: the TLB vouches for the page, and the elements lie inside it.
        unsafe { fill_run::<T>(target, cpu.regs[0], count) };
        cpu.add_index(op, RDI, T::SIZE * count);
        count
    }
}

impl<T: Width> Step<T> for Lods {
    #[inline(always)]
    fn one(cpu: &mut Cpu, op: &Op) -> Done<bool> {
        let from = cpu.source_address::<T>(op)?;
        let value = cpu.read::<T>(from, usize::from(op.seg))?;
        value.assign(cpu, 0);
        let by = cpu.step_of::<T>();
        cpu.add_index(op, RSI, by);
        Ok(true)
    }
}

impl<T: Width> Step<T> for Scas
where
    Cmp: Binary<T>,
{
    #[inline(always)]
    fn one(cpu: &mut Cpu, op: &Op) -> Done<bool> {
        let to = cpu.target_address::<T>(op, false)?;
        let value = cpu.read::<T>(to, ES)?;
        cpu.status = Cmp::run(cpu.reg(0), value, 0).1;
        let by = cpu.step_of::<T>();
        cpu.add_index(op, RDI, by);
        Ok(wants_more(cpu, op))
    }
}

impl<T: Width> Step<T> for Cmps
where
    Cmp: Binary<T>,
{
    #[inline(always)]
    fn one(cpu: &mut Cpu, op: &Op) -> Done<bool> {
        let from = cpu.source_address::<T>(op)?;
        let to = cpu.target_address::<T>(op, false)?;
        let a = cpu.read::<T>(from, usize::from(op.seg))?;
        let b = cpu.read::<T>(to, ES)?;
        cpu.status = Cmp::run(a, b, 0).1;
        let by = cpu.step_of::<T>();
        cpu.add_index(op, RSI, by);
        cpu.add_index(op, RDI, by);
        Ok(wants_more(cpu, op))
    }
}

fn wants_more(cpu: &Cpu, op: &Op) -> bool {
    (cpu.status & ZF != 0) == (op.extra == REPE)
}

/// Copies elements upwards.
///
/// # Safety
/// Both pointers are good for `count` elements.
unsafe fn copy_run<T: Width>(source: *const u8, target: *mut u8, count: u64) {
    macro_rules! rep {
        ($insn:literal) => {
            // SAFETY: the caller vouches for the runs; DF is clear in Rust code.
            unsafe {
                asm!($insn, inout("rcx") count => _, inout("rsi") source => _,
                     inout("rdi") target => _, options(nostack, preserves_flags));
            }
        };
    }
    match T::SIZE {
        1 => rep!("rep movsb"),
        2 => rep!("rep movsw"),
        4 => rep!("rep movsd"),
        _ => rep!("rep movsq"),
    }
}

/// Fills elements upwards.
///
/// # Safety
/// `target` is good for `count` elements.
unsafe fn fill_run<T: Width>(target: *mut u8, value: u64, count: u64) {
    macro_rules! rep {
        ($insn:literal) => {
            // SAFETY: the caller vouches for the run; DF is clear in Rust code.
            unsafe {
                asm!($insn, inout("rcx") count => _, inout("rdi") target => _, in("rax") value,
                     options(nostack, preserves_flags));
            }
        };
    }
    match T::SIZE {
        1 => rep!("rep stosb"),
        2 => rep!("rep stosw"),
        4 => rep!("rep stosd"),
        _ => rep!("rep stosq"),
    }
}

#[inline(always)]
fn once<S: Step<T>, T: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    S::one(cpu, op).map(drop)
}

/// One round of a repeated instruction; true when there is more to do.
fn round<S: Step<T>, T: Width>(cpu: &mut Cpu, op: &Op) -> Done<bool> {
    let left = cpu.regs[RCX] & Cpu::index_mask(op);
    if left == 0 {
        return Ok(false);
    }
    let stepping = cpu.rflags & rflags::TF != 0;
    let upwards = cpu.rflags & rflags::DF == 0;
    if upwards && !stepping {
        let done = S::many(cpu, op, left);
        if done > 0 {
            cpu.add_index(op, RCX, done.wrapping_neg());
            return Ok(done < left);
        }
    }
    // One element brings its page into the TLB; then there may be a run.
    let alone = stepping || upwards && S::RUNS;
    singles::<S, T>(cpu, op, left, if alone { 1 } else { left.min(SINGLE_MAX) })
}

/// Does elements one by one. After a fault the registers tell how many are done, but the status flags are
/// those from before (SDM vol. 2, REP: "Exceptions").
fn singles<S: Step<T>, T: Width>(cpu: &mut Cpu, op: &Op, left: u64, most: u64) -> Done<bool> {
    let status = cpu.status;
    for done in 1..=most {
        let more = S::one(cpu, op).inspect_err(|_| cpu.status = status)?;
        cpu.add_index(op, RCX, u64::MAX);
        if !more || done == left {
            return Ok(false);
        }
    }
    cpu.budget -= most as i32 / 8;
    Ok(true)
}

/// Address size by the kind of a string operand.
fn set_operands(op: &mut Op, insn: &Instruction) {
    for n in 0..insn.op_count() {
        op.address_bits = match insn.op_kind(n) {
            OpKind::MemorySegSI | OpKind::MemoryESDI => 16,
            OpKind::MemorySegESI | OpKind::MemoryESEDI => 32,
            OpKind::MemorySegRSI | OpKind::MemoryESRDI => 64,
            _ => op.address_bits,
        };
    }
    op.seg = (insn.memory_segment() as u8).wrapping_sub(iced_x86::Register::ES as u8);
    op.extra = match (insn.has_rep_prefix(), insn.has_repne_prefix()) {
        (true, _) => REPE,
        (_, true) => REPNE,
        _ => ONCE,
    };
    // Where a round that is not the last goes: to the instruction itself.
    op.disp = insn.ip() as i32;
}

fn handler<S>(op: &Op, width: usize) -> Handler
where
    S: Step<u8> + Step<u16> + Step<u32> + Step<u64>,
{
    if op.extra == ONCE {
        by_width!(width, T => then_next(once::<S, T>))
    } else {
        by_width!(width, T => then_branch(round::<S, T>))
    }
}

/// The record of a string instruction.
pub(crate) fn lower(insn: &Instruction, _mode: Mode) -> Option<Lowered> {
    if !insn.is_string_instruction() {
        return None;
    }
    let mut op = Op::new(then_next(once::<Movs, u8>));
    set_operands(&mut op, insn);
    let width = insn.memory_size().size();
    op.run = match insn.mnemonic() {
        Mnemonic::Movsb | Mnemonic::Movsw | Mnemonic::Movsd | Mnemonic::Movsq => {
            handler::<Movs>(&op, width)
        }
        Mnemonic::Stosb | Mnemonic::Stosw | Mnemonic::Stosd | Mnemonic::Stosq => {
            handler::<Stos>(&op, width)
        }
        Mnemonic::Lodsb | Mnemonic::Lodsw | Mnemonic::Lodsd | Mnemonic::Lodsq => {
            handler::<Lods>(&op, width)
        }
        Mnemonic::Scasb | Mnemonic::Scasw | Mnemonic::Scasd | Mnemonic::Scasq => {
            handler::<Scas>(&op, width)
        }
        Mnemonic::Cmpsb | Mnemonic::Cmpsw | Mnemonic::Cmpsd | Mnemonic::Cmpsq => {
            handler::<Cmps>(&op, width)
        }
        _ => return None,
    };
    Some(Lowered::Next(op))
}
