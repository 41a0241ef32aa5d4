//! What privileged software sees: exceptions and interrupts, descriptor tables, control registers, mode
//! changes.

use iced_x86::Instruction;

use crate::cpu::{Cpu, Mode};
use crate::fault::Fault;
use crate::lower::Lowered;

/// Where an event comes from, which decides the privilege checks of its delivery (SDM vol. 3 §6.12.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Exception, external interrupt or NMI: the gate's DPL is not checked.
    External,
    /// INT n, INT3, INTO: the gate's DPL is checked.
    Software,
}

/// The record of a system instruction.
pub(crate) fn lower(_insn: &Instruction, _mode: Mode) -> Option<Lowered> {
    None
}

impl Cpu {
    /// Delivers an exception through the IDT; a fault on the way becomes #DF, one on that way shutdown.
    pub(crate) fn deliver(&mut self, _fault: Fault) {
        self.shutdown = true;
    }

    /// Delivers an interrupt or trap.
    pub(crate) fn deliver_event(&mut self, _vector: u8, _event: Event) {
        self.shutdown = true;
    }

    /// Delivers #DB for `pending_debug` as a trap.
    pub(crate) fn debug_trap(&mut self) {
        self.pending_debug = 0;
    }

    /// Whether an instruction breakpoint is armed at RIP (SDM vol. 3 §18.2.4), RF being clear.
    pub(crate) fn instruction_breakpoint(&self) -> bool {
        false
    }
}
