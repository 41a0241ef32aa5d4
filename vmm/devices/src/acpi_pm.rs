//! The ACPI power management registers (ACPI 6.5 §4.8.3; places as in the ICH9 data sheet §13.8.3).
//!
//! ACPI mode is always on: there is no SMI command, and SCI_EN reads as 1.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::bus::{PortIo, read_ports, write_ports};
use crate::clock::Clock;
use crate::interrupt::{IrqLine, Wake};
use crate::lifecycle::{Device, RestoreError, SaveError, SavedDevice};
use crate::lock::Lock;
use crate::platform::{PlatformEvent, PlatformSink};
use crate::timer::TimerSource;

/// Where the block starts unless the LPC bridge moves it.
pub const DEFAULT_BASE: u16 = 0x600;
/// Length of the block in ports.
pub const LEN_PORTS: u16 = 0x80;
/// Offset of the PM1a event block, four ports.
pub const PM1_EVENT: u16 = 0x00;
/// Offset of the PM1a control block, two ports.
pub const PM1_CONTROL: u16 = 0x04;
/// Offset of the PM timer, four ports.
pub const PM_TIMER: u16 = 0x08;
/// Offset of the GPE0 block, 16 ports: eight of status, eight of enable.
pub const GPE0: u16 = 0x20;
/// SLP_TYP of the soft-off state, for the \_S5 package.
pub const SLEEP_TYPE_S5: u8 = 0;
/// Frequency of the PM timer in hertz.
pub const TIMER_HZ: u64 = 3_579_545;

const KIND: &str = "acpi-pm";
const VERSION: u32 = 1;
const SMI_ENABLE: u16 = 0x30;
const TIMER_STATUS: u16 = 1 << 0;
const POWER_BUTTON: u16 = 1 << 8;
/// Timer, global, power button, sleep button, RTC alarm, wake.
const STATUS_DEFINED: u16 = 0x8721;
const ENABLE_DEFINED: u16 = 0x0721;
const CONTROL_SCI: u16 = 1 << 0;
const CONTROL_KEPT: u16 = 0x1c06;
const CONTROL_SLEEP_HIGH: u8 = 1 << 5;
/// Firmware that finds the APM SMI on takes system management mode for set up, and leaves it alone.
const SMI_APM: u8 = 1 << 5;
const NS_PER_S: u128 = 1_000_000_000;

/// Width of the PM timer, which the ACPI fixed description table tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimerWidth {
    /// 24 bits.
    Bits24,
    /// 32 bits.
    Bits32,
}

impl TimerWidth {
    fn bits(self) -> u32 {
        match self {
            Self::Bits24 => 24,
            Self::Bits32 => 32,
        }
    }
}

fn ticks_at(now_ns: u64) -> u64 {
    let ticks = u128::from(now_ns) * u128::from(TIMER_HZ) / NS_PER_S;
    u64::try_from(ticks).unwrap_or(u64::MAX)
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Chip {
    status: u16,
    enable: u16,
    control: u16,
    gpe_status: [u8; 8],
    gpe_enable: [u8; 8],
    /// How often the timer's highest bit had changed at the last look.
    seen_toggles: u64,
}

impl Chip {
    fn fresh(toggles: u64) -> Self {
        Self {
            status: 0,
            enable: 0,
            control: CONTROL_SCI,
            gpe_status: [0; 8],
            gpe_enable: [0; 8],
            seen_toggles: toggles,
        }
    }

    fn advance(&mut self, toggles: u64) {
        if toggles != self.seen_toggles {
            self.status |= TIMER_STATUS;
            self.seen_toggles = toggles;
        }
    }

    fn sci(&self) -> bool {
        let gpes = self.gpe_status.iter().zip(&self.gpe_enable);
        self.status & self.enable != 0 || gpes.into_iter().any(|(on, enabled)| on & enabled != 0)
    }

    fn read(&self, offset: u16, timer: u32) -> u8 {
        let byte = |word: u16| word.to_le_bytes()[usize::from(offset & 1)];
        match offset {
            0x00 | 0x01 => byte(self.status),
            0x02 | 0x03 => byte(self.enable),
            0x04 | 0x05 => byte(self.control),
            0x08..=0x0b => timer.to_le_bytes()[usize::from(offset & 3)],
            0x20..=0x27 => self.gpe_status[usize::from(offset & 7)],
            0x28..=0x2f => self.gpe_enable[usize::from(offset & 7)],
            SMI_ENABLE => SMI_APM,
            _ => 0,
        }
    }

    /// Writes a byte; tells whether the guest goes to sleep with the type it wrote.
    fn write(&mut self, offset: u16, value: u8) -> Option<u8> {
        let shift = 8 * (offset & 1);
        let wide = u16::from(value) << shift;
        let other = 0xff00 >> shift;
        match offset {
            0x00 | 0x01 => self.status &= !wide,
            0x02 | 0x03 => self.enable = (self.enable & other | wide) & ENABLE_DEFINED,
            0x04 | 0x05 => {
                self.control = (self.control & other | wide) & CONTROL_KEPT | CONTROL_SCI;
                let sleeps = offset == 0x05 && value & CONTROL_SLEEP_HIGH != 0;
                return sleeps.then_some(value >> 2 & 7);
            }
            0x20..=0x27 => self.gpe_status[usize::from(offset & 7)] &= !value,
            0x28..=0x2f => self.gpe_enable[usize::from(offset & 7)] = value,
            _ => {}
        }
        None
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChipState {
    status: u16,
    enable: u16,
    control: u16,
    gpe_status: [u8; 8],
    gpe_enable: [u8; 8],
    seen_toggles: u64,
}

/// The power management block; interrupts by the SCI, a level.
pub struct AcpiPm {
    chip: Lock<Chip>,
    width: TimerWidth,
    clock: Arc<dyn Clock>,
    timer: Arc<dyn Wake>,
    sci: IrqLine,
    sink: Arc<dyn PlatformSink>,
}

impl AcpiPm {
    /// Makes the block as after power-on. `timer` is woken when the next interrupt moves.
    pub fn new(
        width: TimerWidth,
        clock: Arc<dyn Clock>,
        timer: Arc<dyn Wake>,
        sci: IrqLine,
        sink: Arc<dyn PlatformSink>,
    ) -> Self {
        let toggles = ticks_at(clock.now_ns()) >> (width.bits() - 1);
        Self {
            chip: Lock::new(Chip::fresh(toggles)),
            width,
            clock,
            timer,
            sci,
            sink,
        }
    }

    /// Presses the power button.
    pub fn press_power_button(&self) {
        self.chip.get().status |= POWER_BUTTON;
        self.drive_sci();
    }

    /// Raises general-purpose event `gpe`, 0 to 63.
    pub fn raise_gpe(&self, gpe: u8) {
        if let Some(status) = self.chip.get().gpe_status.get_mut(usize::from(gpe / 8)) {
            *status |= 1 << (gpe % 8);
        }
        self.drive_sci();
    }

    fn toggles(&self) -> u64 {
        ticks_at(self.clock.now_ns()) >> (self.width.bits() - 1)
    }

    fn timer_value(&self) -> u32 {
        let mask = u64::MAX >> (64 - self.width.bits());
        u32::try_from(ticks_at(self.clock.now_ns()) & mask).unwrap_or(u32::MAX)
    }

    fn drive_sci(&self) {
        self.sci.follow(|| self.chip.get().sci());
    }
}

impl PortIo for AcpiPm {
    fn port_read(&self, port: u16, data: &mut [u8]) {
        let offset = port % LEN_PORTS;
        // Firmware polls the timer millions of times: it needs no lock.
        let timer = self.timer_value();
        if offset == PM_TIMER {
            for (byte, value) in data.iter_mut().zip(timer.to_le_bytes()) {
                *byte = value;
            }
            return;
        }
        let toggles = self.toggles();
        {
            let mut chip = self.chip.get();
            chip.advance(toggles);
            read_ports(offset, data, |offset| chip.read(offset, timer));
        }
        self.drive_sci();
    }

    fn port_write(&self, port: u16, data: &[u8]) {
        let toggles = self.toggles();
        let mut sleep_type = None;
        {
            let mut chip = self.chip.get();
            chip.advance(toggles);
            write_ports(port % LEN_PORTS, data, |offset, value| {
                sleep_type = chip.write(offset, value).or(sleep_type);
            });
        }
        self.drive_sci();
        self.timer.wake();
        if sleep_type == Some(SLEEP_TYPE_S5) {
            self.sink.notify(PlatformEvent::PowerOff);
        }
    }
}

impl TimerSource for AcpiPm {
    fn next_event_ns(&self) -> Option<u64> {
        let seen = {
            let chip = self.chip.get();
            let waits = chip.enable & TIMER_STATUS != 0 && chip.status & TIMER_STATUS == 0;
            waits.then_some(chip.seen_toggles)?
        };
        let ticks = u128::from(seen + 1) << (self.width.bits() - 1);
        u64::try_from((ticks * NS_PER_S).div_ceil(u128::from(TIMER_HZ))).ok()
    }

    fn fire(&self, _now_ns: u64) {
        let toggles = self.toggles();
        self.chip.get().advance(toggles);
        self.drive_sci();
    }
}

impl Device for AcpiPm {
    fn name(&self) -> &'static str {
        "acpi-pm"
    }

    fn reset(&self) {
        let toggles = self.toggles();
        *self.chip.get() = Chip::fresh(toggles);
        self.drive_sci();
        self.timer.wake();
    }

    fn save(&self) -> Result<SavedDevice, SaveError> {
        let chip = self.chip.get().clone();
        let state = ChipState {
            status: chip.status,
            enable: chip.enable,
            control: chip.control,
            gpe_status: chip.gpe_status,
            gpe_enable: chip.gpe_enable,
            seen_toggles: chip.seen_toggles,
        };
        SavedDevice::new(KIND, VERSION, &state)
    }

    fn restore(&self, saved: &SavedDevice) -> Result<(), RestoreError> {
        let state: ChipState = saved.open(KIND, VERSION)?;
        *self.chip.get() = Chip {
            status: state.status & STATUS_DEFINED,
            enable: state.enable & ENABLE_DEFINED,
            control: state.control & CONTROL_KEPT | CONTROL_SCI,
            gpe_status: state.gpe_status,
            gpe_enable: state.gpe_enable,
            seen_toggles: state.seen_toggles.min(u64::MAX - 1),
        };
        self.drive_sci();
        self.timer.wake();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
