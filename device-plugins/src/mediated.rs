//! Mediated devices, by the name of their type.

use std::path::{Path, PathBuf};

use crate::resource::{ResourceName, ResourceNameError};
use crate::source::{Host, Source};
use crate::unit::{LeftOut, Offer, Unit, VariablePrefix};
use crate::{sysfs, vfio};

/// Longest name of a type: a generous page line; real ones are below 32 characters.
const TYPE_NAME_LEN_MAX: usize = 128;
/// Digits and dashes of a UUID.
const UUID_LEN: usize = 36;

/// Asks for the mediated devices of one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediatedSelector {
    /// Resource under which they are offered.
    pub resource: ResourceName,
    /// Name of the type: `GRID T4-1Q`. Spaces and underscores are the same.
    pub type_name: String,
}

/// Why a text asks for no mediated devices.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// The resource has no name that the kubelet takes.
    #[error(transparent)]
    Resource(#[from] ResourceNameError),
    /// The name of the type is empty or too long.
    #[error(
        "{type_name:?} is no name of a mediated device type: expected up to 128 characters, such as GRID T4-1Q"
    )]
    TypeName {
        /// The name, shortened.
        type_name: String,
    },
}

/// Finds mediated devices.
#[derive(Clone, Debug, Default)]
pub struct MediatedDevices {
    /// What is asked for, in order: a device belongs to the first that fits.
    pub selectors: Vec<MediatedSelector>,
}

/// A mediated device as sysfs tells of it.
struct Mediated {
    uuid: String,
    type_name: String,
    driver: Option<String>,
    is_vfio: bool,
    group: Option<u32>,
    numa_node: Option<u32>,
    nodes: Vec<PathBuf>,
}

impl MediatedSelector {
    /// Takes a selector of a `KubeVirt` object (`permittedHostDevices.mediatedDevices[].mdevNameSelector`).
    ///
    /// # Errors
    ///
    /// Fails on a resource that the kubelet does not take, and on an empty or overlong name.
    pub fn new(resource: &str, type_name: &str) -> Result<Self, SelectorError> {
        let resource = ResourceName::new(resource)?;
        let type_name = type_name.trim();
        if type_name.is_empty() || type_name.len() > TYPE_NAME_LEN_MAX {
            let type_name = type_name.chars().take(TYPE_NAME_LEN_MAX).collect();
            return Err(SelectorError::TypeName { type_name });
        }
        Ok(Self {
            resource,
            type_name: type_name.to_owned(),
        })
    }

    fn fits(&self, device: &Mediated) -> bool {
        plain(&self.type_name) == plain(&device.type_name)
    }
}

/// A name as upstream compares it.
fn plain(type_name: &str) -> String {
    type_name.trim().replace(' ', "_")
}

impl Source for MediatedDevices {
    fn discover(&self, host: &Host) -> Vec<Offer> {
        let devices = if self.selectors.is_empty() {
            Vec::new()
        } else {
            found(host)
        };
        let mut offers: Vec<Offer> = Vec::new();
        for selector in &self.selectors {
            if !offers
                .iter()
                .any(|offer| offer.resource == selector.resource)
            {
                offers.push(self.offer(host, &selector.resource, &devices));
            }
        }
        offers
    }

    fn folders(&self) -> Vec<PathBuf> {
        vec!["/dev/vfio".into(), "/dev/vfio/devices".into()]
    }
}

impl MediatedDevices {
    fn offer(&self, host: &Host, resource: &ResourceName, devices: &[Mediated]) -> Offer {
        let mut offer = Offer {
            resource: resource.clone(),
            variable: Some(VariablePrefix::Mediated),
            units: Vec::new(),
            left_out: Vec::new(),
        };
        for device in devices.iter().filter(|device| self.asks(resource, device)) {
            match self.unit(host, resource, device) {
                Ok(unit) => offer.units.push(unit),
                Err(reason) => offer.left_out.push(LeftOut {
                    device: device.uuid.clone(),
                    reason,
                }),
            }
        }
        offer
    }

    fn asks(&self, resource: &ResourceName, device: &Mediated) -> bool {
        let mut own = self
            .selectors
            .iter()
            .filter(|selector| selector.resource == *resource);
        own.any(|selector| selector.fits(device))
    }

    fn unit(
        &self,
        host: &Host,
        resource: &ResourceName,
        device: &Mediated,
    ) -> Result<Unit, String> {
        let first = self.selectors.iter().find(|selector| selector.fits(device));
        match first {
            Some(first) if first.resource != *resource => {
                let first = &first.resource;
                Err(format!(
                    "belongs to {first}, whose selector for it comes first"
                ))
            }
            _ => device.unit(host),
        }
    }
}

/// All mediated devices in the order of their UUIDs.
fn found(host: &Host) -> Vec<Mediated> {
    sysfs::entries(&host.sys_dir.join("bus/mdev/devices"))
        .iter()
        .filter_map(|folder| Mediated::read(host, folder))
        .collect()
}

impl Mediated {
    fn read(host: &Host, folder: &Path) -> Option<Self> {
        let uuid = folder.file_name()?.to_str().filter(|name| is_uuid(name))?;
        let driver = sysfs::link_name(folder, "driver");
        // Its folder is below its parent's, however it was reached.
        let parent = folder.canonicalize().ok()?.parent()?.to_owned();
        Some(Self {
            uuid: uuid.to_owned(),
            type_name: type_name(folder)?,
            is_vfio: vfio::has(folder, driver.as_deref()),
            driver,
            group: sysfs::link_name(folder, "iommu_group").and_then(|name| name.parse().ok()),
            numa_node: sysfs::numa_node(&parent),
            nodes: vfio::device_nodes(host, folder),
        })
    }

    fn unit(&self, host: &Host) -> Result<Unit, String> {
        let group = self
            .group
            .filter(|_| self.is_bound())
            .ok_or_else(|| self.unbound())?;
        Ok(Unit {
            id: self.uuid.clone(),
            copies: 1,
            parts: vec![self.uuid.clone()],
            health: vfio::health(host, group),
            numa_node: self.numa_node,
            nodes: vfio::nodes(group, self.nodes.iter().cloned()),
            addresses: vec![self.uuid.clone()],
        })
    }

    /// Whether a driver has it. Any driver of the mdev bus hands its devices to VFIO.
    fn is_bound(&self) -> bool {
        self.is_vfio || self.driver.is_some()
    }

    fn unbound(&self) -> String {
        match &self.driver {
            Some(driver) => format!(
                "has the driver {driver} and no IOMMU group: switch the IOMMU on in the firmware and in the kernel (intel_iommu=on), then remove the device and make it again"
            ),
            None => "has no driver: load that of its parent device, or modprobe vfio_mdev on kernels before 5.16".to_owned(),
        }
    }
}

/// The name of a device's type; where the type has none, what its driver calls it.
fn type_name(folder: &Path) -> Option<String> {
    sysfs::attribute(&folder.join("mdev_type"), "name")
        .filter(|name| !name.is_empty())
        .or_else(|| sysfs::link_name(folder, "mdev_type"))
}

fn is_uuid(text: &str) -> bool {
    let is_fit = |(index, byte): (usize, u8)| match index {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    text.len() == UUID_LEN && text.bytes().enumerate().all(is_fit)
}

#[cfg(test)]
mod tests;
