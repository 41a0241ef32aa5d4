//! x87, MMX and SSE on the host's own instructions.
//!
//! The hot SSE instructions have handlers of their own ([`sse`]). All others run from a *stub*: the
//! guest's instruction with its registers renamed, followed by a return ([`stub`], [`host`]). Only
//! instructions that the tables here name are ever put into a stub.
//!
//! While a CPU runs, the host's MXCSR is the guest's with all exceptions masked, and the host's x87 registers are
//! the guest's from the first x87 or MMX instruction on ([`x87`]).

use iced_x86::{Code, Instruction, OpKind};

use crate::cpu::{Cpu, Mode, cr};
use crate::fault::Fault;
use crate::lower::Lowered;
use crate::op::{Done, Op};

mod host;
mod image;
mod save;
mod sse;
mod stub;
#[cfg(test)]
mod tests;
mod x87;

/// MXCSR after power-on: all exceptions masked.
const MXCSR_RESET: u32 = 0x1f80;
/// The MXCSR bits that exist (SDM vol. 1 §10.2.3), DAZ included.
pub(crate) const MXCSR_MASK: u32 = 0xffff;
const MXCSR_MASKS: u32 = 0x1f80;
const MXCSR_FLAGS: u32 = 0x3f;

/// x87, MMX and SSE registers of a CPU.
pub(crate) struct Fpu {
    /// XMM0 to XMM15.
    pub(crate) xmm: [u128; 16],
    /// MXCSR, but for the flags that the host's collects while the CPU runs.
    mxcsr: u32,
    /// Some SIMD exception is unmasked: every floating-point instruction has to be looked at.
    unmasked: bool,
    /// Why an SSE instruction faults now: TS, EM or OSFXSR.
    sse_fault: Option<Fault>,
    /// Why an x87 instruction faults now.
    x87_fault: Option<Fault>,
    /// Why an MMX instruction faults now.
    mmx_fault: Option<Fault>,
    x87: x87::Resident,
}

impl Fpu {
    pub(crate) fn new() -> Self {
        Self {
            xmm: [0; 16],
            mxcsr: MXCSR_RESET,
            unmasked: false,
            sse_fault: Some(Fault::UD),
            x87_fault: None,
            mmx_fault: None,
            x87: x87::Resident::new(),
        }
    }

    /// MXCSR now.
    pub(crate) fn mxcsr(&mut self) -> u32 {
        self.mxcsr |= host::read_mxcsr() & MXCSR_FLAGS;
        self.mxcsr
    }

    /// Sets MXCSR.
    pub(crate) fn set_mxcsr(&mut self, value: u32) {
        self.mxcsr = value & MXCSR_MASK;
        self.unmasked = value & MXCSR_MASKS != MXCSR_MASKS;
        host::write_mxcsr(self.mxcsr | MXCSR_MASKS);
    }

    /// Gives the host's registers to the guest, at the start of a run.
    pub(crate) fn enter_run(&mut self) {
        host::write_mxcsr(self.mxcsr | MXCSR_MASKS);
    }

    /// Takes the host's registers back, at the end of a run.
    pub(crate) fn leave_run(&mut self) {
        self.mxcsr();
        host::write_mxcsr(MXCSR_RESET);
        self.x87.evict();
    }
}

impl Cpu {
    /// To be called after a change of CR0 or CR4.
    pub(crate) fn fpu_changed(&mut self) {
        let (em, ts) = (self.cr0 & cr::CR0_EM != 0, self.cr0 & cr::CR0_TS != 0);
        let not_there = (em || ts).then_some(Fault::NM);
        let fxsr = self.cr4 & cr::CR4_OSFXSR != 0;
        self.fpu.x87_fault = not_there;
        self.fpu.mmx_fault = if em { Some(Fault::UD) } else { not_there };
        self.fpu.sse_fault = if em || !fxsr {
            Some(Fault::UD)
        } else {
            not_there
        };
    }

    /// #UD or #NM where SSE instructions are not to be had.
    #[inline(always)]
    fn check_sse(&self) -> Done {
        match self.fpu.sse_fault {
            None => Ok(()),
            Some(fault) => Err(fault),
        }
    }
}

/// The record of an x87, MMX or SSE instruction, of whose bytes `bytes` are the first.
pub(crate) fn lower(insn: &Instruction, mode: Mode, bytes: &[u8]) -> Option<Lowered> {
    if insn.has_lock_prefix() {
        return None;
    }
    sse::lower(insn, mode)
        .or_else(|| save::lower(insn, mode))
        .or_else(|| x87::lower(insn, mode, bytes))
        .or_else(|| host::lower(insn, mode, bytes))
}

/// Fills in the memory operand of `insn`, if it has one.
fn with_memory(op: &mut Op, insn: &Instruction, mode: Mode) {
    if (0..insn.op_count()).any(|n| insn.op_kind(n) == OpKind::Memory) {
        op.set_memory(insn, mode.bits);
    }
}

/// Number of an XMM or MM register operand; 0 for anything else.
fn number(insn: &Instruction, operand: u32) -> u8 {
    if insn.op_kind(operand) == OpKind::Register {
        insn.op_register(operand).number() as u8
    } else {
        0
    }
}

/// Whether a 16-byte memory operand of this instruction may lie at any address.
fn takes_unaligned(code: Code) -> bool {
    matches!(
        code,
        Code::Lddqu_xmm_m128
            | Code::Pcmpestri_xmm_xmmm128_imm8
            | Code::Pcmpestri64_xmm_xmmm128_imm8
            | Code::Pcmpestrm_xmm_xmmm128_imm8
            | Code::Pcmpestrm64_xmm_xmmm128_imm8
            | Code::Pcmpistri_xmm_xmmm128_imm8
            | Code::Pcmpistrm_xmm_xmmm128_imm8
    )
}
