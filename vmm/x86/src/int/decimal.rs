//! AAA AAS AAM AAD DAA DAS: not in 64-bit mode, so the host cannot help. Undefined flags follow the
//! result where they are easy to give, and are clear where not.

use iced_x86::{Instruction, Mnemonic};

use crate::cpu::Cpu;
use crate::fault::Fault;
use crate::flags::{AF, CF, PF, SF, ZF};
use crate::lower::Lowered;
use crate::op::called::then_next;
use crate::op::{Done, Op};

/// Sign, zero and parity of a byte.
fn byte_flags(value: u8) -> u32 {
    let mut status = 0;
    status |= if value >= 0x80 { SF } else { 0 };
    status |= if value == 0 { ZF } else { 0 };
    status
        | if value.count_ones().is_multiple_of(2) {
            PF
        } else {
            0
        }
}

fn ascii_adjust(cpu: &mut Cpu, subtract: bool) -> Done {
    let ax = cpu.reg::<u16>(0);
    let adjust = ax & 0xf > 9 || cpu.status & AF != 0;
    let value = match (adjust, subtract) {
        (false, _) => ax,
        (true, false) => ax.wrapping_add(0x106),
        (true, true) => ax.wrapping_sub(0x106),
    };
    cpu.set_reg(0, value & 0xff0f);
    cpu.status = byte_flags(value as u8 & 0xf) | if adjust { AF | CF } else { 0 };
    Ok(())
}

fn aaa(cpu: &mut Cpu, _op: &Op) -> Done {
    ascii_adjust(cpu, false)
}

fn aas(cpu: &mut Cpu, _op: &Op) -> Done {
    ascii_adjust(cpu, true)
}

fn aam(cpu: &mut Cpu, op: &Op) -> Done {
    let base = op.imm as u8;
    if base == 0 {
        return Err(Fault::DE);
    }
    let al = cpu.reg::<u8>(0);
    cpu.set_reg(0, u16::from(al / base) << 8 | u16::from(al % base));
    cpu.status = byte_flags(al % base);
    Ok(())
}

fn aad(cpu: &mut Cpu, op: &Op) -> Done {
    let [al, ah] = cpu.reg::<u16>(0).to_le_bytes();
    let value = al.wrapping_add(ah.wrapping_mul(op.imm as u8));
    cpu.set_reg(0, u16::from(value));
    cpu.status = byte_flags(value);
    Ok(())
}

fn decimal_adjust(cpu: &mut Cpu, subtract: bool) -> Done {
    let old = cpu.reg::<u8>(0);
    let low = old & 0xf > 9 || cpu.status & AF != 0;
    let high = old > 0x99 || cpu.status & CF != 0;
    let by = if low { 6 } else { 0 } + if high { 0x60 } else { 0 };
    let value = if subtract {
        old.wrapping_sub(by)
    } else {
        old.wrapping_add(by)
    };
    // DAS also carries when the low adjustment borrows.
    let carry = high || subtract && low && old < 6;
    cpu.set_reg(0, value);
    let status = byte_flags(value) | if low { AF } else { 0 };
    cpu.status = status | if carry { CF } else { 0 };
    Ok(())
}

fn daa(cpu: &mut Cpu, _op: &Op) -> Done {
    decimal_adjust(cpu, false)
}

fn das(cpu: &mut Cpu, _op: &Op) -> Done {
    decimal_adjust(cpu, true)
}

/// The record of a decimal adjustment.
pub(crate) fn lower(insn: &Instruction) -> Option<Lowered> {
    let run = match insn.mnemonic() {
        Mnemonic::Aaa => then_next(aaa),
        Mnemonic::Aas => then_next(aas),
        Mnemonic::Aam => then_next(aam),
        Mnemonic::Aad => then_next(aad),
        Mnemonic::Daa => then_next(daa),
        Mnemonic::Das => then_next(das),
        _ => return None,
    };
    let mut op = Op::new(run);
    if insn.op_count() == 1 {
        op.imm = insn.immediate(0);
    }
    Some(Lowered::Next(op))
}
