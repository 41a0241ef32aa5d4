//! Migrations.

use serde_json::Value;

use super::{Cluster, Verdict, gate_text, read};
use crate::components::service_account;
use crate::condition::{ConditionStatus, kind, reason};
use crate::features::gate;
use crate::field::FieldPath;
use crate::labels;
use crate::migration::{Migration, priority};
use crate::validate::Findings;
use crate::vmi::Vmi;

/// Decides on a new migration of an instance (`None` when there is none of that name), others being the
/// migrations of the same instance that there are.
pub fn create_migration(
    migration: &Value,
    instance: Option<&Value>,
    others: &[Value],
    cluster: &Cluster<'_>,
) -> Verdict {
    let (migration, instance): (Migration, Option<Vmi>) =
        match (read(migration), instance.map(read).transpose()) {
            (Ok(migration), Ok(instance)) => (migration, instance),
            (Err(refused), _) | (_, Err(refused)) => return refused,
        };
    let mut findings = Findings::default();
    let spec = &migration.spec;
    let path = FieldPath::new("spec.vmiName");
    if spec.vmi_name.is_empty() {
        findings.required(path, "required: name the instance");
        return findings.errors.into();
    }
    check_priority(&migration, cluster, &mut findings);
    check_ends(&migration, cluster, &mut findings);
    match &instance {
        None => {
            let text = format!(
                "there is no instance {:?} in this namespace: start its virtual machine first",
                spec.vmi_name
            );
            findings.add(path.clone(), text);
        }
        Some(vmi) if vmi.status.phase.is_final() => {
            findings.forbidden(
                path.clone(),
                format!("the instance is {}: it runs no more", vmi.status.phase),
            );
        }
        Some(vmi) => check_migratable(vmi, &migration, &path, &mut findings),
    }
    for other in others {
        // One that cannot be read stands in nobody's way.
        let Ok(other) = read::<Migration>(other) else {
            continue;
        };
        if other.spec.vmi_name == spec.vmi_name && !other.status.phase.is_final() {
            let text = format!(
                "the migration {:?} of this instance is under way: wait for its end, or delete it",
                other.metadata.name
            );
            findings.duplicate(path.clone(), text);
        }
    }
    findings.errors.into()
}

fn check_priority(migration: &Migration, cluster: &Cluster<'_>, findings: &mut Findings) {
    let Some(given) = &migration.spec.priority else {
        return;
    };
    let path = FieldPath::new("spec.priority");
    findings.one_of(path.clone(), given, &priority::ALL);
    if !cluster.is_account(service_account::CONTROLLER) {
        findings.forbidden(path, "only the controllers set it: remove it");
    }
}

fn check_ends(migration: &Migration, cluster: &Cluster<'_>, findings: &mut Findings) {
    let spec = &migration.spec;
    for (field, is_set) in [
        ("sendTo", spec.send_to.is_some()),
        ("receive", spec.receive.is_some()),
    ] {
        if is_set && !cluster.is_on(gate::DECENTRALIZED_LIVE_MIGRATION) {
            let path = FieldPath::new("spec").child(field);
            findings.forbidden(path, gate_text(gate::DECENTRALIZED_LIVE_MIGRATION));
        }
    }
    if let (Some(to), Some(from)) = (&spec.send_to, &spec.receive)
        && to.migration_id != from.migration_id
    {
        let text = format!(
            "differs from that of sendTo ({:?}): use the same",
            to.migration_id
        );
        findings.add(FieldPath::new("spec.receive.migrationID"), text);
    }
}

fn check_migratable(vmi: &Vmi, migration: &Migration, path: &FieldPath, findings: &mut Findings) {
    let Some(condition) = vmi.status.condition(kind::LIVE_MIGRATABLE) else {
        return;
    };
    let goes_elsewhere = migration.spec.send_to.is_some() || migration.spec.receive.is_some();
    let copies_disks = goes_elsewhere && condition.reason == reason::DISKS_NOT_MIGRATABLE;
    if condition.status == ConditionStatus::False && !copies_disks {
        let text = format!(
            "the instance cannot move ({}: {}): stop and start its virtual machine instead",
            condition.reason, condition.message
        );
        findings.forbidden(path.clone(), text);
    }
}

/// Decides on a changed migration: its specification is fixed, and so is the label by which it is found
/// while it is under way.
pub fn update_migration(old: &Value, new: &Value) -> Verdict {
    let (old, new): (Migration, Migration) = match (read(old), read(new)) {
        (Ok(old), Ok(new)) => (old, new),
        (_, Err(verdict)) | (Err(verdict), _) => return verdict,
    };
    let mut findings = Findings::default();
    if old.spec != new.spec {
        findings.forbidden(
            FieldPath::new("spec"),
            "a migration's specification cannot be changed: delete it and make another",
        );
    }
    let label = |migration: &Migration| migration.metadata.labels.get(labels::VMI_NAME).cloned();
    if !new.status.phase.is_final() && label(&old).is_some() && label(&old) != label(&new) {
        findings.forbidden(
            FieldPath::new("metadata.labels").child(labels::VMI_NAME),
            "migrations under way are found by it: leave the label as it was",
        );
    }
    findings.errors.into()
}
