//! Where a launcher's pod may run.

use api::{Vmi, labels};
use serde_json::{Map, Value, json};

use crate::controller::configuration::Config;

/// Label of a node's architecture.
const ARCHITECTURE: &str = "kubernetes.io/arch";
/// Machine type that every node has, those too of which nobody has measured what they can do.
const MACHINE_OF_ALL: &str = "q35";
/// CPU models that every node has.
const MODELS_OF_ALL: [&str; 4] = ["", "host-model", "host-passthrough", "max"];

/// Adds the node selector and the affinity.
pub(super) fn add(spec: &mut Map<String, Value>, vmi: &Vmi, raw: &Value, config: &Config) {
    spec.insert("nodeSelector".to_owned(), json!(selector(vmi, config)));
    let given = raw
        .pointer("/spec/affinity")
        .filter(|given| !given.is_null());
    let mut affinity = given.cloned().unwrap_or_default();
    forbid_features(&mut affinity, vmi);
    if !affinity.is_null() {
        spec.insert("affinity".to_owned(), affinity);
    }
}

fn selector(vmi: &Vmi, config: &Config) -> Map<String, Value> {
    let domain = &vmi.spec.domain;
    let mut selector = Map::new();
    let mut want = |label: String, value: &str| selector.insert(label, json!(value));
    want(labels::SCHEDULABLE.to_owned(), "true");
    want(ARCHITECTURE.to_owned(), &vmi.spec.architecture);
    let machine = domain.machine.as_ref();
    if let Some(machine) = machine.filter(|it| it.machine_type != MACHINE_OF_ALL) {
        let label = format!("{}{}", labels::MACHINE_TYPE_PREFIX, machine.machine_type);
        want(label, "true");
    }
    if let Some(cpu) = &domain.cpu {
        if !MODELS_OF_ALL.contains(&cpu.model.as_str()) {
            want(format!("{}{}", labels::CPU_MODEL_PREFIX, cpu.model), "true");
        }
        for feature in &cpu.features {
            if matches!(feature.policy.as_str(), "" | "require") {
                let label = format!("{}{}", labels::CPU_FEATURE_PREFIX, feature.name);
                want(label, "true");
            }
        }
        if cpu.dedicated_cpu_placement == Some(true) {
            want(labels::CPU_MANAGER.to_owned(), "true");
        }
        if cpu.realtime.is_some() {
            want(labels::REALTIME.to_owned(), "true");
        }
    }
    let by_cluster = &config.cluster.developer_configuration.node_selectors;
    for (label, value) in by_cluster.iter().chain(&vmi.spec.node_selector) {
        selector.insert(label.clone(), json!(value));
    }
    selector
}

/// Keeps the pod away from nodes with CPU features that the instance forbids.
fn forbid_features(affinity: &mut Value, vmi: &Vmi) {
    let cpu = vmi.spec.domain.cpu.as_ref();
    let features = cpu.map_or(&[][..], |cpu| &cpu.features);
    let forbidden = features.iter().filter(|feature| feature.policy == "forbid");
    let requirements: Vec<Value> = forbidden
        .map(|feature| {
            let label = format!("{}{}", labels::CPU_FEATURE_PREFIX, feature.name);
            json!({ "key": label, "operator": "DoesNotExist" })
        })
        .collect();
    if requirements.is_empty() {
        return;
    }
    let path = [
        "nodeAffinity",
        "requiredDuringSchedulingIgnoredDuringExecution",
        "nodeSelectorTerms",
    ];
    let terms = crate::controller::change::entry(affinity, &path);
    match terms.as_array_mut() {
        // Terms are alternatives: each must forbid.
        Some(terms) if !terms.is_empty() => {
            for term in terms {
                match term["matchExpressions"].as_array_mut() {
                    Some(known) => known.extend(requirements.iter().cloned()),
                    None => term["matchExpressions"] = Value::Array(requirements.clone()),
                }
            }
        }
        _ => *terms = json!([{ "matchExpressions": requirements }]),
    }
}
