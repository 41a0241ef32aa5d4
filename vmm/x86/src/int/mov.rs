//! Moves: MOV MOVZX MOVSX MOVSXD MOVBE MOVNTI BSWAP LEA CMOVcc SETcc XLAT, CBW to CQO.

use iced_x86::{Instruction, Mnemonic, OpKind};

use crate::cpu::{Cpu, Mode, RAX, RBX, RDX};
use crate::int::branch::{Condition, condition};
use crate::int::operand::{
    AnyMemory, Immediate, Kind, Memory, Place, Register, Source, Target, Width, by_long, by_place,
    by_source, by_width, by_word, set_source, set_target, width_of,
};
use crate::lower::Lowered;
use crate::op::{
    Done, Ea, EaKind, Handler, Op, address_bits, called, ea, register_offset, then_next,
};

#[inline(always)]
fn load<T: Width, S: Source<T>>(cpu: &mut Cpu, op: &Op) -> Done {
    S::get(cpu, op)?.assign(cpu, op.dst);
    Ok(())
}

#[inline(always)]
fn store<T: Width, E: Ea, S: Source<T>>(cpu: &mut Cpu, op: &Op) -> Done {
    let value = S::get(cpu, op)?;
    let la = E::linear(cpu, op, T::SIZE, true)?;
    cpu.write(la, usize::from(op.seg), value)
}

/// MOV from the address in the immediate.
fn load_far<T: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    let la = cpu.segment_address(usize::from(op.seg), op.imm, T::SIZE, false)?;
    cpu.read::<T>(la, usize::from(op.seg))?.assign(cpu, op.dst);
    Ok(())
}

/// MOV to the address in the immediate.
fn store_far<T: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    let la = cpu.segment_address(usize::from(op.seg), op.imm, T::SIZE, true)?;
    cpu.write(la, usize::from(op.seg), cpu.reg::<T>(op.src))
}

/// MOV from the segment register with the number `src`.
fn read_selector<T: Width, P: Place<T>>(cpu: &mut Cpu, op: &Op) -> Done {
    let selector = cpu.segs[usize::from(op.src)].selector;
    P::put(cpu, op, T::of(u64::from(selector)))
}

#[inline(always)]
fn zero_extend<T: Width, F: Width, S: Source<F>>(cpu: &mut Cpu, op: &Op) -> Done {
    let value = S::get(cpu, op)?;
    T::of(value.wide()).assign(cpu, op.dst);
    Ok(())
}

#[inline(always)]
fn sign_extend<T: Width, F: Width, S: Source<F>>(cpu: &mut Cpu, op: &Op) -> Done {
    let value = S::get(cpu, op)?;
    T::of(value.signed() as u64).assign(cpu, op.dst);
    Ok(())
}

#[inline(always)]
fn lea_base<T: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    let sum = cpu.reg::<u64>(op.base).wrapping_add(op.disp as i64 as u64);
    T::of(sum).assign(cpu, op.dst);
    Ok(())
}

#[inline(always)]
fn lea_index<T: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    let sum = cpu
        .reg::<u64>(op.base)
        .wrapping_add(cpu.reg::<u64>(op.index) << op.scale)
        .wrapping_add(op.disp as i64 as u64);
    T::of(sum).assign(cpu, op.dst);
    Ok(())
}

fn lea_short<T: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    T::of(cpu.effective_offset(op)).assign(cpu, op.dst);
    Ok(())
}

/// CMOVcc: memory is read, and a 32-bit target zero-extended, whatever the condition.
#[inline(always)]
fn move_if<C: Condition, T: Width, S: Source<T>>(cpu: &mut Cpu, op: &Op) -> Done {
    let value = S::get(cpu, op)?;
    let old = cpu.reg::<T>(op.dst);
    let kept = if C::holds(cpu.status) { value } else { old };
    kept.assign(cpu, op.dst);
    Ok(())
}

#[inline(always)]
fn set_if<C: Condition, P: Place<u8>>(cpu: &mut Cpu, op: &Op) -> Done {
    let holds = C::holds(cpu.status);
    P::put(cpu, op, u8::from(holds))
}

#[inline(always)]
fn swap_bytes<T: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    swapped::<T>(cpu.reg(op.dst)).assign(cpu, op.dst);
    Ok(())
}

/// Of 16 bits (undefined), hosts give zero.
fn clear_word(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.set_reg(op.dst, 0u16);
    Ok(())
}

fn swapped<T: Width>(value: T) -> T {
    T::of(value.wide().swap_bytes() >> (64 - T::BITS))
}

fn load_swapped<T: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    let value = <AnyMemory as Source<T>>::get(cpu, op)?;
    swapped(value).assign(cpu, op.dst);
    Ok(())
}

fn store_swapped<T: Width>(cpu: &mut Cpu, op: &Op) -> Done {
    let value = swapped(cpu.reg::<T>(op.src));
    <AnyMemory as Place<T>>::put(cpu, op, value)
}

/// CBW, CWDE, CDQE: the accumulator from its lower half.
#[inline(always)]
fn widen<T: Width, F: Width>(cpu: &mut Cpu, _op: &Op) -> Done {
    let value = cpu.reg::<F>(RAX as u8 * 8).signed();
    T::of(value as u64).assign(cpu, RAX as u8 * 8);
    Ok(())
}

/// CWD, CDQ, CQO: the sign of the accumulator in DX, EDX or RDX.
#[inline(always)]
fn spread_sign<T: Width>(cpu: &mut Cpu, _op: &Op) -> Done {
    let value = cpu.reg::<T>(RAX as u8 * 8).signed();
    T::of((value >> 63) as u64).assign(cpu, RDX as u8 * 8);
    Ok(())
}

fn translate(cpu: &mut Cpu, op: &Op) -> Done {
    let sum = cpu.regs[RBX].wrapping_add(u64::from(cpu.reg::<u8>(0)));
    let offset = sum & u64::MAX >> (64 - op.address_bits);
    let la = cpu.segment_address(usize::from(op.seg), offset, 1, false)?;
    let value = cpu.read::<u8>(la, usize::from(op.seg))?;
    cpu.set_reg(0, value);
    Ok(())
}

fn mov(op: &mut Op, insn: &Instruction, mode: Mode) -> Option<Handler> {
    if insn.op1_kind() == OpKind::Register && insn.op1_register().is_segment_register() {
        return Some(mov_from_segment(op, insn, mode));
    }
    let special = |n| {
        let register = insn.op_register(n);
        insn.op_kind(n) == OpKind::Register && !register.is_gpr()
    };
    if special(0) || special(1) {
        return None;
    }
    if insn.memory_displ_size() == 8 && address_bits(insn, mode.bits) == 64 && is_far(insn) {
        return Some(mov_far(op, insn, mode));
    }
    let width = width_of(insn, 0);
    let target = set_target(op, insn, 0, mode);
    let source = set_source(op, insn, 1, mode);
    Some(match (target, source) {
        (Kind::Memory(kind), Kind::Register) => {
            by_width!(width, T => ea!(kind, E => then_next(store::<T, E, Register>)))
        }
        (Kind::Memory(kind), _) => {
            by_width!(width, T => ea!(kind, E => then_next(store::<T, E, Immediate>)))
        }
        _ => by_width!(width, T => by_source!(source, S => then_next(load::<T, S>))),
    })
}

/// Whether a memory operand is an address and nothing else, too long for the displacement.
fn is_far(insn: &Instruction) -> bool {
    let address = insn.memory_displacement64();
    let none = iced_x86::Register::None;
    insn.memory_base() == none
        && insn.memory_index() == none
        && i32::try_from(address as i64).is_err()
}

fn mov_far(op: &mut Op, insn: &Instruction, mode: Mode) -> Handler {
    let width = width_of(insn, 0);
    op.set_memory(insn, mode.bits);
    op.imm = insn.memory_displacement64();
    if insn.op0_kind() == OpKind::Register {
        op.dst = register_offset(insn.op0_register());
        return by_width!(width, T => called::then_next(load_far::<T>));
    }
    op.src = register_offset(insn.op1_register());
    by_width!(width, T => called::then_next(store_far::<T>))
}

/// A register takes the zero-extended selector at its own width, memory 16 bits (SDM vol. 2, MOV).
fn mov_from_segment(op: &mut Op, insn: &Instruction, mode: Mode) -> Handler {
    op.src = (insn.op1_register() as u8).wrapping_sub(iced_x86::Register::ES as u8);
    let target = set_target(op, insn, 0, mode);
    match target {
        Kind::Memory(_) => called::then_next(read_selector::<u16, AnyMemory>),
        _ => by_word!(width_of(insn, 0), T => called::then_next(read_selector::<T, Target>)),
    }
}

fn extend(op: &mut Op, insn: &Instruction, mode: Mode, signed: bool) -> Handler {
    op.dst = register_offset(insn.op0_register());
    let to = width_of(insn, 0);
    let from = width_of(insn, 1);
    let source = set_source(op, insn, 1, mode);
    macro_rules! from {
        ($f:ident) => {
            if signed {
                by_word!(to, T => by_source!(source, S => then_next(sign_extend::<T, $f, S>)))
            } else {
                by_word!(to, T => by_source!(source, S => then_next(zero_extend::<T, $f, S>)))
            }
        };
    }
    match from {
        1 => from!(u8),
        2 => from!(u16),
        _ => from!(u32),
    }
}

fn lea(op: &mut Op, insn: &Instruction, mode: Mode) -> Handler {
    op.dst = register_offset(insn.op0_register());
    op.set_memory(insn, mode.bits);
    let width = width_of(insn, 0);
    if op.address_bits != 64 {
        by_word!(width, T => then_next(lea_short::<T>))
    } else if insn.memory_index() == iced_x86::Register::None {
        by_word!(width, T => then_next(lea_base::<T>))
    } else {
        by_word!(width, T => then_next(lea_index::<T>))
    }
}

fn conditional_move(op: &mut Op, insn: &Instruction, mode: Mode) -> Handler {
    op.dst = register_offset(insn.op0_register());
    let source = set_source(op, insn, 1, mode);
    let width = width_of(insn, 0);
    macro_rules! from {
        ($s:ty) => {
            condition!(insn.condition_code(), C => by_word!(width, T => then_next(move_if::<C, T, $s>)))
        };
    }
    match source {
        Kind::Memory(EaKind::BaseDisp) => from!(Memory<crate::op::BaseDisp>),
        Kind::Memory(_) => {
            use crate::op::called::then_next;
            from!(AnyMemory)
        }
        _ => from!(Register),
    }
}

fn conditional_set(op: &mut Op, insn: &Instruction, mode: Mode) -> Handler {
    let target = set_target(op, insn, 0, mode);
    condition!(insn.condition_code(), C => by_place!(target, P => (Target) then_next(set_if::<C, P>)))
}

fn byte_swap(op: &mut Op, insn: &Instruction) -> Handler {
    op.dst = register_offset(insn.op0_register());
    match width_of(insn, 0) {
        2 => then_next(clear_word),
        width => by_long!(width, T => then_next(swap_bytes::<T>)),
    }
}

fn swapping_move(op: &mut Op, insn: &Instruction, mode: Mode) -> Handler {
    op.set_memory(insn, mode.bits);
    if insn.op0_kind() == OpKind::Register {
        op.dst = register_offset(insn.op0_register());
        by_word!(width_of(insn, 0), T => called::then_next(load_swapped::<T>))
    } else {
        op.src = register_offset(insn.op1_register());
        by_word!(width_of(insn, 1), T => called::then_next(store_swapped::<T>))
    }
}

fn table_lookup(op: &mut Op, insn: &Instruction, mode: Mode) -> Handler {
    op.set_memory(insn, mode.bits);
    called::then_next(translate)
}

/// The record of a move.
pub(crate) fn lower(insn: &Instruction, mode: Mode) -> Option<Lowered> {
    let mut op = Op::new(then_next(clear_word));
    op.run = match insn.mnemonic() {
        Mnemonic::Mov => mov(&mut op, insn, mode)?,
        Mnemonic::Movnti => mov(&mut op, insn, mode)?,
        Mnemonic::Movzx => extend(&mut op, insn, mode, false),
        Mnemonic::Movsx | Mnemonic::Movsxd => extend(&mut op, insn, mode, true),
        Mnemonic::Lea => lea(&mut op, insn, mode),
        Mnemonic::Bswap => byte_swap(&mut op, insn),
        Mnemonic::Movbe => swapping_move(&mut op, insn, mode),
        Mnemonic::Xlatb => table_lookup(&mut op, insn, mode),
        Mnemonic::Cbw => then_next(widen::<u16, u8>),
        Mnemonic::Cwde => then_next(widen::<u32, u16>),
        Mnemonic::Cdqe => then_next(widen::<u64, u32>),
        Mnemonic::Cwd => then_next(spread_sign::<u16>),
        Mnemonic::Cdq => then_next(spread_sign::<u32>),
        Mnemonic::Cqo => then_next(spread_sign::<u64>),
        _ if is_conditional_set(insn) => conditional_set(&mut op, insn, mode),
        _ => conditional_move(&mut op, insn, mode),
    };
    Some(Lowered::Next(op))
}

fn is_conditional_set(insn: &Instruction) -> bool {
    insn.op_count() == 1
}
