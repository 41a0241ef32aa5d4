//! What an instance's networks need of its pod (KubeVirt §5.7).

use std::collections::{BTreeMap, BTreeSet};

use api::Vmi;
use api::networks::Network;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::controller::configuration::Config;

/// Annotation that lists networks beside the pod's own.
const NETWORKS: &str = "k8s.v1.cni.cncf.io/networks";
/// Annotation with the network that replaces the pod's own.
const DEFAULT_NETWORK: &str = "v1.multus-cni.io/default-network";
/// Hexadecimal digits of an interface's name in the pod.
const NAME_DIGITS: usize = 11;

/// What is known of the definitions of networks that Multus attaches: the resource that a pod needs one of for each
/// network, or nothing, by the definition's namespace and name. Definitions that don't exist are not in it.
pub(crate) type Attachments = BTreeMap<(String, String), String>;

/// Returns namespace and name of the definitions that an instance's networks refer to. What cannot be the name of an
/// object is not among them.
pub(crate) fn definitions(vmi: &Vmi) -> BTreeSet<(String, String)> {
    of_multus(vmi)
        .map(|(_, definition)| definition)
        .filter(|(namespace, name)| is_name(namespace) && is_name(name))
        .collect()
}

fn is_name(text: &str) -> bool {
    let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
    text.starts_with(|first: char| first.is_ascii_alphanumeric()) && text.bytes().all(is_fit)
}

/// Networks that Multus attaches, each with its definition.
fn of_multus(vmi: &Vmi) -> impl Iterator<Item = (&Network, (String, String))> {
    vmi.spec.networks.iter().filter_map(|network| {
        let definition = &network.multus.as_ref()?.network_name;
        Some((network, located(vmi, definition)))
    })
}

/// A definition's namespace, the instance's unless it is named, and its name.
fn located(vmi: &Vmi, definition: &str) -> (String, String) {
    let own = vmi.metadata.namespace_or_default();
    let (namespace, name) = definition.split_once('/').unwrap_or((own, definition));
    (namespace.to_owned(), name.to_owned())
}

/// Returns the resources that the networks' definitions ask for, one for each network (KubeVirt §3.7).
pub(super) fn resources<'a>(
    vmi: &Vmi,
    attachments: &'a Attachments,
) -> impl Iterator<Item = &'a String> {
    let resources = of_multus(vmi).filter_map(|(_, definition)| attachments.get(&definition));
    resources.filter(|resource| !resource.is_empty())
}

/// Says which network has no definition, if one has none.
pub(crate) fn missing(vmi: &Vmi, attachments: &Attachments) -> Option<String> {
    let (network, (namespace, name)) =
        of_multus(vmi).find(|(_, definition)| !attachments.contains_key(definition))?;
    Some(format!(
        "failed to locate network attachment definition {namespace}/{name} of network {}: create it, or correct the \
         network's multus.networkName; clusters know such definitions when Multus is installed",
        network.name
    ))
}

/// Returns the annotations by which Multus attaches the pod.
pub(super) fn annotations(vmi: &Vmi, config: &Config) -> Vec<(String, String)> {
    let mut annotations = Vec::new();
    let mut attached = Vec::new();
    for network in &vmi.spec.networks {
        let Some(multus) = &network.multus else {
            continue;
        };
        if multus.is_default == Some(true) {
            annotations.push((DEFAULT_NETWORK.to_owned(), multus.network_name.clone()));
        } else {
            let name = interface_name(&network.name);
            attached.push(attachment(vmi, network, &multus.network_name, Some(&name)));
        }
    }
    for (network, definition) in plugins(vmi, config) {
        attached.push(attachment(vmi, network, &definition, None));
    }
    if !attached.is_empty() {
        annotations.push((NETWORKS.to_owned(), Value::Array(attached).to_string()));
    }
    annotations
}

/// Networks whose interfaces are bound by a plugin with a network attachment definition of its own.
fn plugins<'v>(vmi: &'v Vmi, config: &Config) -> Vec<(&'v Network, String)> {
    let Some(registered) = config.cluster.network.as_ref() else {
        return Vec::new();
    };
    let definition = |network: &&'v Network| {
        let interfaces = &vmi.spec.domain.devices.interfaces;
        let interface = interfaces.iter().find(|i| i.name == network.name)?;
        let plugin = registered.binding.get(&plugin_of(interface)?)?;
        let definition = &plugin.network_attachment_definition;
        (!definition.is_empty()).then(|| definition.clone())
    };
    let networks = vmi.spec.networks.iter();
    networks
        .filter_map(|network| definition(&network).map(|definition| (network, definition)))
        .collect()
}

fn plugin_of(interface: &api::devices::Interface) -> Option<String> {
    let binding = serde_json::to_value(&interface.binding).ok()?;
    binding.get("name")?.as_str().map(str::to_owned)
}

fn attachment(vmi: &Vmi, network: &Network, definition: &str, interface: Option<&str>) -> Value {
    let (namespace, name) = located(vmi, definition);
    let mut attachment = json!({ "name": name, "namespace": namespace });
    if let Some(interface) = interface {
        attachment["interface"] = json!(interface);
    }
    let interfaces = &vmi.spec.domain.devices.interfaces;
    let bound = interfaces.iter().find(|bound| bound.name == network.name);
    if let Some(bound) = bound.filter(|bound| !bound.mac_address.is_empty()) {
        attachment["mac"] = json!(bound.mac_address);
    }
    attachment
}

/// The name of a network's interface in the pod.
fn interface_name(network: &str) -> String {
    let digest = Sha256::digest(network.as_bytes());
    let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("pod{}", &digits[..NAME_DIGITS])
}

/// Whether the launcher must know the devices of networks.
pub(super) fn needs_network_info(vmi: &Vmi, config: &Config) -> bool {
    let registered = config.cluster.network.as_ref();
    let interfaces = &vmi.spec.domain.devices.interfaces;
    interfaces.iter().any(|interface| {
        let plugin = plugin_of(interface);
        let plugin = plugin.and_then(|name| registered?.binding.get(&name));
        interface.sriov.is_some() || plugin.is_some_and(|p| p.downward_api == "device-info")
    })
}

/// Returns the ports that interfaces open to the pod's network.
pub(super) fn ports(vmi: &Vmi) -> Vec<Value> {
    let interfaces = &vmi.spec.domain.devices.interfaces;
    let ports = interfaces.iter().flat_map(|interface| &interface.ports);
    ports
        .filter_map(|port| {
            let number = port.port?;
            let protocol = match port.protocol.as_str() {
                "" => "TCP",
                protocol => protocol,
            };
            let mut rendered = json!({ "containerPort": number, "protocol": protocol });
            if !port.name.is_empty() {
                rendered["name"] = json!(port.name);
            }
            Some(rendered)
        })
        .collect()
}
