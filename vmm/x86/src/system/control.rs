//! Control and debug registers (SDM vol. 3 §2.5 and chapter 18), and what they do to translations.

use crate::cpu::{CS, Cpu, SS, cr, rflags};
use crate::fault::{Fault, vector};
use crate::op::{Done, Op};
use crate::paging::PHYS_BITS;
use crate::seg::attr;
use crate::seg::load::is_canonical;
use crate::system::operand::{read_rm16, set_width, write_rm};

/// Bits of CR4 that exist here.
pub(crate) const CR4_KNOWN: u64 = cr::CR4_TSD
    | cr::CR4_DE
    | cr::CR4_PSE
    | cr::CR4_PAE
    | cr::CR4_MCE
    | cr::CR4_PGE
    | cr::CR4_PCE
    | cr::CR4_OSFXSR
    | cr::CR4_OSXMMEXCPT
    | cr::CR4_UMIP
    | cr::CR4_FSGSBASE
    | cr::CR4_PCIDE
    | cr::CR4_OSXSAVE
    | cr::CR4_SMEP
    | cr::CR4_SMAP;

/// Bits of CR0 that exist; the other low ones ignore writes.
const CR0_KNOWN: u64 = cr::CR0_PE
    | cr::CR0_MP
    | cr::CR0_EM
    | cr::CR0_TS
    | cr::CR0_ET
    | cr::CR0_NE
    | cr::CR0_WP
    | cr::CR0_AM
    | cr::CR0_NW
    | cr::CR0_CD
    | cr::CR0_PG;

/// Bits of EFER that exist.
pub(crate) const EFER_KNOWN: u64 = cr::EFER_SCE | cr::EFER_LME | cr::EFER_LMA | cr::EFER_NXE;

/// DR7 bits that read as one and as zero.
pub(crate) const DR7_ONES: u64 = 0x400;
const DR7_ZEROS: u64 = 0xd800;
const DR7_GD: u64 = 1 << 13;
/// DR6 bits that read as one and as zero.
pub(crate) const DR6_ONES: u64 = 0xffff_0ff0;
const DR6_ZEROS: u64 = 0x1000;
const DR6_BD: u64 = 1 << 13;

impl Cpu {
    /// #GP unless the current privilege level is 0.
    pub(crate) fn needs_level_0(&self) -> Done {
        if self.cpl == 0 {
            Ok(())
        } else {
            Err(Fault::GP0)
        }
    }

    /// Forgets all translations.
    pub(crate) fn flush_translations(&mut self) {
        self.tlb_tag = self.tlb.flush_all();
        self.jump_tag_changed();
    }

    pub(crate) fn set_cr0(&mut self, value: u64) -> Done {
        if value >> 32 != 0 {
            return Err(Fault::GP0);
        }
        let new = value & CR0_KNOWN | cr::CR0_ET;
        let changed = new ^ self.cr0;
        let has = |bit| new & bit != 0;
        if has(cr::CR0_PG) && !has(cr::CR0_PE) || has(cr::CR0_NW) && !has(cr::CR0_CD) {
            return Err(Fault::GP0);
        }
        if changed & cr::CR0_PG != 0 {
            self.paging_switches(has(cr::CR0_PG))?;
        }
        self.cr0 = new;
        if changed & (cr::CR0_PG | cr::CR0_WP | cr::CR0_PE) != 0 {
            self.flush_translations();
        }
        if changed & cr::CR0_PE != 0 {
            self.cpl = 0;
        }
        self.fpu_changed();
        self.mode_changed();
        Ok(())
    }

    /// The checks of turning paging on or off, and EFER.LMA.
    fn paging_switches(&mut self, on: bool) -> Done {
        if !on {
            let long_code = self.mode.bits == 64;
            if long_code || self.cr4 & cr::CR4_PCIDE != 0 {
                return Err(Fault::GP0);
            }
            self.msr.efer &= !cr::EFER_LMA;
            return Ok(());
        }
        if self.msr.efer & cr::EFER_LME == 0 {
            return self.check_pdptes(self.cr3, self.cr4);
        }
        let long_code = self.segs[CS].attributes & attr::L != 0;
        if self.cr4 & cr::CR4_PAE == 0 || long_code {
            return Err(Fault::GP0);
        }
        self.msr.efer |= cr::EFER_LMA;
        Ok(())
    }

    /// PAE paging loads four pointers with CR3, and their reserved bits are checked then (SDM vol. 3 §4.4.1).
    fn check_pdptes(&mut self, cr3: u64, cr4: u64) -> Done {
        if cr4 & cr::CR4_PAE == 0 || self.is_long() {
            return Ok(());
        }
        let reserved = 0x1e6 | !((1u64 << PHYS_BITS) - 1);
        for n in 0..4 {
            let mut entry = [0; 8];
            self.read_phys((cr3 & 0xffff_ffe0) + n * 8, &mut entry);
            let entry = u64::from_le_bytes(entry);
            if entry & 1 != 0 && entry & reserved != 0 {
                return Err(Fault::GP0);
            }
        }
        Ok(())
    }

    pub(crate) fn set_cr3(&mut self, value: u64) -> Done {
        let pcids = self.cr4 & cr::CR4_PCIDE != 0;
        let keep = pcids && value >> 63 != 0;
        let value = if pcids { value & !(1 << 63) } else { value };
        if self.is_long() && value >> PHYS_BITS != 0 {
            return Err(Fault::GP0);
        }
        if self.cr0 & cr::CR0_PG != 0 {
            self.check_pdptes(value, self.cr4)?;
        }
        self.set_cr3_tag(value, keep);
        Ok(())
    }

    /// Sets a CR3 that was checked. `keep` keeps what is known of its PCID.
    pub(crate) fn set_cr3_tag(&mut self, value: u64, keep: bool) {
        self.cr3 = value;
        self.tlb_tag = if self.cr4 & cr::CR4_PCIDE != 0 {
            self.tlb.pcid_tag(value as u16 & 0xfff, keep)
        } else {
            self.tlb.fresh_tag()
        };
        self.jump_tag_changed();
    }

    pub(crate) fn set_cr4(&mut self, value: u64) -> Done {
        if value & !CR4_KNOWN != 0 {
            return Err(Fault::GP0);
        }
        let changed = value ^ self.cr4;
        let turned_on = changed & value;
        if self.is_long() && value & cr::CR4_PAE == 0 {
            return Err(Fault::GP0);
        }
        if turned_on & cr::CR4_PCIDE != 0 && (!self.is_long() || self.cr3 & 0xfff != 0) {
            return Err(Fault::GP0);
        }
        if changed & (cr::CR4_PAE | cr::CR4_PSE | cr::CR4_PGE) != 0 && self.cr0 & cr::CR0_PG != 0 {
            self.check_pdptes(self.cr3, value)?;
        }
        self.cr4 = value;
        let flushing =
            cr::CR4_PAE | cr::CR4_PSE | cr::CR4_PGE | cr::CR4_PCIDE | cr::CR4_SMEP | cr::CR4_SMAP;
        if changed & flushing != 0 {
            self.flush_translations();
        }
        self.fpu_changed();
        self.class_changed();
        Ok(())
    }

    pub(crate) fn set_efer(&mut self, value: u64) -> Done {
        if value & !EFER_KNOWN != 0 {
            return Err(Fault::GP0);
        }
        let new = value & !cr::EFER_LMA | self.msr.efer & cr::EFER_LMA;
        let changed = new ^ self.msr.efer;
        if changed & cr::EFER_LME != 0 && self.cr0 & cr::CR0_PG != 0 {
            return Err(Fault::GP0);
        }
        self.msr.efer = new;
        if changed & cr::EFER_NXE != 0 {
            self.flush_translations();
        }
        Ok(())
    }

    /// The number of a debug register as the instruction means it: 4 and 5 are 6 and 7 without CR4.DE.
    fn debug_register(&mut self, number: u8) -> Done<usize> {
        self.needs_level_0()?;
        let number = match number {
            4 | 5 if self.cr4 & cr::CR4_DE != 0 => return Err(Fault::UD),
            4 | 5 => number + 2,
            0..=7 => number,
            _ => return Err(Fault::UD),
        };
        if self.dr7 & DR7_GD != 0 {
            self.dr6 |= DR6_BD;
            return Err(Fault {
                vector: vector::DB,
                error: None,
                address: 0,
            });
        }
        Ok(usize::from(number))
    }

    pub(crate) fn set_dr7(&mut self, value: u64) {
        self.dr7 = value & 0xffff_ffff & !DR7_ZEROS | DR7_ONES;
        self.class_changed();
    }

    pub(crate) fn set_dr6(&mut self, value: u64) {
        self.dr6 = value & 0xffff_ffff & !DR6_ZEROS | DR6_ONES;
    }
}

/// MOV from a control register: number in `src`.
pub(crate) fn read_cr(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.needs_level_0()?;
    let value = match op.src {
        0 => cpu.cr0,
        2 => cpu.cr2,
        3 => cpu.cr3,
        4 => cpu.cr4,
        8 => u64::from(cpu.on_board(|bus| bus.cr8())),
        _ => return Err(Fault::UD),
    };
    set_width(cpu, op.dst, op.extra, value);
    Ok(())
}

/// MOV to a control register: number in `dst`.
pub(crate) fn write_cr(cpu: &mut Cpu, op: &Op) -> Done {
    if !matches!(op.dst, 0 | 2 | 3 | 4 | 8) {
        return Err(Fault::UD);
    }
    cpu.needs_level_0()?;
    let value = match op.extra {
        8 => cpu.reg::<u64>(op.src),
        _ => u64::from(cpu.reg::<u32>(op.src)),
    };
    match op.dst {
        0 => cpu.set_cr0(value),
        2 => {
            cpu.cr2 = value;
            Ok(())
        }
        3 => cpu.set_cr3(value),
        4 => cpu.set_cr4(value),
        _ if value > 15 => Err(Fault::GP0),
        _ => {
            cpu.on_board(|bus| bus.set_cr8(value as u8));
            cpu.look_for_interrupts();
            Ok(())
        }
    }
}

/// MOV from a debug register.
pub(crate) fn read_dr(cpu: &mut Cpu, op: &Op) -> Done {
    let value = match cpu.debug_register(op.src)? {
        6 => cpu.dr6,
        7 => cpu.dr7,
        n => cpu.dr[n],
    };
    set_width(cpu, op.dst, op.extra, value);
    Ok(())
}

/// MOV to a debug register.
pub(crate) fn write_dr(cpu: &mut Cpu, op: &Op) -> Done {
    let number = cpu.debug_register(op.dst)?;
    let value = match op.extra {
        8 => cpu.reg::<u64>(op.src),
        _ => u64::from(cpu.reg::<u32>(op.src)),
    };
    if number >= 6 && value >> 32 != 0 {
        return Err(Fault::GP0);
    }
    match number {
        6 => cpu.set_dr6(value),
        7 => cpu.set_dr7(value),
        n => {
            cpu.dr[n] = value;
            cpu.class_changed();
        }
    }
    Ok(())
}

/// SMSW.
pub(crate) fn smsw(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.user_may_look()?;
    write_rm(cpu, op, cpu.cr0)
}

/// LMSW: sets PE, never clears it.
pub(crate) fn lmsw(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.needs_level_0()?;
    let value = u64::from(read_rm16(cpu, op)?) & 0xf;
    cpu.set_cr0(cpu.cr0 & !0xe | value)
}

/// CLTS.
pub(crate) fn clts(cpu: &mut Cpu, _op: &Op) -> Done {
    cpu.needs_level_0()?;
    cpu.cr0 &= !cr::CR0_TS;
    cpu.fpu_changed();
    Ok(())
}

/// INVLPG.
pub(crate) fn invlpg(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.needs_level_0()?;
    let seg = usize::from(op.seg);
    let offset = cpu.effective_offset(op);
    let base = if seg < cpu.segs.len() {
        cpu.seg_base[seg]
    } else {
        0
    };
    let la = cpu.wrap_la(base.wrapping_add(offset));
    if is_canonical(la) {
        cpu.tlb.invalidate(la);
        cpu.jump_tag_changed();
    }
    Ok(())
}

/// INVPCID: type in the register `dst`, descriptor in memory.
pub(crate) fn invpcid(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.needs_level_0()?;
    let seg = usize::from(op.seg);
    let la = cpu.operand_address(op, 16, false)?;
    let pcid = cpu.read::<u64>(la, seg)?;
    let address = cpu.read::<u64>(cpu.wrap_la(la.wrapping_add(8)), seg)?;
    let kind = match op.extra & 0xf {
        8 => cpu.reg::<u64>(op.dst),
        _ => u64::from(cpu.reg::<u32>(op.dst)),
    };
    let pcids = cpu.cr4 & cr::CR4_PCIDE != 0;
    let bad = kind > 3
        || kind < 2 && (pcid >> 12 != 0 || !pcids && pcid != 0)
        || kind == 0 && !is_canonical(address);
    if bad {
        return Err(Fault::GP0);
    }
    match kind {
        0 => {
            cpu.tlb.invalidate(address);
            cpu.jump_tag_changed();
        }
        1 => cpu.forget_pcid(pcid as u16),
        _ => cpu.flush_translations(),
    }
    Ok(())
}

impl Cpu {
    fn forget_pcid(&mut self, pcid: u16) {
        self.tlb.drop_pcid(pcid);
        let current = self.cr4 & cr::CR4_PCIDE == 0 || self.cr3 as u16 & 0xfff == pcid;
        if current {
            self.set_cr3_tag(self.cr3, false);
        }
    }

    /// Makes the dispatcher ask the board for interrupts before the next trace.
    pub(crate) fn look_for_interrupts(&mut self) {
        self.interrupt_waiting = true;
        self.bell.raise(crate::memory::ask::SELF);
    }
}

/// WBINVD and INVD: caches are the host's business.
pub(crate) fn write_back(cpu: &mut Cpu, _op: &Op) -> Done {
    cpu.needs_level_0()
}

/// CLI.
pub(crate) fn cli(cpu: &mut Cpu, _op: &Op) -> Done {
    cpu.may_change_if()?;
    cpu.rflags &= !rflags::IF;
    Ok(())
}

/// STI: interrupts stay out until the next instruction is over.
pub(crate) fn sti(cpu: &mut Cpu, op: &Op) -> Done<u64> {
    cpu.may_change_if()?;
    if cpu.rflags & rflags::IF == 0 {
        cpu.rflags |= rflags::IF;
        cpu.shadow = true;
        if cpu.interrupt_waiting {
            cpu.bell.raise(crate::memory::ask::SELF);
        }
    }
    Ok(cpu.rip_after(op))
}

impl Cpu {
    fn may_change_if(&self) -> Done {
        if self.is_protected() && self.cpl > self.iopl() {
            return Err(Fault::GP0);
        }
        Ok(())
    }
}

/// STAC and CLAC: the new AC in `extra`.
pub(crate) fn set_ac(cpu: &mut Cpu, op: &Op) -> Done {
    if cpu.cpl != 0 {
        return Err(Fault::UD);
    }
    let bit = if op.extra == 0 { 0 } else { rflags::AC };
    cpu.rflags = cpu.rflags & !rflags::AC | bit;
    cpu.class_changed();
    Ok(())
}

/// PUSHF with the operand size in `extra`.
pub(crate) fn pushf(cpu: &mut Cpu, op: &Op) -> Done {
    if cpu.is_v86() && cpu.iopl() < 3 {
        return Err(Fault::GP0);
    }
    let value = cpu.flags() & !(rflags::VM | rflags::RF);
    let mut stack = crate::seg::stack::Stack::current(cpu);
    stack.push(cpu, value, u64::from(op.extra))?;
    stack.commit(cpu);
    Ok(())
}

/// POPF with the operand size in `extra`.
pub(crate) fn popf(cpu: &mut Cpu, op: &Op) -> Done<u64> {
    if cpu.is_v86() && cpu.iopl() < 3 {
        return Err(Fault::GP0);
    }
    let size = u64::from(op.extra);
    let mut stack = crate::seg::stack::Stack::current(cpu);
    let value = stack.pop(cpu, size)?;
    stack.commit(cpu);
    cpu.set_flags(cpu.merged_flags(value, size) & !rflags::RF);
    Ok(cpu.rip_after(op))
}

/// MOV to SS and POP SS hold interrupts off until the next instruction is over.
pub(crate) fn shadow_after(cpu: &mut Cpu, seg: usize) {
    if seg == SS {
        cpu.shadow = true;
    }
}
