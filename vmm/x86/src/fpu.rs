//! x87, MMX and SSE: their state and their table.

use iced_x86::Instruction;

use crate::cpu::Mode;
use crate::lower::Lowered;

/// x87, MMX and SSE registers.
pub(crate) struct Fpu {
    /// XMM0 to XMM15.
    pub(crate) xmm: [u128; 16],
    /// MXCSR.
    pub(crate) mxcsr: u32,
}

impl Fpu {
    pub(crate) fn new() -> Self {
        Self {
            xmm: [0; 16],
            mxcsr: 0x1f80,
        }
    }
}

/// The record of an x87, MMX or SSE instruction.
pub(crate) fn lower(_insn: &Instruction, _mode: Mode) -> Option<Lowered> {
    None
}
