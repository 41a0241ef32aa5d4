//! What the processor tells about itself, and its waiting: CPUID, the time stamp counter, XCR0, HLT.

#![expect(unsafe_code, reason = "the time stamp counter is the host's")]

use crate::cpu::{Cpu, RAX, RBX, RCX, RDX, cr};
use crate::fault::Fault;
use crate::op::{Done, Op};

/// XCR0 bits that exist: x87 and SSE.
const XCR0_KNOWN: u64 = 3;
/// Leaf 1, ECX: XSAVE, and whether the system enabled it.
const XSAVE: u32 = 1 << 26;
const OSXSAVE: u32 = 1 << 27;
/// Bytes of an XSAVE area with nothing but x87 and SSE in it (SDM vol. 1 §13.4).
const XSAVE_BYTES: u32 = 576;

/// The host's time stamp counter.
pub(crate) fn host_tsc() -> u64 {
    // SAFETY: every x86-64 processor has RDTSC, and Linux lets user code use it.
    unsafe { std::arch::x86_64::_rdtsc() }
}

impl Cpu {
    /// The guest's time stamp counter.
    pub(crate) fn tsc(&self) -> u64 {
        host_tsc().wrapping_add(self.tsc_offset)
    }

    fn may_read_tsc(&self) -> Done {
        if self.cr4 & cr::CR4_TSD != 0 && self.cpl != 0 {
            return Err(Fault::GP0);
        }
        Ok(())
    }

    /// The board's answer to CPUID with the bits that follow from this CPU's control registers.
    pub(crate) fn cpuid(&mut self, leaf: u32, subleaf: u32) -> [u32; 4] {
        let mut answer = self.on_board(|bus| bus.cpuid(leaf, subleaf));
        match (leaf, subleaf) {
            (1, _) => {
                answer[2] &= !OSXSAVE;
                if answer[2] & XSAVE != 0 && self.cr4 & cr::CR4_OSXSAVE != 0 {
                    answer[2] |= OSXSAVE;
                }
            }
            (0xd, 0) if answer[0] != 0 => answer[1] = XSAVE_BYTES,
            _ => {}
        }
        answer
    }
}

/// CPUID.
pub(crate) fn cpuid(cpu: &mut Cpu, _op: &Op) -> Done {
    let (leaf, subleaf) = (cpu.regs[RAX] as u32, cpu.regs[RCX] as u32);
    let answer = cpu.cpuid(leaf, subleaf);
    for (register, value) in [RAX, RBX, RCX, RDX].into_iter().zip(answer) {
        cpu.regs[register] = u64::from(value);
    }
    Ok(())
}

/// RDTSC.
pub(crate) fn rdtsc(cpu: &mut Cpu, _op: &Op) -> Done {
    cpu.may_read_tsc()?;
    cpu.set_edx_eax(cpu.tsc());
    Ok(())
}

/// RDTSCP.
pub(crate) fn rdtscp(cpu: &mut Cpu, _op: &Op) -> Done {
    cpu.may_read_tsc()?;
    cpu.set_edx_eax(cpu.tsc());
    cpu.regs[RCX] = cpu.msr.tsc_aux;
    Ok(())
}

/// RDPMC: there are no counters.
pub(crate) fn rdpmc(_cpu: &mut Cpu, _op: &Op) -> Done {
    Err(Fault::GP0)
}

/// XGETBV.
pub(crate) fn xgetbv(cpu: &mut Cpu, _op: &Op) -> Done {
    if cpu.cr4 & cr::CR4_OSXSAVE == 0 {
        return Err(Fault::UD);
    }
    if cpu.regs[RCX] as u32 != 0 {
        return Err(Fault::GP0);
    }
    cpu.set_edx_eax(cpu.xcr0);
    Ok(())
}

/// XSETBV.
pub(crate) fn xsetbv(cpu: &mut Cpu, _op: &Op) -> Done {
    if cpu.cr4 & cr::CR4_OSXSAVE == 0 {
        return Err(Fault::UD);
    }
    cpu.needs_level_0()?;
    let value = cpu.edx_eax();
    if cpu.regs[RCX] as u32 != 0 || value & !XCR0_KNOWN != 0 || value & 1 == 0 {
        return Err(Fault::GP0);
    }
    cpu.xcr0 = value;
    Ok(())
}

/// HLT.
pub(crate) fn hlt(cpu: &mut Cpu, _op: &Op) -> Done {
    cpu.needs_level_0()?;
    cpu.halted = true;
    // The instruction after STI is this one: what wakes the CPU is no longer held off.
    cpu.shadow = false;
    if cpu.interrupt_waiting {
        cpu.bell.raise(crate::memory::ask::SELF);
    }
    Ok(())
}
