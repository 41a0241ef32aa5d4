//! What one PCI function is.

use std::path::{Path, PathBuf};

use super::Address;
use crate::source::Host;
use crate::{sysfs, vfio};

/// Class and subclass of bridges to further PCI buses.
const PCI_BRIDGE: u32 = 0x0604;
/// Class and subclass of bridges to `CardBus`.
const CARDBUS_BRIDGE: u32 = 0x0607;

/// A function as sysfs tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) address: Address,
    /// Vendor and device ID.
    pub(super) ids: (u16, u16),
    /// Class, subclass and programming interface.
    pub(super) class: Option<u32>,
    pub(super) driver: Option<String>,
    /// Whether its driver hands it to VFIO.
    pub(super) is_vfio: bool,
    /// The driver that it is kept for.
    pub(super) driver_override: Option<String>,
    /// Number of its IOMMU group.
    pub(super) group: Option<u32>,
    pub(super) role: Role,
    pub(super) numa_node: Option<u32>,
    /// Its nodes in `/dev/vfio/devices`.
    pub(super) nodes: Vec<PathBuf>,
}

/// What a function is in SR-IOV (PCI Express 6.0 §9).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// Has or could have virtual functions: how many it has.
    Physical(usize),
    /// Is one.
    Virtual {
        /// Name of the physical function.
        physical: String,
        /// Whether that is in VFIO's hands.
        is_physical_vfio: bool,
    },
}

/// Vendor and device ID of a function; none where they make no sense.
pub(super) fn ids(folder: &Path) -> Option<(u16, u16)> {
    Some((sysfs::hex(folder, "vendor")?, sysfs::hex(folder, "device")?))
}

/// Whether a class is that of a bridge with buses behind it, whose driver VFIO accepts in a group.
pub(super) fn is_bridge(class: Option<u32>) -> bool {
    matches!(
        class.map(|class| class >> 8),
        Some(PCI_BRIDGE | CARDBUS_BRIDGE)
    )
}

impl Function {
    /// Reads a function's folder; none where that is not a function's.
    pub(super) fn read(host: &Host, folder: &Path) -> Option<Self> {
        let driver = sysfs::link_name(folder, "driver");
        Some(Self {
            address: Address::of(folder)?,
            ids: ids(folder)?,
            class: sysfs::hex_u32(folder, "class"),
            is_vfio: vfio::has(folder, driver.as_deref()),
            driver,
            driver_override: sysfs::attribute(folder, "driver_override"),
            group: sysfs::link_name(folder, "iommu_group").and_then(|name| name.parse().ok()),
            role: Role::read(folder),
            numa_node: sysfs::numa_node(folder),
            nodes: vfio::device_nodes(host, folder),
        })
    }

    pub(super) fn is_virtual(&self) -> bool {
        matches!(self.role, Role::Virtual { .. })
    }

    pub(super) fn is_bridge(&self) -> bool {
        is_bridge(self.class)
    }
}

impl Role {
    fn read(folder: &Path) -> Self {
        let Some(physical) = sysfs::link_name(folder, "physfn") else {
            return Self::Physical(virtual_functions(folder));
        };
        let target = folder.join("physfn");
        let driver = sysfs::link_name(&target, "driver");
        Self::Virtual {
            physical,
            is_physical_vfio: vfio::has(&target, driver.as_deref()),
        }
    }
}

fn virtual_functions(folder: &Path) -> usize {
    let is_link = |entry: &PathBuf| {
        let name = entry.file_name().and_then(|name| name.to_str());
        name.and_then(|name| name.strip_prefix("virtfn"))
            .is_some_and(|number| number.parse::<u32>().is_ok())
    };
    sysfs::entries(folder)
        .iter()
        .filter(|entry| is_link(entry))
        .count()
}
