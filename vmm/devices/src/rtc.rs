//! The MC146818 real-time clock with its battery-backed memory, in UTC (Motorola MC146818 data
//! sheet; the memory's layout is the one that `SeaBIOS` reads).

mod calendar;
mod chip;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::bus::{PortIo, read_ports, write_ports};
use crate::clock::Clock;
use crate::interrupt::{IrqLine, Wake};
use crate::lifecycle::{Device, RestoreError, SaveError, SavedDevice};
use crate::lock::Lock;
use crate::timer::TimerSource;
use chip::{Chip, RAM_BYTES};

/// The index port; its bit 7, which masks NMIs on a PC, is ignored.
pub const INDEX: u16 = 0x70;
/// The data port.
pub const DATA: u16 = 0x71;
/// Where the century is, for the ACPI fixed description table.
pub const CENTURY: u8 = 0x32;

const KIND: &str = "mc146818";
const VERSION: u32 = 1;

const MIB: u64 = 1 << 20;
const KIB: u64 = 1 << 10;
const BASE_MEMORY_KIB: u16 = 640;
/// Unit of the fields for memory above 16 MiB and above 4 GiB.
const BLOCK: u64 = 64 * KIB;

/// Where firmware looks for a system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BootDevice {
    /// A hard disk.
    Disk,
    /// A CD-ROM.
    Cdrom,
    /// The network.
    Network,
}

impl BootDevice {
    fn nibble(device: Option<&Self>) -> u8 {
        match device {
            None => 0,
            Some(Self::Disk) => 2,
            Some(Self::Cdrom) => 3,
            Some(Self::Network) => 4,
        }
    }
}

/// What firmware reads from the battery-backed memory.
#[derive(Clone, Debug, Default)]
pub struct CmosConfig {
    /// Memory below 4 GiB, in bytes.
    pub low_memory_bytes: u64,
    /// Memory above 4 GiB, in bytes.
    pub high_memory_bytes: u64,
    /// Number of processors, at least 1.
    pub cpus: u32,
    /// The boot order; three entries fit.
    pub boot_order: Vec<BootDevice>,
}

impl CmosConfig {
    fn ram(&self) -> [u8; RAM_BYTES] {
        let mut ram = [0; RAM_BYTES];
        let mut put = |at: usize, value: u64, len: usize| {
            let most = (1u64 << (8 * len)) - 1;
            ram[at..at + len].copy_from_slice(&value.min(most).to_le_bytes()[..len]);
        };
        let above_1_mib = self.low_memory_bytes.saturating_sub(MIB) / KIB;
        // Equipment: a coprocessor and a pointing device port.
        put(0x14, 0x06, 1);
        put(0x15, u64::from(BASE_MEMORY_KIB), 2);
        put(0x17, above_1_mib, 2);
        put(0x30, above_1_mib, 2);
        put(
            0x34,
            self.low_memory_bytes.saturating_sub(16 * MIB) / BLOCK,
            2,
        );
        put(0x5b, self.high_memory_bytes / BLOCK, 3);
        put(0x5f, u64::from(self.cpus.saturating_sub(1)), 1);
        let order = |at| BootDevice::nibble(self.boot_order.get(at));
        // Bit 0 switches off the check for a floppy's signature.
        put(0x38, u64::from(order(2) << 4 | 1), 1);
        put(0x3d, u64::from(order(1) << 4 | order(0)), 1);
        ram
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChipState {
    index: u8,
    ram: Vec<u8>,
    offset_ns: i64,
    seen_second: u64,
    seen_period: u64,
}

/// The real-time clock on ports 0x70 and 0x71.
pub struct Rtc {
    chip: Lock<Chip>,
    clock: Arc<dyn Clock>,
    utc: Arc<dyn Clock>,
    timer: Arc<dyn Wake>,
    irq: IrqLine,
}

impl Rtc {
    /// Makes a clock that shows the time of `utc`. Interrupts are timed on `clock`, the machine's;
    /// `timer` is woken when the next one moves.
    pub fn new(
        cmos: &CmosConfig,
        clock: Arc<dyn Clock>,
        utc: Arc<dyn Clock>,
        timer: Arc<dyn Wake>,
        irq: IrqLine,
    ) -> Self {
        let chip = Chip::fresh(cmos.ram(), utc.now_ns());
        Self {
            chip: Lock::new(chip),
            clock,
            utc,
            timer,
            irq,
        }
    }

    fn drive_irq(&self) {
        self.irq.follow(|| self.chip.get().irq());
    }
}

impl PortIo for Rtc {
    fn port_read(&self, port: u16, data: &mut [u8]) {
        let utc_ns = self.utc.now_ns();
        let had_irq = self.chip.get().irq();
        read_ports(port, data, |port| match port {
            DATA => self.chip.get().read(utc_ns),
            _ => 0xff,
        });
        if port == DATA {
            self.drive_irq();
            if had_irq {
                self.timer.wake();
            }
        }
    }

    fn port_write(&self, port: u16, data: &[u8]) {
        let utc_ns = self.utc.now_ns();
        let mut wrote_data = false;
        write_ports(port, data, |port, value| match port {
            INDEX => self.chip.get().index = value & 0x7f,
            DATA => {
                wrote_data = true;
                self.chip.get().write(value, utc_ns);
            }
            _ => {}
        });
        if wrote_data {
            self.drive_irq();
            self.timer.wake();
        }
    }
}

impl TimerSource for Rtc {
    fn next_event_ns(&self) -> Option<u64> {
        let after_ns = self.chip.get().next_event_after_ns(self.utc.now_ns())?;
        Some(self.clock.now_ns().saturating_add(after_ns))
    }

    fn fire(&self, _now_ns: u64) {
        self.chip.get().advance(self.utc.now_ns());
        self.drive_irq();
    }
}

impl Device for Rtc {
    fn name(&self) -> &'static str {
        "rtc"
    }

    fn reset(&self) {
        self.chip.get().reset();
        self.drive_irq();
        self.timer.wake();
    }

    fn save(&self) -> Result<SavedDevice, SaveError> {
        let chip = self.chip.get().clone();
        let state = ChipState {
            index: chip.index,
            ram: chip.ram.to_vec(),
            offset_ns: chip.offset_ns,
            seen_second: chip.seen_second,
            seen_period: chip.seen_period,
        };
        SavedDevice::new(KIND, VERSION, &state)
    }

    fn restore(&self, saved: &SavedDevice) -> Result<(), RestoreError> {
        let state: ChipState = saved.open(KIND, VERSION)?;
        let refused = |field| RestoreError::Field {
            kind: KIND.to_owned(),
            field,
        };
        let ram = state
            .ram
            .as_slice()
            .try_into()
            .map_err(|_| refused("ram"))?;
        if usize::from(state.index) >= RAM_BYTES {
            return Err(refused("index"));
        }
        *self.chip.get() = Chip {
            index: state.index,
            ram,
            offset_ns: state.offset_ns,
            seen_second: state.seen_second,
            seen_period: state.seen_period,
        };
        self.drive_irq();
        self.timer.wake();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
