//! The panic notifier, as an ISA port and as a PCI function (QEMU docs/specs/pvpanic).

use std::sync::Arc;

use crate::bus::PortIo;
use crate::guest_log::GuestLog;
use crate::lifecycle::{Device, RestoreError, SaveError, SavedDevice};
use crate::lock::Lock;
use crate::pci::{BarKind, BarRegion, ConfigSpace, ConfigSpaceState, Identity, PciFunction};
use crate::platform::{PlatformEvent, PlatformSink};

/// The port of the ISA form.
pub const PORT: u16 = 0x505;

const KIND_ISA: &str = "pvpanic";
const KIND_PCI: &str = "pvpanic-pci";
const VERSION: u32 = 1;
const PANICKED: u8 = 1 << 0;
const CRASH_LOADED: u8 = 1 << 1;
const SHUT_DOWN: u8 = 1 << 2;
const SUPPORTED: u8 = PANICKED | CRASH_LOADED | SHUT_DOWN;
const REGION_BYTES: u64 = 0x10;
const IDENTITY: Identity = Identity {
    vendor: 0x1b36,
    device: 0x0011,
    revision: 1,
    class: [0x08, 0x80, 0],
    subsystem_vendor: 0x1af4,
    subsystem: 0x1100,
};

/// The one register: reads as the events it knows, takes the events that happened.
struct Register {
    sink: Arc<dyn PlatformSink>,
    log: GuestLog,
}

impl Register {
    fn new(sink: Arc<dyn PlatformSink>) -> Self {
        Self {
            sink,
            log: GuestLog::default(),
        }
    }

    fn write(&self, value: u8) {
        if let Some(count) = self.log.admit() {
            tracing::warn!(value, count, "the guest reports a panic event");
        }
        let events = [
            (PANICKED, PlatformEvent::Panicked),
            (CRASH_LOADED, PlatformEvent::CrashLoaded),
            (SHUT_DOWN, PlatformEvent::ShutDown),
        ];
        for (_, event) in events.into_iter().filter(|(bit, _)| value & bit != 0) {
            self.sink.notify(event);
        }
    }
}

/// The ISA form at port 0x505.
pub struct Pvpanic {
    register: Register,
}

impl Pvpanic {
    /// Makes the port; events go to `sink`.
    pub fn new(sink: Arc<dyn PlatformSink>) -> Self {
        Self {
            register: Register::new(sink),
        }
    }
}

impl PortIo for Pvpanic {
    fn port_read(&self, _port: u16, data: &mut [u8]) {
        data.fill(0);
        data[..1].fill(SUPPORTED);
    }

    fn port_write(&self, _port: u16, data: &[u8]) {
        if let Some(value) = data.first() {
            self.register.write(*value);
        }
    }
}

impl Device for Pvpanic {
    fn name(&self) -> &'static str {
        "pvpanic"
    }

    fn reset(&self) {}

    fn save(&self) -> Result<SavedDevice, SaveError> {
        SavedDevice::new(KIND_ISA, VERSION, &())
    }

    fn restore(&self, saved: &SavedDevice) -> Result<(), RestoreError> {
        saved.open(KIND_ISA, VERSION)
    }
}

/// The PCI form, 1b36:0011, with its register at the start of region 0.
pub struct PvpanicPci {
    register: Register,
    config: Lock<ConfigSpace>,
}

impl PvpanicPci {
    /// Makes the function; events go to `sink`.
    ///
    /// # Panics
    /// Never: the layout is fixed and possible.
    pub fn new(sink: Arc<dyn PlatformSink>) -> Self {
        let mut config = ConfigSpace::new(IDENTITY);
        config
            .add_bar(0, BarKind::Memory32, REGION_BYTES)
            .expect("region 0 of 16 bytes is possible");
        Self {
            register: Register::new(sink),
            config: Lock::new(config),
        }
    }
}

impl PciFunction for PvpanicPci {
    fn config_read(&self, reg: u16, data: &mut [u8]) {
        self.config.get().read(reg, data);
    }

    fn config_write(&self, reg: u16, data: &[u8]) {
        self.config.get().write(reg, data);
    }

    fn bars(&self) -> Vec<BarRegion> {
        self.config.get().bars()
    }

    fn bar_read(&self, _bar: usize, offset: u64, data: &mut [u8]) {
        data.fill(0);
        if offset == 0 {
            data[..1].fill(SUPPORTED);
        }
    }

    fn bar_write(&self, _bar: usize, offset: u64, data: &[u8]) {
        if let (0, Some(value)) = (offset, data.first()) {
            self.register.write(*value);
        }
    }
}

impl Device for PvpanicPci {
    fn name(&self) -> &'static str {
        "pvpanic-pci"
    }

    fn reset(&self) {
        self.config.get().reset();
    }

    fn save(&self) -> Result<SavedDevice, SaveError> {
        let state = self.config.get().save();
        SavedDevice::new(KIND_PCI, VERSION, &state)
    }

    fn restore(&self, saved: &SavedDevice) -> Result<(), RestoreError> {
        let state: ConfigSpaceState = saved.open(KIND_PCI, VERSION)?;
        self.config.get().restore(&state)
    }
}

#[cfg(test)]
mod tests;
