//! What local APICs tell each other, and the message form of interrupts (SDM vol. 3 §11.6, §11.11).

use crate::interrupt::MsiMessage;

/// The three delivery mode bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DeliveryMode(u32);

impl DeliveryMode {
    pub(super) const FIXED: Self = Self(0);
    pub(super) const LOWEST: Self = Self(1);
    pub(super) const NMI: Self = Self(4);
    pub(super) const INIT: Self = Self(5);
    pub(super) const STARTUP: Self = Self(6);
    pub(super) const EXTINT: Self = Self(7);

    /// Takes the mode from the three lowest bits.
    pub(super) fn of_bits(bits: u32) -> Self {
        Self(bits & 7)
    }

    /// Returns the mode as bits 8 to 10.
    pub(super) fn lvt(self) -> u32 {
        self.0 << 8
    }

    /// Tells whether the mode delivers a vector, which must then be a legal one.
    pub(super) fn has_vector(self) -> bool {
        self == Self::FIXED || self == Self::LOWEST
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Interrupt {
    pub(super) mode: DeliveryMode,
    pub(super) vector: u8,
    pub(super) level: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Destination {
    pub(super) number: u32,
    pub(super) is_logical: bool,
    pub(super) is_broadcast: bool,
}

/// The destination shorthand of the interrupt command register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shorthand {
    None,
    Oneself,
    All,
    AllButOneself,
}

impl Shorthand {
    pub(super) fn of_bits(bits: u32) -> Self {
        match bits & 3 {
            0 => Self::None,
            1 => Self::Oneself,
            2 => Self::All,
            _ => Self::AllButOneself,
        }
    }
}

/// An interrupt from one processor to others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ipi {
    pub(super) interrupt: Interrupt,
    pub(super) destination: Destination,
    pub(super) shorthand: Shorthand,
}

const MSI_LOGICAL: u64 = 1 << 2;
const MSI_LEVEL: u32 = 1 << 15;
/// Destination bits 8 to 31 lie in the upper half of the address when a machine has many processors.
const MSI_EXTENDED: u64 = 0xffff_ff00;

/// Takes a message apart.
pub(super) fn of_msi(msi: MsiMessage) -> (Destination, Interrupt) {
    let low = msi.address >> 12 & 0xff;
    let high = msi.address >> 32 & MSI_EXTENDED;
    let number = u32::try_from(high | low).unwrap_or(u32::MAX);
    let is_broadcast = number == 0xff || number == u32::MAX;
    let destination = Destination {
        number,
        is_logical: msi.address & MSI_LOGICAL != 0,
        is_broadcast,
    };
    let interrupt = Interrupt {
        mode: DeliveryMode::of_bits(msi.data >> 8),
        vector: msi.data.to_le_bytes()[0],
        level: msi.data & MSI_LEVEL != 0,
    };
    (destination, interrupt)
}
