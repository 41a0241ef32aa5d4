//! The LPC bridge, 8086:2918: routes PCI interrupts and places the power management registers
//! (ICH9 data sheet §13.1).

use std::sync::{Arc, Weak};

use serde::{Deserialize, Serialize};

use super::{BarRegion, ConfigSpace, ConfigSpaceState, Identity, PciAddress, PciFunction, Pin};
use crate::acpi_pm::{self, AcpiPm};
use crate::bus::{PortBus, PortIo};
use crate::guest_log::GuestLog;
use crate::interrupt::{IrqLine, IrqSink};
use crate::lifecycle::{Device, RestoreError, SaveError, SavedDevice};
use crate::lock::Lock;

const KIND: &str = "ich9-lpc";
const VERSION: u32 = 1;
const PMBASE: u16 = 0x40;
const PMBASE_ADDRESS: u32 = 0xff80;
const ACPI_CONTROL: u16 = 0x44;
const ACPI_ENABLE: u8 = 1 << 7;
/// Routes of PIRQ A to D and E to H.
const ROUTES: [u16; 2] = [0x60, 0x68];
const ROUTE_OFF: u8 = 1 << 7;
const ROUTE_IRQ: u8 = 0x0f;
/// ISA interrupts that a PIRQ may go to.
const ROUTABLE: u16 = 0xdef8;
const RCBA: usize = 0xf0;
/// Registers that firmware sets and that decide nothing here: decode ranges and power management.
const SCRATCH: [(usize, usize); 2] = [(0x80, 12), (0xa0, 2)];

const PIRQS: usize = 8;
const FIRST_PIRQ_GSI: u32 = 16;
/// Devices from here on have fixed PIRQs; the pins of those before rotate over PIRQ E to H.
const FIRST_FIXED_DEVICE: u8 = 25;

const IDENTITY: Identity = Identity {
    vendor: 0x8086,
    device: 0x2918,
    revision: 2,
    class: [0x06, 0x01, 0x00],
    subsystem_vendor: 0x1af4,
    subsystem: 0x1100,
};

/// Returns the PIRQ, 0 to 7 for A to H, that interrupt pin `pin` of device number `device` drives.
pub fn pirq_of(device: u8, pin: Pin) -> u8 {
    if device < FIRST_FIXED_DEVICE {
        4 + (device + pin.index()) % 4
    } else {
        pin.index()
    }
}

/// Returns the global system interrupt of interrupt pin `pin` of device number `device`, for the
/// routing table in ACPI.
pub fn gsi_of(device: u8, pin: Pin) -> u32 {
    FIRST_PIRQ_GSI + u32::from(pirq_of(device, pin))
}

struct State {
    config: ConfigSpace,
    /// For each PIRQ the pins that drive it, by device number times four plus pin.
    sources: [u128; PIRQS],
}

impl State {
    fn route(&self, pirq: usize) -> Option<u8> {
        let at = ROUTES[pirq / 4] + u16::try_from(pirq % 4).unwrap_or(0);
        let mut route = [0];
        self.config.read(at, &mut route);
        let irq = route[0] & ROUTE_IRQ;
        (route[0] & ROUTE_OFF == 0 && ROUTABLE & 1 << irq != 0).then_some(irq)
    }

    /// Returns the levels of the PIRQs and of the ISA interrupts that they are routed to.
    fn levels(&self) -> Levels {
        let mut levels = Levels::default();
        for (pirq, sources) in self.sources.iter().enumerate() {
            if *sources != 0 {
                levels.pirqs |= 1 << pirq;
                levels.irqs |= self.route(pirq).map_or(0, |irq| 1 << irq);
            }
        }
        levels
    }

    fn pm_base(&self) -> Option<u16> {
        let mut control = [0];
        self.config.read(ACPI_CONTROL, &mut control);
        let base = u16::try_from(self.config.read_u32(PMBASE) & PMBASE_ADDRESS).ok()?;
        (control[0] & ACPI_ENABLE != 0 && base != 0).then_some(base)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Levels {
    pirqs: u8,
    irqs: u16,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LpcState {
    config: ConfigSpaceState,
    /// Pins that are high, by device number times four plus pin.
    high_pins: Vec<u8>,
}

/// The LPC bridge at 00:1f.0.
pub struct Lpc {
    state: Lock<State>,
    irqs: Arc<dyn IrqSink>,
    pm: Arc<AcpiPm>,
    ports: Weak<PortBus>,
    /// Where the power management registers are; whoever holds this moves them.
    mapped: Lock<Option<u16>>,
    log: GuestLog,
}

impl Lpc {
    /// Makes the bridge, which puts `pm` on `ports` and drives `irqs`.
    pub fn new(irqs: Arc<dyn IrqSink>, pm: Arc<AcpiPm>, ports: &Arc<PortBus>) -> Self {
        let mut config = ConfigSpace::new(IDENTITY);
        config.set_multifunction();
        config.fix(
            usize::from(PMBASE),
            &(u32::from(acpi_pm::DEFAULT_BASE) | 1).to_le_bytes(),
        );
        config.allow(usize::from(PMBASE), &PMBASE_ADDRESS.to_le_bytes());
        config.fix(usize::from(ACPI_CONTROL), &[ACPI_ENABLE]);
        config.allow(usize::from(ACPI_CONTROL), &[ACPI_ENABLE | 0x07]);
        for routes in ROUTES {
            config.fix(usize::from(routes), &[ROUTE_OFF; 4]);
            config.allow(usize::from(routes), &[ROUTE_OFF | ROUTE_IRQ; 4]);
        }
        config.allow(RCBA, &0xffff_c001u32.to_le_bytes());
        for (at, len) in SCRATCH {
            config.allow(at, &[0xff; 12][..len]);
        }
        let lpc = Self {
            state: Lock::new(State {
                config,
                sources: [0; PIRQS],
            }),
            irqs,
            pm,
            ports: Arc::downgrade(ports),
            mapped: Lock::new(None),
            log: GuestLog::default(),
        };
        lpc.follow_pm_base();
        lpc
    }

    /// Returns the interrupt line of pin `pin` of the function at `at`.
    pub fn line(self: &Arc<Self>, at: PciAddress, pin: Pin) -> IrqLine {
        let number = u32::from(at.device()) * 4 + u32::from(pin.index());
        IrqLine::new(Arc::clone(self) as Arc<dyn IrqSink>, number)
    }

    /// Changes the state, then drives the outputs that changed.
    fn change<R>(&self, change: impl FnOnce(&mut State) -> R) -> R {
        let (result, before, after) = {
            let mut state = self.state.get();
            let before = state.levels();
            let result = change(&mut state);
            (result, before, state.levels())
        };
        for pirq in bits(u32::from(before.pirqs ^ after.pirqs)) {
            let line = IrqLine::new(Arc::clone(&self.irqs), FIRST_PIRQ_GSI + pirq);
            line.follow(|| self.state.get().levels().pirqs & 1 << pirq != 0);
        }
        for irq in bits(u32::from(before.irqs ^ after.irqs)) {
            let line = IrqLine::new(Arc::clone(&self.irqs), irq);
            line.follow(|| self.state.get().levels().irqs & 1 << irq != 0);
        }
        result
    }

    fn follow_pm_base(&self) {
        let Some(ports) = self.ports.upgrade() else {
            return;
        };
        let mut mapped = self.mapped.get();
        let wanted = self.state.get().pm_base();
        if *mapped == wanted {
            return;
        }
        if let Some(base) = mapped.take() {
            ports
                .remove(base)
                .expect("the registers are where they were put");
        }
        let Some(base) = wanted else { return };
        let range = base..=base + (acpi_pm::LEN_PORTS - 1);
        match ports.insert(range, Arc::clone(&self.pm) as Arc<dyn PortIo>) {
            Ok(()) => *mapped = Some(base),
            Err(error) => {
                if let Some(count) = self.log.admit() {
                    tracing::debug!(%error, count, "the power management block stays unmapped");
                }
            }
        }
    }
}

/// Returns the numbers of the bits that are set.
fn bits(word: u32) -> impl Iterator<Item = u32> {
    (0..32).filter(move |bit| word & 1 << bit != 0)
}

/// Takes the interrupt pins of PCI functions, by device number times four plus pin.
impl IrqSink for Lpc {
    fn set_irq(&self, number: u32, level: bool) {
        let Some((pirq, source)) = source_of(number) else {
            return;
        };
        self.change(|state| {
            let sources = &mut state.sources[pirq];
            *sources = if level {
                *sources | source
            } else {
                *sources & !source
            };
        });
    }
}

/// Returns the PIRQ and source bit of a pin's number.
fn source_of(number: u32) -> Option<(usize, u128)> {
    let device = u8::try_from(number / 4)
        .ok()
        .filter(|device| *device < super::bus::DEVICES)?;
    let pin = [Pin::A, Pin::B, Pin::C, Pin::D][usize::try_from(number % 4).ok()?];
    Some((usize::from(pirq_of(device, pin)), 1 << number))
}

impl PciFunction for Lpc {
    fn config_read(&self, reg: u16, data: &mut [u8]) {
        self.state.get().config.read(reg, data);
    }

    fn config_write(&self, reg: u16, data: &[u8]) {
        self.change(|state| state.config.write(reg, data));
        self.follow_pm_base();
    }

    fn bars(&self) -> Vec<BarRegion> {
        Vec::new()
    }

    fn bar_read(&self, _bar: usize, _offset: u64, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn bar_write(&self, _bar: usize, _offset: u64, _data: &[u8]) {}
}

impl Device for Lpc {
    fn name(&self) -> &'static str {
        "lpc"
    }

    fn reset(&self) {
        self.change(|state| {
            state.config.reset();
            state.sources = [0; PIRQS];
        });
        self.follow_pm_base();
    }

    fn save(&self) -> Result<SavedDevice, SaveError> {
        let state = {
            let state = self.state.get();
            let high = state.sources.iter().fold(0, |high, sources| high | sources);
            let high_pins = (0..128).filter(|pin| high & 1 << pin != 0).collect();
            LpcState {
                config: state.config.save(),
                high_pins,
            }
        };
        SavedDevice::new(KIND, VERSION, &state)
    }

    fn restore(&self, saved: &SavedDevice) -> Result<(), RestoreError> {
        let saved: LpcState = saved.open(KIND, VERSION)?;
        let mut sources = [0; PIRQS];
        for pin in saved.high_pins {
            let (pirq, source) = source_of(u32::from(pin)).ok_or_else(|| RestoreError::Field {
                kind: KIND.to_owned(),
                field: "high_pins",
            })?;
            sources[pirq] |= source;
        }
        self.change(|state| {
            state.config.restore(&saved.config)?;
            state.sources = sources;
            Ok(())
        })?;
        self.follow_pm_base();
        Ok(())
    }
}
