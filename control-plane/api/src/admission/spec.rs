//! The specification of an instance, in an instance or in a template.

use super::{
    Cluster, devices, gate_text, networks, placement, processors, security, storage, volumes,
};
use crate::features::gate;
use crate::field::FieldPath;
use crate::labels;
use crate::validate::Findings;
use crate::vmi::Vmi;

/// Labels that parts of the installation set.
pub(super) const RESERVED_LABELS: [&str; 6] = [
    labels::CREATED_BY,
    labels::MIGRATION_JOB_UID,
    labels::NODE_NAME,
    labels::MIGRATION_TARGET_NODE_NAME,
    labels::SCHEDULABLE,
    labels::INSTALL_STRATEGY,
];

/// What an eviction can do.
const EVICTION_STRATEGIES: [&str; 4] = ["None", "LiveMigrate", "LiveMigrateIfPossible", "External"];

/// Checks an instance whose defaults are filled in, beyond what the machine can do.
pub(super) fn check(vmi: &Vmi, cluster: &Cluster<'_>, is_new: bool, findings: &mut Findings) {
    check_metadata(vmi, cluster, findings);
    check_strategies(vmi, findings);
    processors::check(&vmi.spec.domain, cluster, findings);
    processors::check_memory(&vmi.spec.domain, cluster, findings);
    security::check(&vmi.spec, cluster, findings);
    storage::check(&vmi.spec, cluster, findings);
    volumes::check(&vmi.spec, cluster, is_new, findings);
    networks::check(&vmi.spec, cluster, findings);
    devices::check(&vmi.spec, cluster, findings);
    placement::check(&vmi.spec, findings);
}

fn check_metadata(vmi: &Vmi, cluster: &Cluster<'_>, findings: &mut Findings) {
    let metadata = &vmi.metadata;
    if !cluster.is_one_of_us() {
        for label in RESERVED_LABELS {
            if metadata.labels.contains_key(label) {
                let path = FieldPath::new("metadata.labels").child(label);
                findings.forbidden(
                    path,
                    "reserved for parts of the installation: remove the label",
                );
            }
        }
    }
    for (annotation, gate) in [
        (labels::IGNITION_DATA, gate::IGNITION),
        (labels::HOOK_SIDECARS, gate::SIDECAR),
    ] {
        let is_set = metadata.annotations.get(annotation);
        if is_set.is_some_and(|text| !text.is_empty()) && !cluster.is_on(gate) {
            let path = FieldPath::new("metadata.annotations").child(annotation);
            findings.forbidden(path, gate_text(gate));
        }
    }
}

fn check_strategies(vmi: &Vmi, findings: &mut Findings) {
    let spec = &vmi.spec;
    let eviction = spec.eviction_strategy.as_deref().unwrap_or_default();
    let path = FieldPath::new("spec.evictionStrategy");
    findings.one_of(path, eviction, &EVICTION_STRATEGIES);
    if spec.start_strategy.as_deref() == Some("Paused") && spec.liveness_probe.is_some() {
        findings.add(
            FieldPath::new("spec.startStrategy"),
            "a machine that starts paused fails its livenessProbe: remove one of them",
        );
    }
}
