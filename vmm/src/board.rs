//! The board of a machine: its chipset and devices, wired to the sinks of a back end.

pub mod map;
mod notify;
pub(crate) mod slots;
mod virtio;

use std::sync::Arc;

use devices::acpi_pm::TimerWidth;
use devices::chipset::{Chipset, ChipsetConfig, ChipsetError};
use devices::clock::{Clock, MachineClock, UtcClock};
use devices::debug_ports::ProgressSink;
use devices::fw_cfg::{FwCfgError, FwCfgItems};
use devices::pci::{PciAddress, PciError, PciFunction};
use devices::rtc::CmosConfig;
use devices::uart::Uart;
use devices::virtio::blk::OnDiskError;
use devices::virtio::console::{ConsoleError, OnPort};
use devices::virtio::scsi::OnEject;
use devices::virtio::{DiskHandle, ScsiError, VirtioPciError};
use devices::{ConsoleOut, PlatformSink};

use self::notify::Notified;
pub(crate) use self::virtio::open_medium;
use crate::boot::firmware_items;
use crate::config::{BootSource, MachineConfig};
use crate::hv::{self, HvError, Vm};
use crate::memory::{HIGH_GPA, Ram};

/// Why a board cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum BoardError {
    /// The chips cannot be put together.
    #[error("put the chipset together")]
    Chipset(#[from] ChipsetError),
    /// Firmware cannot be offered what it needs.
    #[error("offer the firmware its files")]
    Firmware(#[from] FwCfgError),
    /// The PCI bus has no place.
    #[error("plug in a PCI function")]
    Pci(#[from] PciError),
    /// The host has no thread for the timers.
    #[error("start the thread of the board's timers")]
    TimerThread(#[source] std::io::Error),
    /// The host has no thread for disks.
    #[error("start a thread that disks share")]
    IoThread(#[source] std::io::Error),
    /// A virtio device cannot be.
    #[error("build a virtio device")]
    Virtio(#[from] VirtioPciError),
    /// The SCSI controller cannot be, or a disk of its.
    #[error("build the SCSI controller")]
    Scsi(#[from] ScsiError),
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
    pub(crate) on_eject: OnEject,
    pub(crate) on_port: OnPort,
}

/// Progress codes are for benchmarks; nobody listens on a machine in use.
struct NoProgress;

impl ProgressSink for NoProgress {
    fn progress(&self, _code: u8) {}
}

/// All devices of a machine.
pub(crate) struct Board {
    chipset: Chipset,
    clock: Arc<MachineClock>,
    disks: Vec<DiskHandle>,
}

impl Board {
    /// Builds the board and starts its timers.
    pub(crate) fn new(setup: BoardSetup<'_>) -> Result<Arc<Self>, BoardError> {
        let virtio = virtio::VirtioSetup {
            config: setup.config,
            memory: setup.ram.guest(),
            msi: setup.vm.msi_sink(),
            on_disk_error: setup.on_disk_error,
            on_eject: setup.on_eject,
            on_port: setup.on_port,
        };
        let chipset = Chipset::new(ChipsetConfig {
            clock: Arc::clone(&setup.clock) as Arc<dyn Clock>,
            utc: Arc::new(UtcClock),
            memory: setup.ram.guest(),
            msi: setup.vm.msi_sink(),
            platform: setup.platform,
            cmos: cmos(setup.config, setup.ram),
            fw_cfg: match setup.config.boot {
                BootSource::Kernel { .. } => FwCfgItems::new(),
                BootSource::Firmware { .. } => firmware_items(setup.config, setup.ram)?,
            },
            pm_timer: TimerWidth::Bits32,
            mmconfig_is_open: matches!(setup.config.boot, BootSource::Kernel { .. }),
            serial: setup.serial_out,
            debug: setup.debug_out,
            progress: Arc::new(NoProgress),
        })?;
        chipset.pic.connect(setup.vm.intr());
        if let Some(listener) = setup.vm.route_listener() {
            chipset.ioapic.connect(listener);
        }
        let virtio = virtio::build(&virtio, &chipset.lpc)?;
        for (slot, function) in virtio.functions {
            let at = PciAddress::new(slot, 0).expect("the board's own places exist");
            let function: Arc<dyn PciFunction> = if setup.vm.has_ioeventfds() {
                let notified = Notified::new(function, Arc::clone(setup.vm));
                Arc::new(notified.map_err(BoardError::Notifications)?)
            } else {
                function
            };
            chipset.pci.add(at, function)?;
        }
        chipset.start().map_err(BoardError::TimerThread)?;
        Ok(Arc::new(Self {
            chipset,
            clock: setup.clock,
            disks: virtio.disks,
        }))
    }

    pub(crate) fn serial(&self) -> &Arc<Uart> {
        &self.chipset.serial
    }

    /// Returns the disks, in the order of the configuration.
    pub(crate) fn disks(&self) -> &[DiskHandle] {
        &self.disks
    }

    pub(crate) fn press_power_button(&self) {
        self.chipset.pm.press_power_button();
    }

    /// Returns every device to its state after power-on. No vCPU runs.
    pub(crate) fn reset(&self) {
        self.chipset.reset();
    }

    /// Stops timers and devices, then the clock. No vCPU runs.
    pub(crate) fn pause(&self) {
        self.chipset.pause();
        self.clock.pause();
    }

    /// Undoes [`Board::pause`].
    pub(crate) fn resume(&self) {
        self.clock.resume();
        self.chipset.resume();
    }
}

fn cmos(config: &MachineConfig, ram: &Ram) -> CmosConfig {
    CmosConfig {
        low_memory_bytes: ram.low_end_gpa(),
        high_memory_bytes: ram.high_end_gpa() - HIGH_GPA,
        cpus: config.cpus.count(),
        ..CmosConfig::default()
    }
}

impl hv::Board for Board {
    fn port_read(&self, port: u16, data: &mut [u8]) {
        self.chipset.ports.read(port, data);
    }

    fn port_write(&self, port: u16, data: &[u8]) {
        self.chipset.ports.write(port, data);
    }

    fn mmio_read(&self, gpa: u64, data: &mut [u8]) {
        self.chipset.mmio.read(gpa, data);
    }

    fn mmio_write(&self, gpa: u64, data: &[u8]) {
        self.chipset.mmio.write(gpa, data);
    }

    fn peek_pic(&self) -> Option<u8> {
        devices::apic::ExternalInterrupts::peek(self.chipset.pic.as_ref())
    }

    fn acknowledge_pic(&self) -> Option<u8> {
        self.chipset.pic.acknowledge()
    }

    fn end_of_interrupt(&self, vector: u8) {
        self.chipset.ioapic.eoi(vector);
    }
}
