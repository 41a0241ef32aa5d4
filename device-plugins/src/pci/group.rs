//! Who is in an IOMMU group.

use std::path::Path;

use super::{Address, function};
use crate::source::Host;
use crate::unit::Health;
use crate::{sysfs, vfio};

/// What the kernel calls groups of devices that nothing keeps from any memory.
const UNPROTECTED: &str = "vfio-noiommu";

/// An IOMMU group: what can only be given as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    /// Whether nothing keeps its devices from the host's memory.
    pub(super) is_unprotected: bool,
    /// Its devices in the order of their addresses.
    pub(super) members: Vec<Member>,
    /// Whether its nodes are there.
    pub(super) health: Health,
}

/// A device of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    /// Its name on its bus: the address of a PCI function.
    pub(super) name: String,
    pub(super) driver: Option<String>,
    pub(super) is_vfio: bool,
    pub(super) is_bridge: bool,
}

impl Group {
    pub(super) fn read(host: &Host, number: u32) -> Self {
        let folder = host.sys_dir.join(format!("kernel/iommu_groups/{number}"));
        let is_named_so = sysfs::attribute(&folder, "name").as_deref() == Some(UNPROTECTED);
        let mut members: Vec<Member> = sysfs::entries(&folder.join("devices"))
            .iter()
            .filter_map(|entry| Member::read(entry))
            .collect();
        members.sort_by_key(|member| Address::parse(&member.name));
        Self {
            is_unprotected: is_named_so || vfio::is_unprotected(host, number),
            members,
            health: vfio::health(host, number),
        }
    }

    /// The devices for whose drivers the kernel refuses the whole group.
    pub(super) fn blockers(&self) -> impl Iterator<Item = &Member> {
        self.members.iter().filter(|member| member.is_blocker())
    }

    /// The names of its devices without its bridges.
    pub(super) fn parts(&self) -> Vec<String> {
        let devices = self.members.iter().filter(|member| !member.is_bridge);
        devices.map(|member| member.name.clone()).collect()
    }
}

impl Member {
    fn read(folder: &Path) -> Option<Self> {
        let driver = sysfs::link_name(folder, "driver");
        Some(Self {
            name: folder.file_name()?.to_str()?.to_owned(),
            is_vfio: vfio::has(folder, driver.as_deref()),
            driver,
            is_bridge: function::is_bridge(sysfs::hex_u32(folder, "class")),
        })
    }

    /// Whether a driver of the host has it that moves memory on its own account. A stub has it only to keep others away.
    fn is_blocker(&self) -> bool {
        let is_driven = self
            .driver
            .as_deref()
            .is_some_and(|name| name != "pci-stub");
        is_driven && !self.is_vfio && !self.is_bridge
    }
}
