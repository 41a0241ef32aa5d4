//! `status.interfaces` (KubeVirt §5.8): first those of the specification, then those that only the guest knows.

use std::net::IpAddr;

use api::Vmi;
use api::status::{
    INFO_SOURCE_DOMAIN, INFO_SOURCE_GUEST_AGENT, InterfaceStatus as Status, VmiStatus,
};
use proto::domain::{Domain, Interface, InterfaceStatus as Told};

use super::text::bounded;

/// Most interfaces that a guest may tell of beside those of the specification.
const GUEST_INTERFACES_MAX: usize = 32;
/// Most addresses of an interface.
const ADDRESSES_MAX: usize = 32;
/// Most characters of an interface's name; Windows' are longer than Linux's 15.
const NAME_CHARS_MAX: usize = 128;

/// Brings the interfaces to what the domain and the guest agent tell.
pub(super) fn describe(status: &mut VmiStatus, vmi: &Vmi, domain: &Domain) {
    let mut known = std::mem::take(&mut status.interfaces);
    let mut described = Vec::new();
    for device in &domain.spec.devices.interfaces {
        let Some(name) = name_in_spec(device, vmi) else {
            continue;
        };
        let position = known.iter().position(|interface| interface.name == name);
        let mut interface = position.map_or_else(Status::default, |at| known.swap_remove(at));
        name.clone_into(&mut interface.name);
        describe_device(&mut interface, device);
        described.push(interface);
    }
    // An interface of the specification that the machine doesn't have is somebody else's to remove.
    known.retain(|interface| !interface.name.is_empty());
    described.append(&mut known);
    let order = |interface: &Status| position_in_spec(vmi, &interface.name);
    described.sort_by_key(order);
    for told in domain
        .status
        .interfaces
        .iter()
        .take(ADDRESSES_MAX + GUEST_INTERFACES_MAX)
    {
        hear(&mut described, vmi, told);
    }
    if domain.status.interfaces.is_empty() {
        described.iter_mut().for_each(forget_guest);
    }
    described.truncate(vmi.spec.domain.devices.interfaces.len() + GUEST_INTERFACES_MAX);
    status.interfaces = described;
}

/// Returns the name that the specification has for a device of the domain.
fn name_in_spec<'v>(device: &Interface, vmi: &'v Vmi) -> Option<&'v str> {
    let alias = device.alias.as_ref()?;
    let mut interfaces = vmi.spec.domain.devices.interfaces.iter();
    let interface = interfaces.find(|interface| interface.name == alias.name)?;
    Some(&interface.name)
}

fn position_in_spec(vmi: &Vmi, name: &str) -> usize {
    let mut interfaces = vmi.spec.domain.devices.interfaces.iter();
    interfaces
        .position(|interface| interface.name == name)
        .unwrap_or(usize::MAX)
}

fn describe_device(interface: &mut Status, device: &Interface) {
    if let Some(mac) = device.mac.as_ref().and_then(|mac| mac_address(&mac.mac)) {
        interface.mac = mac;
    }
    interface.queue_count = Some(queues(device));
    if let Some(link) = &device.link_state
        && matches!(link.state.as_str(), "up" | "down")
    {
        interface.link_state.clone_from(&link.state);
    }
    interface.add_source(INFO_SOURCE_DOMAIN);
}

fn queues(device: &Interface) -> i32 {
    let queues = device.driver.as_ref().and_then(|driver| driver.queues);
    queues
        .and_then(|queues| i32::try_from(queues).ok())
        .unwrap_or(1)
}

/// Takes over what the guest's agent tells of one of its interfaces.
fn hear(described: &mut Vec<Status>, vmi: &Vmi, told: &Told) {
    let Some(mac) = mac_address(&told.mac) else {
        return;
    };
    let same = |interface: &&mut Status| interface.mac.eq_ignore_ascii_case(&mac);
    let Some(interface) = described.iter_mut().find(same) else {
        let mut interface = Status {
            mac,
            ..Status::default()
        };
        hear_names(&mut interface, told);
        hear_addresses(&mut interface, told);
        return described.push(interface);
    };
    hear_names(interface, told);
    // Behind masquerade the world knows the pod's addresses, not the guest's.
    if !is_masqueraded(vmi, &interface.name) {
        hear_addresses(interface, told);
    }
}

fn hear_names(interface: &mut Status, told: &Told) {
    interface.interface_name = bounded(&told.interface_name, NAME_CHARS_MAX);
    interface.add_source(INFO_SOURCE_GUEST_AGENT);
}

fn hear_addresses(interface: &mut Status, told: &Told) {
    let first = std::iter::once(&told.ip).filter(|ip| !told.ips.contains(ip));
    let addresses = first.chain(&told.ips).take(ADDRESSES_MAX);
    let addresses: Vec<String> = addresses.filter_map(|text| address(text)).collect();
    interface.ip_address = addresses.first().cloned().unwrap_or_default();
    interface.ip_addresses = addresses;
}

/// Removes what the guest's agent told, now that it is silent. What it told of addresses may still hold.
fn forget_guest(interface: &mut Status) {
    let sources = interface.info_source.split(", ");
    let others: Vec<&str> = sources
        .filter(|source| *source != INFO_SOURCE_GUEST_AGENT)
        .collect();
    interface.info_source = others.join(", ");
    interface.interface_name.clear();
}

fn is_masqueraded(vmi: &Vmi, name: &str) -> bool {
    let mut interfaces = vmi.spec.domain.devices.interfaces.iter();
    interfaces.any(|interface| interface.name == name && interface.masquerade.is_some())
}

fn address(text: &str) -> Option<String> {
    text.parse::<IpAddr>().ok().map(|ip| ip.to_string())
}

/// Returns a hardware address in small letters; `None` for what is none, and for that of loopback interfaces.
fn mac_address(text: &str) -> Option<String> {
    let octets: Vec<&str> = text.split(':').collect();
    let is_octet = |octet: &&str| octet.len() == 2 && octet.bytes().all(|b| b.is_ascii_hexdigit());
    let is_some = text.bytes().any(|b| b.is_ascii_hexdigit() && b != b'0');
    (octets.len() == 6 && octets.iter().all(is_octet) && is_some).then(|| text.to_ascii_lowercase())
}
