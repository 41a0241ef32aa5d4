//! The board: chipset, PCI and virtio devices.
//!
//! A chip is a pure state machine behind a thin attachment: the attachment owns the lock, the chip
//! decides, and interrupt lines, messages and callbacks are driven after the lock is released. No
//! chip knows which back end runs the CPUs.

pub mod acpi_pm;
pub mod apic;
pub mod bus;
pub mod chipset;
pub mod clock;
#[cfg(test)]
mod conformance;
pub mod debug_ports;
pub mod fuzz;
pub mod fw_cfg;
mod guest_log;
pub mod interrupt;
pub mod ioapic;
pub mod keyboard;
pub mod lifecycle;
mod lock;
pub mod memory;
pub mod pci;
pub mod pic;
pub mod pit;
pub mod platform;
pub mod pvpanic;
pub mod reset_control;
pub mod rtc;
pub mod timer;
pub mod uart;
pub mod virtio;

pub use bus::{BusError, Mmio, MmioBus, PortBus, PortIo};
pub use interrupt::{IrqLine, IrqSink, MsiMessage, MsiSink, Wake};
pub use lifecycle::{Device, RestoreError, SaveError, SavedDevice};
pub use memory::{GuestMemory, WriteLog, WriteSink};
pub use platform::{PlatformEvent, PlatformSink, ResetSource};
pub use uart::ConsoleOut;
