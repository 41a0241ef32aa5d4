//! Which devices of nodes machines may have (`permittedHostDevices`).

use std::collections::BTreeSet;

use api::Vmi;
use api::kubevirt::PermittedHostDevices;

use crate::controller::configuration::Config;

/// Says which devices an instance may not have, if there are any.
///
/// Without a list, a machine may have whatever a node offers: the node agent offers what its `--usb-list` names, which is
/// an operator's wish too. As soon as there is a list, it holds for all.
pub(crate) fn unpermitted(vmi: &Vmi, config: &Config) -> Option<String> {
    let permitted = resources(config.cluster.permitted_host_devices.as_ref()?);
    let devices = &vmi.spec.domain.devices;
    let of_host = devices.host_devices.iter();
    let of_host = of_host.map(|device| ("HostDevice", &device.device_name));
    let gpus = devices.gpus.iter().map(|gpu| ("GPU", &gpu.device_name));
    let refused: BTreeSet<_> = gpus
        .chain(of_host)
        .filter(|(_, name)| !name.is_empty() && !permitted.contains(name.as_str()))
        .collect();
    if refused.is_empty() {
        return None;
    }
    let refused = refused.into_iter().map(|(what, name)| {
        format!("{what} {name} is not permitted in permittedHostDevices configuration")
    });
    Some(format!(
        "{}: add the resource to spec.configuration.permittedHostDevices of the KubeVirt object, with \
         externalResourceProvider: true where virt-handler's --usb-list or another device plugin offers it",
        refused.collect::<Vec<_>>().join(", ")
    ))
}

/// The resources of all lists, whoever offers them.
fn resources(listed: &PermittedHostDevices) -> BTreeSet<&str> {
    let pci = listed.pci_host_devices.iter().map(|of| &of.resource_name);
    let mediated = listed.mediated_devices.iter().map(|of| &of.resource_name);
    let usb = listed.usb.iter().map(|of| &of.resource_name);
    pci.chain(mediated).chain(usb).map(String::as_str).collect()
}
