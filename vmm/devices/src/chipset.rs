//! The board put together: every chip at its place on the buses, and interrupts between them.

use std::io;
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::acpi_pm::{AcpiPm, TimerWidth};
use crate::bus::{BusError, MmioBus, PortBus, PortIo};
use crate::clock::Clock;
use crate::debug_ports::{self, DebugPorts, ProgressSink};
use crate::fw_cfg::{self, FwCfg, FwCfgItems};
use crate::interrupt::{IrqLine, IrqSink, MsiSink};
use crate::ioapic::{self, Ioapic};
use crate::keyboard::{self, Keyboard};
use crate::lifecycle::Device;
use crate::memory::GuestMemory;
use crate::pci::bus::{PciAddress, PciBus, PciError};
use crate::pci::host::{CONFIG_ADDRESS, HostBridge, PciConfigPorts};
use crate::pci::lpc::Lpc;
use crate::pic::Pic;
use crate::pit::Pit;
use crate::platform::PlatformSink;
use crate::pvpanic::{self, Pvpanic};
use crate::reset_control::{PORT_92, ResetControl};
use crate::rtc::{self, CmosConfig, Rtc};
use crate::timer::{BoardTimer, TooManyTimers};
use crate::uart::{ConsoleOut, Uart};

/// ISA interrupts of the chips. Interrupt 0 is pin 2 of the I/O APIC; the others are pins alike.
pub mod irq {
    /// The interval timer.
    pub const PIT: u32 = 0;
    /// The keyboard.
    pub const KEYBOARD: u32 = 1;
    /// The first serial port.
    pub const SERIAL: u32 = 4;
    /// The real-time clock.
    pub const RTC: u32 = 8;
    /// The system control interrupt, a level.
    pub const SCI: u32 = 9;
}

/// First port of the first serial port.
pub const SERIAL_PORT: u16 = 0x3f8;

const IOAPIC_PIT_PIN: usize = 2;
const PIC_MASTER: u16 = 0x20;
const PIC_SLAVE: u16 = 0xa0;
const PIC_ELCR: u16 = 0x4d0;

/// Sends global system interrupts to the PIC pair and the I/O APIC.
pub struct GsiRouter {
    pic: Arc<Pic>,
    ioapic: Arc<Ioapic>,
}

impl GsiRouter {
    /// Makes the router.
    pub fn new(pic: Arc<Pic>, ioapic: Arc<Ioapic>) -> Self {
        Self { pic, ioapic }
    }
}

impl IrqSink for GsiRouter {
    fn set_irq(&self, gsi: u32, level: bool) {
        if let Some(irq) = u8::try_from(gsi).ok().filter(|irq| *irq < 16) {
            self.pic.set_irq(irq, level);
        }
        match usize::try_from(gsi) {
            Ok(0) => self.ioapic.set_irq(IOAPIC_PIT_PIN, level),
            Ok(IOAPIC_PIT_PIN) | Err(_) => {}
            Ok(pin) => self.ioapic.set_irq(pin, level),
        }
    }
}

/// What a board is built from.
pub struct ChipsetConfig {
    /// The machine's clock.
    pub clock: Arc<dyn Clock>,
    /// The world's clock, in nanoseconds since 1970.
    pub utc: Arc<dyn Clock>,
    /// The guest's memory.
    pub memory: GuestMemory,
    /// Where messages go: the local APICs.
    pub msi: Arc<dyn MsiSink>,
    /// Who learns of reset and power-off.
    pub platform: Arc<dyn PlatformSink>,
    /// Contents of the battery-backed memory.
    pub cmos: CmosConfig,
    /// What the firmware configuration device offers.
    pub fw_cfg: FwCfgItems,
    /// Width of the PM timer.
    pub pm_timer: TimerWidth,
    /// Whether the PCI Express window is open after reset: for machines booted without firmware.
    pub mmconfig_is_open: bool,
    /// Output of the first serial port.
    pub serial: Box<dyn ConsoleOut>,
    /// Output of the debug ports.
    pub debug: Box<dyn ConsoleOut>,
    /// Takes progress codes.
    pub progress: Arc<dyn ProgressSink>,
}

/// Why a board could not be built.
#[derive(Debug, thiserror::Error)]
pub enum ChipsetError {
    /// Two chips want the same place.
    #[error("place a chip on its bus")]
    Bus(#[from] BusError),
    /// Two functions want the same place.
    #[error("place a bridge on the PCI bus")]
    Pci(#[from] PciError),
    /// There are more timers than one board may have.
    #[error("give a chip its timer")]
    Timer(#[from] TooManyTimers),
}

/// The chips that sit on ports and interrupt by ISA lines.
struct Chips {
    pit: Arc<Pit>,
    rtc: Arc<Rtc>,
    pm: Arc<AcpiPm>,
    serial: Arc<Uart>,
    keyboard: Arc<Keyboard>,
    reset_control: Arc<ResetControl>,
    fw_cfg: Arc<FwCfg>,
    debug: Arc<DebugPorts>,
    pvpanic: Arc<Pvpanic>,
    config_ports: Arc<PciConfigPorts>,
}

impl Chips {
    fn new(
        config: ChipsetConfig,
        irqs: &Arc<dyn IrqSink>,
        timer: &BoardTimer,
        pci: &Arc<PciBus>,
    ) -> Self {
        let line = |gsi| IrqLine::new(Arc::clone(irqs), gsi);
        let clock = || Arc::clone(&config.clock);
        let platform = || Arc::clone(&config.platform);
        let waker = || timer.waker();
        let sci = line(irq::SCI);
        let rtc = Rtc::new(&config.cmos, clock(), config.utc, waker(), line(irq::RTC));
        let serial = Uart::new("serial0", SERIAL_PORT, line(irq::SERIAL), config.serial);
        let reset_control = Arc::new(ResetControl::new(platform()));
        let config_ports = PciConfigPorts::new(Arc::clone(pci), Arc::clone(&reset_control));
        Self {
            pit: Arc::new(Pit::new(clock(), waker(), line(irq::PIT))),
            rtc: Arc::new(rtc),
            pm: Arc::new(AcpiPm::new(
                config.pm_timer,
                clock(),
                waker(),
                sci,
                platform(),
            )),
            serial: Arc::new(serial),
            keyboard: Arc::new(Keyboard::new(line(irq::KEYBOARD), platform())),
            reset_control,
            pvpanic: Arc::new(Pvpanic::new(platform())),
            fw_cfg: Arc::new(FwCfg::new(config.fw_cfg, config.memory)),
            debug: Arc::new(DebugPorts::new(config.debug, config.progress)),
            config_ports: Arc::new(config_ports),
        }
    }

    fn place(&self, ports: &PortBus) -> Result<(), BusError> {
        let one = |port: u16| port..=port;
        let map: [(RangeInclusive<u16>, Arc<dyn PortIo>); 14] = [
            (0x40..=0x43, self.pit.clone()),
            (one(0x61), self.pit.clone()),
            (one(keyboard::DATA), self.keyboard.clone()),
            (one(keyboard::COMMAND), self.keyboard.clone()),
            (rtc::INDEX..=rtc::DATA, self.rtc.clone()),
            (one(PORT_92), self.reset_control.clone()),
            (SERIAL_PORT..=SERIAL_PORT + 7, self.serial.clone()),
            (fw_cfg::SELECTOR..=fw_cfg::DATA, self.fw_cfg.clone()),
            (fw_cfg::DMA..=fw_cfg::DMA + 7, self.fw_cfg.clone()),
            (one(pvpanic::PORT), self.pvpanic.clone()),
            (one(debug_ports::FIRMWARE_LOG), self.debug.clone()),
            (one(debug_ports::CONSOLE), self.debug.clone()),
            (one(debug_ports::PROGRESS), self.debug.clone()),
            (
                CONFIG_ADDRESS..=CONFIG_ADDRESS + 7,
                self.config_ports.clone(),
            ),
        ];
        map.into_iter()
            .try_for_each(|(range, device)| ports.insert(range, device))
    }

    fn devices(&self) -> [Arc<dyn Device>; 10] {
        [
            self.pit.clone(),
            self.rtc.clone(),
            self.pm.clone(),
            self.serial.clone(),
            self.keyboard.clone(),
            self.reset_control.clone(),
            self.fw_cfg.clone(),
            self.debug.clone(),
            self.pvpanic.clone(),
            self.config_ports.clone(),
        ]
    }
}

/// The board. Every field may be used from any thread.
pub struct Chipset {
    /// The port bus.
    pub ports: Arc<PortBus>,
    /// The memory bus; the local APICs are not on it, because each vCPU sees its own.
    pub mmio: Arc<MmioBus>,
    /// The PCI bus.
    pub pci: Arc<PciBus>,
    /// The interrupt router that lines of ISA devices go to.
    pub irqs: Arc<dyn IrqSink>,
    /// The PIC pair.
    pub pic: Arc<Pic>,
    /// The I/O APIC.
    pub ioapic: Arc<Ioapic>,
    /// The power management registers, with the power button.
    pub pm: Arc<AcpiPm>,
    /// The first serial port.
    pub serial: Arc<Uart>,
    /// The LPC bridge, which has the interrupt lines of PCI functions.
    pub lpc: Arc<Lpc>,
    /// The host bridge.
    pub host_bridge: Arc<HostBridge>,
    /// The timers' thread.
    pub timer: BoardTimer,
    chips: Chips,
}

impl Chipset {
    /// Builds the board; nothing runs before [`Chipset::start`].
    ///
    /// # Errors
    /// If two chips want the same place: a mistake in this crate.
    pub fn new(config: ChipsetConfig) -> Result<Self, ChipsetError> {
        let ports = Arc::new(PortBus::new());
        let mmio = Arc::new(MmioBus::new());
        let pci = PciBus::new(&ports, &mmio);
        let pic = Arc::new(Pic::new());
        let ioapic = Arc::new(Ioapic::new(Arc::clone(&config.msi)));
        let router = GsiRouter::new(Arc::clone(&pic), Arc::clone(&ioapic));
        let irqs: Arc<dyn IrqSink> = Arc::new(router);
        let timer = BoardTimer::new(Arc::clone(&config.clock));
        let host_bridge = Arc::new(HostBridge::new(&pci, &mmio, config.mmconfig_is_open));

        let chips = Chips::new(config, &irqs, &timer, &pci);
        let lpc = Arc::new(Lpc::new(Arc::clone(&irqs), Arc::clone(&chips.pm), &ports));
        chips.place(&ports)?;
        for first in [PIC_MASTER, PIC_SLAVE, PIC_ELCR] {
            ports.insert(first..=first + 1, pic.clone())?;
        }
        let ioapic_gpas = ioapic::BASE_GPA..=ioapic::BASE_GPA + (ioapic::LEN_BYTES - 1);
        mmio.insert(ioapic_gpas, ioapic.clone())?;
        pci.add(PciAddress::HOST_BRIDGE, host_bridge.clone())?;
        pci.add(PciAddress::LPC, lpc.clone())?;
        timer.add(chips.pit.clone())?;
        timer.add(chips.rtc.clone())?;
        timer.add(chips.pm.clone())?;
        Ok(Self {
            ports,
            mmio,
            pci,
            irqs,
            pic,
            ioapic,
            pm: Arc::clone(&chips.pm),
            serial: Arc::clone(&chips.serial),
            lpc,
            host_bridge,
            timer,
            chips,
        })
    }

    /// Starts the timers' thread.
    ///
    /// # Errors
    /// If the host has no thread to give.
    pub fn start(&self) -> io::Result<()> {
        self.timer.start()
    }

    /// Returns every device: chips, functions on the PCI bus, and the interrupt controllers last, so
    /// that a reset or restore in this order leaves them with the lines that their state tells.
    /// After a restore call [`PciBus::follow_all_bars`].
    pub fn devices(&self) -> Vec<Arc<dyn Device>> {
        let functions = self.pci.functions().into_iter();
        let functions = functions.map(|(_, function)| function as Arc<dyn Device>);
        let controllers: [Arc<dyn Device>; 2] = [self.pic.clone(), self.ioapic.clone()];
        let chips = self.chips.devices().into_iter();
        chips.chain(functions).chain(controllers).collect()
    }

    /// Resets every device.
    pub fn reset(&self) {
        for device in self.devices() {
            device.reset();
        }
        self.pci.follow_all_bars();
    }

    /// Stops the timers and every device.
    pub fn pause(&self) {
        self.timer.pause();
        for device in self.devices() {
            device.pause();
        }
    }

    /// Lets every device and the timers run on.
    pub fn resume(&self) {
        for device in self.devices() {
            device.resume();
        }
        self.timer.resume();
    }
}

#[cfg(test)]
mod tests;
