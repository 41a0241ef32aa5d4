//! Looking at selectors and descriptor table registers: LAR, LSL, VERR, VERW, ARPL, SGDT, SIDT, SLDT, STR.

use crate::cpu::{Cpu, cr};
use crate::fault::Fault;
use crate::flags;
use crate::op::{Done, Op};
use crate::seg::descriptor::{Descriptor, is_null, kind, rpl};
use crate::state::TableRegister;
use crate::system::operand::{read_rm16, store_rm16, write_register, write_rm};

impl Cpu {
    fn set_zero_flag(&mut self, on: bool) {
        self.status = self.status & !flags::ZF | if on { flags::ZF } else { 0 };
    }

    /// The descriptor of `selector`, if the current privilege may see it.
    fn visible_descriptor(&mut self, selector: u16) -> Done<Option<Descriptor>> {
        if is_null(selector) {
            return Ok(None);
        }
        let privilege = self.cpl.max(rpl(selector));
        let found = self.find_descriptor(selector)?;
        Ok(found.filter(|d| d.is_conforming_code() || d.dpl() >= privilege))
    }

    /// The system descriptor types that LAR and LSL know in the current mode.
    fn is_known_system(&self, found: &Descriptor, gates: bool) -> bool {
        match found.kind() {
            kind::LDT | kind::TSS | kind::TSS_BUSY => true,
            kind::TSS16 | kind::TSS16_BUSY => !self.is_long(),
            kind::CALL_GATE => gates,
            kind::CALL_GATE16 | kind::TASK_GATE => gates && !self.is_long(),
            _ => false,
        }
    }

    fn needs_descriptors(&self) -> Done {
        if self.uses_descriptors() {
            Ok(())
        } else {
            Err(Fault::UD)
        }
    }

    /// UMIP keeps system addresses from user code (SDM vol. 3 §2.5, CR4.UMIP).
    pub(crate) fn user_may_look(&self) -> Done {
        if self.cr4 & cr::CR4_UMIP != 0 && self.cpl > 0 {
            return Err(Fault::GP0);
        }
        Ok(())
    }
}

/// LAR.
pub(crate) fn lar(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.needs_descriptors()?;
    let selector = read_rm16(cpu, op)?;
    let found = cpu
        .visible_descriptor(selector)?
        .filter(|d| !d.is_system() || cpu.is_known_system(d, true));
    if let Some(found) = found {
        write_register(cpu, op, found.low >> 32 & 0x00ff_ff00);
    }
    cpu.set_zero_flag(found.is_some());
    Ok(())
}

/// LSL.
pub(crate) fn lsl(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.needs_descriptors()?;
    let selector = read_rm16(cpu, op)?;
    let found = cpu
        .visible_descriptor(selector)?
        .filter(|d| !d.is_system() || cpu.is_known_system(d, false));
    if let Some(found) = found {
        write_register(cpu, op, u64::from(found.limit()));
    }
    cpu.set_zero_flag(found.is_some());
    Ok(())
}

/// VERR.
pub(crate) fn verr(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.needs_descriptors()?;
    let selector = read_rm16(cpu, op)?;
    let found = cpu.visible_descriptor(selector)?;
    cpu.set_zero_flag(found.is_some_and(|d| d.is_readable()));
    Ok(())
}

/// VERW.
pub(crate) fn verw(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.needs_descriptors()?;
    let selector = read_rm16(cpu, op)?;
    let found = cpu.visible_descriptor(selector)?;
    cpu.set_zero_flag(found.is_some_and(|d| d.is_writable()));
    Ok(())
}

/// ARPL.
pub(crate) fn arpl(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.needs_descriptors()?;
    let selector = read_rm16(cpu, op)?;
    let wanted = cpu.reg::<u16>(op.dst) & 3;
    let raise = selector & 3 < wanted;
    if raise {
        store_rm16(cpu, op, selector & !3 | wanted)?;
    }
    cpu.set_zero_flag(raise);
    Ok(())
}

/// SLDT.
pub(crate) fn sldt(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.needs_descriptors()?;
    cpu.user_may_look()?;
    write_rm(cpu, op, u64::from(cpu.ldtr.selector))
}

/// STR.
pub(crate) fn str(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.needs_descriptors()?;
    cpu.user_may_look()?;
    write_rm(cpu, op, u64::from(cpu.tr.selector))
}

/// LLDT.
pub(crate) fn lldt(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.needs_descriptors()?;
    cpu.needs_level_0()?;
    let selector = read_rm16(cpu, op)?;
    cpu.load_ldt(selector)
}

/// LTR.
pub(crate) fn ltr(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.needs_descriptors()?;
    cpu.needs_level_0()?;
    let selector = read_rm16(cpu, op)?;
    cpu.load_task_register(selector)
}

/// SGDT.
pub(crate) fn sgdt(cpu: &mut Cpu, op: &Op) -> Done {
    store_table(cpu, op, cpu.gdtr)
}

/// SIDT.
pub(crate) fn sidt(cpu: &mut Cpu, op: &Op) -> Done {
    store_table(cpu, op, cpu.idtr)
}

fn store_table(cpu: &mut Cpu, op: &Op, table: TableRegister) -> Done {
    cpu.user_may_look()?;
    let (seg, wide) = (usize::from(op.seg), cpu.mode.bits == 64);
    let la = cpu.operand_address(op, if wide { 10 } else { 6 }, true)?;
    let at = cpu.wrap_la(la.wrapping_add(2));
    cpu.write(la, seg, table.limit)?;
    if wide {
        cpu.write(at, seg, table.base)
    } else {
        cpu.write(at, seg, table.base as u32)
    }
}

/// LGDT, with the operand size in bytes in `extra`.
pub(crate) fn lgdt(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.gdtr = table(cpu, op)?;
    Ok(())
}

/// LIDT.
pub(crate) fn lidt(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.idtr = table(cpu, op)?;
    Ok(())
}

fn table(cpu: &mut Cpu, op: &Op) -> Done<TableRegister> {
    cpu.needs_level_0()?;
    let wide = cpu.mode.bits == 64;
    let la = cpu.operand_address(op, if wide { 10 } else { 6 }, false)?;
    cpu.read_table_register(la, usize::from(op.seg), op.extra & 0xf >= 4)
}
