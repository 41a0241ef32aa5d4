//! The I/O APIC (Intel 82093AA data sheet, with the EOI register of version 0x20).

use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Serialize};

use crate::apic::EoiSink;
use crate::bus::Mmio;
use crate::interrupt::{MsiMessage, MsiSink};
use crate::lifecycle::{Device, RestoreError, SaveError, SavedDevice};
use crate::lock::Lock;

/// Number of interrupt pins.
pub const PINS: usize = 24;
/// Guest physical address of the registers.
pub const BASE_GPA: u64 = 0xfec0_0000;
/// Length of the register page in bytes.
pub const LEN_BYTES: u64 = 0x1000;

const KIND: &str = "i82093aa";
const STATE_VERSION: u32 = 1;

const IOREGSEL: u64 = 0x00;
const IOWIN: u64 = 0x10;
const EOIR: u64 = 0x40;

const REG_ID: u8 = 0x00;
const REG_VERSION: u8 = 0x01;
const REG_ARBITRATION: u8 = 0x02;
const REG_REDIRECTION: u8 = 0x10;
const VERSION: u32 = 0x0017_0020;
const ID_MASK: u32 = 0x0f00_0000;

const ENTRY_REMOTE_IRR: u64 = 1 << 14;
const ENTRY_LEVEL: u64 = 1 << 15;
const ENTRY_MASKED: u64 = 1 << 16;
const ENTRY_LOGICAL: u64 = 1 << 11;
const ENTRY_READ_ONLY: u64 = 1 << 12 | ENTRY_REMOTE_IRR;
const ENTRY_DEFINED: u64 = 0xff00_0000_0001_ffff;

const MSI_BASE: u64 = 0xfee0_0000;
const MSI_LOGICAL: u64 = 1 << 2;
const MSI_ASSERT: u32 = 1 << 14;

/// Follows the redirection table: a back end whose local APICs live elsewhere mirrors it.
pub trait RouteListener: Send + Sync {
    /// Learns that the message of `pin` is now `route`, or that the pin is masked.
    fn route_changed(&self, pin: usize, route: Option<MsiMessage>);
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Chip {
    select: u8,
    id: u32,
    lines: u32,
    entries: [u64; PINS],
}

impl Chip {
    fn fresh() -> Self {
        Self {
            select: 0,
            id: 0,
            lines: 0,
            entries: [ENTRY_MASKED; PINS],
        }
    }

    fn is_high(&self, pin: usize) -> bool {
        self.lines & 1 << pin != 0
    }

    fn set_line(&mut self, pin: usize, level: bool) -> Option<MsiMessage> {
        let rises = level && !self.is_high(pin);
        self.lines = if level {
            self.lines | 1 << pin
        } else {
            self.lines & !(1 << pin)
        };
        let entry = self.entries[pin];
        if entry & ENTRY_LEVEL != 0 {
            return self.serve_level(pin);
        }
        (rises && entry & ENTRY_MASKED == 0).then(|| message(entry))
    }

    /// Sends the message of a level pin that is high, unmasked and not being served.
    fn serve_level(&mut self, pin: usize) -> Option<MsiMessage> {
        let entry = self.entries[pin];
        let waits = entry & (ENTRY_LEVEL | ENTRY_MASKED | ENTRY_REMOTE_IRR) == ENTRY_LEVEL;
        if !waits || !self.is_high(pin) {
            return None;
        }
        self.entries[pin] |= ENTRY_REMOTE_IRR;
        Some(message(entry))
    }

    fn end_of_interrupt(&mut self, vector: u8) -> Vec<MsiMessage> {
        let ended: Vec<usize> = (0..PINS)
            .filter(|pin| {
                let entry = self.entries[*pin];
                entry & ENTRY_REMOTE_IRR != 0 && entry.to_le_bytes()[0] == vector
            })
            .collect();
        for pin in &ended {
            self.entries[*pin] &= !ENTRY_REMOTE_IRR;
        }
        ended
            .into_iter()
            .filter_map(|pin| self.serve_level(pin))
            .collect()
    }

    fn read_register(&self) -> u32 {
        match self.select {
            REG_ID | REG_ARBITRATION => self.id,
            REG_VERSION => VERSION,
            select => match redirection(select) {
                Some((pin, shift)) => low_half(self.entries[pin] >> shift),
                None => 0,
            },
        }
    }

    /// Writes the selected register; returns the pin whose entry changed.
    fn write_register(&mut self, value: u32) -> Option<usize> {
        if self.select == REG_ID {
            self.id = value & ID_MASK;
        }
        let (pin, shift) = redirection(self.select)?;
        let old = self.entries[pin];
        let written = old & !(0xffff_ffff << shift) | u64::from(value) << shift;
        let mut entry = written & ENTRY_DEFINED & !ENTRY_READ_ONLY | old & ENTRY_READ_ONLY;
        if entry & ENTRY_LEVEL == 0 {
            entry &= !ENTRY_REMOTE_IRR;
        }
        self.entries[pin] = entry;
        Some(pin)
    }

    fn route(&self, pin: usize) -> Option<MsiMessage> {
        let entry = self.entries.get(pin)?;
        (entry & ENTRY_MASKED == 0).then(|| message(*entry))
    }
}

/// Returns pin and shift of the redirection half that `select` names.
fn redirection(select: u8) -> Option<(usize, u32)> {
    let index = usize::from(select.checked_sub(REG_REDIRECTION)?);
    let shift = if index.is_multiple_of(2) { 0 } else { 32 };
    (index / 2 < PINS).then_some((index / 2, shift))
}

fn low_half(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

/// Builds the message that a redirection entry stands for (SDM vol. 3 §11.11).
fn message(entry: u64) -> MsiMessage {
    let destination = entry >> 56;
    let logical = if entry & ENTRY_LOGICAL != 0 {
        MSI_LOGICAL
    } else {
        0
    };
    // Vector, delivery mode and trigger mode sit at the same bits in entry and data.
    let data = low_half(entry & (0x7ff | ENTRY_LEVEL)) | MSI_ASSERT;
    MsiMessage {
        address: MSI_BASE | destination << 12 | logical,
        data,
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ChipState {
    select: u8,
    id: u32,
    lines: u32,
    entries: Vec<u64>,
}

/// The I/O APIC with 24 pins; sends what its pins ask for as messages.
pub struct Ioapic {
    chip: Lock<Chip>,
    sink: Arc<dyn MsiSink>,
    listener: OnceLock<Arc<dyn RouteListener>>,
}

impl Ioapic {
    /// Makes an I/O APIC with every pin masked.
    pub fn new(sink: Arc<dyn MsiSink>) -> Self {
        Self {
            chip: Lock::new(Chip::fresh()),
            sink,
            listener: OnceLock::new(),
        }
    }

    /// Connects the follower of the redirection table. Only the first connection counts.
    pub fn connect(&self, listener: Arc<dyn RouteListener>) {
        self.listener.get_or_init(|| listener);
    }

    /// Sets pin `pin`; pins past the last do nothing.
    pub fn set_irq(&self, pin: usize, level: bool) {
        if pin < PINS {
            let message = self.chip.get().set_line(pin, level);
            self.send(message);
        }
    }

    /// Ends the level interrupt `vector`: called when a local APIC broadcasts its end.
    pub fn eoi(&self, vector: u8) {
        let messages = self.chip.get().end_of_interrupt(vector);
        self.send(messages);
    }

    /// Returns the message that `pin` sends, unless masked.
    pub fn route(&self, pin: usize) -> Option<MsiMessage> {
        self.chip.get().route(pin)
    }

    fn send(&self, messages: impl IntoIterator<Item = MsiMessage>) {
        for message in messages {
            self.sink.send_msi(message);
        }
    }

    fn write_window(&self, value: u32) {
        let (changed, due) = {
            let mut chip = self.chip.get();
            let pin = chip.write_register(value);
            let due = pin.and_then(|pin| chip.serve_level(pin));
            (pin.map(|pin| (pin, chip.route(pin))), due)
        };
        if let (Some((pin, route)), Some(listener)) = (changed, self.listener.get()) {
            listener.route_changed(pin, route);
        }
        self.send(due);
    }

    fn tell_all_routes(&self) {
        if let Some(listener) = self.listener.get() {
            for pin in 0..PINS {
                listener.route_changed(pin, self.route(pin));
            }
        }
    }
}

impl EoiSink for Ioapic {
    fn eoi(&self, vector: u8) {
        Self::eoi(self, vector);
    }
}

impl Mmio for Ioapic {
    fn mmio_read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let chip = self.chip.get();
        let value = match offset {
            IOREGSEL => u32::from(chip.select),
            IOWIN => chip.read_register(),
            _ => 0,
        };
        for (byte, value) in data.iter_mut().zip(value.to_le_bytes()) {
            *byte = value;
        }
    }

    fn mmio_write(&self, offset: u64, data: &[u8]) {
        let mut value = [0; 4];
        for (value, byte) in value.iter_mut().zip(data) {
            *value = *byte;
        }
        match offset {
            IOREGSEL => self.chip.get().select = value[0],
            IOWIN => self.write_window(u32::from_le_bytes(value)),
            EOIR => self.eoi(value[0]),
            _ => {}
        }
    }
}

impl Device for Ioapic {
    fn name(&self) -> &'static str {
        "ioapic"
    }

    fn reset(&self) {
        *self.chip.get() = Chip::fresh();
        self.tell_all_routes();
    }

    fn save(&self) -> Result<SavedDevice, SaveError> {
        let chip = self.chip.get().clone();
        let entries = chip.entries.to_vec();
        let state = ChipState {
            select: chip.select,
            id: chip.id,
            lines: chip.lines,
            entries,
        };
        SavedDevice::new(KIND, STATE_VERSION, &state)
    }

    fn restore(&self, saved: &SavedDevice) -> Result<(), RestoreError> {
        let state: ChipState = saved.open(KIND, STATE_VERSION)?;
        let refused = |field| RestoreError::Field {
            kind: KIND.to_owned(),
            field,
        };
        let entries =
            <[u64; PINS]>::try_from(state.entries.as_slice()).map_err(|_| refused("entries"))?;
        if state.lines >> PINS != 0 {
            return Err(refused("lines"));
        }
        let entries = entries.map(|entry| entry & ENTRY_DEFINED);
        *self.chip.get() = Chip {
            select: state.select,
            id: state.id & ID_MASK,
            lines: state.lines,
            entries,
        };
        self.tell_all_routes();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
