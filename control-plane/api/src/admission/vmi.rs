//! Instances.

use std::collections::BTreeMap;

use serde_json::Value;

use super::spec::RESERVED_LABELS;
use super::{Cluster, Verdict, read, spec, volumes, warnings};
use crate::components::service_account;
use crate::devices::Disk;
use crate::features::gate;
use crate::field::{FieldError, FieldPath};
use crate::validate::{Findings, validate_vmi};
use crate::vmi::Vmi;
use crate::volumes::Volume;

/// Decides on a new instance whose defaults are filled in
/// ([`default_vmi`](crate::defaulting::admission::default_vmi)).
pub fn create_vmi(vmi: &Value, cluster: &Cluster<'_>) -> Verdict {
    let vmi: Vmi = match read(vmi) {
        Ok(vmi) => vmi,
        Err(verdict) => return verdict,
    };
    let mut findings = Findings {
        errors: validate_vmi(&vmi),
    };
    spec::check(&vmi, cluster, true, &mut findings);
    Verdict {
        errors: findings.errors,
        warnings: warnings(&vmi, cluster),
    }
}

/// Decides on a change of an instance: users change neither the specification nor reserved labels; parts of
/// the installation plug and unplug; a node agent changes what runs on its own node.
pub fn update_vmi(old: &Value, new: &Value, cluster: &Cluster<'_>) -> Verdict {
    let (old, new): (Vmi, Vmi) = match (read(old), read(new)) {
        (Ok(old), Ok(new)) => (old, new),
        (_, Err(verdict)) | (Err(verdict), _) => return verdict,
    };
    let mut findings = Findings::default();
    check_node(&old, &new, cluster, &mut findings);
    let is_one_of_us = cluster.is_one_of_us();
    if old.spec != new.spec {
        if is_one_of_us {
            check_plugging(&old, &new, cluster, &mut findings);
        } else {
            findings.forbidden(
                FieldPath::new("spec"),
                "a running instance's specification cannot be changed: change its VirtualMachine, or make a new instance",
            );
        }
    }
    if !is_one_of_us {
        check_labels(&old, &new, &mut findings);
    }
    Verdict {
        errors: findings.errors,
        warnings: warnings(&new, cluster),
    }
}

/// Puts the old status into a change by somebody who is no part of the installation. (Instances have no
/// status subresource, so their status comes along with every update.)
pub fn keep_status(old: &Value, new: &mut Value, cluster: &Cluster<'_>) {
    if cluster.is_one_of_us() {
        return;
    }
    if let Some(fields) = new.as_object_mut() {
        match old.get("status") {
            Some(status) => fields.insert("status".to_owned(), status.clone()),
            None => fields.remove("status"),
        };
    }
}

fn check_labels(old: &Vmi, new: &Vmi, findings: &mut Findings) {
    for label in RESERVED_LABELS {
        if old.metadata.labels.get(label) != new.metadata.labels.get(label) {
            findings.forbidden(
                FieldPath::new("metadata.labels").child(label),
                "reserved for parts of the installation: leave the label as it was",
            );
        }
    }
}

/// A node agent with a token of its node changes instances of that node, and those that move there.
fn check_node(old: &Vmi, new: &Vmi, cluster: &Cluster<'_>, findings: &mut Findings) {
    if !cluster.is_on(gate::NODE_RESTRICTION) || !cluster.is_account(service_account::HANDLER) {
        return;
    }
    let path = FieldPath::new("status.nodeName");
    let Some(node) = cluster.requester.node else {
        let text = "the node agent's token names no node: use a token that is bound to its pod";
        return findings.forbidden(path, text);
    };
    let target = |vmi: &Vmi| {
        let state = vmi.status.migration_state.as_ref();
        state
            .map(|state| state.target_node.clone())
            .unwrap_or_default()
    };
    let old_target = target(old);
    if node != old.status.node_name && node != old_target {
        let text = format!("the node agent of {node} changes instances of its own node only");
        findings.forbidden(path, text);
    } else if old_target.is_empty() && !target(new).is_empty() {
        findings.forbidden(
            FieldPath::new("status.migrationState.targetNode"),
            "a node agent doesn't choose where an instance moves",
        );
    }
}

fn check_plugging(old: &Vmi, new: &Vmi, cluster: &Cluster<'_>, findings: &mut Findings) {
    let domain = FieldPath::new("spec.domain");
    let max_sockets = |vmi: &Vmi| vmi.spec.domain.cpu.as_ref().and_then(|cpu| cpu.max_sockets);
    if max_sockets(old) != max_sockets(new) {
        let text = "is fixed while the instance lives: restart it with another";
        findings.forbidden(domain.child("cpu.maxSockets"), text);
    }
    let max_guest = |vmi: &Vmi| {
        let memory = vmi.spec.domain.memory.as_ref();
        memory.and_then(|memory| memory.max_guest.clone())
    };
    if let (Some(old), Some(new)) = (max_guest(old), max_guest(new))
        && old != new
    {
        let text = "is fixed while the instance lives: restart it with another";
        findings.forbidden(domain.child("memory.maxGuest"), text);
    }
    volumes::check_utility_volumes(&new.spec, cluster, false, findings);
    check_utility_changes(old, new, findings);
    check_volume_changes(old, new, findings);
}

/// Whether a volume has been there since the instance began.
fn is_permanent(vmi: &Vmi, name: &str) -> bool {
    let status = vmi.status.volume(name);
    status.is_some_and(|status| status.hotplug_volume.is_none())
}

fn check_utility_changes(old: &Vmi, new: &Vmi, findings: &mut Findings) {
    for (index, volume) in new.spec.utility_volumes.iter().enumerate() {
        let path = FieldPath::new("spec.utilityVolumes").index(index);
        if is_permanent(old, &volume.name) {
            findings.forbidden(path, "is a permanent volume: plug another");
            continue;
        }
        let mut olds = old.spec.utility_volumes.iter();
        let old = olds.find(|old| old.name == volume.name);
        if old.is_some_and(|old| old != volume) {
            findings.forbidden(path, "is plugged already: unplug it first");
        }
    }
}

fn check_volume_changes(old: &Vmi, new: &Vmi, findings: &mut Findings) {
    let moving: Vec<&str> = new
        .status
        .migrated_volumes
        .iter()
        .map(|volume| volume.volume_name.as_str())
        .collect();
    let path = FieldPath::new("spec.volumes");
    let by_name = |vmi: &Vmi| -> BTreeMap<String, Volume> {
        let volumes = vmi.spec.volumes.iter();
        volumes
            .map(|volume| (volume.name.clone(), volume.clone()))
            .collect()
    };
    let disks_of = |vmi: &Vmi| -> BTreeMap<String, Disk> {
        let disks = vmi.spec.domain.devices.disks.iter();
        disks
            .map(|disk| (disk.name.clone(), disk.clone()))
            .collect()
    };
    let (old_volumes, old_disks, new_disks) = (by_name(old), disks_of(old), disks_of(new));
    let new_volumes = by_name(new);
    for name in old_volumes.keys() {
        if is_permanent(old, name) && !new_volumes.contains_key(name) {
            findings.forbidden(path.clone(), format!("{name:?} is permanent: leave it in"));
        }
    }
    for (index, volume) in new.spec.volumes.iter().enumerate() {
        let path = path.index(index);
        let (disk, old_disk) = (new_disks.get(&volume.name), old_disks.get(&volume.name));
        match old_volumes.get(&volume.name) {
            Some(_) if moving.contains(&volume.name.as_str()) => {}
            Some(known) if known != volume => {
                findings.forbidden(
                    path,
                    "a plugged volume cannot be exchanged: unplug it first",
                );
            }
            Some(_) if volume.memory_dump.is_none() && disk != old_disk => {
                findings.forbidden(
                    path,
                    "the disk of a plugged volume cannot be changed: unplug it first",
                );
            }
            Some(_) => {}
            None => check_new_volume(volume, disk, old_disk.is_none(), &path, findings),
        }
    }
}

fn check_new_volume(
    volume: &Volume,
    disk: Option<&Disk>,
    is_new_disk: bool,
    path: &FieldPath,
    findings: &mut Findings,
) {
    let is_claim = volume.persistent_volume_claim.is_some() || volume.data_volume.is_some();
    if volume.memory_dump.is_some() {
        return;
    }
    if !is_claim {
        let text = "only claims and data volumes can be plugged: use one of them";
        return findings.add(path.clone(), text);
    }
    match disk {
        None => findings.required(path.child("name"), "required: add a disk of that name"),
        Some(disk) if is_new_disk => findings.errors.extend(hotplug_disk(disk, path)),
        Some(_) => {}
    }
}

/// Returns what keeps a disk from being plugged while the machine runs.
pub(super) fn hotplug_disk(disk: &Disk, path: &FieldPath) -> Vec<FieldError> {
    let mut findings = Findings::default();
    let (bus, allowed): (&str, &[&str]) = match (&disk.disk, &disk.lun) {
        (Some(target), _) => (&target.bus, &["scsi", "virtio", ""]),
        (None, Some(target)) => (&target.bus, &["scsi"]),
        (None, None) => {
            findings.required(
                path.child("disk"),
                "required: only disk and lun can be plugged",
            );
            return findings.errors;
        }
    };
    if !allowed.contains(&bus) {
        let text = format!(
            "a disk on the bus {bus:?} cannot be plugged: use {}",
            allowed[0]
        );
        findings.one_of_text(path.child("disk.bus"), text);
    }
    if disk.dedicated_io_thread == Some(true) && !matches!(bus, "" | "virtio") {
        findings.add(
            path.child("dedicatedIOThread"),
            "needs the bus virtio: change it",
        );
    }
    if disk.boot_order == Some(0) {
        findings.add(
            path.child("bootOrder"),
            "boot order starts at 1: use 1 or more",
        );
    }
    findings.errors
}
