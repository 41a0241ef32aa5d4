//! The loop around the traces: looks at the doorbell, finds or decodes a trace, runs it, and delivers
//! what it raised.

#![expect(unsafe_code, reason = "traces are entered through handler pointers")]

use std::sync::atomic::Ordering;

use crate::bus::{Bus, Exit};
use crate::cpu::{Cpu, TRACE_RIP, Vcpu, rflags};
use crate::fault::vector;
use crate::memory::ask;
use crate::op::Op;
use crate::trace::jump_slot;

/// Instructions in a slice: how long timers may be late.
const SLICE: i32 = 30_000;

impl Vcpu {
    /// Runs the guest until there is a reason to return. Several calls in a row continue where the last
    /// one stopped.
    pub fn run(&mut self, bus: &mut dyn Bus) -> Exit {
        let cpu = &mut *self.cpu;
        let pointer = std::ptr::from_mut(bus);
        // SAFETY: only the lifetime is changed; the pointer is taken away again before `bus` ends.
        cpu.bus =
            Some(unsafe { std::mem::transmute::<*mut dyn Bus, *mut (dyn Bus + 'static)>(pointer) });
        cpu.bell.set_outside(false);
        if cpu.bell.has_mail() {
            cpu.read_mail();
        }
        cpu.fpu.enter_run();
        let exit = cpu.dispatch();
        cpu.fpu.leave_run();
        cpu.bell.set_outside(true);
        cpu.bus = None;
        exit
    }
}

impl Cpu {
    fn dispatch(&mut self) -> Exit {
        loop {
            if self.budget < 0 {
                self.budget = SLICE;
                self.on_board(|bus| bus.tick());
            }
            // SAFETY: the word lives in `bell`.
            let word = unsafe { &*self.attention };
            if word.load(Ordering::Relaxed) != 0
                && let Some(exit) = self.attend()
            {
                return exit;
            }
            if self.shutdown {
                return Exit::Shutdown;
            }
            if self.halted || self.wait_for_sipi {
                return Exit::Halt;
            }
            self.step();
        }
    }

    /// Runs one trace, or one instruction where the next one needs a look: single steps, breakpoints, and
    /// an interrupt that the shadow holds off for just one instruction.
    fn step(&mut self) {
        let stepping = self.rflags & rflags::TF != 0;
        let held_off = std::mem::take(&mut self.shadow) && self.interrupt_waiting;
        self.skip_step = false;
        // Nothing else counts instructions that only ever fault.
        self.budget -= 1;
        let found = if stepping || held_off || self.dr7 & 0xff != 0 {
            // While the bell rings, no trace goes on to another.
            self.bell.raise(ask::SELF);
            self.single()
        } else {
            self.trace()
        };
        match found {
            Ok(first) => self.enter_trace(first),
            Err(fault) => self.fault = Some(fault),
        }
        if let Some(fault) = self.fault.take() {
            self.deliver(fault);
        } else if stepping && !self.shadow && !self.skip_step {
            self.pending_debug |= 1 << 14;
        }
        if self.pending_debug != 0 && !self.shadow {
            self.debug_trap();
        }
    }

    fn trace(&mut self) -> Result<*const Op, crate::fault::Fault> {
        let known = self.remembered(self.rip);
        // SAFETY: what the jump cache holds is null or a record that is alive, if perhaps stale.
        match unsafe { known.as_ref() } {
            Some(first) if !first.is_stale() => Ok(known),
            _ => self.trace_at_rip(),
        }
    }

    fn single(&mut self) -> Result<*const Op, crate::fault::Fault> {
        if self.instruction_breakpoint() {
            return Err(crate::fault::Fault {
                vector: vector::DB,
                error: None,
                address: 0,
            });
        }
        self.rflags &= !rflags::RF;
        self.single_at_rip()
    }

    fn enter_trace(&mut self, first: *const Op) {
        self.regs[TRACE_RIP] = self.rip;
        // SAFETY: the record is alive: only the dispatcher frees records, and it is here.
        let run = unsafe { (*first).run };
        // SAFETY: `self` is the CPU of the record.
        unsafe { run(self, first) };
    }

    /// Looks at the doorbell. Gives the reason to leave, if there is one.
    fn attend(&mut self) -> Option<Exit> {
        let asked = self.bell.take(ask::EXIT | ask::INTERRUPT | ask::SELF);
        if self.bell.has_mail() {
            self.read_mail();
        }
        if asked & ask::EXIT != 0 {
            // What came with it is looked at on the next entry.
            self.bell.raise(asked & !ask::EXIT | ask::SELF);
            return Some(Exit::Kicked);
        }
        if asked & ask::INTERRUPT != 0 {
            self.interrupt_waiting = true;
        }
        if self.interrupt_waiting && !self.shadow && !self.shutdown && !self.wait_for_sipi {
            self.take_interrupt();
        }
        None
    }

    /// Delivers an NMI or an interrupt, if one is there and allowed now.
    fn take_interrupt(&mut self) {
        if !self.nmi_blocked && self.bus().take_nmi() {
            self.halted = false;
            self.nmi_blocked = true;
            self.deliver_event(vector::NMI, crate::system::Event::External);
            self.bell.raise(ask::SELF);
            return;
        }
        if self.rflags & rflags::IF == 0 {
            return;
        }
        match self.bus().acknowledge_interrupt() {
            Some(vector) => {
                self.halted = false;
                self.interrupt_waiting = self.bus().interrupt_pending();
                self.deliver_event(vector, crate::system::Event::External);
            }
            None => self.interrupt_waiting = false,
        }
    }

    /// To be called after a change of IF, TF, AC or VM.
    pub(crate) fn flags_changed(&mut self) {
        if self.rflags & rflags::TF != 0 || self.interrupt_waiting && self.rflags & rflags::IF != 0
        {
            self.bell.raise(ask::SELF);
        }
        self.class_changed();
    }

    /// To be called after a change of the address space number, the TLB's generation, CPL, the mode or
    /// the base of CS.
    pub(crate) fn jump_tag_changed(&mut self) {
        let (user, mode) = (u64::from(self.cpl == 3), u64::from(self.mode.key()));
        self.jump_tag = self.tlb.generation << 20 | self.tlb_tag << 4 | mode << 1 | user;
    }

    /// The trace at `rip`, when the jump cache knows it; else null.
    #[inline(always)]
    pub(crate) fn remembered(&self, rip: u64) -> *const Op {
        let jump = &self.traces.jumps[jump_slot(rip)];
        if jump.rip == rip && jump.tag == self.jump_tag {
            jump.first
        } else {
            std::ptr::null()
        }
    }

    /// Whether a trace that ends may go straight on to another.
    #[inline(always)]
    pub(crate) fn may_go_on(&self) -> bool {
        // SAFETY: the word lives in `bell`.
        let word = unsafe { &*self.attention };
        cfg!(chained) && self.budget >= 0 && word.load(Ordering::Relaxed) == 0
    }
}

#[cfg(test)]
pub(crate) mod tests;
