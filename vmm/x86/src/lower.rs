//! From a decoded instruction to a record. Each family of instructions has its own table; what no table
//! knows is #UD.

use iced_x86::Instruction;

use crate::cpu::{Cpu, Mode};
use crate::fault::Fault;
use crate::op::{Op, then_leave};
use crate::{fpu, int, system};

/// A record, and whether the trace goes on after it.
pub(crate) enum Lowered {
    /// The trace goes on.
    Next(Op),
    /// The instruction always leaves the trace.
    End(Op),
}

/// The record of an instruction that was decoded from the start of `bytes` with its offset in the trace
/// as IP.
pub(crate) fn lower(insn: &Instruction, mode: Mode, bytes: &[u8]) -> Lowered {
    if insn.is_invalid() {
        return undefined();
    }
    system::lower(insn, mode)
        .or_else(|| int::lower(insn, mode))
        .or_else(|| fpu::lower(insn, mode, bytes))
        .unwrap_or_else(undefined)
}

fn undefined() -> Lowered {
    Lowered::End(Op::new(then_leave(|_: &mut Cpu, _: &Op| Err(Fault::UD))))
}

/// A record that goes on at the instruction after the trace.
pub(crate) fn fall_through() -> Op {
    int::branch::fall_through()
}
