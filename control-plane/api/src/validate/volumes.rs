//! Volumes.

use std::collections::{BTreeMap, BTreeSet};

use super::{Findings, firmware};
use crate::field::FieldPath;
use crate::quantity::Quantity;
use crate::vmi::VmiSpec;
use crate::volumes::{
    CloudInitSource, HOST_DISK_EXISTS, HOST_DISK_EXISTS_OR_CREATE, HostDisk, Volume,
};

/// Longest volume label of an ISO 9660 file system (ECMA-119 §8.4.7).
const MAX_LABEL_LEN: usize = 32;

pub(super) fn check(spec: &VmiSpec, findings: &mut Findings) {
    let path = FieldPath::new("spec.volumes");
    let devices = &spec.domain.devices;
    let used: BTreeSet<&str> = devices
        .disks
        .iter()
        .map(|disk| disk.name.as_str())
        .chain(
            devices
                .filesystems
                .iter()
                .map(|filesystem| filesystem.name.as_str()),
        )
        .collect();
    let mut names = BTreeMap::new();
    for (index, volume) in spec.volumes.iter().enumerate() {
        let path = path.index(index);
        let name = volume.name.as_str();
        findings.unique_name(&path.child("name"), name, &mut names);
        if !name.is_empty() && volume.memory_dump.is_none() && !used.contains(name) {
            findings.add(
                path.child("name"),
                format!("no disk or file system uses {name:?}: add a disk of that name to spec.domain.devices.disks or remove the volume"),
            );
        }
        check_source(volume, &path, findings);
    }
    check_single_cloud_init(spec, &path, findings);
}

fn check_source(volume: &Volume, path: &FieldPath, findings: &mut Findings) {
    match volume.sources().as_slice() {
        [] => findings.add(
            path.clone(),
            "no source is set: add one, such as containerDisk or emptyDisk",
        ),
        [source] => check_fields(volume, &path.child(source), findings),
        several => findings.add(
            path.clone(),
            format!(
                "{} exclude each other: keep one source",
                several.join(" and ")
            ),
        ),
    }
}

fn check_fields(volume: &Volume, path: &FieldPath, findings: &mut Findings) {
    if let Some(source) = &volume.container_disk {
        required(
            findings,
            path.child("image"),
            &source.image,
            "name a container image",
        );
        firmware::absolute(findings, path.child("path"), &source.path);
    } else if let Some(source) = &volume.empty_disk {
        check_capacity(source.capacity.as_ref(), true, path, findings);
    } else if let Some(source) = &volume.host_disk {
        check_host_disk(source, path, findings);
    } else if let Some(source) = volume
        .cloud_init_no_cloud
        .as_ref()
        .or(volume.cloud_init_config_drive.as_ref())
    {
        check_cloud_init(source, path, findings);
    } else if let Some(source) = &volume.config_map {
        required(
            findings,
            path.child("name"),
            &source.name,
            "name a config map",
        );
        check_label(&source.volume_label, path, findings);
    } else if let Some(source) = &volume.secret {
        required(
            findings,
            path.child("secretName"),
            &source.secret_name,
            "name a secret",
        );
        check_label(&source.volume_label, path, findings);
    } else if let Some(source) = &volume.persistent_volume_claim {
        required(
            findings,
            path.child("claimName"),
            &source.claim_name,
            "name a claim",
        );
    } else if let Some(source) = &volume.data_volume {
        required(
            findings,
            path.child("name"),
            &source.name,
            "name a data volume",
        );
    } else if let Some(source) = &volume.ephemeral {
        let claim = source
            .persistent_volume_claim
            .as_ref()
            .map_or("", |claim| &claim.claim_name);
        let path = path.child("persistentVolumeClaim.claimName");
        required(findings, path, claim, "name a claim");
    }
}

fn required(findings: &mut Findings, path: FieldPath, value: &str, cure: &str) {
    if value.is_empty() {
        findings.required(path, format!("required: {cure}"));
    }
}

fn check_label(label: &str, path: &FieldPath, findings: &mut Findings) {
    if label.len() > MAX_LABEL_LEN {
        findings.add(
            path.child("volumeLabel"),
            format!("{label:?} is longer than {MAX_LABEL_LEN} bytes: shorten it"),
        );
    }
}

fn check_capacity(
    capacity: Option<&Quantity>,
    needed: bool,
    path: &FieldPath,
    findings: &mut Findings,
) {
    let path = path.child("capacity");
    match capacity {
        None if needed => {
            findings.required(path, "required: give the size of the disk, such as 2Gi");
        }
        None => {}
        Some(capacity) if capacity.units().is_none_or(|bytes| bytes < 512) => {
            findings.add(
                path,
                format!("{capacity} is too small for a disk: give a size such as 2Gi"),
            );
        }
        Some(_) => {}
    }
}

fn check_host_disk(source: &HostDisk, path: &FieldPath, findings: &mut Findings) {
    required(
        findings,
        path.child("path"),
        &source.path,
        "give the file's path on the node",
    );
    firmware::absolute(findings, path.child("path"), &source.path);
    let kinds = [HOST_DISK_EXISTS, HOST_DISK_EXISTS_OR_CREATE];
    findings.one_of(path.child("type"), &source.disk_type, &kinds);
    let creates = source.disk_type == HOST_DISK_EXISTS_OR_CREATE;
    check_capacity(source.capacity.as_ref(), creates, path, findings);
    if source.capacity.is_some() && !creates {
        findings.add(
            path.child("capacity"),
            "only a DiskOrCreate has a capacity: remove it or change type",
        );
    }
}

fn check_cloud_init(source: &CloudInitSource, path: &FieldPath, findings: &mut Findings) {
    let user = [
        ("userData", !source.user_data.is_empty()),
        ("userDataBase64", !source.user_data_base64.is_empty()),
        ("secretRef", source.secret_ref.is_some()),
    ];
    let network = [
        ("networkData", !source.network_data.is_empty()),
        ("networkDataBase64", !source.network_data_base64.is_empty()),
        (
            "networkDataSecretRef",
            source.network_data_secret_ref.is_some(),
        ),
    ];
    let set = |group: &[(&'static str, bool)]| -> Vec<&'static str> {
        group
            .iter()
            .filter_map(|(field, set)| set.then_some(*field))
            .collect()
    };
    for group in [set(&user), set(&network)] {
        if group.len() > 1 {
            findings.add(
                path.clone(),
                format!("{} exclude each other: keep one", group.join(" and ")),
            );
        }
    }
    if set(&user).is_empty() && set(&network).is_empty() {
        findings.add(
            path.clone(),
            "no data are given: set userData, userDataBase64 or secretRef",
        );
    }
    for (field, text) in [
        ("userDataBase64", &source.user_data_base64),
        ("networkDataBase64", &source.network_data_base64),
    ] {
        if crate::base64::decode(text).is_none() {
            findings.add(
                path.child(field),
                "not valid base64: encode the data with `base64 -w0`",
            );
        }
    }
    for (field, reference) in [
        ("secretRef", &source.secret_ref),
        ("networkDataSecretRef", &source.network_data_secret_ref),
    ] {
        if let Some(reference) = reference {
            required(
                findings,
                path.child(field).child("name"),
                &reference.name,
                "name a secret",
            );
        }
    }
}

fn check_single_cloud_init(spec: &VmiSpec, path: &FieldPath, findings: &mut Findings) {
    let mut volumes = spec.volumes.iter().enumerate().filter(|(_, volume)| {
        volume.cloud_init_no_cloud.is_some() || volume.cloud_init_config_drive.is_some()
    });
    if let (Some((first, _)), Some((second, _))) = (volumes.next(), volumes.next()) {
        findings.add(
            path.index(second),
            format!("{path}[{first}] already holds cloud-init data: a machine reads one such volume, merge them"),
        );
    }
}
