//! Drives any device through the buses with arbitrary bytes: the entry of the fuzz target, and the
//! traffic of the conformance suite.

use std::sync::Arc;

use vm_memory::{Bytes, GuestAddress};

use crate::acpi_pm::TimerWidth;
use crate::chipset::{Chipset, ChipsetConfig, ChipsetError};
use crate::clock::ManualClock;
use crate::debug_ports::ProgressSink;
use crate::fw_cfg::{FwCfgItems, key};
use crate::interrupt::{MsiMessage, MsiSink};
use crate::ioapic;
use crate::memory::GuestMemory;
use crate::pci::config_space::COMMAND;
use crate::pci::host::{HOLE_FIRST_GPA, MMCONFIG_BASE_GPA};
use crate::pci::{PciAddress, Pin};
use crate::platform::{PlatformEvent, PlatformSink};
use crate::pvpanic::PvpanicPci;
use crate::rtc::CmosConfig;
use crate::uart::ConsoleOut;
use crate::virtio::{NOTIFY_BAR, Rng, VirtioDevice, VirtioPci, VirtioPciOptions, scsi_host};

const MEMORY_BYTES: usize = 1 << 20;
/// A moment in 2026.
const START_NS: u64 = 1_790_000_000_000_000_000;
/// Distance of the SCSI host's registers from those of the entropy device.
const SCSI_OFFSET: u64 = 0x8000;
/// Places on the memory bus that an access chooses from, besides the whole address space.
const PLACES: [u64; 7] = [
    ioapic::BASE_GPA,
    MMCONFIG_BASE_GPA,
    // Functions 00:01.0, 00:03.0 and 00:1f.0; an access reaches over 16 KiB.
    MMCONFIG_BASE_GPA + (1 << 15),
    MMCONFIG_BASE_GPA + (3 << 15),
    MMCONFIG_BASE_GPA + (0x1f << 15),
    HOLE_FIRST_GPA + SCSI_OFFSET,
    0,
];

/// Takes what the board sends and forgets it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sink;

impl MsiSink for Sink {
    fn send_msi(&self, _msi: MsiMessage) {}
}

impl PlatformSink for Sink {
    fn notify(&self, _event: PlatformEvent) {}
}

impl ProgressSink for Sink {
    fn progress(&self, _code: u8) {}
}

impl ConsoleOut for Sink {
    fn write(&mut self, _bytes: &[u8]) {}
}

/// A board on a clock that moves only when driven.
pub struct Bench {
    /// The board, with a pvpanic function at 00:01.0 besides its bridges.
    pub chipset: Chipset,
    /// The board's clock and the world's.
    pub clock: Arc<ManualClock>,
    /// The guest's memory, 1 MiB.
    pub memory: GuestMemory,
}

impl Bench {
    /// Builds the board.
    ///
    /// # Errors
    /// As [`Chipset::new`].
    ///
    /// # Panics
    /// If the host has no memory to give.
    pub fn new() -> Result<Self, ChipsetError> {
        let clock = Arc::new(ManualClock::new(START_NS));
        let memory = GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY_BYTES)])
            .expect("the host has 1 MiB");
        let mut fw_cfg = FwCfgItems::new();
        fw_cfg.set(key::CPUS, 1u16.to_le_bytes());
        let chipset = Chipset::new(ChipsetConfig {
            clock: clock.clone(),
            utc: clock.clone(),
            memory: memory.clone(),
            msi: Arc::new(Sink),
            platform: Arc::new(Sink),
            cmos: CmosConfig::default(),
            fw_cfg,
            pm_timer: TimerWidth::Bits32,
            mmconfig_is_open: true,
            serial: Box::new(Sink),
            debug: Box::new(Sink),
            progress: Arc::new(Sink),
        })?;
        chipset
            .pci
            .add_anywhere(&(Arc::new(PvpanicPci::new(Arc::new(Sink))) as Arc<_>))?;
        Ok(Self {
            chipset,
            clock,
            memory,
        })
    }
}

/// Takes bytes off the front of the input; zeroes follow its end.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let len = N.min(self.0.len());
        bytes[..len].copy_from_slice(&self.0[..len]);
        self.0 = &self.0[len..];
        bytes
    }
}

/// Drives a fresh board with virtio devices by what `data` encodes: the fuzz target.
///
/// # Panics
/// If the board cannot be built, for which the host must be out of memory or event counters.
pub fn drive(data: &[u8]) {
    let bench = Bench::new().expect("the board's own chips have their places");
    bench.add_virtio();
    bench.drive(data);
}

impl Bench {
    /// Plugs in an entropy device at 00:02.0 and a SCSI host at 00:03.0, with their registers one
    /// after the other at the start of the device hole.
    ///
    /// # Panics
    /// If the host has no event counters to give.
    pub fn add_virtio(&self) {
        self.add_function(2, HOLE_FIRST_GPA, Arc::new(Rng));
        self.add_function(3, HOLE_FIRST_GPA + SCSI_OFFSET, scsi_host());
    }

    fn add_function(&self, number: u8, gpa: u64, device: Arc<dyn VirtioDevice>) {
        let at = PciAddress::new(number, 0).expect("the device number exists");
        let options = VirtioPciOptions {
            name: format!("virtio{number}"),
            memory: self.memory.clone(),
            msi: Arc::new(Sink),
            line: self.chipset.lpc.line(at, Pin::A),
        };
        let function = VirtioPci::new(device, options).expect("the host has event counters");
        self.chipset
            .pci
            .add(at, function)
            .expect("the place is free");
        let bar_reg = u16::try_from(0x10 + 4 * NOTIFY_BAR).unwrap_or(0x10);
        let gpa = gpa.to_le_bytes();
        self.chipset.pci.config_write(at, bar_reg, &gpa[..4]);
        self.chipset.pci.config_write(at, COMMAND, &[0x06, 0]);
    }

    /// Runs the accesses that `data` encodes: an operation byte, then what the operation needs.
    ///
    /// Accesses come with every size that a CPU makes. Some operations move the clock on and fire
    /// the timers that are then due, type on the serial port, or write guest memory.
    pub fn drive(&self, data: &[u8]) {
        let chipset = &self.chipset;
        let mut input = Input(data);
        while !input.0.is_empty() {
            let [operation] = input.take();
            match operation & 7 {
                0 | 1 => port_access(chipset, operation, &mut input),
                2 | 3 => memory_access(chipset, operation, &mut input),
                4 => config_access(chipset, operation, &mut input),
                5 => {
                    self.clock
                        .advance_ns(u64::from(u32::from_le_bytes(input.take())));
                    chipset.timer.run_due();
                }
                6 => {
                    chipset.serial.push_input(&input.take::<4>());
                }
                _ if operation & 8 == 0 => self.write_memory(&mut input),
                _ => chipset.pm.press_power_button(),
            }
        }
    }

    /// Writes what a driver would put there: rings, descriptors, transfer descriptions.
    fn write_memory(&self, input: &mut Input<'_>) {
        let gpa = u64::from(u16::from_le_bytes(input.take())) << 3;
        let written = self
            .memory
            .write_slice(&input.take::<8>(), GuestAddress(gpa));
        written.expect("half a mebibyte lies inside the memory");
    }
}

fn port_access(chipset: &Chipset, operation: u8, input: &mut Input<'_>) {
    let port = u16::from_le_bytes(input.take());
    let len = [1, 2, 4, 1][usize::from(operation >> 4 & 3)];
    if operation & 1 == 0 {
        chipset.ports.read(port, &mut [0; 4][..len]);
    } else {
        chipset.ports.write(port, &input.take::<4>()[..len]);
    }
}

fn memory_access(chipset: &Chipset, operation: u8, input: &mut Input<'_>) {
    let place = PLACES.get(usize::from(operation >> 5)).copied();
    let gpa = match place {
        Some(base) => base + u64::from(u16::from_le_bytes(input.take()) & 0x3fff),
        None => u64::from_le_bytes(input.take()),
    };
    let len = [1, 2, 4, 8][usize::from(operation >> 3 & 3)];
    if operation & 1 == 0 {
        chipset.mmio.read(gpa, &mut [0; 8][..len]);
    } else {
        chipset.mmio.write(gpa, &input.take::<8>()[..len]);
    }
}

/// Writes a register of the host bridge, a virtio function or the LPC bridge, by the ports.
fn config_access(chipset: &Chipset, operation: u8, input: &mut Input<'_>) {
    let device = [0, 3, 2, 0x1f][usize::from(operation >> 3 & 3)];
    let [register] = input.take();
    let address = 0x8000_0000u32 | device << 11 | u32::from(register & 0xfc);
    chipset.ports.write(0xcf8, &address.to_le_bytes());
    chipset.ports.write(0xcfc, &input.take::<4>());
}

#[cfg(test)]
mod tests;
