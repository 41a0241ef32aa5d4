//! Operands of system instructions: one in a register or in memory, one register. These instructions are
//! rare: the form is looked at when they run.

use iced_x86::{Instruction, OpKind};

use crate::cpu::Cpu;
use crate::op::{Done, Op, register_offset};

/// Flag in [`Op::extra`]: the operand is in memory. The low bits hold a width in bytes.
pub(crate) const MEMORY: u8 = 0x80;

/// Fills in operand `n`, in a register (`src`) or memory.
pub(crate) fn set_rm(op: &mut Op, insn: &Instruction, n: u32, mode_bits: u8) {
    if insn.op_kind(n) == OpKind::Memory {
        op.set_memory(insn, mode_bits);
        // A displacement of 64 bits exists for MOV only.
        op.extra |= MEMORY;
    } else {
        op.src = register_offset(insn.op_register(n));
    }
}

/// Reads the low 16 bits of the operand.
pub(crate) fn read_rm16(cpu: &mut Cpu, op: &Op) -> Done<u16> {
    if op.extra & MEMORY == 0 {
        return Ok(cpu.reg(op.src));
    }
    let la = cpu.operand_address(op, 2, false)?;
    cpu.read(la, usize::from(op.seg))
}

/// Writes the low 16 bits of the operand and nothing else.
pub(crate) fn store_rm16(cpu: &mut Cpu, op: &Op, value: u16) -> Done {
    if op.extra & MEMORY == 0 {
        cpu.set_reg(op.src, value);
        return Ok(());
    }
    let la = cpu.operand_address(op, 2, true)?;
    cpu.write(la, usize::from(op.seg), value)
}

/// Writes the operand: 16 bits in memory, the whole operand size in a register.
pub(crate) fn write_rm(cpu: &mut Cpu, op: &Op, value: u64) -> Done {
    if op.extra & MEMORY != 0 {
        return store_rm16(cpu, op, value as u16);
    }
    set_width(cpu, op.src, op.extra, value);
    Ok(())
}

/// Writes the register operand with the width in `extra`.
pub(crate) fn write_register(cpu: &mut Cpu, op: &Op, value: u64) {
    set_width(cpu, op.dst, op.extra & !MEMORY, value);
}

/// Writes 2, 4 or 8 bytes of a register, as instructions of that operand size do.
pub(crate) fn set_width(cpu: &mut Cpu, offset: u8, width: u8, value: u64) {
    match width {
        2 => cpu.set_reg(offset, value as u16),
        4 => cpu.set_reg32(offset, value as u32),
        _ => cpu.set_reg(offset, value),
    }
}
