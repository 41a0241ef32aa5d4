//! Volumes.

use std::collections::BTreeMap;

use super::security::check_file_path;
use super::{Cluster, gate_text};
use crate::features::gate;
use crate::field::FieldPath;
use crate::validate::Findings;
use crate::vmi::VmiSpec;
use crate::volumes::{CloudInitSource, Volume};

/// Most bytes of data for cloud-init in an object, which goes to every node that watches.
const MAX_CLOUD_INIT_LEN: usize = 2048;
/// Folders of the launcher's container that are its own.
const RESERVED_FOLDERS: [&str; 2] = ["/var/run/kubevirt", "/var/run/libvirt"];

pub(super) fn check(spec: &VmiSpec, cluster: &Cluster<'_>, is_new: bool, findings: &mut Findings) {
    let path = FieldPath::new("spec.volumes");
    for (index, volume) in spec.volumes.iter().enumerate() {
        let path = path.index(index);
        check_volume(volume, cluster, &path, findings);
        if volume.container_path.is_some() {
            check_container_path(volume, spec, &path, findings);
        }
    }
    check_single(spec, &path, findings);
    check_service_account(spec, findings);
    check_utility_volumes(spec, cluster, is_new, findings);
}

fn check_volume(volume: &Volume, cluster: &Cluster<'_>, path: &FieldPath, findings: &mut Findings) {
    let gates = [
        ("hostDisk", volume.host_disk.is_some(), gate::HOST_DISK),
        (
            "downwardMetrics",
            volume.downward_metrics.is_some(),
            gate::DOWNWARD_METRICS,
        ),
        (
            "containerPath",
            volume.container_path.is_some(),
            gate::CONTAINER_PATH_VOLUMES,
        ),
    ];
    for (field, is_set, gate) in gates {
        if is_set && !cluster.is_on(gate) {
            findings.forbidden(path.child(field), gate_text(gate));
        }
    }
    if let Some(source) = &volume.host_disk
        && source.disk_type.is_empty()
    {
        findings.required(
            path.child("hostDisk.type"),
            "required: use Disk for a file that is there, DiskOrCreate for one to make",
        );
    }
    if let Some(source) = &volume.container_disk {
        check_file_path(findings, path.child("containerDisk.path"), &source.path);
    }
    if let Some(source) = &volume.service_account
        && source.service_account_name.is_empty()
    {
        findings.required(
            path.child("serviceAccount.serviceAccountName"),
            "required: name a service account",
        );
    }
    if let Some(source) = &volume.memory_dump
        && source.claim_name.is_empty()
    {
        findings.required(path.child("memoryDump.claimName"), "required: name a claim");
    }
    for (field, source) in [
        ("cloudInitNoCloud", &volume.cloud_init_no_cloud),
        ("cloudInitConfigDrive", &volume.cloud_init_config_drive),
    ] {
        if let Some(source) = source {
            check_cloud_init(source, &path.child(field), findings);
        }
    }
}

fn check_cloud_init(source: &CloudInitSource, path: &FieldPath, findings: &mut Findings) {
    let decoded = |text: &str| crate::base64::decode(text).map_or(0, |data| data.len());
    for (field, len, cure) in [
        ("userData", source.user_data.len(), "secretRef"),
        (
            "userDataBase64",
            decoded(&source.user_data_base64),
            "secretRef",
        ),
        (
            "networkData",
            source.network_data.len(),
            "networkDataSecretRef",
        ),
        (
            "networkDataBase64",
            decoded(&source.network_data_base64),
            "networkDataSecretRef",
        ),
    ] {
        if len > MAX_CLOUD_INIT_LEN {
            let text = format!(
                "{len} bytes are above {MAX_CLOUD_INIT_LEN}: put them into a secret and name it in {cure}"
            );
            findings.add(path.child(field), text);
        }
    }
}

fn check_container_path(
    volume: &Volume,
    spec: &VmiSpec,
    path: &FieldPath,
    findings: &mut Findings,
) {
    let path = path.child("containerPath.path");
    let value = volume
        .container_path
        .as_ref()
        .map_or("", |source| &source.path);
    if !value.starts_with('/') {
        findings.required(path.clone(), "required: write the folder from the root");
    }
    check_file_path(findings, path.clone(), value);
    if RESERVED_FOLDERS
        .iter()
        .any(|folder| value.starts_with(folder))
    {
        findings.forbidden(path.clone(), "is the launcher's own folder: use another");
    }
    let filesystems = &spec.domain.devices.filesystems;
    if !filesystems.iter().any(|known| known.name == volume.name) {
        findings.add(
            path,
            format!(
                "no file system is called {:?}: add it to spec.domain.devices.filesystems",
                volume.name
            ),
        );
    }
}

/// Some kinds of volumes make sense once.
fn check_single(spec: &VmiSpec, path: &FieldPath, findings: &mut Findings) {
    type Has = fn(&Volume) -> bool;
    let kinds: [(&str, Has); 3] = [
        ("serviceAccount", |volume| volume.service_account.is_some()),
        ("downwardMetrics", |volume| {
            volume.downward_metrics.is_some()
        }),
        ("memoryDump", |volume| volume.memory_dump.is_some()),
    ];
    for (kind, has) in kinds {
        let mut volumes = spec
            .volumes
            .iter()
            .enumerate()
            .filter(|(_, volume)| has(volume));
        if let (Some((first, _)), Some((second, _))) = (volumes.next(), volumes.next()) {
            findings.duplicate(
                path.index(second).child(kind),
                format!("{path}[{first}] is one already, and there can be one: remove one of them"),
            );
        }
    }
}

fn check_service_account(spec: &VmiSpec, findings: &mut Findings) {
    let name = &spec.service_account_name;
    if name.is_empty() {
        return;
    }
    let path = FieldPath::new("spec.serviceAccountName");
    if !crate::validate::identity::is_dns_subdomain(name) {
        let rule = crate::validate::identity::SUBDOMAIN_RULE;
        findings.add(path.clone(), format!("{name:?} is no valid name: {rule}"));
    }
    let other = spec.volumes.iter().find_map(|volume| {
        let account = &volume.service_account.as_ref()?.service_account_name;
        (account != name).then_some(account)
    });
    if let Some(other) = other {
        let text =
            format!("a serviceAccount volume names {other:?}: name the same account in both");
        findings.add(path, text);
    }
}

/// Volumes that are no disks are plugged, never there from the beginning.
pub(super) fn check_utility_volumes(
    spec: &VmiSpec,
    cluster: &Cluster<'_>,
    is_new: bool,
    findings: &mut Findings,
) {
    let path = FieldPath::new("spec.utilityVolumes");
    if spec.utility_volumes.is_empty() {
        return;
    }
    if is_new {
        return findings.forbidden(path, "are plugged while the machine runs: remove them");
    }
    if !cluster.is_on(gate::UTILITY_VOLUMES) {
        return findings.forbidden(path, gate_text(gate::UTILITY_VOLUMES));
    }
    let mut names = BTreeMap::new();
    let volumes = FieldPath::new("spec.volumes");
    for (index, volume) in spec.volumes.iter().enumerate() {
        names.insert(volume.name.as_str(), volumes.index(index));
    }
    for (index, volume) in spec.utility_volumes.iter().enumerate() {
        let path = path.index(index);
        findings.unique_name(&path.child("name"), &volume.name, &mut names);
        if volume.claim_name.is_empty() {
            findings.required(path.child("claimName"), "required: name a claim");
        }
    }
}
