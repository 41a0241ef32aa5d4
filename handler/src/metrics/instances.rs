//! What instances are, and how many of them are in which phase.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::Vmi;
use api::condition::{Condition, ConditionStatus, kind};
use api::labels;

use super::MetricsSetup;
use super::families::{INFO, PHASE_COUNT, READY};
use super::samples::{Labels, Samples};
use crate::key::VmiKey;

/// Value of labels about which nothing is known.
const NONE: &str = "<none>";
/// Annotations that templates leave on instances, with their labels.
const TEMPLATE: [(&str, &str); 3] = [
    ("vm.kubevirt.io/os", "os"),
    ("vm.kubevirt.io/workload", "workload"),
    ("vm.kubevirt.io/flavor", "flavor"),
];

/// Adds what is known of instances.
pub(super) fn add(samples: &mut Samples, setup: &MetricsSetup, instances: &[(VmiKey, Arc<Vmi>)]) {
    let is_ready = setup.instances.is_complete();
    samples.add(
        &READY,
        &Labels::default(),
        Some(f64::from(u8::from(is_ready))),
    );
    let mut by_phase: BTreeMap<String, u32> = BTreeMap::new();
    for (key, vmi) in instances {
        let phase = phase(vmi);
        samples.add(&INFO, &info(&setup.node, key, vmi, &phase), Some(1.0));
        *by_phase.entry(phase).or_default() += 1;
    }
    for (phase, count) in by_phase {
        let labels = [("node", setup.node.as_str()), ("phase", &phase)];
        samples.add(&PHASE_COUNT, &Labels::new(labels), Some(count.into()));
    }
}

fn phase(vmi: &Vmi) -> String {
    match vmi.status.phase.as_str() {
        "" => "pending".to_owned(),
        phase => phase.to_ascii_lowercase(),
    }
}

fn info(node: &str, key: &VmiKey, vmi: &Vmi, phase: &str) -> Labels {
    let or_none = |text: &'_ str| if text.is_empty() { NONE } else { text }.to_owned();
    let annotations = &vmi.metadata.annotations;
    let os = &vmi.status.guest_os_info;
    let guest = [
        ("guest_os_kernel_release", or_none(&os.kernel_release)),
        ("guest_os_machine", or_none(&os.machine)),
        ("guest_os_arch", or_none(&os.machine)),
        ("guest_os_name", or_none(&os.name)),
        ("guest_os_version_id", or_none(&os.version_id)),
    ];
    let is_evictable = is_evictable(&vmi.status.conditions);
    let pod = vmi.status.active_pods.iter().find(|(_, on)| *on == node);
    Labels::new([
        ("node", node),
        ("namespace", key.namespace.as_str()),
        ("name", key.name.as_str()),
        ("phase", phase),
        ("evictable", if is_evictable { "true" } else { "false" }),
        (
            "instance_type",
            first(
                annotations,
                [labels::INSTANCETYPE_NAME, labels::CLUSTER_INSTANCETYPE_NAME],
            ),
        ),
        (
            "preference",
            first(
                annotations,
                [labels::PREFERENCE_NAME, labels::CLUSTER_PREFERENCE_NAME],
            ),
        ),
        ("vmi_pod", pod.map_or(NONE, |(uid, _)| uid)),
    ])
    .with(TEMPLATE.map(|(name, label)| (label, first(annotations, [name]))))
    .with(guest.iter().map(|(name, value)| (*name, value.as_str())))
}

/// Returns the first of these annotations that is there.
fn first<'a, const N: usize>(
    annotations: &'a BTreeMap<String, String>,
    names: [&str; N],
) -> &'a str {
    let found = names.iter().find_map(|name| annotations.get(*name));
    found.map_or(NONE, String::as_str)
}

/// Whether the machine can leave its node without ending.
fn is_evictable(conditions: &[Condition]) -> bool {
    let mut conditions = conditions.iter();
    conditions.any(|condition| {
        condition.kind == kind::LIVE_MIGRATABLE && condition.status == ConditionStatus::True
    })
}
