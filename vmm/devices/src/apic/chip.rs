//! The registers of a local APIC and what they decide, without locks, time or other processors.

use super::message::{DeliveryMode, Destination, Interrupt, Ipi, Shorthand};
use super::timer::{Mode, Timer};
use super::vector_set::VectorSet;

pub(super) const BASE_BSP: u64 = 1 << 8;
pub(super) const BASE_X2APIC: u64 = 1 << 10;
pub(super) const BASE_ENABLE: u64 = 1 << 11;
pub(super) const BASE_GPA: u64 = 0xfee0_0000;
/// Address bits of the base register, for the widest physical addresses of the architecture.
const BASE_ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Registers by number: MMIO offset divided by 16, or MSR index less 0x800 (SDM tables 11-1, 11-6).
pub(super) mod reg {
    pub(in crate::apic) const ID: u8 = 0x02;
    pub(in crate::apic) const VERSION: u8 = 0x03;
    pub(in crate::apic) const TPR: u8 = 0x08;
    pub(in crate::apic) const APR: u8 = 0x09;
    pub(in crate::apic) const PPR: u8 = 0x0a;
    pub(in crate::apic) const EOI: u8 = 0x0b;
    pub(in crate::apic) const RRD: u8 = 0x0c;
    pub(in crate::apic) const LDR: u8 = 0x0d;
    pub(in crate::apic) const DFR: u8 = 0x0e;
    pub(in crate::apic) const SVR: u8 = 0x0f;
    pub(in crate::apic) const ISR: u8 = 0x10;
    pub(in crate::apic) const TMR: u8 = 0x18;
    pub(in crate::apic) const IRR: u8 = 0x20;
    pub(in crate::apic) const ESR: u8 = 0x28;
    pub(in crate::apic) const ICR_LOW: u8 = 0x30;
    pub(in crate::apic) const ICR_HIGH: u8 = 0x31;
    pub(in crate::apic) const LVT_TIMER: u8 = 0x32;
    pub(in crate::apic) const LVT_ERROR: u8 = 0x37;
    pub(in crate::apic) const TIMER_INITIAL: u8 = 0x38;
    pub(in crate::apic) const TIMER_CURRENT: u8 = 0x39;
    pub(in crate::apic) const TIMER_DIVIDE: u8 = 0x3e;
    pub(in crate::apic) const SELF_IPI: u8 = 0x3f;
}

/// Entries of the local vector table in register order.
pub(super) mod lvt {
    pub(in crate::apic) const TIMER: usize = 0;
    pub(in crate::apic) const LINT0: usize = 3;
    pub(in crate::apic) const LINT1: usize = 4;
    pub(in crate::apic) const ERROR: usize = 5;
    pub(in crate::apic) const COUNT: usize = 6;
}

const LVT_MASKED: u32 = 1 << 16;
/// Changeable bits of each entry: timer, thermal, performance, LINT0, LINT1, error.
const LVT_CHANGEABLE: [u32; lvt::COUNT] = [
    0x0007_00ff,
    0x0001_07ff,
    0x0001_07ff,
    0x0001_a7ff,
    0x0001_a7ff,
    0x0001_00ff,
];
/// Integrated APIC, six local vector table entries.
const VERSION: u32 = 0x0005_0014;
const SVR_ENABLE: u32 = 1 << 8;
const SVR_CHANGEABLE: u32 = 0x3ff;
const ICR_CHANGEABLE: u32 = 0x000c_cfff;
const DFR_RESERVED: u32 = 0x0fff_ffff;
const ESR_SEND_ILLEGAL: u32 = 1 << 5;
const ESR_RECEIVE_ILLEGAL: u32 = 1 << 6;
const ESR_REGISTER_ILLEGAL: u32 = 1 << 7;
/// Vectors below belong to exceptions.
const FIRST_VECTOR: u8 = 16;

/// The register does not exist, or the value sets bits that do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Illegal;

/// What a write asks for beyond the chip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Nothing,
    Send(Ipi),
    EndLevel(u8),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chip {
    pub(super) id: u32,
    pub(super) base: u64,
    pub(super) tpr: u8,
    pub(super) ldr: u32,
    pub(super) dfr: u32,
    pub(super) svr: u32,
    pub(super) isr: VectorSet,
    pub(super) tmr: VectorSet,
    pub(super) irr: VectorSet,
    pub(super) esr: u32,
    pub(super) errors: u32,
    pub(super) icr: u64,
    pub(super) lvt: [u32; lvt::COUNT],
    pub(super) timer: Timer,
    pub(super) nmi: bool,
    pub(super) init: bool,
    pub(super) sipi: Option<u8>,
}

impl Chip {
    /// Makes the chip of processor `id` as after power-on.
    pub(super) fn fresh(id: u32, is_bsp: bool) -> Self {
        let bsp = if is_bsp { BASE_BSP } else { 0 };
        let mut lvt = [LVT_MASKED; lvt::COUNT];
        if is_bsp {
            // The virtual wire that firmware sets up: machines booted without firmware need it.
            lvt[lvt::LINT0] = DeliveryMode::EXTINT.lvt();
        }
        Self {
            id,
            base: BASE_GPA | BASE_ENABLE | bsp,
            tpr: 0,
            ldr: 0,
            dfr: u32::MAX,
            svr: 0xff,
            isr: VectorSet::default(),
            tmr: VectorSet::default(),
            irr: VectorSet::default(),
            esr: 0,
            errors: 0,
            icr: 0,
            lvt,
            timer: Timer::default(),
            nmi: false,
            init: false,
            sipi: None,
        }
    }

    /// Does what INIT does: everything but ID and base goes back (SDM vol. 3 §11.4.7.3).
    pub(super) fn reset_by_init(&mut self) {
        *self = Self {
            base: self.base,
            ldr: if self.is_x2apic() { self.ldr } else { 0 },
            sipi: self.sipi,
            nmi: self.nmi,
            ..Self::fresh(self.id, self.is_bsp())
        };
    }

    pub(super) fn is_bsp(&self) -> bool {
        self.base & BASE_BSP != 0
    }

    pub(super) fn is_enabled(&self) -> bool {
        self.base & BASE_ENABLE != 0
    }

    pub(super) fn is_x2apic(&self) -> bool {
        self.base & BASE_X2APIC != 0
    }

    pub(super) fn is_software_enabled(&self) -> bool {
        self.is_enabled() && self.svr & SVR_ENABLE != 0
    }

    /// Takes a new base register (SDM vol. 3 §11.12.5).
    pub(super) fn set_base(&mut self, base: u64) -> Result<(), Illegal> {
        let defined = BASE_BSP | BASE_X2APIC | BASE_ENABLE | BASE_ADDRESS;
        let mode = |base: u64| (base & BASE_ENABLE != 0, base & BASE_X2APIC != 0);
        let allowed = match (mode(self.base), mode(base)) {
            ((_, _), (false, true)) | ((true, true), (true, false)) => false,
            ((false, _), (true, x2apic)) => !x2apic,
            _ => true,
        };
        if base & !defined != 0 || !allowed {
            return Err(Illegal);
        }
        let leaves = mode(self.base).0 && !mode(base).0;
        let enters_x2apic = mode(base).1 && !self.is_x2apic();
        self.base = base;
        if leaves {
            self.reset_by_init();
        }
        if enters_x2apic {
            self.ldr = x2apic_ldr(self.id);
            self.icr &= 0xffff_ffff;
        }
        Ok(())
    }

    pub(super) fn timer_mode(&self) -> Mode {
        Mode::of_lvt(self.lvt[lvt::TIMER])
    }

    /// Returns the processor priority (SDM vol. 3 §11.8.3.1).
    pub(super) fn ppr(&self) -> u8 {
        let served = self.isr.highest().unwrap_or(0) & 0xf0;
        if self.tpr & 0xf0 >= served {
            self.tpr
        } else {
            served
        }
    }

    /// Returns the vector to deliver now.
    pub(super) fn pending(&self) -> Option<u8> {
        if !self.is_software_enabled() {
            return None;
        }
        self.irr
            .highest()
            .filter(|vector| vector >> 4 > self.ppr() >> 4)
    }

    /// Tells whether the interrupt pin of the PIC reaches this processor.
    pub(super) fn takes_external(&self) -> bool {
        let lint0 = self.lvt[lvt::LINT0];
        if self.is_enabled() {
            lint0 & LVT_MASKED == 0 && DeliveryMode::of_bits(lint0 >> 8) == DeliveryMode::EXTINT
        } else {
            self.is_bsp()
        }
    }

    /// Moves a vector from requested to in service.
    pub(super) fn acknowledge(&mut self, vector: u8) {
        self.irr.remove(vector);
        self.isr.insert(vector);
    }

    /// Takes an interrupt; tells whether the processor has something new to look at.
    pub(super) fn accept(&mut self, interrupt: Interrupt) -> bool {
        match interrupt.mode {
            DeliveryMode::FIXED | DeliveryMode::LOWEST => self.accept_fixed(interrupt),
            DeliveryMode::NMI => {
                self.nmi = true;
                true
            }
            DeliveryMode::INIT => {
                self.init = true;
                self.sipi = None;
                true
            }
            DeliveryMode::STARTUP => {
                self.sipi = Some(interrupt.vector);
                true
            }
            _ => false,
        }
    }

    fn accept_fixed(&mut self, interrupt: Interrupt) -> bool {
        if !self.is_software_enabled() {
            return false;
        }
        if interrupt.vector < FIRST_VECTOR {
            self.raise_error(ESR_RECEIVE_ILLEGAL);
            return true;
        }
        self.irr.insert(interrupt.vector);
        if interrupt.level {
            self.tmr.insert(interrupt.vector);
        } else {
            self.tmr.remove(interrupt.vector);
        }
        true
    }

    /// Delivers the interrupt of a local vector table entry.
    pub(super) fn deliver_lvt(&mut self, entry: usize) -> bool {
        let value = self.lvt[entry];
        if value & LVT_MASKED != 0 {
            return false;
        }
        // Timer and error entries have no delivery mode: their bits 8 to 10 are zero, fixed.
        let mode = DeliveryMode::of_bits(value >> 8);
        self.accept(Interrupt {
            mode,
            vector: value.to_le_bytes()[0],
            level: false,
        })
    }

    pub(super) fn is_lvt_masked(&self, entry: usize) -> bool {
        self.lvt[entry] & LVT_MASKED != 0
    }

    fn raise_error(&mut self, error: u32) {
        let is_new = self.errors & error == 0;
        self.errors |= error;
        // An error vector that is itself illegal must not raise an error again.
        if is_new && self.lvt[lvt::ERROR].to_le_bytes()[0] >= FIRST_VECTOR {
            self.deliver_lvt(lvt::ERROR);
        }
    }

    /// Notes an access to a register that does not exist.
    pub(super) fn raise_illegal_register(&mut self) {
        self.raise_error(ESR_REGISTER_ILLEGAL);
    }

    pub(super) fn read(&self, register: u8, now_ns: u64) -> Result<u32, Illegal> {
        let bank = |set: VectorSet| set.0[usize::from(register & 7)];
        Ok(match register {
            reg::ID if self.is_x2apic() => self.id,
            reg::ID => self.id << 24,
            reg::VERSION => VERSION,
            reg::TPR => u32::from(self.tpr),
            reg::PPR => u32::from(self.ppr()),
            reg::LDR => self.ldr,
            reg::APR | reg::RRD | reg::EOI if !self.is_x2apic() => 0,
            reg::DFR if !self.is_x2apic() => self.dfr,
            reg::SVR => self.svr,
            reg::ISR..reg::TMR => bank(self.isr),
            reg::TMR..reg::IRR => bank(self.tmr),
            reg::IRR..reg::ESR => bank(self.irr),
            reg::ESR => self.esr,
            reg::ICR_LOW => word(self.icr, 0),
            reg::ICR_HIGH if !self.is_x2apic() => word(self.icr, 1),
            reg::LVT_TIMER..=reg::LVT_ERROR => self.lvt[usize::from(register - reg::LVT_TIMER)],
            reg::TIMER_INITIAL => self.timer.initial,
            reg::TIMER_CURRENT => self.timer.current(self.timer_mode(), now_ns),
            reg::TIMER_DIVIDE => self.timer.divide,
            _ => return Err(Illegal),
        })
    }

    pub(super) fn write(
        &mut self,
        register: u8,
        value: u32,
        now_ns: u64,
    ) -> Result<Effect, Illegal> {
        let is_x2apic = self.is_x2apic();
        match register {
            reg::TPR => self.tpr = value.to_le_bytes()[0],
            reg::EOI => return Ok(self.end_of_interrupt()),
            reg::LDR if !is_x2apic => self.ldr = value & 0xff00_0000,
            reg::DFR if !is_x2apic => self.dfr = value | DFR_RESERVED,
            reg::SVR => self.write_svr(value),
            reg::ESR => self.esr = std::mem::take(&mut self.errors),
            reg::ICR_LOW => return Ok(self.write_icr(self.icr >> 32 << 32 | u64::from(value))),
            reg::ICR_HIGH if !is_x2apic => {
                self.icr = self.icr & 0xffff_ffff | u64::from(value & 0xff00_0000) << 32;
            }
            reg::LVT_TIMER..=reg::LVT_ERROR => self.write_lvt(register, value, now_ns),
            reg::TIMER_INITIAL if self.timer_mode() != Mode::TscDeadline => {
                self.timer.write_initial(value, now_ns);
            }
            reg::TIMER_DIVIDE => {
                let mode = self.timer_mode();
                self.timer.write_divide(value, mode, now_ns);
            }
            reg::SELF_IPI if is_x2apic => return Ok(self.send_to_self(value.to_le_bytes()[0])),
            reg::TIMER_INITIAL => {}
            reg::ID | reg::VERSION | reg::APR | reg::PPR | reg::RRD | reg::TIMER_CURRENT
                if !is_x2apic => {}
            _ => return Err(Illegal),
        }
        Ok(Effect::Nothing)
    }

    fn write_svr(&mut self, value: u32) {
        self.svr = value & SVR_CHANGEABLE;
        if self.svr & SVR_ENABLE == 0 {
            for entry in &mut self.lvt {
                *entry |= LVT_MASKED;
            }
        }
    }

    fn write_lvt(&mut self, register: u8, value: u32, now_ns: u64) {
        let entry = usize::from(register - reg::LVT_TIMER);
        let mut value = value & LVT_CHANGEABLE[entry];
        if self.svr & SVR_ENABLE == 0 {
            value |= LVT_MASKED;
        }
        if entry == lvt::TIMER {
            let mode = self.timer_mode();
            // What expired while masked is gone.
            self.timer.advance(mode, now_ns);
            let changes = (mode == Mode::TscDeadline) != (Mode::of_lvt(value) == Mode::TscDeadline);
            if changes {
                self.timer.start_ns = None;
                self.timer.initial = 0;
                self.timer.tsc_deadline = 0;
            }
        }
        self.lvt[entry] = value;
    }

    fn end_of_interrupt(&mut self) -> Effect {
        let Some(vector) = self.isr.highest() else {
            return Effect::Nothing;
        };
        self.isr.remove(vector);
        if self.tmr.contains(vector) {
            Effect::EndLevel(vector)
        } else {
            Effect::Nothing
        }
    }

    /// Writes the whole interrupt command register and sends what it says.
    pub(super) fn write_icr(&mut self, value: u64) -> Effect {
        self.icr = value & !0xffff_ffff | value & u64::from(ICR_CHANGEABLE);
        let low = word(self.icr, 0);
        let mode = DeliveryMode::of_bits(low >> 8);
        let is_level = low & 1 << 15 != 0;
        let is_assert = low & 1 << 14 != 0;
        if mode == DeliveryMode::INIT && is_level && !is_assert {
            return Effect::Nothing;
        }
        let vector = low.to_le_bytes()[0];
        if mode.has_vector() && vector < FIRST_VECTOR {
            self.raise_error(ESR_SEND_ILLEGAL);
            return Effect::Nothing;
        }
        let high = word(self.icr, 1);
        let (number, broadcast) = if self.is_x2apic() {
            (high, u32::MAX)
        } else {
            (high >> 24, 0xff)
        };
        Effect::Send(Ipi {
            // Level and trigger mode of fixed interrupts are ignored: they are edges (§11.6.1).
            interrupt: Interrupt {
                mode,
                vector,
                level: false,
            },
            destination: Destination {
                number,
                is_logical: low & 1 << 11 != 0,
                is_broadcast: number == broadcast,
            },
            shorthand: Shorthand::of_bits(low >> 18),
        })
    }

    fn send_to_self(&mut self, vector: u8) -> Effect {
        if vector < FIRST_VECTOR {
            self.raise_error(ESR_SEND_ILLEGAL);
        } else {
            self.accept(Interrupt {
                mode: DeliveryMode::FIXED,
                vector,
                level: false,
            });
        }
        Effect::Nothing
    }

    /// Tells whether a message's destination names this processor (SDM vol. 3 §11.6.2).
    pub(super) fn is_named(&self, to: Destination) -> bool {
        if !self.is_enabled() {
            // INIT and SIPI find a processor whose APIC is off only by its physical number.
            return !to.is_logical && (to.is_broadcast || to.number == self.id);
        }
        if to.is_broadcast {
            return true;
        }
        if !to.is_logical {
            return to.number == self.id;
        }
        if self.is_x2apic() {
            return to.number >> 16 == self.ldr >> 16 && to.number & self.ldr & 0xffff != 0;
        }
        let name = self.ldr >> 24;
        if self.dfr >> 28 == 0xf {
            return to.number & name & 0xff != 0;
        }
        to.number >> 4 & 0xf == name >> 4 && to.number & name & 0xf != 0
    }
}

/// Returns the logical destination that x2APIC mode gives a processor (SDM vol. 3 §11.12.10.2).
fn x2apic_ldr(id: u32) -> u32 {
    id >> 4 << 16 | 1 << (id & 15)
}

/// Returns the low or high half of `value`.
fn word(value: u64, half: u8) -> u32 {
    let [a, b, c, d, ..] = (value >> (32 * u32::from(half))).to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// Bits that x2APIC mode lets a write set; any other raises #GP.
pub(super) fn x2apic_changeable(register: u8) -> u32 {
    match register {
        reg::TPR | reg::SELF_IPI => 0xff,
        reg::SVR => SVR_CHANGEABLE,
        reg::EOI | reg::ESR => 0,
        reg::LVT_TIMER..=reg::LVT_ERROR => {
            // The read-only delivery status and remote IRR may be written back.
            LVT_CHANGEABLE[usize::from(register - reg::LVT_TIMER)] | 0x5000
        }
        reg::TIMER_DIVIDE => 0xb,
        reg::ICR_LOW => ICR_CHANGEABLE | 0x1000,
        _ => u32::MAX,
    }
}
