//! Networks and interfaces.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::storage::check_pci_address;
use super::{Cluster, gate_text};
use crate::devices::{DhcpOptions, Interface, PortRange};
use crate::features::gate;
use crate::field::FieldPath;
use crate::networks::Network;
use crate::validate::Findings;
use crate::vmi::VmiSpec;

/// Network cards that guests know.
const MODELS: [&str; 7] = [
    "virtio", "e1000", "e1000e", "igb", "ne2k_pci", "pcnet", "rtl8139",
];
/// Address of the bridge in the pod.
const RESERVED_MAC: &str = "02:00:00:00:00:00";
/// Most ranges of ports of an interface.
const MAX_PORT_RANGES: usize = 10;

pub(super) fn check(spec: &VmiSpec, cluster: &Cluster<'_>, findings: &mut Findings) {
    let path = FieldPath::new("spec.domain.devices.interfaces");
    for (index, interface) in spec.domain.devices.interfaces.iter().enumerate() {
        let path = path.index(index);
        let mut networks = spec.networks.iter();
        let network = networks.find(|network| network.name == interface.name);
        check_binding(interface, network, cluster, &path, findings);
        check_state(interface, network, &path, findings);
        check_fields(interface, &path, findings);
        check_ports(interface, &path, findings);
        check_port_ranges(interface, cluster, &path, findings);
        if let Some(options) = &interface.dhcp_options {
            check_dhcp(options, &path.child("dhcpOptions"), findings);
        }
    }
    check_networks(spec, cluster, findings);
}

fn check_networks(spec: &VmiSpec, cluster: &Cluster<'_>, findings: &mut Findings) {
    let path = FieldPath::new("spec.networks");
    let is_default = |network: &Network| {
        let multus = network.multus.as_ref();
        network.pod.is_some() || multus.is_some_and(|multus| multus.is_default == Some(true))
    };
    let mut defaults = spec
        .networks
        .iter()
        .enumerate()
        .filter(|(_, n)| is_default(n));
    if let (Some((first, _)), Some((second, _))) = (defaults.next(), defaults.next()) {
        let text = format!(
            "{path}[{first}] is the pod's own network already: keep one of pod and multus.default"
        );
        findings.duplicate(path.index(second), text);
    }
    let mut claims = BTreeMap::new();
    for (index, network) in spec.networks.iter().enumerate() {
        let path = path.index(index);
        if network
            .multus
            .as_ref()
            .is_some_and(|multus| multus.network_name.is_empty())
        {
            findings.required(
                path.child("multus.networkName"),
                "required: name a network attachment definition, [namespace/]name",
            );
        }
        let Some(claim) = &network.resource_claim else {
            continue;
        };
        let path = path.child("resourceClaim");
        if !cluster.is_on(gate::NETWORK_DEVICES_WITH_DRA) {
            findings.forbidden(path, gate_text(gate::NETWORK_DEVICES_WITH_DRA));
            continue;
        }
        if spec.networks.iter().any(|network| network.multus.is_some()) {
            findings.add(
                path.clone(),
                "does not go with Multus networks: use one kind only",
            );
        }
        let mut interfaces = spec.domain.devices.interfaces.iter();
        let interface = interfaces.find(|interface| interface.name == network.name);
        if interface.is_some_and(|i| i.sriov.is_none() && i.binding.is_none()) {
            findings.add(
                path.clone(),
                "needs an interface with sriov or a binding plugin: change it",
            );
        }
        for (field, value) in [
            ("claimName", &claim.claim_name),
            ("requestName", &claim.request_name),
        ] {
            if value.is_empty() {
                findings.required(
                    path.child(field),
                    "required: name the claim and its request",
                );
            }
        }
        if !spec
            .resource_claims
            .iter()
            .any(|known| known.name == claim.claim_name)
        {
            let text = format!(
                "no claim is called {:?}: add it to spec.resourceClaims",
                claim.claim_name
            );
            findings.add(path.child("claimName"), text);
        }
        let key = (&claim.claim_name, &claim.request_name);
        if let Some(first) = claims.insert(key, index) {
            let text =
                format!("spec.networks[{first}] asks for the same device: choose another request");
            findings.duplicate(path, text);
        }
    }
}

fn check_binding(
    interface: &Interface,
    network: Option<&Network>,
    cluster: &Cluster<'_>,
    path: &FieldPath,
    findings: &mut Findings,
) {
    for (field, is_set) in [
        ("slirp", interface.slirp.is_some()),
        ("macvtap", interface.macvtap.is_some()),
        ("passt", interface.passt.is_some()),
    ] {
        if is_set {
            let text = "is gone since KubeVirt 1.3: use masquerade, bridge, sriov or passtBinding";
            findings.one_of_text(path.child(field), text);
            return;
        }
    }
    let bindings = [
        interface.bridge.is_some(),
        interface.masquerade.is_some(),
        interface.sriov.is_some(),
        interface.passt_binding.is_some(),
        interface.binding.is_some(),
    ];
    if !bindings.contains(&true) {
        findings.required(
            path.clone(),
            "required: set a binding, such as `masquerade: {}` or `bridge: {}`",
        );
    }
    let is_pod = network.is_some_and(|network| network.pod.is_some());
    // The case with Multus is reported with the machine's own rules.
    let is_claim = network.is_some_and(|network| network.resource_claim.is_some());
    if interface.masquerade.is_some() && is_claim {
        findings.add(
            path.child("masquerade"),
            "only for the pod network: use another binding",
        );
    }
    if interface.masquerade.is_some() && interface.mac_address.to_ascii_lowercase() == RESERVED_MAC
    {
        findings.add(
            path.child("macAddress"),
            "is the address of the bridge in the pod: choose another",
        );
    }
    let settings = cluster.config.network.as_ref();
    let may_bridge =
        settings.is_none_or(|s| s.permit_bridge_interface_on_pod_network != Some(false));
    if interface.bridge.is_some() && is_pod && !may_bridge {
        findings.forbidden(
            path.child("bridge"),
            "the cluster doesn't allow bridges to the pod network: use masquerade",
        );
    }
    if interface.passt_binding.is_some() {
        if !cluster.is_on(gate::PASST_BINDING) {
            findings.forbidden(path.child("passtBinding"), gate_text(gate::PASST_BINDING));
        } else if !is_pod {
            findings.add(
                path.child("passtBinding"),
                "only for the pod network: use bridge",
            );
        }
    }
    if interface
        .binding
        .as_ref()
        .is_some_and(|binding| binding.name.is_empty())
    {
        findings.required(
            path.child("binding.name"),
            "required: name a binding plugin",
        );
    }
}

fn check_state(
    interface: &Interface,
    network: Option<&Network>,
    path: &FieldPath,
    findings: &mut Findings,
) {
    let path = path.child("state");
    let state = interface.state.as_str();
    findings.one_of(path.clone(), state, &["up", "down", "absent"]);
    if interface.sriov.is_some() && matches!(state, "up" | "down") {
        findings.add(
            path.clone(),
            "the link of a virtual function cannot be set: remove the state",
        );
    }
    if state == "absent" {
        let is_default = network.is_some_and(|network| {
            let multus = network.multus.as_ref();
            network.pod.is_some() || multus.is_some_and(|m| m.is_default == Some(true))
        });
        if interface.bridge.is_none() {
            findings.add(
                path,
                "only bridges can be absent: remove the interface instead",
            );
        } else if is_default {
            findings.add(path, "the pod's own network cannot be absent: use down");
        }
    }
}

fn check_fields(interface: &Interface, path: &FieldPath, findings: &mut Findings) {
    findings.one_of(path.child("model"), &interface.model, &MODELS);
    if !interface.pci_address.is_empty() {
        check_pci_address(&interface.pci_address, &path.child("pciAddress"), findings);
    }
}

fn check_ports(interface: &Interface, path: &FieldPath, findings: &mut Findings) {
    let mut names = BTreeMap::new();
    for (index, port) in interface.ports.iter().enumerate() {
        let path = path.child("ports").index(index).child("name");
        if port.name.is_empty() {
            continue;
        }
        if !is_port_name(&port.name) {
            let text = format!(
                "{:?} is no name of a port: use at most 15 lower-case letters, digits and '-'",
                port.name
            );
            findings.add(path.clone(), text);
        }
        if let Some(first) = names.insert(&port.name, index) {
            let text = format!("ports[{first}] has the same name: choose another");
            findings.duplicate(path, text);
        }
    }
}

/// Whether a text can name a port (RFC 6335 §5.1).
pub(super) fn is_port_name(name: &str) -> bool {
    name.len() <= 15
        && crate::validate::identity::is_dns_label(name)
        && name.bytes().any(|byte| byte.is_ascii_lowercase())
        && !name.contains("--")
}

fn check_port_ranges(
    interface: &Interface,
    cluster: &Cluster<'_>,
    path: &FieldPath,
    findings: &mut Findings,
) {
    let ranges = &interface.port_ranges;
    let path = path.child("portRanges");
    if ranges.is_empty() {
        return;
    }
    if !cluster.is_on(gate::PORT_RANGES) {
        return findings.forbidden(path, gate_text(gate::PORT_RANGES));
    }
    if !interface.ports.is_empty() {
        findings.add(path.clone(), "excludes ports: keep one of them");
    }
    if interface.masquerade.is_none() {
        findings.add(path.clone(), "only for masquerade: remove it");
    }
    if ranges.len() > MAX_PORT_RANGES {
        let text = format!(
            "{} ranges are above {MAX_PORT_RANGES}: join some",
            ranges.len()
        );
        return findings.add(path, text);
    }
    for (index, range) in ranges.iter().enumerate() {
        let path = path.index(index);
        match range.protocol.as_str() {
            "" => findings.required(path.child("protocol"), "required: use TCP or UDP"),
            protocol => findings.one_of(path.child("protocol"), protocol, &["TCP", "UDP"]),
        }
        for (field, port) in [("start", range.start), ("end", range.end)] {
            if !port.is_some_and(|port| (1..=65535).contains(&port)) {
                findings.add(path.child(field), "use a number from 1 to 65535");
            }
        }
        if range.start > range.end {
            findings.add(path.child("start"), "is above end: swap them");
        }
        let overlaps = |other: &PortRange| {
            other.protocol == range.protocol && other.start <= range.end && range.start <= other.end
        };
        if let Some(first) = ranges[..index].iter().position(overlaps) {
            findings.duplicate(
                path,
                format!("overlaps with portRanges[{first}]: join them"),
            );
        }
    }
}

fn check_dhcp(options: &DhcpOptions, path: &FieldPath, findings: &mut Findings) {
    for (index, server) in options.ntp_servers.iter().enumerate() {
        if server.parse::<Ipv4Addr>().is_err() {
            let text = format!("{server:?} is no IPv4 address: write it as 192.0.2.1");
            findings.add(path.child("ntpServers").index(index), text);
        }
    }
    let mut seen = BTreeMap::new();
    for (index, option) in options.private_options.iter().enumerate() {
        let path = path.child("privateOptions").index(index).child("option");
        let number = option.option.unwrap_or(0);
        if !(224..=254).contains(&number) {
            findings.add(
                path.clone(),
                format!("{number} is not for private use: use 224 to 254"),
            );
        }
        if let Some(first) = seen.insert(number, index) {
            let text = format!("privateOptions[{first}] is {number} already: choose another");
            findings.duplicate(path, text);
        }
    }
}
