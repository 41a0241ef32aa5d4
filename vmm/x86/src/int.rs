//! The integer instructions: their table and their handlers.

use iced_x86::{Instruction, Mnemonic};

use crate::cpu::Mode;
use crate::lower::Lowered;

pub(crate) mod alu;
pub(crate) mod branch;
pub(crate) mod mov;

/// The record of an integer instruction.
pub(crate) fn lower(insn: &Instruction, mode: Mode) -> Option<Lowered> {
    match insn.mnemonic() {
        Mnemonic::Mov => mov::lower(insn, mode),
        Mnemonic::Add => alu::lower(insn, mode),
        _ => branch::lower(insn, mode),
    }
}
