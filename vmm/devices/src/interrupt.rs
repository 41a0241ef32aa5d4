//! Interrupt lines and messages, as devices drive them.

use std::fmt;
use std::sync::Arc;

/// Takes the level of interrupt lines, numbered by global system interrupt (ACPI 6.5 §5.2.13).
pub trait IrqSink: Send + Sync {
    /// Sets the line `gsi` to `level`. Setting a level twice changes nothing.
    fn set_irq(&self, gsi: u32, level: bool);
}

/// Changes that one [`IrqLine::follow`] chases; more come from other callers, who chase their own.
const MAX_FOLLOWS: usize = 64;

/// One interrupt line, as handed to a device. Call it with no lock held.
#[derive(Clone)]
pub struct IrqLine {
    sink: Arc<dyn IrqSink>,
    gsi: u32,
}

impl IrqLine {
    /// Makes the line `gsi` of `sink`.
    pub fn new(sink: Arc<dyn IrqSink>, gsi: u32) -> Self {
        Self { sink, gsi }
    }

    /// Returns the line's global system interrupt number.
    pub fn gsi(&self) -> u32 {
        self.gsi
    }

    /// Drives the line high or low.
    pub fn set_level(&self, level: bool) {
        self.sink.set_irq(self.gsi, level);
    }

    /// Drives the line to what `level` tells, and again until it has not changed meanwhile.
    ///
    /// A chip that several threads change calls this after each change, with no lock held: whoever
    /// drives the line last has seen the last change.
    pub fn follow(&self, level: impl Fn() -> bool) {
        let mut driven = level();
        self.set_level(driven);
        for _ in 0..MAX_FOLLOWS {
            let now = level();
            if now == driven {
                return;
            }
            driven = now;
            self.set_level(driven);
        }
    }

    /// Drives a rising and a falling edge.
    pub fn pulse(&self) {
        self.set_level(true);
        self.set_level(false);
    }
}

impl fmt::Debug for IrqLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IrqLine")
            .field("gsi", &self.gsi)
            .finish_non_exhaustive()
    }
}

/// A message-signalled interrupt: the write to 0xfeex_xxxx that a device makes (SDM vol. 3 §11.11).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MsiMessage {
    /// The message address, with the destination in bits 12 to 19 (and 32 to 63 if extended).
    pub address: u64,
    /// The message data, with vector, delivery mode, level and trigger mode.
    pub data: u32,
}

/// Delivers message-signalled interrupts to local APICs.
pub trait MsiSink: Send + Sync {
    /// Delivers one message. Does not block.
    fn send_msi(&self, msi: MsiMessage);
}

/// Is told that something is waiting: a vCPU has a new event, a timer must be looked at again.
///
/// Called with no lock of the caller held; must not block.
pub trait Wake: Send + Sync {
    /// Wakes the owner.
    fn wake(&self);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;

    use super::{IrqLine, IrqSink};

    #[derive(Default)]
    struct Pin(AtomicBool);

    impl IrqSink for Pin {
        fn set_irq(&self, _gsi: u32, level: bool) {
            self.0.store(level, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_line_ends_at_its_chips_level_whoever_drives_it_last() {
        let pin = Arc::new(Pin::default());
        let chip = AtomicBool::new(false);
        for round in 0..2000 {
            let line = IrqLine::new(pin.clone(), 3);
            let change = |level: bool| {
                chip.store(level, Ordering::SeqCst);
                line.follow(|| chip.load(Ordering::SeqCst));
            };
            thread::scope(|scope| {
                scope.spawn(|| change(round % 2 == 0));
                change(round % 3 == 0);
            });
            assert_eq!(
                pin.0.load(Ordering::SeqCst),
                chip.load(Ordering::SeqCst),
                "{round}"
            );
        }
    }
}
