//! The configuration space of a type 0 function (PCI 3.0 §6.1, §6.2.5, §6.7).

use serde::{Deserialize, Serialize};

use super::{BarKind, BarRegion};
use crate::lifecycle::RestoreError;

/// Offset of the command register.
pub const COMMAND: u16 = 0x04;
/// Offset of the status register.
pub const STATUS: u16 = 0x06;
/// Command bit: the function decodes its I/O regions.
pub const COMMAND_IO: u16 = 1 << 0;
/// Command bit: the function decodes its memory regions.
pub const COMMAND_MEMORY: u16 = 1 << 1;
/// Command bit: the function may read and write memory and send messages.
pub const COMMAND_BUS_MASTER: u16 = 1 << 2;
/// Command bit: the function keeps its interrupt pin quiet.
pub const COMMAND_INTX_DISABLE: u16 = 1 << 10;
/// Status bit: the function asks for its interrupt pin.
pub const STATUS_INTERRUPT: u16 = 1 << 3;

const STATUS_CAPABILITIES: u8 = 1 << 4;
const FIRST_BAR: usize = 0x10;
const BARS: usize = 6;
const CAPABILITIES_POINTER: usize = 0x34;
const INTERRUPT_LINE: usize = 0x3c;
const INTERRUPT_PIN: usize = 0x3d;
const FIRST_CAPABILITY: usize = 0x40;
const SIZE: usize = 256;

/// What a function is: the read-only registers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
    /// Revision ID.
    pub revision: u8,
    /// Class code, as class, subclass and programming interface.
    pub class: [u8; 3],
    /// Subsystem vendor ID.
    pub subsystem_vendor: u16,
    /// Subsystem ID.
    pub subsystem: u16,
}

/// Interrupt pins (PCI 3.0 §6.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pin {
    /// INTA#.
    A,
    /// INTB#.
    B,
    /// INTC#.
    C,
    /// INTD#.
    D,
}

impl Pin {
    /// Returns the pin's number from 0.
    pub fn index(self) -> u8 {
        match self {
            Self::A => 0,
            Self::B => 1,
            Self::C => 2,
            Self::D => 3,
        }
    }
}

/// Why a function's layout is impossible: a mistake of the device's author or configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// The register is taken, does not exist or is not of a possible size.
    #[error("lay out base address register {bar} of {size:#x} bytes")]
    Bar {
        /// The register's index.
        bar: usize,
        /// The asked size in bytes.
        size: u64,
    },
    /// The capability list is full.
    #[error("lay out capability {id:#x} of {len_bytes} bytes: no room")]
    Capability {
        /// The capability's ID.
        id: u8,
        /// Its length in bytes.
        len_bytes: usize,
    },
}

#[derive(Clone, Copy, Debug)]
struct Bar {
    kind: BarKind,
    size: u64,
}

/// The configuration space of one function: bytes, which of them a guest may change, and regions.
///
/// Lives inside the function's lock. Registers above 0xff (the extended space) read as zero.
#[derive(Clone, Debug)]
pub struct ConfigSpace {
    bytes: [u8; SIZE],
    writable: [u8; SIZE],
    fresh: [u8; SIZE],
    bars: [Option<Bar>; BARS],
    last_capability: Option<usize>,
    next_capability: usize,
}

/// The saved form of a [`ConfigSpace`]: its 256 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigSpaceState {
    bytes: Vec<u8>,
}

impl ConfigSpace {
    /// Makes the configuration space of a function with no regions and no capabilities.
    pub fn new(identity: Identity) -> Self {
        let [class, subclass, interface] = identity.class;
        let mut space = Self {
            bytes: [0; SIZE],
            writable: [0; SIZE],
            fresh: [0; SIZE],
            bars: [None; BARS],
            last_capability: None,
            next_capability: FIRST_CAPABILITY,
        };
        space.fix(0x00, &identity.vendor.to_le_bytes());
        space.fix(0x02, &identity.device.to_le_bytes());
        space.fix(0x08, &[identity.revision, interface, subclass, class]);
        space.fix(0x2c, &identity.subsystem_vendor.to_le_bytes());
        space.fix(0x2e, &identity.subsystem.to_le_bytes());
        // Decoding, bus mastering, parity response, SERR# and interrupt disable can be switched.
        space.allow(0x04, &[0x47, 0x05]);
        // Cache line size and latency timer hold what firmware writes and mean nothing.
        space.allow(0x0c, &[0xff, 0xff]);
        space.allow(INTERRUPT_LINE, &[0xff]);
        space
    }

    /// Marks the function as one of several of its device.
    pub fn set_multifunction(&mut self) {
        self.fix(0x0e, &[0x80]);
    }

    /// Names the interrupt pin that the function uses.
    pub fn set_pin(&mut self, pin: Pin) {
        self.fix(INTERRUPT_PIN, &[pin.index() + 1]);
    }

    /// Adds a base address register for a region of `size` bytes, a power of two.
    ///
    /// # Errors
    /// If the register or its upper half is taken or absent, or the size is not a power of two
    /// between 4 bytes (ports) or 16 bytes (memory) and what the register can hold.
    pub fn add_bar(&mut self, bar: usize, kind: BarKind, size: u64) -> Result<(), LayoutError> {
        let refused = LayoutError::Bar { bar, size };
        let (least, most, registers, flags) = match kind {
            BarKind::Io => (4, 0x100, 1, 0x1),
            BarKind::Memory32 => (16, 1 << 31, 1, 0x0),
            BarKind::Memory64 => (16, 1 << 62, 2, 0xc),
        };
        let upper_half = |other: &usize| {
            matches!(
                self.bars.get(*other),
                Some(Some(Bar {
                    kind: BarKind::Memory64,
                    ..
                }))
            )
        };
        let free = (bar..bar + registers).all(|at| self.bars.get(at).is_some_and(Option::is_none))
            && !bar.checked_sub(1).as_ref().is_some_and(upper_half);
        if !free || !size.is_power_of_two() || size < least || size > most {
            return Err(refused);
        }
        let offset = FIRST_BAR + 4 * bar;
        self.bars[bar] = Some(Bar { kind, size });
        self.fix(offset, &[flags]);
        let address_bits = (!(size - 1)).to_le_bytes();
        self.allow(offset, &address_bits[..4 * registers]);
        Ok(())
    }

    /// Appends a capability with the bytes that follow its ID and link; returns its offset.
    ///
    /// `writable` has a 1 for each bit of `body` that a guest may change; missing bytes are read-only.
    ///
    /// # Errors
    /// If it does not fit.
    pub fn add_capability(
        &mut self,
        id: u8,
        body: &[u8],
        writable: &[u8],
    ) -> Result<u16, LayoutError> {
        let offset = self.next_capability;
        let full = LayoutError::Capability {
            id,
            len_bytes: body.len() + 2,
        };
        let end = offset + 2 + body.len();
        let (Ok(link), true) = (u8::try_from(offset), end <= SIZE) else {
            return Err(full);
        };
        self.fix(offset, &[id, 0]);
        self.fix(offset + 2, body);
        self.allow(offset + 2, &writable[..writable.len().min(body.len())]);
        self.fix(
            self.last_capability
                .map_or(CAPABILITIES_POINTER, |last| last + 1),
            &[link],
        );
        self.fix(usize::from(STATUS), &[STATUS_CAPABILITIES]);
        self.last_capability = Some(offset);
        self.next_capability = end.next_multiple_of(4);
        Ok(u16::from(link))
    }

    /// Lets a guest change the bits of `mask` from register `reg` on: chip-specific registers.
    pub fn allow(&mut self, reg: usize, mask: &[u8]) {
        for (byte, mask) in self.writable.iter_mut().skip(reg).zip(mask) {
            *byte = *mask;
        }
    }

    /// Sets the value after reset of the bytes from register `reg` on.
    pub fn fix(&mut self, reg: usize, value: &[u8]) {
        for (at, value) in (reg..SIZE).zip(value) {
            self.bytes[at] = *value;
            self.fresh[at] = *value;
        }
    }

    /// Reads from register `reg` on; past the 256th byte everything is zero.
    pub fn read(&self, reg: u16, data: &mut [u8]) {
        for (at, byte) in (usize::from(reg)..).zip(data) {
            *byte = self.bytes.get(at).copied().unwrap_or(0);
        }
    }

    /// Writes the changeable bits from register `reg` on.
    pub fn write(&mut self, reg: u16, data: &[u8]) {
        for (at, value) in (usize::from(reg)..SIZE).zip(data) {
            let mask = self.writable[at];
            self.bytes[at] = self.bytes[at] & !mask | value & mask;
        }
    }

    /// Reads the two bytes at `reg`.
    pub fn read_u16(&self, reg: u16) -> u16 {
        let mut data = [0; 2];
        self.read(reg, &mut data);
        u16::from_le_bytes(data)
    }

    /// Reads the four bytes at `reg`.
    pub fn read_u32(&self, reg: u16) -> u32 {
        let mut data = [0; 4];
        self.read(reg, &mut data);
        u32::from_le_bytes(data)
    }

    /// Sets bytes that the device itself changes, read-only to the guest or not.
    pub fn set(&mut self, reg: u16, value: &[u8]) {
        for (at, value) in (usize::from(reg)..SIZE).zip(value) {
            self.bytes[at] = *value;
        }
    }

    /// Returns the command register.
    pub fn command(&self) -> u16 {
        self.read_u16(COMMAND)
    }

    /// Tells whether the function may read and write memory and send messages.
    pub fn is_bus_master(&self) -> bool {
        self.command() & COMMAND_BUS_MASTER != 0
    }

    /// Sets the interrupt status bit; returns the level that the interrupt pin has now.
    pub fn set_interrupt(&mut self, asks: bool) -> bool {
        let status = self.read_u16(STATUS) & !STATUS_INTERRUPT;
        let status = if asks {
            status | STATUS_INTERRUPT
        } else {
            status
        };
        self.set(STATUS, &status.to_le_bytes());
        self.pin_level()
    }

    /// Returns the level of the interrupt pin: asked for and not disabled.
    pub fn pin_level(&self) -> bool {
        self.read_u16(STATUS) & STATUS_INTERRUPT != 0 && self.command() & COMMAND_INTX_DISABLE == 0
    }

    /// Returns the regions that decode now. A region at address 0 or past the end does not.
    pub fn bars(&self) -> Vec<BarRegion> {
        (0..BARS).filter_map(|bar| self.region(bar)).collect()
    }

    fn region(&self, bar: usize) -> Option<BarRegion> {
        let Bar { kind, size } = self.bars[bar]?;
        let reg = u16::try_from(FIRST_BAR + 4 * bar).ok()?;
        let low = u64::from(self.read_u32(reg));
        let (enable, base, end) = match kind {
            BarKind::Io => (COMMAND_IO, low & !0x3, 1 << 16),
            BarKind::Memory32 => (COMMAND_MEMORY, low & !0xf, 1 << 32),
            BarKind::Memory64 => {
                let high = u64::from(self.read_u32(reg + 4));
                (COMMAND_MEMORY, high << 32 | low & !0xf, u64::MAX)
            }
        };
        let decodes = self.command() & enable != 0
            && base != 0
            && base.checked_add(size).is_some_and(|after| after <= end);
        decodes.then_some(BarRegion {
            bar,
            kind,
            base,
            size,
        })
    }

    /// Puts every byte back to its value after reset.
    pub fn reset(&mut self) {
        self.bytes = self.fresh;
    }

    /// Returns the saved form.
    pub fn save(&self) -> ConfigSpaceState {
        ConfigSpaceState {
            bytes: self.bytes.to_vec(),
        }
    }

    /// Takes the bytes of a saved form.
    ///
    /// # Errors
    /// If the state is not 256 bytes, or differs in vendor and device ID.
    pub fn restore(&mut self, state: &ConfigSpaceState) -> Result<(), RestoreError> {
        let refused = |field| RestoreError::Field {
            kind: "pci-config-space".to_owned(),
            field,
        };
        let bytes = <[u8; SIZE]>::try_from(state.bytes.as_slice()).map_err(|_| refused("bytes"))?;
        if bytes[..4] != self.fresh[..4] {
            return Err(refused("bytes[0..4]"));
        }
        self.bytes = bytes;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
