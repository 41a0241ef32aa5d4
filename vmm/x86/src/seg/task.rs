//! Hardware task switching (SDM vol. 3 chapter 7), with 32- and 16-bit task state segments.

use crate::cpu::{CS, Cpu, DS, ES, FS, GS, SS, cr, rflags};
use crate::fault::{Fault, vector};
use crate::op::Done;
use crate::seg::descriptor::{Descriptor, is_null, kind, rpl};
use crate::seg::load::v86_segment;
use crate::seg::stack::Stack;
use crate::state::Segment;

/// What started a task switch (SDM vol. 3 table 7-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Switch {
    Jump,
    Call,
    /// IRET with NT set.
    Return,
    /// An exception or interrupt through a task gate.
    Event,
}

/// DR6.BT.
const TASK_TRAP: u64 = 1 << 15;

/// Offsets in a TSS.
struct Layout {
    limit: u32,
    word: u64,
    rip: u64,
    flags: u64,
    registers: u64,
    segments: u64,
    segment_count: usize,
    ldt: u64,
}

const LAYOUT_32: Layout = Layout {
    limit: 0x67,
    word: 4,
    rip: 0x20,
    flags: 0x24,
    registers: 0x28,
    segments: 0x48,
    segment_count: 6,
    ldt: 0x60,
};

const LAYOUT_16: Layout = Layout {
    limit: 0x2b,
    word: 2,
    rip: 0x0e,
    flags: 0x10,
    registers: 0x12,
    segments: 0x22,
    segment_count: 4,
    ldt: 0x2a,
};

/// What a TSS says of its task.
struct Task {
    cr3: Option<u64>,
    rip: u64,
    flags: u64,
    registers: [u64; 8],
    selectors: [u16; 6],
    ldt: u16,
    trap: bool,
}

fn layout(attributes: u16) -> &'static Layout {
    if attributes & 8 != 0 {
        &LAYOUT_32
    } else {
        &LAYOUT_16
    }
}

impl Cpu {
    /// Switches to the task whose TSS `selector` names. `flags` are saved in the old one. Faults of the new
    /// task's own context are left in `self.fault`, for delivery there.
    pub(crate) fn switch_task(
        &mut self,
        selector: u16,
        how: Switch,
        error: Option<u32>,
        flags: u64,
    ) -> Done {
        let found = self.task_descriptor(selector, how)?;
        let new = self.read_task(&found)?;
        let nested = matches!(how, Switch::Call | Switch::Event);
        let saved = match how {
            Switch::Return => flags & !rflags::NT,
            _ => flags,
        };
        self.save_task(saved)?;
        if nested {
            self.write_sys(found.base(), self.tr.selector)?;
        } else {
            self.mark_available()?;
        }
        if how != Switch::Return {
            self.set_bits_sys(found.la.wrapping_add(5), kind::BUSY)?;
        }
        self.tr = found.segment(selector);
        self.tr.attributes |= u16::from(kind::BUSY);
        self.enter_task(&new, nested);
        if let Err(fault) = self.load_task_segments(&new, error) {
            self.fault = Some(fault);
        }
        Ok(())
    }

    fn task_descriptor(&mut self, selector: u16, how: Switch) -> Done<Descriptor> {
        let bad: fn(u16) -> Fault = match how {
            Switch::Return => Fault::ts,
            _ => Fault::gp,
        };
        if is_null(selector) || selector & 4 != 0 {
            return Err(bad(selector));
        }
        let found = self.descriptor(selector, bad)?;
        let fits = match found.kind() {
            kind::TSS | kind::TSS16 => how != Switch::Return,
            kind::TSS_BUSY | kind::TSS16_BUSY => how == Switch::Return,
            _ => false,
        };
        if !found.is_system() || !fits {
            return Err(bad(selector));
        }
        if !found.is_present() {
            return Err(Fault::np(selector));
        }
        if found.limit() < layout(found.attributes()).limit {
            return Err(Fault::ts(selector));
        }
        Ok(found)
    }

    fn tss_word(&mut self, la: u64, word: u64) -> Done<u64> {
        let la = self.wrap_la(la);
        Ok(match word {
            2 => u64::from(self.read_sys::<u16>(la)?),
            _ => u64::from(self.read_sys::<u32>(la)?),
        })
    }

    fn set_tss_word(&mut self, la: u64, word: u64, value: u64) -> Done {
        let la = self.wrap_la(la);
        match word {
            2 => self.write_sys(la, value as u16),
            _ => self.write_sys(la, value as u32),
        }
    }

    fn read_task(&mut self, found: &Descriptor) -> Done<Task> {
        let at = layout(found.attributes());
        let base = found.base();
        let wide = at.word == 4;
        let mut task = Task {
            cr3: None,
            rip: self.tss_word(base + at.rip, at.word)?,
            flags: self.tss_word(base + at.flags, at.word)?,
            registers: [0; 8],
            selectors: [0; 6],
            ldt: self.tss_word(base + at.ldt, 2)? as u16,
            trap: false,
        };
        for (n, register) in (0u64..).zip(task.registers.iter_mut()) {
            *register = self.tss_word(base + at.registers + n * at.word, at.word)?;
        }
        for (n, selector) in (0u64..).zip(task.selectors.iter_mut().take(at.segment_count)) {
            *selector = self.tss_word(base + at.segments + n * at.word, 2)? as u16;
        }
        if wide {
            task.cr3 = Some(self.tss_word(base + 0x1c, 4)?);
            task.trap = self.tss_word(base + 0x64, 2)? & 1 != 0;
        }
        Ok(task)
    }

    fn save_task(&mut self, flags: u64) -> Done {
        let at = layout(self.tr.attributes);
        let base = self.tr.base;
        if self.tr.limit < at.limit {
            return Err(Fault::ts(self.tr.selector));
        }
        self.set_tss_word(base + at.rip, at.word, self.rip)?;
        self.set_tss_word(base + at.flags, at.word, flags)?;
        for n in 0..8 {
            let value = self.regs[n];
            self.set_tss_word(base + at.registers + n as u64 * at.word, at.word, value)?;
        }
        for n in 0..at.segment_count {
            let selector = u64::from(self.segs[n].selector);
            self.set_tss_word(base + at.segments + n as u64 * at.word, 2, selector)?;
        }
        Ok(())
    }

    /// Clears the busy bit of the current task's descriptor.
    fn mark_available(&mut self) -> Done {
        let offset = u64::from(self.tr.selector & 0xfff8) + 5;
        let la = self.gdtr.base.wrapping_add(offset);
        self.clear_bits_sys(self.wrap_la(la), kind::BUSY)
    }

    /// Loads everything of the new task that cannot fault.
    fn enter_task(&mut self, task: &Task, nested: bool) {
        self.cr0 |= cr::CR0_TS;
        self.fpu_changed();
        if let Some(cr3) = task.cr3
            && self.cr0 & cr::CR0_PG != 0
            && cr3 != self.cr3
        {
            self.set_cr3_tag(cr3, false);
        }
        let keep = if task.cr3.is_some() { 0 } else { 0xffff_0000 };
        for (register, value) in self.regs.iter_mut().zip(task.registers) {
            *register = *register & keep | value;
        }
        self.rip = task.rip;
        let nt = if nested { rflags::NT } else { 0 };
        let mask = if task.cr3.is_some() {
            0x003f_7fd5
        } else {
            0x7fd5
        };
        self.set_flags(task.flags & mask | nt | rflags::FIXED);
        self.dr7 &= !0x155;
        for seg in 0..6 {
            self.segs[seg] = Segment::null(task.selectors[seg]);
        }
        self.ldtr = Segment::null(task.ldt);
        self.cpl = if self.is_v86() {
            3
        } else {
            rpl(task.selectors[CS])
        };
        if task.trap {
            self.pending_debug |= TASK_TRAP;
        }
        self.tlb.generation += 1;
        self.mode_changed();
    }

    /// Loads what may fault in the new task's context (SDM vol. 3 §7.3, step 12 on).
    fn load_task_segments(&mut self, task: &Task, error: Option<u32>) -> Done {
        self.ldtr = self.ldt_for(task.ldt, Fault::ts).map_err(as_task_fault)?;
        if self.is_v86() {
            for seg in 0..6 {
                self.segs[seg] = v86_segment(task.selectors[seg]);
            }
            self.mode_changed();
        } else {
            let code = self.code_for_return(task.selectors[CS], Fault::ts)?;
            self.segs[SS] = self.stack_segment(task.selectors[SS], self.cpl, Fault::ts)?;
            self.set_code(code, rpl(task.selectors[CS]));
            for seg in [ES, DS, FS, GS] {
                self.load_segment(seg, task.selectors[seg])
                    .map_err(as_task_fault)?;
            }
        }
        if let Some(error) = error {
            let size = if self.tr.attributes & 8 != 0 { 4 } else { 2 };
            let mut stack = Stack::current(self);
            stack.push(self, u64::from(error), size)?;
            stack.commit(self);
        }
        let code = self.segs[CS];
        self.check_target(&code, self.rip)
    }
}

/// A selector fault met while a task's segments are loaded.
fn as_task_fault(fault: Fault) -> Fault {
    match fault.vector {
        vector::GP => Fault {
            vector: vector::TS,
            ..fault
        },
        _ => fault,
    }
}
