//! Builds the board: makes every device and puts it on its bus.

use std::sync::Arc;

use devices::acpi_pm::{AcpiPm, TimerWidth};
use devices::clock::{Clock, UtcClock};
use devices::debug_ports::{self, DebugPorts, ProgressSink};
use devices::fw_cfg::{self, FwCfg, FwCfgItems};
use devices::ioapic::{self, Ioapic};
use devices::keyboard::{self, Keyboard};
use devices::pci::host::{CONFIG_ADDRESS, HostBridge, PciConfigPorts};
use devices::pci::lpc::Lpc;
use devices::pci::{PciAddress, PciBus, PciFunction};
use devices::pic::Pic;
use devices::pit::Pit;
use devices::pvpanic::{self, Pvpanic};
use devices::reset_control::{PORT_92, ResetControl};
use devices::rtc::{self, CmosConfig, Rtc};
use devices::timer::{BoardTimer, TimerSource};
use devices::uart::Uart;
use devices::{Device, IrqLine, IrqSink, Mmio, MmioBus, PortBus, PortIo};

use super::interrupts::Lines;
use super::map::GSI_SCI;
use super::notify::Notified;
use super::{Board, BoardError, BoardSetup, virtio};
use crate::config::BootSource;
use crate::memory::HIGH_GPA;

const COM1_PORT: u16 = 0x3f8;
const IRQ_TIMER: u32 = 0;
const IRQ_KEYBOARD: u32 = 1;
const IRQ_COM1: u32 = 4;
const IRQ_RTC: u32 = 8;

/// Collects the devices while the board grows.
struct Parts {
    ports: Arc<PortBus>,
    mmio: Arc<MmioBus>,
    pci: Arc<PciBus>,
    devices: Vec<Arc<dyn Device>>,
}

impl Parts {
    fn new() -> Self {
        let ports = Arc::new(PortBus::new());
        let mmio = Arc::new(MmioBus::new());
        Self {
            pci: PciBus::new(&ports, &mmio),
            ports,
            mmio,
            devices: Vec::new(),
        }
    }

    /// Puts a device of the port bus on every one of `ranges`.
    fn add_ports<D: Device + PortIo + 'static>(
        &mut self,
        device: &Arc<D>,
        ranges: &[(u16, u16)],
    ) -> Result<(), BoardError> {
        for (first, count) in ranges {
            let last = first + (count - 1);
            let device = Arc::clone(device) as Arc<dyn PortIo>;
            self.ports.insert(*first..=last, device)?;
        }
        self.devices.push(Arc::clone(device) as Arc<dyn Device>);
        Ok(())
    }

    fn add_mmio<D: Device + Mmio + 'static>(
        &mut self,
        device: &Arc<D>,
        gpa: u64,
        len_bytes: u64,
    ) -> Result<(), BoardError> {
        let gpas = gpa..=gpa + (len_bytes - 1);
        self.mmio
            .insert(gpas, Arc::clone(device) as Arc<dyn Mmio>)?;
        self.devices.push(Arc::clone(device) as Arc<dyn Device>);
        Ok(())
    }

    fn add_function<D: PciFunction + 'static>(
        &mut self,
        (device, function): (u8, u8),
        part: &Arc<D>,
    ) -> Result<(), BoardError> {
        let at = PciAddress::new(device, function).expect("the board's own places exist");
        self.pci.add(at, Arc::clone(part) as Arc<dyn PciFunction>)?;
        self.devices.push(Arc::clone(part) as Arc<dyn Device>);
        Ok(())
    }
}

/// Progress codes are for benchmarks; nobody listens on a machine in use.
struct NoProgress;

impl ProgressSink for NoProgress {
    fn progress(&self, _code: u8) {}
}

/// Builds the board of a machine.
pub(super) fn build(setup: BoardSetup<'_>) -> Result<Arc<Board>, BoardError> {
    let mut parts = Parts::new();
    let clock = Arc::clone(&setup.clock) as Arc<dyn Clock>;
    let timer = BoardTimer::new(Arc::clone(&clock));
    let pic = Arc::new(Pic::new());
    pic.connect(setup.vm.intr());
    parts.add_ports(&pic, &[(0x20, 2), (0xa0, 2), (0x4d0, 2)])?;
    let ioapic = Arc::new(Ioapic::new(setup.vm.msi_sink()));
    if let Some(listener) = setup.vm.route_listener() {
        ioapic.connect(listener);
    }
    parts.add_mmio(&ioapic, ioapic::BASE_GPA, ioapic::LEN_BYTES)?;
    let lines: Arc<dyn IrqSink> = Arc::new(Lines {
        pic: Arc::clone(&pic),
        ioapic: Arc::clone(&ioapic),
    });
    let line = |number| IrqLine::new(Arc::clone(&lines), number);

    let pit = Arc::new(Pit::new(Arc::clone(&clock), timer.waker(), line(IRQ_TIMER)));
    parts.add_ports(&pit, &[(0x40, 4), (0x61, 1)])?;
    timer.add(Arc::clone(&pit) as Arc<dyn TimerSource>)?;
    let rtc = Arc::new(Rtc::new(
        &cmos(&setup),
        Arc::clone(&clock),
        Arc::new(UtcClock),
        timer.waker(),
        line(IRQ_RTC),
    ));
    parts.add_ports(&rtc, &[(rtc::INDEX, 2)])?;
    timer.add(Arc::clone(&rtc) as Arc<dyn TimerSource>)?;
    let pm = Arc::new(AcpiPm::new(
        TimerWidth::Bits32,
        Arc::clone(&clock),
        timer.waker(),
        line(GSI_SCI),
        Arc::clone(&setup.platform),
    ));
    timer.add(Arc::clone(&pm) as Arc<dyn TimerSource>)?;
    parts.devices.push(Arc::clone(&pm) as Arc<dyn Device>);

    let keyboard = Keyboard::new(line(IRQ_KEYBOARD), Arc::clone(&setup.platform));
    parts.add_ports(
        &Arc::new(keyboard),
        &[(keyboard::DATA, 1), (keyboard::COMMAND, 1)],
    )?;
    let reset_control = Arc::new(ResetControl::new(Arc::clone(&setup.platform)));
    parts.add_ports(&reset_control, &[(PORT_92, 1)])?;
    let serial = Uart::new("com1", COM1_PORT, line(IRQ_COM1), setup.serial_out);
    let serial = Arc::new(serial);
    parts.add_ports(&serial, &[(COM1_PORT, 8)])?;
    let debug = DebugPorts::new(setup.debug_out, Arc::new(NoProgress));
    parts.add_ports(
        &Arc::new(debug),
        &[
            (debug_ports::FIRMWARE_LOG, 1),
            (debug_ports::CONSOLE, 1),
            (debug_ports::PROGRESS, 1),
        ],
    )?;
    let fw_cfg = FwCfg::new(FwCfgItems::new(), setup.ram.guest());
    parts.add_ports(
        &Arc::new(fw_cfg),
        &[(fw_cfg::SELECTOR, 2), (fw_cfg::DMA, 8)],
    )?;
    if setup.config.pvpanic {
        let port = Pvpanic::new(Arc::clone(&setup.platform));
        parts.add_ports(&Arc::new(port), &[(pvpanic::PORT, 1)])?;
    }

    let config_ports = PciConfigPorts::new(Arc::clone(&parts.pci), reset_control);
    parts.add_ports(&Arc::new(config_ports), &[(CONFIG_ADDRESS, 8)])?;
    let is_direct = matches!(setup.config.boot, BootSource::Kernel { .. });
    let bridge = HostBridge::new(&parts.pci, &parts.mmio, is_direct);
    parts.add_function((0, 0), &Arc::new(bridge))?;
    let lpc = Arc::new(Lpc::new(lines, Arc::clone(&pm), &parts.ports));
    parts.add_function((31, 0), &lpc)?;
    let functions = virtio::build(
        &virtio::VirtioSetup {
            config: setup.config,
            memory: setup.ram.guest(),
            msi: setup.vm.msi_sink(),
            on_disk_error: setup.on_disk_error,
        },
        &lpc,
    )?;
    for (slot, function) in functions {
        if setup.vm.has_ioeventfds() {
            let notified = Notified::new(function, Arc::clone(setup.vm));
            let notified = notified.map_err(BoardError::Notifications)?;
            parts.add_function((slot, 0), &Arc::new(notified))?;
        } else {
            parts.add_function((slot, 0), &function)?;
        }
    }
    timer.start().map_err(BoardError::TimerThread)?;
    Ok(Arc::new(Board {
        ports: parts.ports,
        mmio: parts.mmio,
        pci: parts.pci,
        pic,
        ioapic,
        pm,
        serial,
        timer,
        clock: setup.clock,
        devices: parts.devices,
    }))
}

fn cmos(setup: &BoardSetup<'_>) -> CmosConfig {
    CmosConfig {
        low_memory_bytes: setup.ram.low_end_gpa(),
        high_memory_bytes: setup.ram.high_end_gpa() - HIGH_GPA,
        cpus: setup.config.cpus.count(),
        ..CmosConfig::default()
    }
}
