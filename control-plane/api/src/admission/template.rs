//! Templates of instances, in virtual machines and replica sets; presets.

use serde_json::Value;

use super::{Cluster, Verdict, gate_text, placement, read, spec, storage, warnings};
use crate::defaulting::admission::default_spec;
use crate::features::gate;
use crate::field::{FieldError, FieldPath, Reason};
use crate::preset::Preset;
use crate::replica_set::ReplicaSet;
use crate::validate::{Findings, firmware, guest_memory_path, validate_vmi};
use crate::vmi::Vmi;

/// Checks the template in `spec.template` of an object as the instance that it will make.
///
/// Guest memory may still be open: an instance type, or a later change, gives it.
pub(super) fn check(owner: &Value, cluster: &Cluster<'_>, is_new: bool) -> Verdict {
    let template = FieldPath::new("spec.template");
    let mut instance = owner["spec"]["template"].clone();
    if !instance.is_object() {
        let text = "required: describe the instance to make";
        return Verdict::refused(FieldError::required(template, text));
    }
    let spec = &mut instance["spec"];
    if spec.is_null() {
        *spec = Value::Object(serde_json::Map::new());
    }
    default_spec(spec, cluster.config);
    let mut vmi: Vmi = match read(&instance) {
        Ok(vmi) => vmi,
        Err(verdict) => return inside(verdict, &template),
    };
    vmi.metadata.name = owner["metadata"]["name"].as_str().unwrap_or("").to_owned();
    vmi.metadata.namespace.clear();
    if vmi.metadata.name.is_empty() {
        // Names that the API server makes come later.
        "generated".clone_into(&mut vmi.metadata.name);
    }
    let mut findings = Findings {
        errors: validate_vmi(&vmi),
    };
    spec::check(&vmi, cluster, is_new, &mut findings);
    let open_memory = guest_memory_path(&vmi.spec.domain);
    findings
        .errors
        .retain(|error| error.reason != Reason::Required || error.path != open_memory);
    let verdict = Verdict {
        errors: findings.errors,
        warnings: warnings(&vmi, cluster),
    };
    inside(verdict, &template)
}

/// Moves errors into the template; those about the name are about the owner's.
fn inside(mut verdict: Verdict, template: &FieldPath) -> Verdict {
    let errors = verdict.errors.into_iter();
    let errors = errors.map(|error| match error.path.as_str() {
        "metadata.name" => error,
        _ => error.inside(template),
    });
    verdict.errors = errors.collect();
    verdict
}

/// Decides on a new replica set.
pub fn create_replica_set(set: &Value, cluster: &Cluster<'_>) -> Verdict {
    check_replica_set(set, cluster, true)
}

/// Decides on a changed replica set.
pub fn update_replica_set(_old: &Value, new: &Value, cluster: &Cluster<'_>) -> Verdict {
    check_replica_set(new, cluster, false)
}

fn check_replica_set(set: &Value, cluster: &Cluster<'_>, is_new: bool) -> Verdict {
    if !set["metadata"]["deletionTimestamp"].is_null() {
        return Verdict::default();
    }
    let mut verdict = check(set, cluster, is_new);
    let parsed: ReplicaSet = match read(set) {
        Ok(parsed) => parsed,
        Err(refused) => return refused,
    };
    let mut findings = Findings::default();
    let path = FieldPath::new("spec.selector");
    placement::check_selector(&set["spec"]["selector"], &path, &mut findings);
    let labels = &parsed.spec.template.metadata.labels;
    match &parsed.spec.selector {
        None => findings.required(path, "required: name labels of the template, matchLabels"),
        Some(selector)
            if selector.match_labels.is_empty() && selector.match_expressions.is_empty() =>
        {
            findings.required(
                path,
                "is empty and would mean every instance: name labels of the template",
            );
        }
        Some(selector) if findings.errors.is_empty() && !selector.matches(labels) => findings.add(
            path,
            "doesn't match the template's own labels: add them to spec.template.metadata.labels",
        ),
        Some(_) => {}
    }
    if parsed.spec.replicas.is_some_and(|count| count < 0) {
        let path = FieldPath::new("spec.replicas");
        findings.add(path, "is negative: give zero or more");
    }
    verdict.errors.extend(findings.errors);
    verdict
}

/// Decides on a new preset.
pub fn create_preset(preset: &Value, cluster: &Cluster<'_>) -> Verdict {
    let preset: Preset = match read(preset) {
        Ok(preset) => preset,
        Err(verdict) => return verdict,
    };
    let mut findings = Findings::default();
    let path = FieldPath::new("spec.domain");
    let Some(domain) = &preset.spec.domain else {
        findings.required(path, "required: give the settings");
        return findings.errors.into();
    };
    firmware::check(domain, &mut findings);
    for (index, disk) in domain.devices.disks.iter().enumerate() {
        let path = path.child("devices.disks").index(index);
        storage::check_disk(disk, &path, &mut findings);
    }
    if domain.reboot_policy.is_some() && !cluster.is_on(gate::REBOOT_POLICY) {
        findings.forbidden(path.child("rebootPolicy"), gate_text(gate::REBOOT_POLICY));
    }
    findings.errors.into()
}

/// Decides on a changed preset.
pub fn update_preset(_old: &Value, new: &Value, cluster: &Cluster<'_>) -> Verdict {
    create_preset(new, cluster)
}
