//! The board: chipset, PCI and virtio devices.
//!
//! A chip is a pure state machine behind a thin attachment: the attachment owns the lock, the chip
//! decides, and interrupt lines, messages and callbacks are driven after the lock is released. No
//! chip knows which back end runs the CPUs.

pub mod apic;
pub mod bus;
pub mod clock;
pub mod interrupt;
pub mod ioapic;
pub mod lifecycle;
mod lock;
pub mod memory;
pub mod pci;
pub mod pic;
pub mod timer;
pub mod virtio;

pub use bus::{BusError, Mmio, MmioBus, PortBus, PortIo};
pub use interrupt::{IrqLine, IrqSink, MsiMessage, MsiSink, Wake};
pub use lifecycle::{Device, RestoreError, SaveError, SavedDevice};
pub use memory::{GuestMemory, WriteLog, WriteSink};
