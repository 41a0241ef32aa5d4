//! The port and memory-mapped I/O buses.
//!
//! Addresses map to devices through a sorted snapshot, which a lookup takes with one shared lock
//! and leaves before it calls the device, so a device may change the bus it sits on.

use std::ops::RangeInclusive;
use std::sync::{Arc, PoisonError, RwLock};

/// A device on the port I/O bus.
pub trait PortIo: Send + Sync {
    /// Reads 1, 2 or 4 bytes from `port`.
    fn port_read(&self, port: u16, data: &mut [u8]);
    /// Writes 1, 2 or 4 bytes to `port`.
    fn port_write(&self, port: u16, data: &[u8]);
}

/// A device on the memory bus.
pub trait Mmio: Send + Sync {
    /// Reads 1 to 8 bytes at `offset` from the region's base.
    fn mmio_read(&self, offset: u64, data: &mut [u8]);
    /// Writes 1 to 8 bytes at `offset` from the region's base.
    fn mmio_write(&self, offset: u64, data: &[u8]);
}

/// Why a bus refused a change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BusError {
    /// The range is taken, at least in part.
    #[error("map {first:#x}..={last:#x}: overlaps {other_first:#x}..={other_last:#x}")]
    Overlap {
        /// First address of the refused range.
        first: u64,
        /// Last address of the refused range.
        last: u64,
        /// First address of the range in the way.
        other_first: u64,
        /// Last address of the range in the way.
        other_last: u64,
    },
    /// The range is empty.
    #[error("map {first:#x}: the range is empty")]
    Empty {
        /// First address of the refused range.
        first: u64,
    },
    /// No range starts there.
    #[error("unmap {first:#x}: nothing is mapped there")]
    Missing {
        /// First address of the range asked for.
        first: u64,
    },
}

struct Entry<D: ?Sized> {
    first: u64,
    last: u64,
    device: Arc<D>,
}

struct Map<D: ?Sized> {
    entries: RwLock<Vec<Entry<D>>>,
}

/// The part of an access that falls into one region.
struct Hit<D: ?Sized> {
    device: Arc<D>,
    first: u64,
    last: u64,
}

impl<D: ?Sized> Map<D> {
    fn new() -> Self {
        Self {
            entries: RwLock::new(Vec::new()),
        }
    }

    fn insert(&self, first: u64, last: u64, device: Arc<D>) -> Result<(), BusError> {
        if last < first {
            return Err(BusError::Empty { first });
        }
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        let at = entries.partition_point(|entry| entry.last < first);
        if let Some(other) = entries.get(at).filter(|other| other.first <= last) {
            return Err(BusError::Overlap {
                first,
                last,
                other_first: other.first,
                other_last: other.last,
            });
        }
        entries.insert(
            at,
            Entry {
                first,
                last,
                device,
            },
        );
        Ok(())
    }

    fn remove(&self, first: u64) -> Result<(), BusError> {
        let removed = {
            let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
            let at = entries.iter().position(|entry| entry.first == first);
            at.map(|at| entries.remove(at))
        };
        removed.map(drop).ok_or(BusError::Missing { first })
    }

    /// Returns the region that holds `address`.
    fn find(&self, address: u64) -> Option<Hit<D>> {
        let entries = self.entries.read().unwrap_or_else(PoisonError::into_inner);
        let at = entries.partition_point(|entry| entry.last < address);
        let entry = entries.get(at).filter(|entry| entry.first <= address)?;
        Some(Hit {
            device: Arc::clone(&entry.device),
            first: entry.first,
            last: entry.last,
        })
    }
}

impl<D: ?Sized> Hit<D> {
    /// Tells whether `len` bytes from `address` end inside the region.
    fn holds(&self, address: u64, len: usize) -> bool {
        u64::try_from(len).is_ok_and(|len| len <= (self.last - address).saturating_add(1))
    }
}

/// The port I/O bus: 64 Ki ports.
pub struct PortBus {
    map: Map<dyn PortIo>,
}

impl PortBus {
    /// Makes an empty bus.
    pub fn new() -> Self {
        Self { map: Map::new() }
    }

    /// Puts a device on `ports`.
    ///
    /// # Errors
    /// If the range is empty or overlaps another.
    pub fn insert(
        &self,
        ports: RangeInclusive<u16>,
        device: Arc<dyn PortIo>,
    ) -> Result<(), BusError> {
        self.map
            .insert(u64::from(*ports.start()), u64::from(*ports.end()), device)
    }

    /// Takes away the device whose range starts at `first`.
    ///
    /// # Errors
    /// If no range starts there.
    pub fn remove(&self, first: u16) -> Result<(), BusError> {
        self.map.remove(u64::from(first))
    }

    /// Reads from `port`; ports without a device read as all ones.
    pub fn read(&self, port: u16, data: &mut [u8]) {
        match self.map.find(u64::from(port)) {
            Some(hit) if hit.holds(u64::from(port), data.len()) => {
                hit.device.port_read(port, data);
            }
            _ if data.len() <= 1 => data.fill(0xff),
            _ => {
                for (port, byte) in ports_from(port).zip(data) {
                    self.read(port, std::slice::from_mut(byte));
                }
            }
        }
    }

    /// Writes to `port`; what no device takes is lost.
    pub fn write(&self, port: u16, data: &[u8]) {
        match self.map.find(u64::from(port)) {
            Some(hit) if hit.holds(u64::from(port), data.len()) => {
                hit.device.port_write(port, data);
            }
            _ if data.len() <= 1 => {}
            _ => {
                for (port, byte) in ports_from(port).zip(data) {
                    self.write(port, std::slice::from_ref(byte));
                }
            }
        }
    }
}

impl Default for PortBus {
    fn default() -> Self {
        Self::new()
    }
}

/// Counts ports from `port`, around the end of the port space.
fn ports_from(port: u16) -> impl Iterator<Item = u16> {
    (0..=u16::MAX).map(move |offset| port.wrapping_add(offset))
}

/// Reads a device of byte-wide ports, one byte per port.
pub(crate) fn read_ports(port: u16, data: &mut [u8], mut read: impl FnMut(u16) -> u8) {
    for (port, byte) in ports_from(port).zip(data) {
        *byte = read(port);
    }
}

/// Writes a device of byte-wide ports, one byte per port.
pub(crate) fn write_ports(port: u16, data: &[u8], mut write: impl FnMut(u16, u8)) {
    for (port, byte) in ports_from(port).zip(data) {
        write(port, *byte);
    }
}

/// The memory-mapped I/O bus.
pub struct MmioBus {
    map: Map<dyn Mmio>,
}

impl MmioBus {
    /// Makes an empty bus.
    pub fn new() -> Self {
        Self { map: Map::new() }
    }

    /// Puts a device on the guest physical addresses `gpas`.
    ///
    /// # Errors
    /// If the range is empty or overlaps another.
    pub fn insert(&self, gpas: RangeInclusive<u64>, device: Arc<dyn Mmio>) -> Result<(), BusError> {
        self.map.insert(*gpas.start(), *gpas.end(), device)
    }

    /// Takes away the device whose range starts at `first_gpa`.
    ///
    /// # Errors
    /// If no range starts there.
    pub fn remove(&self, first_gpa: u64) -> Result<(), BusError> {
        self.map.remove(first_gpa)
    }

    /// Tells whether a device answers at `gpa`.
    pub fn contains(&self, gpa: u64) -> bool {
        self.map.find(gpa).is_some()
    }

    /// Reads from `gpa`; addresses without a device read as all ones.
    pub fn read(&self, gpa: u64, data: &mut [u8]) {
        match self.map.find(gpa) {
            Some(hit) if hit.holds(gpa, data.len()) => hit.device.mmio_read(gpa - hit.first, data),
            _ if data.len() <= 1 => data.fill(0xff),
            _ => {
                for (gpa, byte) in (0..).map(|at: u64| gpa.wrapping_add(at)).zip(data) {
                    self.read(gpa, std::slice::from_mut(byte));
                }
            }
        }
    }

    /// Writes to `gpa`; what no device takes is lost.
    pub fn write(&self, gpa: u64, data: &[u8]) {
        match self.map.find(gpa) {
            Some(hit) if hit.holds(gpa, data.len()) => hit.device.mmio_write(gpa - hit.first, data),
            _ if data.len() <= 1 => {}
            _ => {
                for (gpa, byte) in (0..).map(|at: u64| gpa.wrapping_add(at)).zip(data) {
                    self.write(gpa, std::slice::from_ref(byte));
                }
            }
        }
    }
}

impl Default for MmioBus {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
