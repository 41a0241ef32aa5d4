//! The corpus: for every rule something that breaks it, with the field that must be named.

use serde_json::{Value, json};

use super::{Cluster, Requester, Verdict};
use crate::defaulting::admission::{Fresh, default_vmi};
use crate::kubevirt::Configuration;

mod hardware;
mod installation;
mod instances;
mod machines;
mod moves;
mod properties;

const USER: &str = "someone";
const CONTROLLER: &str = "system:serviceaccount:kubevirt:kubevirt-controller";
const HANDLER: &str = "system:serviceaccount:kubevirt:kubevirt-handler";

fn by<'a>(user: &'a str, config: &'a Configuration) -> Cluster<'a> {
    Cluster {
        config,
        namespace: "kubevirt",
        requester: Requester { user, node: None },
    }
}

fn with_gates(gates: &[&str]) -> Configuration {
    let developer = json!({"developerConfiguration": {"featureGates": gates}});
    serde_json::from_value(developer).unwrap()
}

/// An instance that is fine.
fn good() -> Value {
    json!({
        "kind": "VirtualMachineInstance",
        "metadata": {"name": "m", "namespace": "default"},
        "spec": {
            "domain": {
                "cpu": {"cores": 2},
                "memory": {"guest": "64Mi"},
                "devices": {
                    "disks": [{"name": "a", "disk": {"bus": "virtio"}}, {"name": "b"}],
                    "interfaces": [{"name": "n", "masquerade": {}}],
                },
            },
            "volumes": [
                {"name": "a", "containerDisk": {"image": "x"}},
                {"name": "b", "emptyDisk": {"capacity": "1Gi"}},
            ],
            "networks": [{"name": "n", "pod": {}}],
        },
    })
}

/// Merges a patch (RFC 7386) into a value, so that lists are replaced whole.
fn merge(value: &mut Value, patch: &Value) {
    let Value::Object(fields) = patch else {
        *value = patch.clone();
        return;
    };
    if !value.is_object() {
        *value = json!({});
    }
    for (name, patch) in fields {
        merge(&mut value[name.as_str()], patch);
    }
}

fn changed(mut object: Value, patch: &Value) -> Value {
    merge(&mut object, patch);
    object
}

fn defaulted(mut vmi: Value, config: &Configuration) -> Value {
    default_vmi(&mut vmi, config, &Fresh::default());
    vmi
}

#[track_caller]
fn names(verdict: &Verdict, expected: &str) {
    let errors: Vec<String> = verdict.errors.iter().map(ToString::to_string).collect();
    assert!(
        verdict
            .errors
            .iter()
            .any(|error| error.path.as_str() == expected),
        "{expected} is not among {errors:?}"
    );
    for error in &verdict.errors {
        assert!(
            !error.message.is_empty() && !error.message.ends_with('.'),
            "{error}"
        );
    }
}

#[track_caller]
fn grants(verdict: &Verdict) {
    assert!(verdict.is_granted(), "{:?}", verdict.errors);
}
