//! Instructions on segment registers: MOV, PUSH, POP, LDS and its kin.

use crate::cpu::{Cpu, SS};
use crate::fault::Fault;
use crate::op::{Done, Op};
use crate::seg::far::far_pointer;
use crate::seg::stack::Stack;
use crate::system::control::shadow_after;
use crate::system::operand::{read_rm16, set_width, write_rm};

/// MOV to the segment register `dst`.
pub(crate) fn move_to(cpu: &mut Cpu, op: &Op) -> Done {
    let selector = read_rm16(cpu, op)?;
    cpu.load_segment(usize::from(op.dst), selector)?;
    shadow_after(cpu, usize::from(op.dst));
    Ok(())
}

/// MOV from the segment register `dst`.
pub(crate) fn move_from(cpu: &mut Cpu, op: &Op) -> Done {
    write_rm(cpu, op, u64::from(cpu.segs[usize::from(op.dst)].selector))
}

/// PUSH of the segment register `dst`.
pub(crate) fn push(cpu: &mut Cpu, op: &Op) -> Done {
    let selector = u64::from(cpu.segs[usize::from(op.dst)].selector);
    let mut stack = Stack::current(cpu);
    stack.push(cpu, selector, u64::from(op.extra))?;
    stack.commit(cpu);
    Ok(())
}

/// POP to the segment register `dst`.
pub(crate) fn pop(cpu: &mut Cpu, op: &Op) -> Done {
    let seg = usize::from(op.dst);
    let mut stack = Stack::current(cpu);
    let selector = stack.pop_selector(cpu, u64::from(op.extra))?;
    let segment = cpu.segment_for(seg, selector)?;
    stack.commit(cpu);
    cpu.set_data(seg, segment);
    shadow_after(cpu, seg);
    Ok(())
}

/// LDS, LES, LFS, LGS and LSS: the general register in `dst`, the segment register in `src`.
pub(crate) fn load_pointer(cpu: &mut Cpu, op: &Op) -> Done {
    let (selector, offset) = far_pointer(cpu, op)?;
    cpu.load_segment(usize::from(op.src), selector)?;
    set_width(cpu, op.dst, op.extra, offset);
    Ok(())
}

/// Whether loading a segment register ends a trace: SS decides how the stack is addressed.
pub(crate) fn ends_trace(seg: usize) -> bool {
    seg == SS
}

/// MOV to CS.
pub(crate) fn undefined(_cpu: &mut Cpu, _op: &Op) -> Done {
    Err(Fault::UD)
}
