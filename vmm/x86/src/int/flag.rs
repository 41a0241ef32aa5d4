//! Single flags, and instructions that do nothing for a guest.

use iced_x86::{Instruction, Mnemonic};

use crate::cpu::{Cpu, Mode, rflags};
use crate::fault::{Fault, vector};
use crate::flags::{CF, OF, from_rflags, to_rflags};
use crate::int::operand::Width;
use crate::lower::Lowered;
use crate::op::{Done, Op, called, register_offset, then_next};

/// Offset of AH in the registers.
const AH: u8 = 1;

fn load_flags(cpu: &mut Cpu, _op: &Op) -> Done {
    cpu.set_reg(AH, (to_rflags(cpu.status) | rflags::FIXED) as u8);
    Ok(())
}

fn store_flags(cpu: &mut Cpu, _op: &Op) -> Done {
    let low = from_rflags(u64::from(cpu.reg::<u8>(AH)));
    cpu.status = low | cpu.status & OF;
    Ok(())
}

fn clear_carry(cpu: &mut Cpu, _op: &Op) -> Done {
    cpu.status &= !CF;
    Ok(())
}

fn set_carry(cpu: &mut Cpu, _op: &Op) -> Done {
    cpu.status |= CF;
    Ok(())
}

fn flip_carry(cpu: &mut Cpu, _op: &Op) -> Done {
    cpu.status ^= CF;
    Ok(())
}

fn clear_direction(cpu: &mut Cpu, _op: &Op) -> Done {
    cpu.rflags &= !rflags::DF;
    Ok(())
}

fn set_direction(cpu: &mut Cpu, _op: &Op) -> Done {
    cpu.rflags |= rflags::DF;
    Ok(())
}

/// SALC: AL from CF.
fn spread_carry(cpu: &mut Cpu, _op: &Op) -> Done {
    let value = if cpu.status & CF != 0 { 0xffu8 } else { 0 };
    cpu.set_reg(0, value);
    Ok(())
}

#[inline(always)]
fn nothing(_cpu: &mut Cpu, _op: &Op) -> Done {
    Ok(())
}

/// MFENCE and SFENCE: this thread's stores are seen by others before its later loads.
fn fence(_cpu: &mut Cpu, _op: &Op) -> Done {
    std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    Ok(())
}

/// A CPU that executes this many PAUSEs is waiting for longer than a short critical section takes, and
/// lets another thread have the processor: it may be the one waited for.
const PAUSES_TO_YIELD: u32 = 64;

/// PAUSE: the guest spins, perhaps for a CPU that this thread keeps from running.
fn pause(cpu: &mut Cpu, _op: &Op) -> Done {
    cpu.pauses = cpu.pauses.wrapping_add(1);
    if cpu.pauses.is_multiple_of(PAUSES_TO_YIELD) && cpu.memory.mailboxes().len() > 1 {
        std::thread::yield_now();
    }
    Ok(())
}

/// CLFLUSH and CLWB touch their line as a byte load does.
fn touch(cpu: &mut Cpu, op: &Op) -> Done {
    let la = cpu.operand_address(op, 1, false)?;
    cpu.read::<u8>(la, usize::from(op.seg)).map(drop)
}

/// BOUND: the signed register against two signed limits in memory.
fn bound<T: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    let index = cpu.reg::<T>(op.dst).signed();
    let la = cpu.operand_address(op, T::SIZE * 2, false)?;
    let low = cpu.read::<T>(la, usize::from(op.seg))?.signed();
    let high = cpu
        .read::<T>(la.wrapping_add(T::SIZE), usize::from(op.seg))?
        .signed();
    if index < low || index > high {
        return Err(Fault {
            vector: vector::BR,
            error: None,
            address: 0,
        });
    }
    Ok(())
}

/// The record of an instruction of this family.
pub(crate) fn lower(insn: &Instruction, mode: Mode) -> Option<Lowered> {
    let mut op = Op::new(then_next(nothing));
    op.run = match insn.mnemonic() {
        Mnemonic::Lahf => then_next(load_flags),
        Mnemonic::Sahf => then_next(store_flags),
        Mnemonic::Clc => then_next(clear_carry),
        Mnemonic::Stc => then_next(set_carry),
        Mnemonic::Cmc => then_next(flip_carry),
        Mnemonic::Cld => then_next(clear_direction),
        Mnemonic::Std => then_next(set_direction),
        Mnemonic::Salc => then_next(spread_carry),
        Mnemonic::Mfence | Mnemonic::Sfence => then_next(fence),
        Mnemonic::Pause => called::then_next(pause),
        Mnemonic::Clflush | Mnemonic::Clflushopt | Mnemonic::Clwb => {
            op.set_memory(insn, mode.bits);
            called::then_next(touch)
        }
        Mnemonic::Bound => {
            op.dst = register_offset(insn.op0_register());
            op.set_memory(insn, mode.bits);
            match insn.op0_register().size() {
                2 => called::then_next(bound::<u16>),
                _ => called::then_next(bound::<u32>),
            }
        }
        Mnemonic::Nop
        | Mnemonic::Reservednop
        | Mnemonic::Endbr32
        | Mnemonic::Endbr64
        | Mnemonic::Lfence
        | Mnemonic::Prefetch
        | Mnemonic::Prefetchw
        | Mnemonic::Prefetchwt1
        | Mnemonic::Prefetchnta
        | Mnemonic::Prefetcht0
        | Mnemonic::Prefetcht1
        | Mnemonic::Prefetcht2
        | Mnemonic::Prefetchit0
        | Mnemonic::Prefetchit1
        | Mnemonic::Cldemote
        | Mnemonic::Rdsspd
        | Mnemonic::Rdsspq => then_next(nothing),
        _ => return None,
    };
    Some(Lowered::Next(op))
}
