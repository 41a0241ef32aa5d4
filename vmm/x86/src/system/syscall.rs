//! Fast system calls and the bases of FS and GS (SDM vol. 3 §5.8.7 and §5.8.8; APM vol. 2 §6.1).

use crate::cpu::{Cpu, FS, GS, RCX, RDX, RSP, SS, cr, rflags};
use crate::fault::Fault;
use crate::op::{Done, Op};
use crate::seg::attr;
use crate::seg::load::is_canonical;
use crate::state::Segment;
use crate::system::operand::set_width;

const R11: usize = 11;
const CODE: u16 = attr::CODE_SEGMENT | attr::G;
const DATA: u16 = attr::DATA_SEGMENT | attr::G | attr::DB;

fn code(selector: u16, long: bool, dpl: u8) -> Segment {
    let size = if long { attr::L } else { attr::DB };
    Segment::flat(selector, CODE | size | u16::from(dpl) << 5)
}

fn data(selector: u16, dpl: u8) -> Segment {
    Segment::flat(selector, DATA | u16::from(dpl) << 5)
}

/// SYSCALL.
pub(crate) fn syscall(cpu: &mut Cpu, _op: &Op) -> Done {
    if cpu.msr.efer & cr::EFER_SCE == 0 || !cpu.uses_descriptors() {
        return Err(Fault::UD);
    }
    let selector = (cpu.msr.star >> 32) as u16 & 0xfffc;
    let flags = cpu.flags() & !rflags::RF;
    let long = cpu.is_long();
    cpu.regs[RCX] = cpu.rip;
    let cleared = if long {
        cpu.regs[R11] = flags;
        cpu.rip = if cpu.mode.bits == 64 {
            cpu.msr.lstar
        } else {
            cpu.msr.cstar
        };
        cpu.msr.sfmask
    } else {
        cpu.rip = cpu.msr.star & 0xffff_ffff;
        rflags::IF | rflags::VM
    };
    cpu.set_flags(flags & !cleared);
    cpu.segs[SS] = data(selector.wrapping_add(8), 0);
    cpu.set_code(code(selector, long, 0), 0);
    cpu.skip_step = cpu.rflags & rflags::TF == 0;
    Ok(())
}

/// SYSRET with the operand size in bytes in `extra`.
pub(crate) fn sysret(cpu: &mut Cpu, op: &Op) -> Done {
    if cpu.msr.efer & cr::EFER_SCE == 0 || !cpu.uses_descriptors() {
        return Err(Fault::UD);
    }
    cpu.needs_level_0()?;
    let to_long = op.extra == 8;
    let target = cpu.regs[RCX];
    if to_long && !is_canonical(target) {
        return Err(Fault::GP0);
    }
    let selector = (cpu.msr.star >> 48) as u16 | 3;
    if cpu.is_long() {
        // RF, VM and the reserved bits stay clear.
        cpu.set_flags(cpu.regs[R11] & 0x003c_7fd7 | rflags::FIXED);
    } else {
        cpu.set_flags(cpu.flags() | rflags::IF);
    }
    cpu.rip = if to_long {
        target
    } else {
        target & 0xffff_ffff
    };
    cpu.segs[SS] = data(selector.wrapping_add(8), 3);
    let selector = if to_long {
        selector.wrapping_add(16)
    } else {
        selector
    };
    cpu.set_code(code(selector, to_long, 3), 3);
    Ok(())
}

/// SYSENTER.
pub(crate) fn sysenter(cpu: &mut Cpu, _op: &Op) -> Done {
    let selector = cpu.msr.sysenter_cs as u16 & 0xfffc;
    if !cpu.is_protected() || selector == 0 {
        return Err(Fault::GP0);
    }
    let long = cpu.is_long();
    let mask = if long { u64::MAX } else { 0xffff_ffff };
    cpu.set_flags(cpu.flags() & !(rflags::VM | rflags::IF | rflags::RF));
    cpu.regs[RSP] = cpu.msr.sysenter_esp & mask;
    cpu.rip = cpu.msr.sysenter_eip & mask;
    cpu.segs[SS] = data(selector.wrapping_add(8), 0);
    cpu.set_code(code(selector, long, 0), 0);
    Ok(())
}

/// SYSEXIT with the operand size in bytes in `extra`.
pub(crate) fn sysexit(cpu: &mut Cpu, op: &Op) -> Done {
    let selector = cpu.msr.sysenter_cs as u16 & 0xfffc;
    if !cpu.is_protected() || selector == 0 {
        return Err(Fault::GP0);
    }
    cpu.needs_level_0()?;
    let to_long = op.extra == 8;
    let (rip, rsp) = (cpu.regs[RDX], cpu.regs[RCX]);
    if to_long && !(is_canonical(rip) && is_canonical(rsp)) {
        return Err(Fault::GP0);
    }
    let mask = if to_long { u64::MAX } else { 0xffff_ffff };
    cpu.rip = rip & mask;
    cpu.regs[RSP] = rsp & mask;
    let selector = selector.wrapping_add(if to_long { 32 } else { 16 }) | 3;
    cpu.segs[SS] = data(selector.wrapping_add(8), 3);
    cpu.set_code(code(selector, to_long, 3), 3);
    Ok(())
}

/// SWAPGS.
pub(crate) fn swapgs(cpu: &mut Cpu, _op: &Op) -> Done {
    if cpu.mode.bits != 64 {
        return Err(Fault::UD);
    }
    cpu.needs_level_0()?;
    std::mem::swap(&mut cpu.segs[GS].base, &mut cpu.msr.kernel_gs_base);
    cpu.seg_base[GS] = cpu.segs[GS].base;
    Ok(())
}

fn base_register(cpu: &Cpu, op: &Op) -> Done<usize> {
    if cpu.mode.bits != 64 || cpu.cr4 & cr::CR4_FSGSBASE == 0 {
        return Err(Fault::UD);
    }
    Ok(if op.seg == 0 { FS } else { GS })
}

/// RDFSBASE and RDGSBASE: `seg` tells which, `extra` the operand size in bytes.
pub(crate) fn read_base(cpu: &mut Cpu, op: &Op) -> Done {
    let seg = base_register(cpu, op)?;
    set_width(cpu, op.dst, op.extra, cpu.segs[seg].base);
    Ok(())
}

/// WRFSBASE and WRGSBASE.
pub(crate) fn write_base(cpu: &mut Cpu, op: &Op) -> Done {
    let seg = base_register(cpu, op)?;
    let value = match op.extra {
        8 => cpu.reg::<u64>(op.dst),
        _ => u64::from(cpu.reg::<u32>(op.dst)),
    };
    if !is_canonical(value) {
        return Err(Fault::GP0);
    }
    cpu.segs[seg].base = value;
    cpu.seg_base[seg] = value;
    Ok(())
}
