//! The board of a machine: its devices, wired to the sinks of a back end.

mod chips;
mod interrupts;
pub mod map;
mod notify;
mod virtio;

use std::sync::Arc;

use devices::acpi_pm::AcpiPm;
use devices::clock::MachineClock;
use devices::ioapic::Ioapic;
use devices::pci::{PciBus, PciError};
use devices::pic::Pic;
use devices::timer::{BoardTimer, TooManyTimers};
use devices::uart::Uart;
use devices::virtio::VirtioPciError;
use devices::virtio::blk::OnDiskError;
use devices::virtio::console::ConsoleError;
use devices::{BusError, ConsoleOut, Device, MmioBus, PlatformSink, PortBus};

use crate::config::MachineConfig;
use crate::hv::{self, HvError, Vm};
use crate::memory::Ram;

/// Why a board cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    /// Two devices want the same addresses.
    #[error("place a device")]
    Bus(#[from] BusError),
    /// The PCI bus has no place.
    #[error("plug in a PCI function")]
    Pci(#[from] PciError),
    /// There are too many timers.
    #[error("start the board's timers")]
    Timers(#[from] TooManyTimers),
    /// The host has no thread for the timers.
    #[error("start the thread of the board's timers")]
    TimerThread(#[source] std::io::Error),
    /// A virtio device cannot be.
    #[error("build a virtio device")]
    Virtio(#[from] VirtioPciError),
    /// The host has no event counters left.
    #[error("share the notifications of a virtio device")]
    Notifications(#[source] std::io::Error),
    /// A disk's image cannot be opened.
    #[error("use disks[{index}] ({name})")]
    Disk {
        /// The disk's place in the configuration.
        index: usize,
        /// The disk's name.
        name: String,
        /// The cause.
        source: Box<block::OpenError>,
    },
    /// A console port cannot be had.
    #[error("use console_ports")]
    Console(#[from] ConsoleError),
    /// The back end refused.
    #[error("connect a device to the back end")]
    Hypervisor(#[from] HvError),
}

/// What a board is built from.
pub(crate) struct BoardSetup<'a> {
    pub(crate) config: &'a MachineConfig,
    pub(crate) ram: &'a Ram,
    pub(crate) vm: &'a Arc<dyn Vm>,
    pub(crate) clock: Arc<MachineClock>,
    pub(crate) platform: Arc<dyn PlatformSink>,
    pub(crate) serial_out: Box<dyn ConsoleOut>,
    pub(crate) debug_out: Box<dyn ConsoleOut>,
    pub(crate) on_disk_error: OnDiskError,
}

/// All devices of a machine.
pub(crate) struct Board {
    ports: Arc<PortBus>,
    mmio: Arc<MmioBus>,
    pci: Arc<PciBus>,
    pic: Arc<Pic>,
    ioapic: Arc<Ioapic>,
    pm: Arc<AcpiPm>,
    serial: Arc<Uart>,
    timer: BoardTimer,
    clock: Arc<MachineClock>,
    /// Every device, in the order in which they are reset, paused and saved.
    devices: Vec<Arc<dyn Device>>,
}

impl Board {
    /// Builds the board and starts its timers.
    pub(crate) fn new(setup: BoardSetup<'_>) -> Result<Arc<Self>, BoardError> {
        chips::build(setup)
    }

    pub(crate) fn serial(&self) -> &Arc<Uart> {
        &self.serial
    }

    pub(crate) fn press_power_button(&self) {
        self.pm.press_power_button();
    }

    /// Returns every device to its state after power-on. No vCPU runs.
    pub(crate) fn reset(&self) {
        self.devices.iter().for_each(|device| device.reset());
        self.pci.follow_all_bars();
    }

    /// Stops timers and devices, then the clock. No vCPU runs.
    pub(crate) fn pause(&self) {
        self.timer.pause();
        self.devices.iter().for_each(|device| device.pause());
        self.clock.pause();
    }

    /// Undoes [`Board::pause`].
    pub(crate) fn resume(&self) {
        self.clock.resume();
        self.devices.iter().for_each(|device| device.resume());
        self.timer.resume();
    }
}

impl hv::Board for Board {
    fn port_read(&self, port: u16, data: &mut [u8]) {
        self.ports.read(port, data);
    }

    fn port_write(&self, port: u16, data: &[u8]) {
        self.ports.write(port, data);
    }

    fn mmio_read(&self, gpa: u64, data: &mut [u8]) {
        self.mmio.read(gpa, data);
    }

    fn mmio_write(&self, gpa: u64, data: &[u8]) {
        self.mmio.write(gpa, data);
    }

    fn peek_pic(&self) -> Option<u8> {
        devices::apic::ExternalInterrupts::peek(self.pic.as_ref())
    }

    fn acknowledge_pic(&self) -> Option<u8> {
        self.pic.acknowledge()
    }

    fn end_of_interrupt(&self, vector: u8) {
        self.ioapic.eoi(vector);
    }
}
