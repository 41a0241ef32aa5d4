//! MOV.

use iced_x86::{Instruction, OpKind};

use crate::cpu::{Cpu, Mode};
use crate::lower::Lowered;
use crate::op::{Done, Ea, Op, ea, register_offset, then_next};

#[inline(always)]
fn load64<E: Ea>(cpu: &mut Cpu, op: &Op) -> Done {
    let la = E::linear(cpu, op, 8, false)?;
    let value = cpu.read::<u64>(la, usize::from(op.seg))?;
    cpu.set_reg(op.dst, value);
    Ok(())
}

#[inline(always)]
fn immediate64(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.set_reg(op.dst, op.imm);
    Ok(())
}

/// The record of a MOV.
pub(crate) fn lower(insn: &Instruction, mode: Mode) -> Option<Lowered> {
    let mut op = Op::new(then_next(immediate64));
    op.dst = register_offset(insn.op0_register());
    match (insn.op0_kind(), insn.op1_kind()) {
        (OpKind::Register, OpKind::Memory) if insn.op0_register().size() == 8 => {
            let kind = op.set_memory(insn, mode.bits);
            op.run = ea!(kind, E => then_next(load64::<E>));
        }
        (OpKind::Register, OpKind::Immediate64 | OpKind::Immediate32to64) => {
            op.imm = insn.immediate(1);
        }
        _ => return None,
    }
    Some(Lowered::Next(op))
}
