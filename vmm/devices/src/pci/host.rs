//! The q35 host bridge, 8086:29c0, and the two ways into configuration space: ports 0xcf8 and 0xcfc,
//! and the memory window of PCI Express (Intel 3 Series chipset data sheet §5; PCI 3.0 §3.2.2.3.2).

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

use serde::{Deserialize, Serialize};

use super::{BarRegion, ConfigSpace, ConfigSpaceState, Identity, PciAddress, PciBus, PciFunction};
use crate::bus::{Mmio, MmioBus, PortIo};
use crate::guest_log::GuestLog;
use crate::lifecycle::{Device, RestoreError, SaveError, SavedDevice};
use crate::lock::Lock;
use crate::reset_control::{RESET_CONTROL, ResetControl};

/// The address port.
pub const CONFIG_ADDRESS: u16 = 0xcf8;
/// The data port.
pub const CONFIG_DATA: u16 = 0xcfc;
/// Guest physical address of the memory window unless firmware moves it.
pub const MMCONFIG_BASE_GPA: u64 = 0xb000_0000;
/// Length of the memory window: 256 buses of 1 MiB.
pub const MMCONFIG_LEN_BYTES: u64 = 256 << 20;
/// First guest physical address of the hole for devices below 4 GiB.
pub const HOLE_FIRST_GPA: u64 = 0xc000_0000;
/// Last guest physical address of the hole for devices below 4 GiB.
pub const HOLE_LAST_GPA: u64 = 0xfebf_ffff;

const KIND_PORTS: &str = "pci-config-ports";
const KIND_BRIDGE: &str = "q35-host-bridge";
const VERSION: u32 = 1;
const ADDRESS_ENABLE: u32 = 1 << 31;
const ADDRESS_DEFINED: u32 = 0x80ff_fffc;

const PCIEXBAR: u16 = 0x60;
const PCIEXBAR_ENABLE: u32 = 1 << 0;
const PCIEXBAR_BASE: u64 = 0xf_f000_0000;
/// The registers that choose between ROM and RAM below 1 MiB: kept and without effect, because
/// that memory is always RAM here.
const PAM: usize = 0x90;
const SMRAM: usize = 0x9d;

const IDENTITY: Identity = Identity {
    vendor: 0x8086,
    device: 0x29c0,
    revision: 0,
    class: [0x06, 0x00, 0x00],
    subsystem_vendor: 0x1af4,
    subsystem: 0x1100,
};

/// The address and data ports; port 0xcf9, between them, belongs to the reset control register.
pub struct PciConfigPorts {
    bus: Arc<PciBus>,
    reset_control: Arc<ResetControl>,
    address: AtomicU32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct PortsState {
    address: u32,
}

impl PciConfigPorts {
    /// Makes the ports.
    pub fn new(bus: Arc<PciBus>, reset_control: Arc<ResetControl>) -> Self {
        Self {
            bus,
            reset_control,
            address: AtomicU32::new(0),
        }
    }

    /// Returns function and register that an access at `port` goes to.
    fn target(&self, port: u16) -> Option<(PciAddress, u16)> {
        let address = self.address.load(Ordering::Relaxed);
        let [reg, devfn, bus, _] = address.to_le_bytes();
        let at = PciAddress::new(devfn >> 3, devfn & 7)?;
        let is_here = address & ADDRESS_ENABLE != 0 && bus == 0;
        is_here.then_some((at, u16::from(reg & 0xfc) | port & 3))
    }
}

impl PortIo for PciConfigPorts {
    fn port_read(&self, port: u16, data: &mut [u8]) {
        data.fill(0xff);
        match (port, data.len()) {
            (CONFIG_ADDRESS, 4) => {
                data.copy_from_slice(&self.address.load(Ordering::Relaxed).to_le_bytes());
            }
            (RESET_CONTROL, 1) => self.reset_control.port_read(port, data),
            (CONFIG_DATA.., _) => {
                if let Some((at, reg)) = self.target(port) {
                    self.bus.config_read(at, reg, data);
                }
            }
            _ => {}
        }
    }

    fn port_write(&self, port: u16, data: &[u8]) {
        match (port, data) {
            (CONFIG_ADDRESS, [a, b, c, d]) => {
                let address = u32::from_le_bytes([*a, *b, *c, *d]) & ADDRESS_DEFINED;
                self.address.store(address, Ordering::Relaxed);
            }
            (RESET_CONTROL, [_]) => self.reset_control.port_write(port, data),
            (CONFIG_DATA.., _) => {
                if let Some((at, reg)) = self.target(port) {
                    self.bus.config_write(at, reg, data);
                }
            }
            _ => {}
        }
    }
}

impl Device for PciConfigPorts {
    fn name(&self) -> &'static str {
        "pci-config-ports"
    }

    fn reset(&self) {
        self.address.store(0, Ordering::Relaxed);
    }

    fn save(&self) -> Result<SavedDevice, SaveError> {
        let address = self.address.load(Ordering::Relaxed);
        SavedDevice::new(KIND_PORTS, VERSION, &PortsState { address })
    }

    fn restore(&self, saved: &SavedDevice) -> Result<(), RestoreError> {
        let PortsState { address } = saved.open(KIND_PORTS, VERSION)?;
        self.address
            .store(address & ADDRESS_DEFINED, Ordering::Relaxed);
        Ok(())
    }
}

/// The memory window: 4 KiB for each function.
struct Mmconfig {
    bus: Weak<PciBus>,
}

impl Mmconfig {
    fn target(&self, offset: u64) -> Option<(Arc<PciBus>, PciAddress, u16)> {
        let reg = u16::try_from(offset & 0xfff).ok()?;
        let [devfn, bus, ..] = (offset >> 12).to_le_bytes();
        let at = PciAddress::new(devfn >> 3, devfn & 7)?;
        (bus == 0).then_some((self.bus.upgrade()?, at, reg))
    }
}

impl Mmio for Mmconfig {
    fn mmio_read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0xff);
        if let Some((bus, at, reg)) = self.target(offset) {
            for (reg, part) in (reg..).step_by(4).zip(data.chunks_mut(4)) {
                bus.config_read(at, reg, part);
            }
        }
    }

    fn mmio_write(&self, offset: u64, data: &[u8]) {
        if let Some((bus, at, reg)) = self.target(offset) {
            for (reg, part) in (reg..).step_by(4).zip(data.chunks(4)) {
                bus.config_write(at, reg, part);
            }
        }
    }
}

/// The host bridge at 00:00.0; moves the memory window where PCIEXBAR says.
pub struct HostBridge {
    config: Lock<ConfigSpace>,
    mmio: Weak<MmioBus>,
    window: Arc<Mmconfig>,
    /// Where the window is on the memory bus; whoever holds this moves it.
    mapped: Lock<Option<u64>>,
    log: GuestLog,
}

impl HostBridge {
    /// Makes the bridge of `bus`. With `window_is_open` the memory window is on after reset, for
    /// machines booted without firmware.
    pub fn new(bus: &Arc<PciBus>, mmio: &Arc<MmioBus>, window_is_open: bool) -> Self {
        let mut config = ConfigSpace::new(IDENTITY);
        let enable = u64::from(window_is_open);
        config.fix(
            usize::from(PCIEXBAR),
            &(MMCONFIG_BASE_GPA | enable).to_le_bytes(),
        );
        config.allow(usize::from(PCIEXBAR), &(PCIEXBAR_BASE | 0x7).to_le_bytes());
        config.allow(PAM, &[0xff; 7]);
        config.allow(SMRAM, &[0xff; 2]);
        let bridge = Self {
            config: Lock::new(config),
            mmio: Arc::downgrade(mmio),
            window: Arc::new(Mmconfig {
                bus: Arc::downgrade(bus),
            }),
            mapped: Lock::new(None),
            log: GuestLog::default(),
        };
        bridge.follow_window();
        bridge
    }

    /// Returns where the memory window is, if it is open.
    pub fn window_gpa(&self) -> Option<u64> {
        let config = self.config.get();
        let low = config.read_u32(PCIEXBAR);
        let high = u64::from(config.read_u32(PCIEXBAR + 4));
        let base = (high << 32 | u64::from(low)) & PCIEXBAR_BASE;
        (low & PCIEXBAR_ENABLE != 0).then_some(base)
    }

    fn follow_window(&self) {
        let Some(mmio) = self.mmio.upgrade() else {
            return;
        };
        let mut mapped = self.mapped.get();
        let wanted = self.window_gpa();
        if *mapped == wanted {
            return;
        }
        if let Some(base) = mapped.take() {
            mmio.remove(base).expect("the window is where it was put");
        }
        let Some(base) = wanted else { return };
        let gpas = base..=base + (MMCONFIG_LEN_BYTES - 1);
        match mmio.insert(gpas, Arc::clone(&self.window) as Arc<dyn Mmio>) {
            Ok(()) => *mapped = Some(base),
            Err(error) => {
                if let Some(count) = self.log.admit() {
                    tracing::debug!(%error, count, "the configuration window stays unmapped");
                }
            }
        }
    }
}

impl PciFunction for HostBridge {
    fn config_read(&self, reg: u16, data: &mut [u8]) {
        self.config.get().read(reg, data);
    }

    fn config_write(&self, reg: u16, data: &[u8]) {
        self.config.get().write(reg, data);
        self.follow_window();
    }

    fn bars(&self) -> Vec<BarRegion> {
        Vec::new()
    }

    fn bar_read(&self, _bar: usize, _offset: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn bar_write(&self, _bar: usize, _offset: u64, _data: &[u8]) {}
}

impl Device for HostBridge {
    fn name(&self) -> &'static str {
        "host-bridge"
    }

    fn reset(&self) {
        self.config.get().reset();
        self.follow_window();
    }

    fn save(&self) -> Result<SavedDevice, SaveError> {
        let state = self.config.get().save();
        SavedDevice::new(KIND_BRIDGE, VERSION, &state)
    }

    fn restore(&self, saved: &SavedDevice) -> Result<(), RestoreError> {
        let state: ConfigSpaceState = saved.open(KIND_BRIDGE, VERSION)?;
        self.config.get().restore(&state)?;
        self.follow_window();
        Ok(())
    }
}
