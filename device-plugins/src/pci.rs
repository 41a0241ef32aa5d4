//! PCI devices and SR-IOV virtual functions, by IOMMU group.
//!
//! ```text
//!  sysfs ──► function: what one function is ─┐
//!        ──► group: who else is in its group ─┼─► plan: what is offered, and why not ──► Offers
//!        ◄── bind: vfio-pci for what was asked for (`--bind-vfio`)
//! ```
//!
//! A unit is an IOMMU group: the kernel gives a group to one owner only. It is on offer when nothing in it is in the hands of
//! a driver of the host (bridges aside), and its addresses are those of the functions that were asked for.

mod address;
mod bind;
mod function;
mod group;
mod plan;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use self::address::Address;
use self::function::Function;
use self::group::Group;
use crate::resource::{ResourceName, ResourceNameError};
use crate::source::{Host, Source};
use crate::sysfs;
use crate::unit::{LeftOut, Offer};

/// Most characters of a wrong selector that its error repeats.
const SHOWN_LEN_MAX: usize = 64;

/// Asks for the PCI functions of one make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciSelector {
    /// Resource under which they are offered.
    pub resource: ResourceName,
    /// Vendor ID.
    pub vendor: u16,
    /// Device ID.
    pub device: u16,
}

/// Why a text asks for no PCI functions.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// The resource has no name that the kubelet takes.
    #[error(transparent)]
    Resource(#[from] ResourceNameError),
    /// The selector is not two numbers.
    #[error(
        "{selector:?} is no PCI selector: expected the vendor and device ID, each of up to four hexadecimal digits, such as 10DE:1EB8"
    )]
    Selector {
        /// The text, shortened.
        selector: String,
    },
}

/// Finds PCI devices that are bound to vfio-pci.
#[derive(Clone, Debug, Default)]
pub struct PciDevices {
    /// What is asked for, in order: a device belongs to the first that fits.
    pub selectors: Vec<PciSelector>,
    /// Whether functions that are asked for are bound to vfio-pci where they are not. That goes for virtual functions only,
    /// and only for those that nobody uses: none whose network interface is up or in another network namespace, no storage
    /// with a block device, no boot display, nothing without an IOMMU group. A physical function is left to the operator.
    pub bind_vfio: bool,
}

impl PciSelector {
    /// Reads a selector of a `KubeVirt` object (`permittedHostDevices.pciHostDevices[].pciVendorSelector`): `10DE:1EB8`, in
    /// any case, with or without `0x` and leading zeros.
    ///
    /// # Errors
    ///
    /// Fails on a resource that the kubelet does not take, and on a selector that is not two numbers of 16 bits.
    pub fn parse(resource: &str, selector: &str) -> Result<Self, SelectorError> {
        let resource = ResourceName::new(resource)?;
        let (vendor, device) = ids(selector).ok_or_else(|| SelectorError::Selector {
            selector: selector.chars().take(SHOWN_LEN_MAX).collect(),
        })?;
        Ok(Self {
            resource,
            vendor,
            device,
        })
    }

    fn fits(&self, (vendor, device): (u16, u16)) -> bool {
        self.vendor == vendor && self.device == device
    }
}

fn ids(selector: &str) -> Option<(u16, u16)> {
    let (vendor, device) = selector.split_once(':')?;
    Some((id(vendor)?, id(device)?))
}

fn id(text: &str) -> Option<u16> {
    let text = text.trim();
    let digits = text
        .strip_prefix("0x")
        .or_else(|| text.strip_prefix("0X"))
        .unwrap_or(text);
    let is_number = digits.len() <= 4 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_number.then(|| u16::from_str_radix(digits, 16).ok())?
}

impl Source for PciDevices {
    fn discover(&self, host: &Host) -> Vec<Offer> {
        let functions = self.asked_for(host);
        let numbers = functions.iter().filter_map(|function| function.group);
        let groups: BTreeMap<u32, Group> = numbers
            .map(|number| (number, Group::read(host, number)))
            .collect();
        plan::offers(self, &functions, &groups)
    }

    fn folders(&self) -> Vec<PathBuf> {
        vec!["/dev/vfio".into(), "/dev/vfio/devices".into()]
    }

    fn prepare(&self, host: &Host) -> Vec<LeftOut> {
        if !self.bind_vfio {
            return Vec::new();
        }
        let functions = self.asked_for(host);
        bind::bind_all(host, &functions, &bind::write_attribute)
    }
}

impl PciDevices {
    /// The functions that fit a selector, in the order of their addresses.
    fn asked_for(&self, host: &Host) -> Vec<Function> {
        if self.selectors.is_empty() {
            return Vec::new();
        }
        let mut functions: Vec<Function> = sysfs::entries(&folder(host))
            .iter()
            .filter(|entry| self.fits(entry))
            .filter_map(|entry| Function::read(host, entry))
            .collect();
        functions.sort_by_key(|function| function.address);
        functions
    }

    fn fits(&self, entry: &Path) -> bool {
        function::ids(entry)
            .is_some_and(|ids| self.selectors.iter().any(|selector| selector.fits(ids)))
    }
}

fn folder(host: &Host) -> PathBuf {
    host.sys_dir.join("bus/pci/devices")
}

#[cfg(test)]
mod tests;
