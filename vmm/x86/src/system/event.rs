//! Delivery of exceptions and interrupts (SDM vol. 3 chapter 6): real mode, protected mode and long mode,
//! double and triple faults.

use crate::cpu::{CS, Cpu, DS, ES, FS, GS, RSP, SS, rflags};
use crate::fault::{Fault, vector};
use crate::seg::descriptor::{Descriptor, is_null, kind};
use crate::seg::load::null_stack;
use crate::seg::stack::Stack;
use crate::seg::task::Switch;
use crate::seg::{attr, load};
use crate::state::Segment;
use crate::system::Event;

/// RFLAGS bits that entering a handler clears, besides IF.
const CLEARED: u64 = rflags::TF | rflags::NT | rflags::RF | rflags::VM;

/// What is delivered.
#[derive(Clone, Copy, Debug)]
struct Delivery {
    vector: u8,
    event: Event,
    error: Option<u32>,
    /// RFLAGS as they are saved.
    flags: u64,
}

/// Where a gate leads, checked.
struct Target {
    code: Segment,
    offset: u64,
    cpl: u8,
    interrupt_gate: bool,
    /// Bytes of a pushed slot.
    slot: u64,
    /// Number of the interrupt stack of long mode.
    stack: u64,
}

impl Cpu {
    /// Delivers an exception through the IDT; a fault on the way becomes #DF, one on that way shutdown.
    pub(crate) fn deliver(&mut self, fault: Fault) {
        let mut fault = fault;
        loop {
            if fault.vector == vector::PF {
                self.cr2 = fault.address;
            }
            let armed = fault.vector == vector::DB;
            let resume = if armed { 0 } else { rflags::RF };
            let delivery = Delivery {
                vector: fault.vector,
                event: Event::External,
                error: fault.error,
                flags: self.flags() | resume,
            };
            let Err(next) = self.enter_handler(&delivery) else {
                if armed {
                    self.dr7 &= !(1 << 13);
                }
                // A task switch may leave a fault of the new task's context.
                let Some(after) = self.fault.take() else {
                    return;
                };
                fault = after;
                continue;
            };
            if next.vector == vector::PF {
                self.cr2 = next.address;
            }
            match combine(fault.vector, external(next)) {
                Some(combined) => fault = combined,
                None => {
                    self.shutdown = true;
                    return;
                }
            }
        }
    }

    /// Delivers an interrupt or trap.
    pub(crate) fn deliver_event(&mut self, vector: u8, event: Event) {
        let unarmed = if self.dr7 & 0xff == 0 { rflags::RF } else { 0 };
        let delivery = Delivery {
            vector,
            event,
            error: None,
            flags: self.flags() & !unarmed,
        };
        if let Err(fault) = self.enter_handler(&delivery) {
            self.deliver(external(fault));
        } else if let Some(fault) = self.fault.take() {
            self.deliver(fault);
        }
    }

    /// Enters the handler of a software interrupt. RIP is already behind the instruction; an error leaves
    /// everything as it was.
    pub(crate) fn software_interrupt(&mut self, vector: u8) -> Result<(), Fault> {
        let delivery = Delivery {
            vector,
            event: Event::Software,
            error: None,
            flags: self.flags() & !rflags::RF,
        };
        self.enter_handler(&delivery)?;
        self.skip_step = true;
        Ok(())
    }

    fn enter_handler(&mut self, delivery: &Delivery) -> Result<(), Fault> {
        if !self.is_protected() {
            self.enter_real(delivery)
        } else if self.is_long() {
            self.enter_long(delivery)
        } else {
            self.enter_protected(delivery)
        }
    }

    /// Real mode: the interrupt vector table (SDM vol. 3 §20.1.4). No error codes.
    fn enter_real(&mut self, delivery: &Delivery) -> Result<(), Fault> {
        let at = u64::from(delivery.vector) * 4;
        if at + 3 > u64::from(self.idtr.limit) {
            return Err(idt_fault(Fault::gp(0), delivery.vector));
        }
        let entry = self.read_sys::<u32>(self.wrap_la(self.idtr.base.wrapping_add(at)))?;
        let mut stack = Stack::current(self);
        stack.push(self, delivery.flags, 2)?;
        stack.push(self, u64::from(self.segs[CS].selector), 2)?;
        stack.push(self, self.rip, 2)?;
        stack.commit(self);
        self.rip = u64::from(entry & 0xffff);
        let code = self.real_segment(CS, (entry >> 16) as u16);
        self.set_code_unchanged(code);
        self.set_flags(delivery.flags & !(CLEARED | rflags::IF | rflags::AC));
        Ok(())
    }

    /// Reads a gate of the IDT and makes the checks that all gates have in common.
    fn gate(&mut self, delivery: &Delivery) -> Result<Descriptor, Fault> {
        let size = if self.is_long() { 16 } else { 8 };
        let at = u64::from(delivery.vector) * size;
        let bad = idt_fault(Fault::gp(0), delivery.vector);
        if at + size - 1 > u64::from(self.idtr.limit) {
            return Err(bad);
        }
        let la = self.wrap_la(self.idtr.base.wrapping_add(at));
        let low = self.read_sys(la)?;
        let high = if size == 16 {
            self.read_sys::<u64>(la.wrapping_add(8))? & 0xffff_ffff
        } else {
            0
        };
        let gate = Descriptor { low, high, la };
        let known = match gate.kind() {
            kind::INTERRUPT_GATE | kind::TRAP_GATE => true,
            kind::TASK_GATE | kind::INTERRUPT_GATE16 | kind::TRAP_GATE16 => !self.is_long(),
            _ => false,
        };
        let forbidden = delivery.event == Event::Software && gate.dpl() < self.cpl;
        if !gate.is_system() || !known || forbidden {
            return Err(bad);
        }
        if !gate.is_present() {
            return Err(idt_fault(Fault::np(0), delivery.vector));
        }
        Ok(gate)
    }

    /// The code that an interrupt or trap gate leads to.
    fn gate_target(&mut self, gate: &Descriptor) -> Result<Target, Fault> {
        let selector = gate.gate_selector();
        if is_null(selector) {
            return Err(Fault::GP0);
        }
        let found = self.descriptor(selector, Fault::gp)?;
        let sized = !self.is_long() || found.attributes() & (attr::L | attr::DB) == attr::L;
        if !found.is_code() || found.dpl() > self.cpl || !sized {
            return Err(Fault::gp(selector));
        }
        let code = self.finish_code(&found, selector, Fault::gp)?;
        let conforming = found.is_conforming_code();
        let slot = match (self.is_long(), gate.is_gate16()) {
            (true, _) => 8,
            (_, true) => 2,
            _ => 4,
        };
        let offset = gate.gate_offset() & if slot == 2 { 0xffff } else { u64::MAX };
        self.check_target(&code, offset)?;
        Ok(Target {
            code,
            offset,
            cpl: if conforming { self.cpl } else { found.dpl() },
            interrupt_gate: gate.kind() & 1 == 0,
            slot,
            stack: gate.gate_stack(),
        })
    }

    fn enter_long(&mut self, delivery: &Delivery) -> Result<(), Fault> {
        let gate = self.gate(delivery)?;
        let target = self.gate_target(&gate)?;
        let top = if target.stack != 0 {
            self.tss_long(0x24 + (target.stack - 1) * 8)?
        } else if target.cpl < self.cpl {
            self.tss_long(4 + u64::from(target.cpl) * 8)?
        } else {
            self.regs[RSP]
        };
        if !load::is_canonical(top) {
            return Err(Fault::SS0);
        }
        let mut stack = Stack::flat(self, top & !15, target.cpl);
        stack.push(self, u64::from(self.segs[SS].selector), 8)?;
        stack.push(self, self.regs[RSP], 8)?;
        self.push_frame(&mut stack, delivery, 8)?;
        self.regs[RSP] = stack.pointer;
        if target.cpl != self.cpl {
            self.segs[SS] = null_stack(target.cpl);
        }
        self.enter_target(&target);
        Ok(())
    }

    /// A stack pointer of a 64-bit TSS.
    fn tss_long(&mut self, offset: u64) -> Result<u64, Fault> {
        if offset + 7 > u64::from(self.tr.limit) {
            return Err(Fault::ts(self.tr.selector));
        }
        self.read_sys(self.tr.base.wrapping_add(offset))
    }

    fn push_frame(
        &mut self,
        stack: &mut Stack,
        delivery: &Delivery,
        slot: u64,
    ) -> Result<(), Fault> {
        stack.push(self, delivery.flags, slot)?;
        stack.push(self, u64::from(self.segs[CS].selector), slot)?;
        stack.push(self, self.rip, slot)?;
        match delivery.error {
            Some(error) => stack.push(self, u64::from(error), slot),
            None => Ok(()),
        }
    }

    fn enter_target(&mut self, target: &Target) {
        let gate = if target.interrupt_gate { rflags::IF } else { 0 };
        self.set_flags(self.flags() & !(CLEARED | gate));
        self.rip = target.offset;
        self.shadow = false;
        self.set_code(target.code, target.cpl);
    }

    fn enter_protected(&mut self, delivery: &Delivery) -> Result<(), Fault> {
        let gate = self.gate(delivery)?;
        if gate.kind() == kind::TASK_GATE {
            let selector = gate.gate_selector();
            return self.switch_task(selector, Switch::Event, delivery.error, delivery.flags);
        }
        let target = self.gate_target(&gate)?;
        if self.is_v86() && target.cpl != 0 {
            return Err(Fault::gp(gate.gate_selector()));
        }
        if target.cpl == self.cpl {
            let mut stack = Stack::current(self);
            self.push_frame(&mut stack, delivery, target.slot)?;
            stack.commit(self);
        } else {
            self.enter_inner(&target, delivery)?;
        }
        self.enter_target(&target);
        Ok(())
    }

    /// Switches to the stack of a more privileged level and pushes the frame there; from virtual-8086 mode
    /// also the data segments (SDM vol. 3 §21.3.1).
    fn enter_inner(&mut self, target: &Target, delivery: &Delivery) -> Result<(), Fault> {
        let (selector, pointer) = self.tss_stack(target.cpl)?;
        let segment = self.stack_segment(selector, target.cpl, Fault::ts)?;
        let mut stack = Stack::inside(self, segment, pointer, target.cpl);
        let v86 = self.is_v86();
        if v86 {
            for seg in [GS, FS, DS, ES] {
                let selector = u64::from(self.segs[seg].selector);
                stack.push(self, selector, target.slot)?;
            }
        }
        stack.push(self, u64::from(self.segs[SS].selector), target.slot)?;
        stack.push(self, self.regs[RSP], target.slot)?;
        self.push_frame(&mut stack, delivery, target.slot)?;
        if v86 {
            for seg in [GS, FS, DS, ES] {
                self.segs[seg] = Segment::null(0);
            }
        }
        self.segs[SS] = segment;
        stack.commit(self);
        Ok(())
    }

    /// SS and stack pointer of a privilege level, out of a 16- or 32-bit TSS.
    pub(crate) fn tss_stack(&mut self, cpl: u8) -> Result<(u16, u64), Fault> {
        let wide = self.tr.attributes & 8 != 0;
        let level = u64::from(cpl);
        let offset = if wide { 4 + 8 * level } else { 2 + 4 * level };
        let last = offset + if wide { 5 } else { 3 };
        if last > u64::from(self.tr.limit) {
            return Err(Fault::ts(self.tr.selector));
        }
        let la = self.wrap_la(self.tr.base.wrapping_add(offset));
        if wide {
            let pointer = self.read_sys::<u32>(la)?;
            let selector = self.read_sys::<u16>(self.wrap_la(la.wrapping_add(4)))?;
            Ok((selector, u64::from(pointer)))
        } else {
            let both = self.read_sys::<u32>(la)?;
            Ok(((both >> 16) as u16, u64::from(both & 0xffff)))
        }
    }

    /// Delivers #DB for `pending_debug` as a trap.
    pub(crate) fn debug_trap(&mut self) {
        self.dr6 |= std::mem::take(&mut self.pending_debug);
        self.dr7 &= !(1 << 13);
        self.deliver_event(vector::DB, Event::External);
    }

    /// Whether an instruction breakpoint is armed at RIP (SDM vol. 3 §18.2.4), RF being clear; notes in DR6
    /// which.
    pub(crate) fn instruction_breakpoint(&mut self) -> bool {
        if self.rflags & rflags::RF != 0 {
            return false;
        }
        let at = self.wrap_la(self.seg_base[CS].wrapping_add(self.rip));
        let hits = (0..4u32).filter(|&n| {
            self.dr7 >> (2 * n) & 3 != 0
                && self.dr7 >> (16 + 4 * n) & 3 == 0
                && self.dr[n as usize] == at
        });
        let bits = hits.fold(0, |bits, n| bits | 1 << n);
        self.dr6 |= bits;
        bits != 0
    }
}

/// Marks an error code that belongs to an IDT entry.
fn idt_fault(fault: Fault, vector: u8) -> Fault {
    Fault {
        error: Some(u32::from(vector) << 3 | 2),
        ..fault
    }
}

/// Sets EXT in the error code of a fault met while something other than a software interrupt was delivered
/// (SDM vol. 3 §6.13).
fn external(fault: Fault) -> Fault {
    match fault.vector {
        vector::TS | vector::NP | vector::SS | vector::GP => Fault {
            error: fault.error.map(|e| e | 1),
            ..fault
        },
        _ => fault,
    }
}

/// What a fault during the delivery of another becomes (SDM vol. 3 table 6-5); `None` is shutdown.
fn combine(first: u8, next: Fault) -> Option<Fault> {
    let contributory = |v: u8| {
        matches!(
            v,
            vector::DE | vector::TS | vector::NP | vector::SS | vector::GP
        )
    };
    let double = match first {
        vector::DF => return None,
        vector::PF => contributory(next.vector) || next.vector == vector::PF,
        v => contributory(v) && contributory(next.vector),
    };
    if double {
        return Some(Fault {
            vector: vector::DF,
            error: Some(0),
            address: 0,
        });
    }
    Some(next)
}
