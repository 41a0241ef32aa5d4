//! PCI: functions, configuration space, MSI-X, and the bus with its bridges.

pub mod bus;
pub mod config_space;
pub mod host;
pub mod lpc;
pub mod msix;

pub use bus::{PciAddress, PciBus, PciError};
pub use config_space::{ConfigSpace, ConfigSpaceState, Identity, LayoutError, Pin};
pub use msix::{Msix, MsixPlacement, MsixState};

use crate::lifecycle::Device;

/// Where a base address register decodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BarKind {
    /// I/O ports.
    Io,
    /// Memory below 4 GiB.
    Memory32,
    /// Memory anywhere, prefetchable; takes two registers.
    Memory64,
}

/// A base address register that decodes now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BarRegion {
    /// The register's index, 0 to 5.
    pub bar: usize,
    /// Ports or memory.
    pub kind: BarKind,
    /// The first port or guest physical address.
    pub base: u64,
    /// The size in bytes, a power of two.
    pub size: u64,
}

/// A PCI function. The bus calls it with no lock held.
pub trait PciFunction: Device {
    /// Reads 1, 2 or 4 bytes of configuration space at `reg`, 0 to 0xfff.
    fn config_read(&self, reg: u16, data: &mut [u8]);

    /// Writes 1, 2 or 4 bytes of configuration space at `reg`, 0 to 0xfff.
    ///
    /// The bus looks at [`PciFunction::bars`] afterwards and moves its mappings.
    fn config_write(&self, reg: u16, data: &[u8]);

    /// Returns the base address registers that decode now: sized, and enabled in the command register.
    fn bars(&self) -> Vec<BarRegion>;

    /// Reads at `offset` in the region of base address register `bar`.
    fn bar_read(&self, bar: usize, offset: u64, data: &mut [u8]);

    /// Writes at `offset` in the region of base address register `bar`.
    fn bar_write(&self, bar: usize, offset: u64, data: &[u8]);

    /// Learns which of its regions the bus has mapped, after any of them changed.
    fn bars_mapped(&self, _mapped: &[BarRegion]) {}
}
