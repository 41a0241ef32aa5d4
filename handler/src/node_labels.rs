//! Labels by which the scheduler finds a node that can run an instance (kubevirt.io's node labeller).

use std::collections::{BTreeMap, BTreeSet};

use api::labels;
use proto::node::NodeFacts;

/// Node label with what runs processors here: `kvm` or `soft`.
pub const BACKEND: &str = "ferrovirt.io/cpu-backend";
/// Node annotation with the reason for [`BACKEND`].
pub const BACKEND_REASON: &str = "ferrovirt.io/cpu-backend-reason";

/// Longest label value (Kubernetes' limit).
const VALUE_LEN_MAX: usize = 63;
/// Longest name after a label's prefix (Kubernetes' limit).
const NAME_LEN_MAX: usize = 63;

/// What the host says about itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// Whether the kubelet sets processors aside for containers.
    pub sets_cpus_aside: bool,
    /// Whether real-time scheduling is unlimited.
    pub is_realtime: bool,
    /// Whether the kernel shares equal pages.
    pub shares_pages: bool,
}

/// Returns the labels that a node of these facts has, besides whether it is schedulable. What is no valid label is left
/// out.
#[must_use]
pub fn labels(facts: &NodeFacts, host: HostFacts) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let mut set = |prefix: &str, name: &str, value: &str| {
        if is_label_part(name, NAME_LEN_MAX) && is_label_part(value, VALUE_LEN_MAX) {
            labels.insert(format!("{prefix}{name}"), value.to_owned());
        }
    };
    for model in &facts.cpu_models {
        set(labels::CPU_MODEL_PREFIX, &model.name, "true");
        set(labels::CPU_MODEL_MIGRATION_PREFIX, &model.name, "true");
    }
    let features: BTreeSet<&String> = facts.cpu_models.iter().flat_map(|m| &m.features).collect();
    for feature in features {
        set(labels::CPU_FEATURE_PREFIX, feature, "true");
    }
    set(labels::CPU_VENDOR_PREFIX, &facts.cpu_vendor, "true");
    set(labels::HOST_MODEL_PREFIX, &facts.host_model, "true");
    for machine in &facts.machine_types {
        set(labels::MACHINE_TYPE_PREFIX, machine, "true");
    }
    set(labels::VM_ARCHITECTURE_PREFIX, "amd64", "true");
    if let Some(hertz) = facts.tsc_hz {
        set("", labels::TSC_FREQUENCY, &hertz.to_string());
        set("", labels::TSC_SCALABLE, "true");
    }
    set("", BACKEND, &facts.backend);
    let mut flag = |name: &str, on: bool| labels.insert(name.to_owned(), on.to_string());
    flag(labels::CPU_MANAGER, host.sets_cpus_aside);
    flag(labels::CPU_MANAGER_OLD, host.sets_cpus_aside);
    flag(labels::KSM_ENABLED, host.shares_pages);
    if host.is_realtime {
        flag(labels::REALTIME, true);
    }
    labels
}

/// Whether a label of this name is ours to remove once it is no longer true.
#[must_use]
pub fn is_ours(name: &str) -> bool {
    let by_prefix = labels::NODE_LABEL_PREFIXES
        .iter()
        .any(|prefix| name.starts_with(prefix));
    by_prefix || [labels::REALTIME, BACKEND].contains(&name)
}

/// Letters, digits, dashes, dots and underscores, with a letter or digit at both ends. A name that is a whole label has
/// its prefix checked by whoever wrote the constant.
fn is_label_part(text: &str, len_max: usize) -> bool {
    let text = text.rsplit('/').next().unwrap_or(text);
    let at_end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    text.len() <= len_max
        && at_end(bytes.first())
        && at_end(bytes.last())
        && bytes
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(byte))
}

#[cfg(test)]
mod tests {
    use proto::node::{CpuModelFacts, NodeFacts};

    use super::{BACKEND, HostFacts, is_ours, labels};

    fn facts() -> NodeFacts {
        let model = |name: &str, features: &[&str]| CpuModelFacts {
            name: name.to_owned(),
            features: features.iter().map(|&feature| feature.to_owned()).collect(),
        };
        NodeFacts {
            backend: "soft".to_owned(),
            cpu_vendor: "Ferrovirt".to_owned(),
            host_model: "ferrovirt-v2".to_owned(),
            cpu_models: vec![
                model("ferrovirt-v1", &["sse2"]),
                model("ferrovirt-v2", &["sse2", "sse4_2"]),
            ],
            machine_types: vec!["q35".to_owned()],
            tsc_hz: Some(2_000_000_000),
            ..NodeFacts::default()
        }
    }

    #[test]
    fn models_features_and_timers_become_labels() {
        let labels = labels(&facts(), HostFacts::default());
        for (name, value) in [
            ("cpu-model.node.kubevirt.io/ferrovirt-v2", "true"),
            ("cpu-model-migration.node.kubevirt.io/ferrovirt-v1", "true"),
            ("cpu-feature.node.kubevirt.io/sse4_2", "true"),
            ("cpu-vendor.node.kubevirt.io/Ferrovirt", "true"),
            ("host-model-cpu.node.kubevirt.io/ferrovirt-v2", "true"),
            ("machine-type.node.kubevirt.io/q35", "true"),
            ("cpu-timer.node.kubevirt.io/tsc-frequency", "2000000000"),
            ("kubevirt.io/vm-arch-amd64", "true"),
            ("kubevirt.io/cpumanager", "false"),
            ("kubevirt.io/ksm-enabled", "false"),
            (BACKEND, "soft"),
        ] {
            assert_eq!(labels.get(name).map(String::as_str), Some(value), "{name}");
        }
        assert!(!labels.contains_key("kubevirt.io/realtime"));
    }

    #[test]
    fn what_is_no_label_is_left_out() {
        let mut facts = facts();
        facts.cpu_vendor = "two words".to_owned();
        facts.host_model = "x".repeat(64);
        facts.machine_types = vec!["-q35".to_owned()];
        let labels = labels(&facts, HostFacts::default());
        let prefixes = ["cpu-vendor", "host-model-cpu", "machine-type"];
        let found = labels
            .keys()
            .find(|name| prefixes.iter().any(|prefix| name.starts_with(prefix)));
        assert_eq!(found, None);
    }

    #[test]
    fn only_labels_of_abilities_are_removed() {
        assert!(is_ours("cpu-model.node.kubevirt.io/gone"));
        assert!(is_ours("kubevirt.io/realtime"));
        assert!(!is_ours("kubevirt.io/schedulable"));
        assert!(!is_ours("kubernetes.io/hostname"));
    }
}
