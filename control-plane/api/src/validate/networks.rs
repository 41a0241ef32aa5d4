//! Networks and interfaces.

use std::collections::BTreeMap;

use super::Findings;
use crate::devices::Interface;
use crate::field::FieldPath;
use crate::vmi::VmiSpec;

pub(super) fn check(spec: &VmiSpec, findings: &mut Findings) {
    let path = FieldPath::new("spec.domain.devices.interfaces");
    let interfaces = &spec.domain.devices.interfaces;
    let mut names = BTreeMap::new();
    let mut addresses = BTreeMap::new();
    for (index, interface) in interfaces.iter().enumerate() {
        let path = path.index(index);
        findings.unique_name(&path.child("name"), &interface.name, &mut names);
        check_interface(spec, interface, &path, findings);
        let address = interface.mac_address.to_ascii_lowercase();
        if !address.is_empty()
            && let Some(first) = addresses.insert(address, path.clone())
        {
            findings.add(
                path.child("macAddress"),
                format!("already the address of {first}: choose another"),
            );
        }
    }
    check_networks(spec, findings);
}

fn check_interface(
    spec: &VmiSpec,
    interface: &Interface,
    path: &FieldPath,
    findings: &mut Findings,
) {
    let network = spec
        .networks
        .iter()
        .find(|network| network.name == interface.name);
    if network.is_none() && !interface.name.is_empty() {
        findings.add(
            path.child("name"),
            format!(
                "no network is called {:?}: add it to spec.networks",
                interface.name
            ),
        );
    }
    let bindings = [
        &interface.bridge,
        &interface.slirp,
        &interface.masquerade,
        &interface.sriov,
        &interface.macvtap,
        &interface.passt,
        &interface.passt_binding,
    ];
    let bindings = bindings.iter().filter(|binding| binding.is_some()).count();
    if bindings + usize::from(interface.binding.is_some()) > 1 {
        findings.add(
            path.clone(),
            "an interface has one binding: keep one of bridge, masquerade, sriov and the like",
        );
    }
    if interface.masquerade.is_some() && network.is_some_and(|network| network.multus.is_some()) {
        findings.add(
            path.child("masquerade"),
            "only for the pod network: use bridge or change the network to pod: {}",
        );
    }
    if !interface.mac_address.is_empty() && !is_unicast_mac(&interface.mac_address) {
        findings.add(
            path.child("macAddress"),
            format!(
                "{:?} is no unicast MAC address: write it as 02:00:00:00:00:01",
                interface.mac_address
            ),
        );
    }
    for (index, port) in interface.ports.iter().enumerate() {
        let path = path.child("ports").index(index);
        if !port
            .port
            .is_some_and(|number| (1..=65535).contains(&number))
        {
            findings.add(path.child("port"), "use a number from 1 to 65535");
        }
        findings.one_of(path.child("protocol"), &port.protocol, &["TCP", "UDP"]);
    }
}

fn check_networks(spec: &VmiSpec, findings: &mut Findings) {
    let interfaces = &spec.domain.devices.interfaces;
    let mut names = BTreeMap::new();
    for (index, network) in spec.networks.iter().enumerate() {
        let path = FieldPath::new("spec.networks").index(index);
        findings.unique_name(&path.child("name"), &network.name, &mut names);
        let sources = [
            network.pod.is_some(),
            network.multus.is_some(),
            network.resource_claim.is_some(),
        ];
        if sources.iter().filter(|set| **set).count() != 1 {
            findings.add(
                path.clone(),
                "a network has one source: set one of pod, multus and resourceClaim",
            );
        }
        if !interfaces
            .iter()
            .any(|interface| interface.name == network.name)
        {
            findings.add(
                path.child("name"),
                format!("no interface is called {:?}: add it to spec.domain.devices.interfaces or remove the network", network.name),
            );
        }
    }
}

fn is_unicast_mac(text: &str) -> bool {
    let octets: Option<Vec<u8>> = text
        .split([':', '-'])
        .map(|octet| {
            (octet.len() == 2)
                .then(|| u8::from_str_radix(octet, 16).ok())
                .flatten()
        })
        .collect();
    octets.is_some_and(|octets| octets.len() == 6 && octets[0] & 1 == 0)
}
