//! PCI bus 0: functions by address, and the mappings of their regions on the port and memory buses.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock, Weak};

use super::{BarKind, BarRegion, PciFunction};
use crate::bus::{BusError, Mmio, MmioBus, PortBus, PortIo};
use crate::guest_log::GuestLog;
use crate::lock::Lock;

/// Most devices of a bus.
pub const DEVICES: u8 = 32;

/// Where a function sits on bus 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PciAddress {
    device: u8,
    function: u8,
}

impl PciAddress {
    /// Where the host bridge sits.
    pub const HOST_BRIDGE: Self = Self {
        device: 0,
        function: 0,
    };
    /// Where the LPC bridge sits.
    pub const LPC: Self = Self {
        device: 0x1f,
        function: 0,
    };

    /// Makes an address; none if device is above 31 or function above 7.
    pub fn new(device: u8, function: u8) -> Option<Self> {
        (device < DEVICES && function < 8).then_some(Self { device, function })
    }

    /// Returns the device number.
    pub fn device(self) -> u8 {
        self.device
    }

    /// Returns the function number.
    pub fn function(self) -> u8 {
        self.function
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00:{:02x}.{}", self.device, self.function)
    }
}

/// Why the bus refused a change.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PciError {
    /// A function sits there.
    #[error("add a function at {at}: the place is taken")]
    Taken {
        /// The address.
        at: PciAddress,
    },
    /// No function sits there.
    #[error("remove the function at {at}: there is none")]
    Missing {
        /// The address.
        at: PciAddress,
    },
    /// Every device number is taken.
    #[error("add a device: the bus is full")]
    Full,
}

struct Slot {
    function: Arc<dyn PciFunction>,
    /// The regions that the buses carry now, none once the function is pulled out; whoever holds
    /// this moves them.
    mapped: Lock<Option<Vec<BarRegion>>>,
}

/// One region of a function, as the buses see it.
struct Window {
    function: Arc<dyn PciFunction>,
    region: BarRegion,
}

impl Mmio for Window {
    fn mmio_read(&self, offset: u64, data: &mut [u8]) {
        self.function.bar_read(self.region.bar, offset, data);
    }
    fn mmio_write(&self, offset: u64, data: &[u8]) {
        self.function.bar_write(self.region.bar, offset, data);
    }
}

impl PortIo for Window {
    fn port_read(&self, port: u16, data: &mut [u8]) {
        let offset = u64::from(port).wrapping_sub(self.region.base);
        self.function.bar_read(self.region.bar, offset, data);
    }
    fn port_write(&self, port: u16, data: &[u8]) {
        let offset = u64::from(port).wrapping_sub(self.region.base);
        self.function.bar_write(self.region.bar, offset, data);
    }
}

/// PCI bus 0. There is no other bus: configuration cycles to one read as all ones.
pub struct PciBus {
    slots: RwLock<BTreeMap<PciAddress, Arc<Slot>>>,
    // The buses own the bus, through its configuration ports.
    ports: Weak<PortBus>,
    mmio: Weak<MmioBus>,
    log: GuestLog,
}

impl PciBus {
    /// Makes an empty bus whose functions' regions appear on `ports` and `mmio`.
    pub fn new(ports: &Arc<PortBus>, mmio: &Arc<MmioBus>) -> Arc<Self> {
        Arc::new(Self {
            slots: RwLock::new(BTreeMap::new()),
            ports: Arc::downgrade(ports),
            mmio: Arc::downgrade(mmio),
            log: GuestLog::default(),
        })
    }

    /// Plugs a function in.
    ///
    /// # Errors
    /// If the place is taken.
    pub fn add(&self, at: PciAddress, function: Arc<dyn PciFunction>) -> Result<(), PciError> {
        {
            let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
            if slots.contains_key(&at) {
                return Err(PciError::Taken { at });
            }
            slots.insert(
                at,
                Arc::new(Slot {
                    function,
                    mapped: Lock::new(Some(Vec::new())),
                }),
            );
        }
        self.follow_bars(at);
        Ok(())
    }

    /// Plugs a function in as function 0 of the first free device number; returns its address.
    ///
    /// # Errors
    /// If no number is free.
    pub fn add_anywhere(&self, function: &Arc<dyn PciFunction>) -> Result<PciAddress, PciError> {
        for device in 1..DEVICES {
            let at = PciAddress {
                device,
                function: 0,
            };
            if self.add(at, Arc::clone(function)).is_ok() {
                return Ok(at);
            }
        }
        Err(PciError::Full)
    }

    /// Pulls a function out and takes its regions off the buses.
    ///
    /// # Errors
    /// If there is none.
    pub fn remove(&self, at: PciAddress) -> Result<Arc<dyn PciFunction>, PciError> {
        let removed = {
            let mut slots = self.slots.write().unwrap_or_else(PoisonError::into_inner);
            slots.remove(&at)
        };
        let slot = removed.ok_or(PciError::Missing { at })?;
        let mapped = slot.mapped.get().take();
        for region in mapped.unwrap_or_default() {
            self.unmap(region);
        }
        slot.function.bars_mapped(&[]);
        Ok(Arc::clone(&slot.function))
    }

    /// Returns every function with its address, in the order of addresses.
    pub fn functions(&self) -> Vec<(PciAddress, Arc<dyn PciFunction>)> {
        let slots = self.slots.read().unwrap_or_else(PoisonError::into_inner);
        slots
            .iter()
            .map(|(at, slot)| (*at, Arc::clone(&slot.function)))
            .collect()
    }

    /// Reads configuration space; places without a function read as all ones.
    pub fn config_read(&self, at: PciAddress, reg: u16, data: &mut [u8]) {
        match self.slot(at) {
            Some(slot) => slot.function.config_read(reg, data),
            None => data.fill(0xff),
        }
    }

    /// Writes configuration space and moves the regions that this moves.
    pub fn config_write(&self, at: PciAddress, reg: u16, data: &[u8]) {
        if let Some(slot) = self.slot(at) {
            slot.function.config_write(reg, data);
            self.follow_bars(at);
        }
    }

    /// Maps every function's regions anew: call it after a reset or restore of functions.
    pub fn follow_all_bars(&self) {
        for (at, _) in self.functions() {
            self.follow_slot(at);
        }
        // A region that was in the way of another may have gone in the first pass.
        for (at, _) in self.functions() {
            self.follow_slot(at);
        }
    }

    fn slot(&self, at: PciAddress) -> Option<Arc<Slot>> {
        self.slots
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&at)
            .map(Arc::clone)
    }

    fn follow_bars(&self, at: PciAddress) {
        // A region that went away may have been in another's place.
        if self.follow_slot(at) {
            for (other, _) in self.functions() {
                if other != at {
                    self.follow_slot(other);
                }
            }
        }
    }

    /// Brings the mappings of one function in line with its registers; tells whether any changed.
    fn follow_slot(&self, at: PciAddress) -> bool {
        let Some(slot) = self.slot(at) else {
            return false;
        };
        let (mapped, changed) = {
            let mut mapped = slot.mapped.get();
            let Some(mapped) = mapped.as_mut() else {
                return false;
            };
            // Read under the lock: of two writers, the later to get here sees both writes.
            let wanted = slot.function.bars();
            let before = mapped.clone();
            for gone in before.iter().filter(|region| !wanted.contains(region)) {
                self.unmap(*gone);
            }
            mapped.retain(|region| wanted.contains(region));
            for region in wanted {
                if !mapped.contains(&region) && self.map(&slot.function, region) {
                    mapped.push(region);
                }
            }
            let changed = *mapped != before;
            (mapped.clone(), changed)
        };
        if changed {
            slot.function.bars_mapped(&mapped);
        }
        changed
    }

    /// Puts a region on its bus; tells whether there was room.
    fn map(&self, function: &Arc<dyn PciFunction>, region: BarRegion) -> bool {
        let window = Arc::new(Window {
            function: Arc::clone(function),
            region,
        });
        let last = region.base + (region.size - 1);
        let result = match region.kind {
            BarKind::Io => {
                let first = u16::try_from(region.base).unwrap_or(u16::MAX);
                let last = u16::try_from(last).unwrap_or(0);
                self.ports
                    .upgrade()
                    .map(|ports| ports.insert(first..=last, window))
            }
            BarKind::Memory32 | BarKind::Memory64 => self
                .mmio
                .upgrade()
                .map(|mmio| mmio.insert(region.base..=last, window)),
        };
        if let Some(Err(error)) = &result
            && let Some(count) = self.log.admit()
        {
            let name = function.name();
            tracing::debug!(name, bar = region.bar, %error, count, "a region stays unmapped");
        }
        matches!(result, Some(Ok(())))
    }

    fn unmap(&self, region: BarRegion) {
        let result: Result<(), BusError> = match region.kind {
            BarKind::Io => {
                let first = u16::try_from(region.base).unwrap_or(u16::MAX);
                self.ports
                    .upgrade()
                    .map_or(Ok(()), |ports| ports.remove(first))
            }
            BarKind::Memory32 | BarKind::Memory64 => self
                .mmio
                .upgrade()
                .map_or(Ok(()), |mmio| mmio.remove(region.base)),
        };
        result.expect("only mapped regions are unmapped, and only by the bus");
    }
}

#[cfg(test)]
mod tests;
