//! IRET (SDM vol. 2) in every mode.

use crate::cpu::{CS, Cpu, DS, ES, FS, GS, RSP, SS, rflags};
use crate::fault::Fault;
use crate::op::{Done, Op};
use crate::seg::attr;
use crate::seg::descriptor::{is_null, rpl};
use crate::seg::load::{null_stack, v86_segment};
use crate::seg::stack::Stack;
use crate::seg::task::Switch;
use crate::state::Segment;

/// IRET with the operand size in bytes in `extra`.
pub(crate) fn iret(cpu: &mut Cpu, op: &Op) -> Done {
    let size = u64::from(op.extra);
    cpu.unblock_nmi();
    if !cpu.is_protected() {
        return cpu.iret_real(size);
    }
    if cpu.is_v86() {
        if cpu.iopl() < 3 {
            return Err(Fault::GP0);
        }
        return cpu.iret_real(size);
    }
    if cpu.rflags & rflags::NT != 0 {
        if cpu.is_long() {
            return Err(Fault::GP0);
        }
        let link = cpu.read_sys::<u16>(cpu.wrap_la(cpu.tr.base))?;
        return cpu.switch_task(link, Switch::Return, None, cpu.flags());
    }
    cpu.iret_protected(size)
}

impl Cpu {
    /// The I/O privilege level.
    pub(crate) fn iopl(&self) -> u8 {
        (self.rflags >> 12) as u8 & 3
    }

    /// Lets NMIs in again.
    fn unblock_nmi(&mut self) {
        if std::mem::take(&mut self.nmi_blocked) {
            self.interrupt_waiting = true;
            self.bell.raise(crate::memory::ask::SELF);
        }
    }

    /// RFLAGS when `value` of `size` bytes is loaded at the current privilege: bits that may not change
    /// stay.
    pub(crate) fn merged_flags(&self, value: u64, size: u64) -> u64 {
        let mut mask = rflags::STATUS | rflags::TF | rflags::DF | rflags::NT;
        if size > 2 {
            mask |= rflags::AC | rflags::ID | rflags::RF;
        }
        let cpl = if self.is_protected() { self.cpl } else { 0 };
        if cpl <= self.iopl() {
            mask |= rflags::IF;
        }
        if cpl == 0 {
            mask |= rflags::IOPL;
        }
        self.flags() & !mask | value & mask
    }

    fn iret_real(&mut self, size: u64) -> Done {
        let mut stack = Stack::current(self);
        let rip = stack.pop(self, size)?;
        let selector = stack.pop_selector(self, size)?;
        let flags = stack.pop(self, size)?;
        let code = self.real_segment(CS, selector);
        self.check_target(&code, rip)?;
        stack.commit(self);
        self.rip = rip;
        self.set_flags(self.merged_flags(flags, size));
        self.set_code_unchanged(code);
        Ok(())
    }

    fn iret_protected(&mut self, size: u64) -> Done {
        let mut stack = Stack::current(self);
        let rip = stack.pop(self, size)?;
        let selector = stack.pop_selector(self, size)?;
        let flags = stack.pop(self, size)?;
        if flags & rflags::VM != 0 && self.cpl == 0 && size == 4 && !self.is_long() {
            return self.iret_to_v86(stack, rip, selector, flags);
        }
        if is_null(selector) {
            return Err(Fault::GP0);
        }
        if rpl(selector) < self.cpl {
            return Err(Fault::gp(selector));
        }
        let code = self.code_for_return(selector, Fault::gp)?;
        self.check_target(&code, rip)?;
        let outer = rpl(selector) > self.cpl;
        if outer || self.mode.bits == 64 {
            self.return_stack(&mut stack, &code, size)?;
        } else {
            stack.commit(self);
        }
        self.rip = rip;
        // The rights to change IF and IOPL are those of the level that is left.
        self.set_flags(self.merged_flags(flags, size));
        if outer {
            self.drop_privileged_segments(rpl(selector));
        }
        self.set_code(code, rpl(selector));
        Ok(())
    }

    /// Pops and loads SS and the stack pointer for a return to `code`.
    pub(crate) fn return_stack(&mut self, stack: &mut Stack, code: &Segment, size: u64) -> Done {
        let pointer = stack.pop(self, size)?;
        let selector = stack.pop_selector(self, size)?;
        let cpl = rpl(code.selector);
        let to_long = self.is_long() && code.attributes & attr::L != 0;
        let segment = if is_null(selector) {
            if !to_long || cpl == 3 || rpl(selector) != cpl {
                return Err(Fault::GP0);
            }
            null_stack(cpl)
        } else {
            self.stack_segment(selector, cpl, Fault::gp)?
        };
        self.segs[SS] = segment;
        let wide = segment.attributes & attr::DB != 0;
        self.regs[RSP] = match (to_long, wide) {
            (true, _) => pointer,
            (_, true) => pointer & 0xffff_ffff,
            _ => self.regs[RSP] & !0xffff | pointer & 0xffff,
        };
        Ok(())
    }

    fn iret_to_v86(&mut self, mut stack: Stack, rip: u64, selector: u16, flags: u64) -> Done {
        let pointer = stack.pop(self, 4)?;
        let mut segments = [(SS, 0); 5];
        for (slot, seg) in segments.iter_mut().zip([SS, ES, DS, FS, GS]) {
            *slot = (seg, stack.pop_selector(self, 4)?);
        }
        for (seg, selector) in segments {
            self.segs[seg] = v86_segment(selector);
        }
        self.regs[RSP] = pointer;
        self.rip = rip & 0xffff;
        let mask = rflags::VIF | rflags::VIP | rflags::VM;
        self.set_flags(self.merged_flags(flags, 4) & !mask | flags & mask);
        self.cpl = 3;
        self.set_code_unchanged(v86_segment(selector));
        Ok(())
    }
}
