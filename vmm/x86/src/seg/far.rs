//! Far jumps, calls and returns (SDM vol. 3 §5.8): direct, through call gates, to tasks.

use crate::cpu::{CS, Cpu, RSP, SS};
use crate::fault::Fault;
use crate::op::{Done, Op};
use crate::seg::attr;
use crate::seg::descriptor::{Descriptor, is_null, kind, rpl};
use crate::seg::load::null_stack;
use crate::seg::stack::Stack;
use crate::seg::task::Switch;
use crate::state::Segment;

/// Direct far jump: offset in the low half of `imm`, selector above.
pub(crate) fn jump(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.far_jump((op.imm >> 32) as u16, op.imm & 0xffff_ffff)
}

/// Direct far call.
pub(crate) fn call(cpu: &mut Cpu, op: &Op) -> Done {
    let size = u64::from(op.extra);
    cpu.far_call((op.imm >> 32) as u16, op.imm & 0xffff_ffff, size)
}

/// Far jump through memory.
pub(crate) fn jump_memory(cpu: &mut Cpu, op: &Op) -> Done {
    let (selector, offset) = far_pointer(cpu, op)?;
    cpu.far_jump(selector, offset)
}

/// Far call through memory.
pub(crate) fn call_memory(cpu: &mut Cpu, op: &Op) -> Done {
    let (selector, offset) = far_pointer(cpu, op)?;
    cpu.far_call(selector, offset, u64::from(op.extra))
}

/// Far return, releasing `imm` bytes of parameters.
pub(crate) fn ret(cpu: &mut Cpu, op: &Op) -> Done {
    cpu.far_return(u64::from(op.extra), op.imm)
}

/// Selector and offset of a far pointer in memory with the operand size in `extra`.
pub(crate) fn far_pointer(cpu: &mut Cpu, op: &Op) -> Done<(u16, u64)> {
    let (size, seg) = (u64::from(op.extra), usize::from(op.seg));
    let la = cpu.operand_address(op, size + 2, false)?;
    let offset = match size {
        2 => u64::from(cpu.read::<u16>(la, seg)?),
        4 => u64::from(cpu.read::<u32>(la, seg)?),
        _ => cpu.read(la, seg)?,
    };
    let selector = cpu.read(cpu.wrap_la(la.wrapping_add(size)), seg)?;
    Ok((selector, offset))
}

impl Cpu {
    fn enter_real_code(&mut self, selector: u16, offset: u64) -> Done {
        let code = self.real_segment(CS, selector);
        self.check_target(&code, offset)?;
        self.rip = offset;
        self.set_code_unchanged(code);
        Ok(())
    }

    fn far_jump(&mut self, selector: u16, offset: u64) -> Done {
        if !self.uses_descriptors() {
            return self.enter_real_code(selector, offset);
        }
        if is_null(selector) {
            return Err(Fault::GP0);
        }
        let found = self.descriptor(selector, Fault::gp)?;
        if found.is_code() {
            let code = self.code_for_jump(&found, selector, rpl(selector))?;
            self.check_target(&code, offset)?;
            self.rip = offset;
            self.set_code(code, self.cpl);
            return Ok(());
        }
        match self.system_target(&found, selector)? {
            SystemTarget::Gate => {
                let (target, offset) = self.call_gate_target(&found)?;
                let selector = found.gate_selector();
                let code = self.code_for_jump(&target, selector, 0)?;
                self.check_target(&code, offset)?;
                self.rip = offset;
                self.set_code(code, self.cpl);
                Ok(())
            }
            SystemTarget::Task(task) => self.switch_task(task, Switch::Jump, None, self.flags()),
        }
    }

    /// Code that is entered without a change of privilege.
    fn code_for_jump(&mut self, found: &Descriptor, selector: u16, level: u8) -> Done<Segment> {
        let fits = if found.is_conforming_code() {
            found.dpl() <= self.cpl
        } else {
            found.is_code() && level <= self.cpl && found.dpl() == self.cpl
        };
        if !fits {
            return Err(Fault::gp(selector));
        }
        self.finish_code(found, selector, Fault::gp)
    }

    /// What a far jump or call to a system descriptor means.
    fn system_target(&mut self, found: &Descriptor, selector: u16) -> Done<SystemTarget> {
        let kind = found.kind();
        let long = self.is_long();
        let known = found.is_system()
            && match kind {
                kind::CALL_GATE => true,
                kind::CALL_GATE16 | kind::TASK_GATE | kind::TSS | kind::TSS16 => !long,
                _ => false,
            };
        if !known || found.dpl() < self.cpl.max(rpl(selector)) {
            return Err(Fault::gp(selector));
        }
        if !found.is_present() {
            return Err(Fault::np(selector));
        }
        Ok(match kind {
            kind::CALL_GATE | kind::CALL_GATE16 => SystemTarget::Gate,
            kind::TASK_GATE => SystemTarget::Task(found.gate_selector()),
            _ => SystemTarget::Task(selector),
        })
    }

    /// The code descriptor and offset behind a call gate.
    fn call_gate_target(&mut self, gate: &Descriptor) -> Done<(Descriptor, u64)> {
        let selector = gate.gate_selector();
        if is_null(selector) {
            return Err(Fault::GP0);
        }
        let found = self.descriptor(selector, Fault::gp)?;
        let sized = !self.is_long() || found.attributes() & (attr::L | attr::DB) == attr::L;
        if !found.is_code() || !sized {
            return Err(Fault::gp(selector));
        }
        let mask = if gate.is_gate16() { 0xffff } else { u64::MAX };
        Ok((found, gate.gate_offset() & mask))
    }

    fn far_call(&mut self, selector: u16, offset: u64, size: u64) -> Done {
        if !self.uses_descriptors() {
            let stack = self.push_return(size)?;
            self.enter_real_code(selector, offset)?;
            stack.commit(self);
            return Ok(());
        }
        if is_null(selector) {
            return Err(Fault::GP0);
        }
        let found = self.descriptor(selector, Fault::gp)?;
        if found.is_code() {
            let code = self.code_for_jump(&found, selector, rpl(selector))?;
            self.check_target(&code, offset)?;
            let stack = self.push_return(size)?;
            stack.commit(self);
            self.rip = offset;
            self.set_code(code, self.cpl);
            return Ok(());
        }
        match self.system_target(&found, selector)? {
            SystemTarget::Gate => self.call_through(&found),
            SystemTarget::Task(task) => self.switch_task(task, Switch::Call, None, self.flags()),
        }
    }

    /// Pushes CS and RIP on the stack in use.
    fn push_return(&mut self, size: u64) -> Done<Stack> {
        let mut stack = Stack::current(self);
        stack.push(self, u64::from(self.segs[CS].selector), size)?;
        stack.push(self, self.rip, size)?;
        Ok(stack)
    }

    fn call_through(&mut self, gate: &Descriptor) -> Done {
        let (found, offset) = self.call_gate_target(gate)?;
        let selector = gate.gate_selector();
        if found.dpl() > self.cpl {
            return Err(Fault::gp(selector));
        }
        let code = self.finish_code(&found, selector, Fault::gp)?;
        self.check_target(&code, offset)?;
        let size = match (self.is_long(), gate.is_gate16()) {
            (true, _) => 8,
            (_, true) => 2,
            _ => 4,
        };
        let inner = !found.is_conforming_code() && found.dpl() < self.cpl;
        let cpl = if inner { found.dpl() } else { self.cpl };
        if !inner {
            self.push_return(size)?.commit(self);
        } else if self.is_long() {
            self.call_inner_long(cpl)?;
        } else {
            self.call_inner(cpl, size, gate.gate_parameters())?;
        }
        self.rip = offset;
        self.set_code(code, cpl);
        Ok(())
    }

    fn call_inner_long(&mut self, cpl: u8) -> Done {
        let offset = 4 + u64::from(cpl) * 8;
        if offset + 7 > u64::from(self.tr.limit) {
            return Err(Fault::ts(self.tr.selector));
        }
        let top = self.read_sys(self.tr.base.wrapping_add(offset))?;
        let mut stack = Stack::flat(self, top, cpl);
        stack.push(self, u64::from(self.segs[SS].selector), 8)?;
        stack.push(self, self.regs[RSP], 8)?;
        stack.push(self, u64::from(self.segs[CS].selector), 8)?;
        stack.push(self, self.rip, 8)?;
        self.segs[SS] = null_stack(cpl);
        self.regs[RSP] = stack.pointer;
        Ok(())
    }

    fn call_inner(&mut self, cpl: u8, size: u64, parameters: u64) -> Done {
        let (selector, pointer) = self.tss_stack(cpl)?;
        let segment = self.stack_segment(selector, cpl, Fault::ts)?;
        let mut stack = Stack::inside(self, segment, pointer, cpl);
        stack.push(self, u64::from(self.segs[SS].selector), size)?;
        stack.push(self, self.regs[RSP], size)?;
        for n in (0..parameters).rev() {
            let mut old = Stack::current(self);
            old.skip(n * size);
            let value = old.pop(self, size)?;
            stack.push(self, value, size)?;
        }
        stack.push(self, u64::from(self.segs[CS].selector), size)?;
        stack.push(self, self.rip, size)?;
        self.segs[SS] = segment;
        stack.commit(self);
        Ok(())
    }

    fn far_return(&mut self, size: u64, release: u64) -> Done {
        let mut stack = Stack::current(self);
        let rip = stack.pop(self, size)?;
        let selector = stack.pop_selector(self, size)?;
        if !self.uses_descriptors() {
            stack.skip(release);
            self.enter_real_code(selector, rip)?;
            stack.commit(self);
            return Ok(());
        }
        if is_null(selector) {
            return Err(Fault::GP0);
        }
        if rpl(selector) < self.cpl {
            return Err(Fault::gp(selector));
        }
        let code = self.code_for_return(selector, Fault::gp)?;
        self.check_target(&code, rip)?;
        stack.skip(release);
        if rpl(selector) == self.cpl {
            stack.commit(self);
        } else {
            self.return_stack(&mut stack, &code, size)?;
            self.release_parameters(&code, release);
            self.drop_privileged_segments(rpl(selector));
        }
        self.rip = rip;
        self.set_code(code, rpl(selector));
        Ok(())
    }

    /// Releases the parameters on the outer stack too.
    fn release_parameters(&mut self, code: &Segment, release: u64) {
        let sum = self.regs[RSP].wrapping_add(release);
        let to_long = self.is_long() && code.attributes & attr::L != 0;
        let wide = self.segs[SS].attributes & attr::DB != 0;
        self.regs[RSP] = match (to_long, wide) {
            (true, _) => sum,
            (_, true) => sum & 0xffff_ffff,
            _ => self.regs[RSP] & !0xffff | sum & 0xffff,
        };
    }
}

/// What a far transfer to a system descriptor leads to.
enum SystemTarget {
    Gate,
    /// The TSS with this selector.
    Task(u16),
}
