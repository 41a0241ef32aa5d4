//! Ports that reset the machine: 0x92 and 0xcf9 (ICH9 data sheet §13.7.2 and §13.7.5).

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::bus::{PortIo, read_ports, write_ports};
use crate::lifecycle::{Device, RestoreError, SaveError, SavedDevice};
use crate::lock::Lock;
use crate::platform::{PlatformEvent, PlatformSink, ResetSource};

/// Fast reset and A20.
pub const PORT_92: u16 = 0x92;
/// The reset control register; it hides in the middle of the PCI address register.
pub const RESET_CONTROL: u16 = 0xcf9;

const KIND: &str = "reset-control";
const VERSION: u32 = 1;
const FAST_RESET: u8 = 1 << 0;
const A20: u8 = 1 << 1;
const SYSTEM_RESET: u8 = 1 << 1;
const RESET_CPU: u8 = 1 << 2;
const FULL_RESET: u8 = 1 << 3;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RegistersState {
    port_92: u8,
    reset_control: u8,
}

#[derive(Clone, Copy, Debug)]
struct Registers {
    port_92: u8,
    reset_control: u8,
}

impl Registers {
    const FRESH: Self = Self {
        port_92: A20,
        reset_control: 0,
    };

    /// Writes a register; tells whether a reset bit went from 0 to 1.
    fn write(&mut self, port: u16, value: u8) -> Option<ResetSource> {
        let (register, kept, trigger, source) = if port == PORT_92 {
            (
                &mut self.port_92,
                FAST_RESET | A20,
                FAST_RESET,
                ResetSource::Port92,
            )
        } else {
            let kept = SYSTEM_RESET | RESET_CPU | FULL_RESET;
            (
                &mut self.reset_control,
                kept,
                RESET_CPU,
                ResetSource::ResetControl,
            )
        };
        let rises = value & !*register & trigger != 0;
        *register = value & kept;
        rises.then_some(source)
    }
}

/// The two reset registers. A20 is kept as written, but address line 20 is never masked: no guest of
/// this board's age needs the wrap at 1 MiB.
pub struct ResetControl {
    registers: Lock<Registers>,
    sink: Arc<dyn PlatformSink>,
}

impl ResetControl {
    /// Makes the registers as after power-on, with A20 open.
    pub fn new(sink: Arc<dyn PlatformSink>) -> Self {
        Self {
            registers: Lock::new(Registers::FRESH),
            sink,
        }
    }
}

impl PortIo for ResetControl {
    fn port_read(&self, port: u16, data: &mut [u8]) {
        let registers = *self.registers.get();
        read_ports(port, data, |port| match port {
            PORT_92 => registers.port_92,
            RESET_CONTROL => registers.reset_control,
            _ => 0xff,
        });
    }

    fn port_write(&self, port: u16, data: &[u8]) {
        write_ports(port, data, |port, value| {
            if !matches!(port, PORT_92 | RESET_CONTROL) {
                return;
            }
            let reset = self.registers.get().write(port, value);
            if let Some(source) = reset {
                self.sink.notify(PlatformEvent::Reset(source));
            }
        });
    }
}

impl Device for ResetControl {
    fn name(&self) -> &'static str {
        "reset-control"
    }

    fn reset(&self) {
        *self.registers.get() = Registers::FRESH;
    }

    fn save(&self) -> Result<SavedDevice, SaveError> {
        let Registers {
            port_92,
            reset_control,
        } = *self.registers.get();
        SavedDevice::new(
            KIND,
            VERSION,
            &RegistersState {
                port_92,
                reset_control,
            },
        )
    }

    fn restore(&self, saved: &SavedDevice) -> Result<(), RestoreError> {
        let RegistersState {
            port_92,
            reset_control,
        } = saved.open(KIND, VERSION)?;
        *self.registers.get() = Registers {
            port_92,
            reset_control,
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::{PORT_92, RESET_CONTROL, ResetControl};
    use crate::bus::PortIo;
    use crate::platform::{PlatformEvent, PlatformSink, ResetSource};

    #[derive(Default)]
    struct Events(Mutex<Vec<PlatformEvent>>);

    impl PlatformSink for Events {
        fn notify(&self, event: PlatformEvent) {
            self.0.lock().unwrap().push(event);
        }
    }

    #[test]
    fn a_rising_reset_bit_resets_the_machine() {
        let events = Arc::new(Events::default());
        let reset = ResetControl::new(events.clone());
        reset.port_write(PORT_92, &[0x02]);
        reset.port_write(RESET_CONTROL, &[0x02]);
        assert!(events.0.lock().unwrap().is_empty());
        reset.port_write(RESET_CONTROL, &[0x06]);
        reset.port_write(PORT_92, &[0x03]);
        reset.port_write(PORT_92, &[0x03]);
        let expected = [ResetSource::ResetControl, ResetSource::Port92].map(PlatformEvent::Reset);
        assert_eq!(*events.0.lock().unwrap(), expected);
        let mut data = [0];
        reset.port_read(PORT_92, &mut data);
        assert_eq!(data, [0x03]);
    }
}
