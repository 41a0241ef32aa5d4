//! Two-operand arithmetic and logic.

#![expect(unsafe_code, reason = "arithmetic on the host's own instructions")]

use std::arch::asm;

use iced_x86::{Instruction, OpKind};

use crate::cpu::{Cpu, Mode};
use crate::lower::Lowered;
use crate::op::{Done, Op, register_offset, then_next};

#[inline(always)]
fn add64(a: u64, b: u64) -> (u64, u32) {
    let (mut result, status): (u64, u32) = (a, 0);
    let mut status = status;
    // SAFETY: arithmetic on registers.
    unsafe {
        asm!("add {a}, {b}", "lahf", "seto al", a = inout(reg) result, b = in(reg) b,
             inout("eax") status, options(pure, nomem, nostack));
    }
    (result, status)
}

#[inline(always)]
fn add64_rr(cpu: &mut Cpu, op: &Op) -> Done {
    let (result, status) = add64(cpu.reg(op.dst), cpu.reg(op.src));
    cpu.set_reg(op.dst, result);
    cpu.status = status;
    Ok(())
}

#[inline(always)]
fn add64_ri(cpu: &mut Cpu, op: &Op) -> Done {
    let (result, status) = add64(cpu.reg(op.dst), op.imm);
    cpu.set_reg(op.dst, result);
    cpu.status = status;
    Ok(())
}

/// The record of a two-operand instruction.
pub(crate) fn lower(insn: &Instruction, _mode: Mode) -> Option<Lowered> {
    let mut op = Op::new(then_next(add64_rr));
    if insn.op0_kind() != OpKind::Register || insn.op0_register().size() != 8 {
        return None;
    }
    op.dst = register_offset(insn.op0_register());
    match insn.op1_kind() {
        OpKind::Register => op.src = register_offset(insn.op1_register()),
        OpKind::Memory => return None,
        _ => {
            op.run = then_next(add64_ri);
            op.imm = insn.immediate(1);
        }
    }
    Some(Lowered::Next(op))
}
