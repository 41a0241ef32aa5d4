//! Interrupts of a virtio device: MSI-X, or the ISR status and an interrupt pin (virtio 1.3 §4.1.5).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, Ordering};

use super::ring::RingError;
use super::spec::{ISR_CONFIG, ISR_QUEUE, NO_VECTOR};
use crate::guest_log::GuestLog;
use crate::interrupt::IrqLine;
use crate::lock::Lock;
use crate::pci::Msix;

/// The pin: what it should be, what was last driven, and whether some thread is driving it.
#[derive(Debug, Default)]
struct PinState {
    isr: u8,
    disabled: bool,
    driven: bool,
    is_driving: bool,
}

impl PinState {
    fn level(&self) -> bool {
        self.isr != 0 && !self.disabled
    }
}

/// What registers and workers share: interrupts and the wish to be reset.
pub(super) struct Signals {
    msix: Msix,
    line: IrqLine,
    pin: Lock<PinState>,
    config_vector: AtomicU16,
    queue_vectors: Vec<AtomicU16>,
    generation: AtomicU8,
    driver_ok: AtomicBool,
    needs_reset: AtomicBool,
    failure_is_untold: AtomicBool,
    /// What a driver's mistakes may write to the log.
    log: GuestLog,
}

impl Signals {
    pub(super) fn new(msix: Msix, line: IrqLine, queues: usize) -> Self {
        Self {
            msix,
            line,
            pin: Lock::default(),
            config_vector: AtomicU16::new(NO_VECTOR),
            queue_vectors: (0..queues).map(|_| AtomicU16::new(NO_VECTOR)).collect(),
            generation: AtomicU8::new(0),
            driver_ok: AtomicBool::new(false),
            needs_reset: AtomicBool::new(false),
            failure_is_untold: AtomicBool::new(false),
            log: GuestLog::default(),
        }
    }

    pub(super) fn msix(&self) -> &Msix {
        &self.msix
    }

    /// Takes the vectors that the driver chose.
    pub(super) fn set_vectors(&self, config: u16, queues: impl Iterator<Item = u16>) {
        self.config_vector.store(config, Ordering::Release);
        for (slot, vector) in self.queue_vectors.iter().zip(queues) {
            slot.store(vector, Ordering::Release);
        }
    }

    pub(super) fn set_driver_ok(&self, driver_ok: bool) {
        self.driver_ok.store(driver_ok, Ordering::Release);
    }

    pub(super) fn generation(&self) -> u8 {
        self.generation.load(Ordering::Acquire)
    }

    pub(super) fn needs_reset(&self) -> bool {
        self.needs_reset.load(Ordering::Acquire)
    }

    /// Interrupts the driver because queue `index` has used buffers.
    pub(super) fn queue_used(&self, index: u16) {
        let vector = self.queue_vectors.get(usize::from(index));
        let vector = vector.map_or(NO_VECTOR, |vector| vector.load(Ordering::Acquire));
        self.interrupt(vector, ISR_QUEUE);
    }

    /// Interrupts the driver because the device configuration changed.
    pub(super) fn config_changed(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.interrupt_config();
    }

    /// Notes that the driver of `device` broke the rules.
    pub(super) fn fail_for(&self, device: &str, error: &RingError) {
        if let Some(count) = self.log.admit() {
            tracing::warn!(device, count, %error, "a driver broke the rules; the device needs a reset");
        }
        self.fail();
    }

    /// Sets `DEVICE_NEEDS_RESET` (§2.1.2); [`Signals::flush`] tells the driver.
    pub(super) fn fail(&self) {
        self.needs_reset.store(true, Ordering::Release);
        self.failure_is_untold.store(true, Ordering::Release);
    }

    /// Tells the outside what has changed: drives the pin and reports a failure. Call it with no
    /// lock held.
    pub(super) fn flush(&self) {
        if self.failure_is_untold.swap(false, Ordering::AcqRel) {
            self.interrupt_config();
        }
        self.drive_pin();
    }

    fn interrupt_config(&self) {
        if self.driver_ok.load(Ordering::Acquire) {
            self.interrupt(self.config_vector.load(Ordering::Acquire), ISR_CONFIG);
        }
    }

    fn interrupt(&self, vector: u16, isr: u8) {
        if !self.msix.is_enabled() {
            self.pin.get().isr |= isr;
            self.drive_pin();
        } else if vector != NO_VECTOR {
            self.msix.trigger(vector);
        }
    }

    /// Returns the ISR status and clears it (§4.1.4.5).
    pub(super) fn take_isr(&self) -> u8 {
        let isr = std::mem::take(&mut self.pin.get().isr);
        self.drive_pin();
        isr
    }

    pub(super) fn isr(&self) -> u8 {
        self.pin.get().isr
    }

    /// Takes whether the function must keep its pin quiet.
    pub(super) fn set_pin_disabled(&self, disabled: bool) {
        self.pin.get().disabled = disabled;
    }

    /// Puts everything that a virtio reset touches back, which does not include MSI-X (§2.4);
    /// [`Signals::flush`] drives the pin.
    pub(super) fn reset(&self) {
        self.set_driver_ok(false);
        self.needs_reset.store(false, Ordering::Release);
        self.failure_is_untold.store(false, Ordering::Release);
        self.config_vector.store(NO_VECTOR, Ordering::Release);
        for vector in &self.queue_vectors {
            vector.store(NO_VECTOR, Ordering::Release);
        }
        self.pin.get().isr = 0;
    }

    /// Takes saved values; [`Signals::flush`] drives the pin.
    pub(super) fn restore(&self, isr: u8, generation: u8, needs_reset: bool) {
        self.generation.store(generation, Ordering::Release);
        self.needs_reset.store(needs_reset, Ordering::Release);
        self.pin.get().isr = isr;
    }

    /// Drives the line with no lock held. One thread at a time drives; it goes on until the line
    /// has the level that the others left behind.
    fn drive_pin(&self) {
        {
            let mut pin = self.pin.get();
            if pin.is_driving {
                return;
            }
            pin.is_driving = true;
        }
        while let Some(level) = self.next_level() {
            self.line.set_level(level);
        }
    }

    fn next_level(&self) -> Option<bool> {
        let mut pin = self.pin.get();
        let level = pin.level();
        pin.is_driving = level != pin.driven;
        pin.driven = level;
        pin.is_driving.then_some(level)
    }
}

/// Reports that a device's configuration space changed.
#[derive(Clone)]
pub struct ConfigChange(pub(super) Arc<Signals>);

impl ConfigChange {
    /// Counts the configuration generation up and interrupts the driver (virtio 1.3 §2.5).
    pub fn report(&self) {
        self.0.config_changed();
    }
}

impl fmt::Debug for ConfigChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConfigChange")
    }
}
