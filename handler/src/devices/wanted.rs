//! What the node was asked to offer, from the `KubeVirt` object and the command line.

use std::collections::BTreeMap;

use api::components::resource;
use api::error_chain::chain;
use api::kubevirt::{Configuration, PermittedHostDevices, UsbSelector as PermittedUsb};
use device_plugins::char_device::{CharDevices, MAX_DEVICES};
use device_plugins::mediated::MediatedSelector;
use device_plugins::pci::PciSelector;
use device_plugins::resource::ResourceName;
use device_plugins::usb::{UsbMatch, UsbSelector};
use device_plugins::usb_list;
use device_plugins::wanted::{Problem, Wanted};
use proto::node::NodeFacts;

use crate::cli::Accel;
use crate::run::measured;

/// Most units of a shared device: a list of them still fits a message of the kubelet's, many times over.
pub const MAX_DEVICES_MAX: u32 = 65_536;

/// Where the flag of the `usbList` is told of.
const USB_LIST: &str = "--usb-list";
/// Resources of shared devices.
const SHARED: [&str; 4] = [
    resource::KVM,
    resource::TUN,
    resource::VHOST_NET,
    resource::VHOST_VSOCK,
];

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceFlags {
    /// Units of each shared device.
    pub max_devices: u32,
    /// USB devices by resource, vendor and product.
    pub usb_list: String,
    /// Whether PCI functions are bound to vfio-pci where they are not.
    pub bind_vfio: bool,
    /// What runs the processors of machines.
    pub accel: Accel,
}

impl Default for DeviceFlags {
    fn default() -> Self {
        Self {
            max_devices: MAX_DEVICES,
            usb_list: String::new(),
            bind_vfio: false,
            accel: Accel::Auto,
        }
    }
}

/// Returns what the node was asked to offer. What makes no sense is told in its problems, with its field, and the rest
/// counts. Pure.
#[must_use]
pub fn wanted(
    configuration: &Configuration,
    flags: &DeviceFlags,
    facts: Option<&NodeFacts>,
) -> Wanted {
    let mut ask = Ask::default();
    let char_devices = CharDevices {
        count: ask.count(configuration, flags),
        kvm_refusal: kvm_refusal(flags.accel, facts),
    };
    if let Some(permitted) = &configuration.permitted_host_devices {
        ask.pci(permitted);
        ask.mediated(permitted);
        ask.usb(permitted);
    }
    ask.usb_list(&flags.usb_list);
    Wanted {
        char_devices,
        bind_vfio: flags.bind_vfio,
        ..ask.wanted
    }
}

/// Returns why KVM is of no use here, where it was measured to be of none and nobody insists on it.
fn kvm_refusal(accel: Accel, facts: Option<&NodeFacts>) -> Option<String> {
    let facts = facts.filter(|facts| accel != Accel::Kvm && facts.backend == "soft")?;
    let unexplained = || "the software CPU runs the processors of machines here".to_owned();
    Some(measured(facts).unwrap_or_else(unexplained))
}

/// Which kind of devices a resource has: one resource has devices of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Pci,
    Mediated,
    Usb,
}

/// Collects what is asked for.
#[derive(Debug, Default)]
struct Ask {
    wanted: Wanted,
    kinds: BTreeMap<ResourceName, Kind>,
}

impl Ask {
    fn problem(&mut self, field: String, text: impl Into<String>) {
        self.wanted.problems.push(Problem {
            field,
            text: text.into(),
        });
    }

    fn count(&mut self, configuration: &Configuration, flags: &DeviceFlags) -> u32 {
        let Some(asked) = configuration.virtual_machine_instances_per_node else {
            return flags.max_devices;
        };
        let count = u32::try_from(asked)
            .ok()
            .filter(|count| *count <= MAX_DEVICES_MAX);
        count.unwrap_or_else(|| {
            let text = format!(
                "{asked} is no number of machines: expected 0 to {MAX_DEVICES_MAX}; going on with {}",
                flags.max_devices
            );
            self.problem("virtualMachineInstancesPerNode".to_owned(), text);
            flags.max_devices
        })
    }

    /// Takes the name of a resource for a kind of devices.
    fn resource(&mut self, item: &str, name: &str, kind: Kind) -> Option<ResourceName> {
        let field = format!("{item}.resourceName");
        match ResourceName::new(name) {
            Ok(resource) => self.claim(field, resource, kind),
            Err(error) => {
                self.problem(field, chain(&error));
                None
            }
        }
    }

    fn claim(&mut self, field: String, resource: ResourceName, kind: Kind) -> Option<ResourceName> {
        let is_shared = SHARED.contains(&resource.as_str());
        let known = *self.kinds.entry(resource.clone()).or_insert(kind);
        if is_shared || known != kind {
            let text =
                format!("{resource} is the name of devices of another kind: choose another name");
            self.problem(field, text);
            return None;
        }
        Some(resource)
    }

    fn pci(&mut self, permitted: &PermittedHostDevices) {
        for (at, device) in permitted.pci_host_devices.iter().enumerate() {
            let item = format!("permittedHostDevices.pciHostDevices[{at}]");
            if device.external_resource_provider == Some(true)
                || self
                    .resource(&item, &device.resource_name, Kind::Pci)
                    .is_none()
            {
                continue;
            }
            match PciSelector::parse(&device.resource_name, &device.pci_vendor_selector) {
                Ok(selector) => self.wanted.pci.push(selector),
                Err(error) => self.problem(format!("{item}.pciVendorSelector"), chain(&error)),
            }
        }
    }

    fn mediated(&mut self, permitted: &PermittedHostDevices) {
        for (at, device) in permitted.mediated_devices.iter().enumerate() {
            let item = format!("permittedHostDevices.mediatedDevices[{at}]");
            if device.external_resource_provider == Some(true) {
                continue;
            }
            if self
                .resource(&item, &device.resource_name, Kind::Mediated)
                .is_none()
            {
                continue;
            }
            match MediatedSelector::new(&device.resource_name, &device.mdev_name_selector) {
                Ok(selector) => self.wanted.mediated.push(selector),
                Err(error) => self.problem(format!("{item}.mdevNameSelector"), chain(&error)),
            }
        }
    }

    fn usb(&mut self, permitted: &PermittedHostDevices) {
        for (at, device) in permitted.usb.iter().enumerate() {
            let item = format!("permittedHostDevices.usb[{at}]");
            if device.external_resource_provider == Some(true) {
                continue;
            }
            let name = self.resource(&item, &device.resource_name, Kind::Usb);
            let matches = self.usb_matches(&item, &device.selectors);
            if let (Some(resource), Some(matches)) = (name, matches) {
                self.wanted.usb.push(UsbSelector { resource, matches });
            }
        }
    }

    /// Takes the devices of a unit; a unit of which one makes no sense is none.
    fn usb_matches(&mut self, item: &str, selectors: &[PermittedUsb]) -> Option<Vec<UsbMatch>> {
        if selectors.is_empty() {
            let text = "it is empty: expected a vendor and a product for each device of a unit";
            self.problem(format!("{item}.selectors"), text);
            return None;
        }
        let mut matches = Vec::with_capacity(selectors.len());
        for (at, selector) in selectors.iter().enumerate() {
            match UsbMatch::parse(&selector.vendor, &selector.product) {
                Ok(found) => matches.push(found),
                Err(error) => self.problem(format!("{item}.selectors[{at}]"), chain(&error)),
            }
        }
        (matches.len() == selectors.len()).then_some(matches)
    }

    fn usb_list(&mut self, list: &str) {
        let (selectors, problems) = usb_list::parse(list);
        self.wanted.problems.extend(problems);
        for selector in selectors {
            let resource = selector.resource.clone();
            if self
                .claim(USB_LIST.to_owned(), resource, Kind::Usb)
                .is_some()
            {
                self.wanted.usb.push(selector);
            }
        }
    }
}

#[cfg(test)]
mod tests;
