//! The service that leads to an object's machines.

use api::labels;
use api::manifest::API_VERSION;
use serde_json::{Map, Value, json};

use super::{IpFamilyPolicy, ServiceFlags, word};
use crate::cluster::Kind;

/// What a service can lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exposed {
    /// A machine.
    Object(Kind),
    /// All machines of a set.
    ReplicaSet,
}

impl Exposed {
    pub(super) fn plural(self) -> &'static str {
        match self {
            Self::Object(kind) => kind.plural(),
            Self::ReplicaSet => "virtualmachineinstancereplicasets",
        }
    }

    pub(super) fn short(self) -> &'static str {
        match self {
            Self::Object(kind) => kind.short(),
            Self::ReplicaSet => "vmirs",
        }
    }

    /// Returns the kind in objects.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Object(Kind::Machine) => "VirtualMachine",
            Self::Object(Kind::Instance) => "VirtualMachineInstance",
            Self::ReplicaSet => "VirtualMachineInstanceReplicaSet",
        }
    }
}

/// Returns the service that flags ask for in front of an object, as its dependent.
///
/// # Errors
///
/// Fails when there is no port, or no service can select the object's pods.
pub(super) fn service(
    kind: Exposed,
    object: &Value,
    namespace: &str,
    flags: &ServiceFlags,
) -> Result<Value, String> {
    let spec = match kind {
        Exposed::Object(Kind::Instance) => &object["spec"],
        _ => &object["spec"]["template"]["spec"],
    };
    let mut service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": flags.name,
            "namespace": namespace,
            "ownerReferences": [{
                "apiVersion": API_VERSION, "kind": kind.word(),
                "name": object["metadata"]["name"], "uid": object["metadata"]["uid"],
                "controller": true, "blockOwnerDeletion": false,
            }],
        },
        "spec": {
            "ports": ports(spec, flags)?,
            "selector": selector(kind, object)?,
            "type": word(&flags.service_type),
        },
    });
    add_addresses(&mut service["spec"], flags);
    Ok(service)
}

fn add_addresses(spec: &mut Value, flags: &ServiceFlags) {
    if let Some(address) = &flags.cluster_ip {
        spec["clusterIP"] = json!(address);
    }
    if !flags.external_ip.is_empty() {
        spec["externalIPs"] = json!(flags.external_ip);
    }
    if !flags.ip_family.is_empty() {
        let families: Vec<String> = flags.ip_family.iter().map(word).collect();
        spec["ipFamilies"] = json!(families);
    }
    let has_both = flags.ip_family.len() > 1;
    let policy = flags.ip_family_policy;
    if let Some(policy) = policy.or(has_both.then_some(IpFamilyPolicy::PreferDual)) {
        spec["ipFamilyPolicy"] = json!(word(&policy));
    }
}

fn ports(spec: &Value, flags: &ServiceFlags) -> Result<Vec<Value>, String> {
    let Some(port) = flags.port else {
        let ports = ports_of_pod_network(spec);
        return if ports.is_empty() {
            Err(
                "couldn't find port via --port flag or introspection: name one with --port"
                    .to_owned(),
            )
        } else {
            Ok(ports)
        };
    };
    let mut chosen = json!({"port": port, "protocol": word(&flags.protocol)});
    if let Some(name) = &flags.port_name {
        chosen["name"] = json!(name);
    }
    match flags.target_port.as_deref() {
        None | Some("") => {}
        Some(target) => {
            let number = target.parse::<u16>();
            chosen["targetPort"] = number.map_or_else(|_| json!(target), |number| json!(number));
        }
    }
    Ok(vec![chosen])
}

/// Returns the ports that the interface in the pod network lists.
fn ports_of_pod_network(spec: &Value) -> Vec<Value> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let networks = list(&spec["networks"]);
    let Some(network) = networks.iter().find(|network| network["pod"].is_object()) else {
        return Vec::new();
    };
    let interfaces = list(&spec["domain"]["devices"]["interfaces"]);
    let interface = interfaces
        .iter()
        .find(|interface| interface["name"] == network["name"]);
    let ports = interface
        .map(|interface| list(&interface["ports"]))
        .unwrap_or_default();
    let port = |(index, port): (usize, &Value)| {
        let mut service = Map::new();
        service.insert("name".to_owned(), json!(format!("port-{}", index + 1)));
        service.insert("port".to_owned(), port["port"].clone());
        let protocol = port["protocol"]
            .as_str()
            .filter(|protocol| !protocol.is_empty());
        service.insert("protocol".to_owned(), json!(protocol.unwrap_or("TCP")));
        Value::Object(service)
    };
    ports.iter().enumerate().map(port).collect()
}

fn selector(kind: Exposed, object: &Value) -> Result<Value, String> {
    let Exposed::Object(_) = kind else {
        return selector_of_set(&object["spec"]["selector"]);
    };
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    Ok(json!({labels::VMI_ID: labels::value_of(name)}))
}

fn selector_of_set(selector: &Value) -> Result<Value, String> {
    let is_empty = |value: &Value| value.as_array().is_none_or(Vec::is_empty);
    let labels = selector["matchLabels"]
        .as_object()
        .filter(|labels| !labels.is_empty());
    let Some(labels) = labels else {
        return Err(
            "cannot expose VirtualMachineInstanceReplicaSet without any selector labels".to_owned(),
        );
    };
    if !is_empty(&selector["matchExpressions"]) {
        return Err("cannot expose VirtualMachineInstanceReplicaSet with match expressions: a service selects by labels alone".to_owned());
    }
    Ok(json!(labels))
}
