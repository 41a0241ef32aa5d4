//! The software local APIC: xAPIC and x2APIC (SDM vol. 3 §11).
//!
//! One [`LocalApic`] per vCPU, connected by an [`ApicBus`]. A delivery to a vCPU changes its chip
//! under the chip's lock and calls the vCPU's [`Wake`] after the lock is released; the vCPU then asks
//! [`LocalApic::take_events`] and [`LocalApic::pending_vector`], and takes the vector with
//! [`LocalApic::acknowledge`] when its flags allow. The timer is driven by the vCPU as well: it calls
//! [`LocalApic::fire`] when [`LocalApic::next_deadline_ns`] has passed.

mod bus;
mod chip;
mod message;
mod state;
mod timer;
mod vector_set;

use std::sync::{Arc, Weak};

pub use bus::ApicBus;

use crate::bus::Mmio;
use crate::clock::Clock;
use crate::interrupt::Wake;
use crate::lifecycle::{Device, RestoreError, SaveError, SavedDevice};
use crate::lock::Lock;
use chip::{Chip, Effect, Illegal, lvt, reg, x2apic_changeable};
use message::{DeliveryMode, Destination, Interrupt};
use timer::Mode;

/// Guest physical address of the registers after reset.
pub const BASE_GPA: u64 = chip::BASE_GPA;
/// Length of the register page in bytes.
pub const LEN_BYTES: u64 = 0x1000;
/// Frequency of the timer before its divider, in hertz, for those who tell the guest.
pub const TIMER_HZ: u64 = 1_000_000_000;
/// Index of the base register among the model-specific registers.
pub const MSR_APIC_BASE: u32 = 0x1b;
/// Index of the timer deadline register.
pub const MSR_TSC_DEADLINE: u32 = 0x6e0;
/// Index of the first x2APIC register.
pub const MSR_X2APIC: u32 = 0x800;

/// Learns that a processor has ended a level-triggered interrupt.
pub trait EoiSink: Send + Sync {
    /// Ends the level interrupt `vector`.
    fn eoi(&self, vector: u8);
}

/// The interrupt controller behind the interrupt pin: the PIC.
pub trait ExternalInterrupts: Send + Sync {
    /// Returns the vector that the controller would give now, if it asks.
    fn peek(&self) -> Option<u8>;

    /// Runs the interrupt acknowledge cycle.
    fn acknowledge(&self) -> Option<u8>;
}

/// Tells when a vCPU's time-stamp counter reaches a value.
pub trait GuestTsc: Send + Sync {
    /// Returns the time on the machine's clock at which the counter reads `tsc`; any time in the
    /// past if it has passed.
    fn ns_when(&self, tsc: u64) -> u64;
}

/// The access raises a general-protection fault in the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("access an APIC register: general-protection fault")]
pub struct GpFault;

impl From<Illegal> for GpFault {
    fn from(_: Illegal) -> Self {
        Self
    }
}

/// Events that a vCPU takes whatever its interrupt flag says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ApicEvents {
    /// A non-maskable interrupt.
    pub nmi: bool,
    /// INIT: the vCPU resets and waits for SIPI. Comes before `sipi` when both are set.
    pub init: bool,
    /// SIPI with its vector: a waiting vCPU starts at `vector << 12`, any other ignores it.
    pub sipi: Option<u8>,
}

/// What a local APIC is built from.
pub struct LocalApicConfig {
    /// The APIC ID, which is the vCPU's number.
    pub id: u32,
    /// Whether this is the boot processor.
    pub is_bsp: bool,
    /// The machine's clock.
    pub clock: Arc<dyn Clock>,
    /// The vCPU's time-stamp counter.
    pub tsc: Arc<dyn GuestTsc>,
    /// Wakes the vCPU. Must not own the APIC, or neither is ever dropped.
    pub wake: Arc<dyn Wake>,
}

/// The local APIC of one vCPU.
pub struct LocalApic {
    name: String,
    config: LocalApicConfig,
    bus: Weak<ApicBus>,
    chip: Lock<Chip>,
}

impl LocalApic {
    /// Makes a local APIC as after power-on and attaches it to `bus`.
    pub fn new(config: LocalApicConfig, bus: &Arc<ApicBus>) -> Arc<Self> {
        let apic = Arc::new(Self {
            name: format!("lapic{}", config.id),
            chip: Lock::new(Chip::fresh(config.id, config.is_bsp)),
            bus: Arc::downgrade(bus),
            config,
        });
        bus.attach(Arc::clone(&apic));
        apic
    }

    /// Returns the APIC ID.
    pub fn id(&self) -> u32 {
        self.config.id
    }

    /// Returns the base register: address, boot processor flag, and mode.
    pub fn apic_base(&self) -> u64 {
        self.chip.get().base
    }

    /// Writes the base register.
    ///
    /// # Errors
    /// If a reserved bit is set or the change of mode is not a legal one.
    pub fn set_apic_base(&self, base: u64) -> Result<(), GpFault> {
        self.change(|chip, _| chip.set_base(base).map(|()| Effect::Nothing))
    }

    /// Returns control register 8, the task priority's upper half.
    pub fn cr8(&self) -> u64 {
        u64::from(self.chip.get().tpr >> 4)
    }

    /// Writes control register 8; bits above 3 are the caller's to check.
    pub fn set_cr8(&self, cr8: u64) {
        let [low, ..] = cr8.to_le_bytes();
        self.adjust(|chip| chip.tpr = low << 4);
    }

    /// Reads a model-specific register: base, deadline, or x2APIC register. None means #GP.
    pub fn msr_read(&self, index: u32) -> Option<u64> {
        let chip = self.chip.get();
        match index {
            MSR_APIC_BASE => return Some(chip.base),
            MSR_TSC_DEADLINE => return Some(chip.timer.tsc_deadline),
            _ => {}
        }
        let register = x2apic_register(index).filter(|_| chip.is_x2apic())?;
        if register == reg::ICR_LOW {
            return Some(chip.icr);
        }
        chip.read(register, self.config.clock.now_ns())
            .ok()
            .map(u64::from)
    }

    /// Writes a model-specific register: base, deadline, or x2APIC register.
    ///
    /// # Errors
    /// If the register is absent in the present mode or read-only, or a reserved bit is set.
    pub fn msr_write(&self, index: u32, value: u64) -> Result<(), GpFault> {
        match index {
            MSR_APIC_BASE => return self.set_apic_base(value),
            MSR_TSC_DEADLINE => {
                self.set_tsc_deadline(value);
                return Ok(());
            }
            _ => {}
        }
        let register = x2apic_register(index).ok_or(GpFault)?;
        self.change(|chip, now_ns| {
            let low = u32::try_from(value & 0xffff_ffff).map_err(|_| Illegal)?;
            let is_wide = register == reg::ICR_LOW;
            let fits = low & !x2apic_changeable(register) == 0 && (is_wide || value >> 32 == 0);
            if !chip.is_x2apic() || !fits {
                return Err(Illegal);
            }
            if is_wide {
                Ok(chip.write_icr(value))
            } else {
                chip.write(register, low, now_ns)
            }
        })
    }

    /// Arms the timer for a value of the time-stamp counter, 0 to disarm; without effect unless the
    /// timer is in TSC-deadline mode (SDM vol. 3 §11.5.4.1).
    pub fn set_tsc_deadline(&self, tsc: u64) {
        self.adjust(|chip| {
            if chip.timer_mode() == Mode::TscDeadline {
                chip.timer.tsc_deadline = tsc;
            }
        });
    }

    /// Returns the armed deadline, or 0.
    pub fn tsc_deadline(&self) -> u64 {
        self.chip.get().timer.tsc_deadline
    }

    /// Returns the vector that the vCPU should take now, from the PIC or from the chip.
    pub fn pending_vector(&self) -> Option<u8> {
        let (takes_external, pending) = {
            let chip = self.chip.get();
            (chip.takes_external(), chip.pending())
        };
        let external = takes_external
            .then(|| self.bus.upgrade()?.pic()?.peek())
            .flatten();
        external.or(pending)
    }

    /// Takes the vector that [`LocalApic::pending_vector`] told, if it is still there.
    pub fn acknowledge(&self) -> Option<u8> {
        let takes_external = self.chip.get().takes_external();
        let external = takes_external
            .then(|| self.bus.upgrade()?.pic()?.acknowledge())
            .flatten();
        if external.is_some() {
            return external;
        }
        let mut chip = self.chip.get();
        let vector = chip.pending()?;
        chip.acknowledge(vector);
        Some(vector)
    }

    /// Takes the events that ignore the interrupt flag. Taking INIT resets the chip.
    pub fn take_events(&self) -> ApicEvents {
        let mut chip = self.chip.get();
        let nmi = std::mem::take(&mut chip.nmi);
        let init = std::mem::take(&mut chip.init);
        if init {
            chip.reset_by_init();
        }
        ApicEvents {
            nmi,
            init,
            sipi: chip.sipi.take(),
        }
    }

    /// Delivers a non-maskable interrupt.
    pub fn inject_nmi(&self) {
        self.deliver(Interrupt {
            mode: DeliveryMode::NMI,
            vector: 2,
            level: false,
        });
    }

    /// Raises LINT1, which the local vector table usually makes a non-maskable interrupt.
    pub fn raise_lint1(&self) {
        self.adjust(|chip| {
            chip.deliver_lvt(lvt::LINT1);
        });
    }

    /// Returns when the timer next has something to deliver, on the machine's clock.
    ///
    /// Ask again after every register write and after the time-stamp counter was moved.
    pub fn next_deadline_ns(&self) -> Option<u64> {
        let (mode, timer, is_masked) = {
            let chip = self.chip.get();
            (
                chip.timer_mode(),
                chip.timer,
                chip.is_lvt_masked(lvt::TIMER),
            )
        };
        match mode {
            Mode::TscDeadline if timer.tsc_deadline == 0 => None,
            Mode::TscDeadline => Some(self.config.tsc.ns_when(timer.tsc_deadline)),
            Mode::OneShot | Mode::Periodic if is_masked => None,
            Mode::OneShot | Mode::Periodic => timer.due_ns(mode),
        }
    }

    /// Delivers the timer's interrupt if it is due at `now_ns`.
    pub fn fire(&self, now_ns: u64) {
        let deadline = self.tsc_deadline();
        let deadline_passed = deadline != 0 && self.config.tsc.ns_when(deadline) <= now_ns;
        self.adjust(|chip| {
            let mode = chip.timer_mode();
            let is_due = if mode == Mode::TscDeadline {
                // Another thread cannot have armed it anew: only the vCPU itself writes it.
                if deadline_passed {
                    chip.timer.tsc_deadline = 0;
                }
                deadline_passed
            } else {
                chip.timer.advance(mode, now_ns)
            };
            if is_due {
                chip.deliver_lvt(lvt::TIMER);
            }
        });
    }

    fn deliver(&self, interrupt: Interrupt) {
        let is_new = self.chip.get().accept(interrupt);
        if is_new {
            self.config.wake.wake();
        }
    }

    fn is_named(&self, to: Destination) -> bool {
        self.chip.get().is_named(to)
    }

    fn is_software_enabled(&self) -> bool {
        self.chip.get().is_software_enabled()
    }

    fn priority_class(&self) -> u8 {
        self.chip.get().ppr() >> 4
    }

    /// Changes the chip where nothing leaves it.
    fn adjust(&self, adjust: impl FnOnce(&mut Chip)) {
        let has_work = {
            let mut chip = self.chip.get();
            adjust(&mut chip);
            chip.pending().is_some() || chip.nmi
        };
        if has_work {
            self.config.wake.wake();
        }
    }

    /// Changes the chip, then does with no lock held what the change asks for.
    fn change(
        &self,
        change: impl FnOnce(&mut Chip, u64) -> Result<Effect, Illegal>,
    ) -> Result<(), GpFault> {
        let now_ns = self.config.clock.now_ns();
        let (effect, has_work) = {
            let mut chip = self.chip.get();
            let took_external = chip.takes_external();
            let effect = change(&mut chip, now_ns);
            let opens_external = chip.takes_external() && !took_external;
            (effect, chip.pending().is_some() || opens_external)
        };
        if has_work {
            self.config.wake.wake();
        }
        match (effect?, self.bus.upgrade()) {
            (Effect::Send(ipi), Some(bus)) => bus.send(self, ipi),
            (Effect::EndLevel(vector), Some(bus)) => bus.end_level(vector),
            _ => {}
        }
        Ok(())
    }
}

fn x2apic_register(index: u32) -> Option<u8> {
    u8::try_from(index.checked_sub(MSR_X2APIC)?)
        .ok()
        .filter(|register| *register <= 0x3f)
}

/// The xAPIC registers; every one is four bytes at a multiple of 16.
impl Mmio for LocalApic {
    fn mmio_read(&self, offset: u64, data: &mut [u8]) {
        let now_ns = self.config.clock.now_ns();
        let mut chip = self.chip.get();
        if chip.is_x2apic() || !chip.is_enabled() {
            data.fill(0xff);
            return;
        }
        data.fill(0);
        let register = u8::try_from(offset >> 4)
            .ok()
            .filter(|register| *register <= 0x3f);
        let value = register
            .ok_or(Illegal)
            .and_then(|register| chip.read(register, now_ns));
        let bytes = value.unwrap_or_else(|Illegal| {
            chip.raise_illegal_register();
            0
        });
        let skipped = usize::try_from(offset & 0xf).unwrap_or(0);
        for (byte, value) in data
            .iter_mut()
            .zip(bytes.to_le_bytes().into_iter().skip(skipped))
        {
            *byte = value;
        }
    }

    fn mmio_write(&self, offset: u64, data: &[u8]) {
        let Some(&value) = data.first_chunk::<4>() else {
            return;
        };
        let register = u8::try_from(offset >> 4).ok();
        let result = self.change(|chip, now_ns| {
            if chip.is_x2apic() || !chip.is_enabled() || offset & 0xf != 0 {
                return Ok(Effect::Nothing);
            }
            let value = u32::from_le_bytes(value);
            let written = register
                .ok_or(Illegal)
                .and_then(|at| chip.write(at, value, now_ns));
            Ok(written.unwrap_or_else(|Illegal| {
                chip.raise_illegal_register();
                Effect::Nothing
            }))
        });
        // Illegal accesses have become bits of the error status register.
        result.unwrap_or_default();
    }
}

impl Device for LocalApic {
    fn name(&self) -> &str {
        &self.name
    }

    fn reset(&self) {
        *self.chip.get() = Chip::fresh(self.config.id, self.config.is_bsp);
    }

    fn save(&self) -> Result<SavedDevice, SaveError> {
        let chip = self.chip.get().clone();
        state::save(&chip)
    }

    fn restore(&self, saved: &SavedDevice) -> Result<(), RestoreError> {
        let chip = state::restore(self.config.id, saved)?;
        *self.chip.get() = chip;
        self.config.wake.wake();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
