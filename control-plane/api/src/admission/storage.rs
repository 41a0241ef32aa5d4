//! Disks and file systems.

use super::{Cluster, gate_text};
use crate::devices::Disk;
use crate::features::gate;
use crate::field::FieldPath;
use crate::validate::Findings;
use crate::vmi::VmiSpec;
use crate::volumes::Volume;

pub(super) fn check(spec: &VmiSpec, cluster: &Cluster<'_>, findings: &mut Findings) {
    let devices = FieldPath::new("spec.domain.devices");
    let volume_of = |name: &str| spec.volumes.iter().find(|volume| volume.name == name);
    for (index, disk) in spec.domain.devices.disks.iter().enumerate() {
        let path = devices.child("disks").index(index);
        check_disk(disk, &path, findings);
        check_reservation(disk, cluster, &path, findings);
        match volume_of(&disk.name) {
            Some(volume) => check_match(disk, volume, &path, findings),
            None if disk.cdrom.is_some() && !cluster.is_on(gate::DECLARATIVE_HOTPLUG_VOLUMES) => {
                let text = gate_text(gate::DECLARATIVE_HOTPLUG_VOLUMES);
                findings.forbidden(path.child("name"), format!("an empty drive {text}"));
            }
            None => {}
        }
    }
    for (index, filesystem) in spec.domain.devices.filesystems.iter().enumerate() {
        let path = devices.child("filesystems").index(index);
        if filesystem.virtiofs.is_none() {
            findings.required(path.child("virtiofs"), "required: write `virtiofs: {}`");
        }
        let is_storage = volume_of(&filesystem.name).is_some_and(is_storage);
        if is_storage && !cluster.is_on(gate::VIRTIOFS_STORAGE_VOLUMES) {
            findings.forbidden(path, gate_text(gate::VIRTIOFS_STORAGE_VOLUMES));
        }
    }
}

/// Whether a volume's data lie on storage, not in objects of the cluster.
fn is_storage(volume: &Volume) -> bool {
    volume.persistent_volume_claim.is_some()
        || volume.data_volume.is_some()
        || volume.ephemeral.is_some()
        || volume.host_disk.is_some()
        || volume.empty_disk.is_some()
}

/// Checks a disk as such; presets have disks as well.
pub(super) fn check_disk(disk: &Disk, path: &FieldPath, findings: &mut Findings) {
    if let Some(target) = &disk.disk {
        if !target.pci_address.is_empty() {
            check_pci_address(
                &target.pci_address,
                &path.child("disk.pciAddress"),
                findings,
            );
            if !matches!(target.bus.as_str(), "" | "virtio") {
                findings.add(
                    path.child("disk.pciAddress"),
                    "only virtio disks have a PCI address: remove it or change the bus",
                );
            }
        }
        if target.bus == "sata" && target.readonly == Some(true) {
            findings.add(
                path.child("disk.readonly"),
                "SATA hard disks cannot be read-only: use cdrom or another bus",
            );
        }
    }
    if let Some(lun) = &disk.lun {
        let buses = ["virtio", "sata", "scsi", "usb"];
        findings.one_of(path.child("lun.bus"), &lun.bus, &buses);
    }
    let bus = bus_of(disk);
    if disk.dedicated_io_thread == Some(true) && !matches!(bus, "" | "virtio") {
        findings.add(
            path.child("dedicatedIOThread"),
            format!("disks on a {bus} bus have no threads of their own: use the bus virtio"),
        );
    }
    let custom = disk
        .block_size
        .as_ref()
        .and_then(|size| size.custom.as_ref());
    if let Some(custom) = custom {
        let path = path.child("blockSize.custom");
        let logical = custom.logical.unwrap_or(0);
        if bus == "sata" && logical != 512 {
            findings.add(
                path.child("logical"),
                "SATA disks have sectors of 512 bytes: use 512",
            );
        }
        let granularity = custom.discard_granularity.unwrap_or(0);
        if logical != 0 && !granularity.is_multiple_of(logical) {
            findings.add(
                path.child("discardGranularity"),
                format!("{granularity} is no multiple of the logical size ({logical}): round it"),
            );
        }
    }
}

fn bus_of(disk: &Disk) -> &str {
    let disk_bus = disk.disk.as_ref().map(|target| &target.bus);
    let lun = disk.lun.as_ref().map(|target| &target.bus);
    let cdrom = disk.cdrom.as_ref().map(|target| &target.bus);
    disk_bus.or(lun).or(cdrom).map_or("", |bus| bus)
}

/// Reports what is no PCI address, `0000:00:05.0`.
pub(super) fn check_pci_address(address: &str, path: &FieldPath, findings: &mut Findings) {
    let is_hex = |text: &str, len: usize| {
        text.len() == len && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    let parts = address
        .rsplit_once('.')
        .map(|(rest, function)| (rest.split(':').collect::<Vec<_>>(), function));
    let is_address = parts.is_some_and(|(parts, function)| {
        matches!(parts.as_slice(), [domain, bus, slot]
            if is_hex(domain, 4) && is_hex(bus, 2) && is_hex(slot, 2))
            && function.len() == 1
            && function.bytes().all(|byte| (b'0'..=b'7').contains(&byte))
    });
    if !is_address {
        let text = format!("{address:?} is no PCI address: write it as 0000:00:05.0");
        findings.add(path.clone(), text);
    }
}

fn check_reservation(
    disk: &Disk,
    cluster: &Cluster<'_>,
    path: &FieldPath,
    findings: &mut Findings,
) {
    let wants = disk
        .lun
        .as_ref()
        .is_some_and(|lun| lun.reservation == Some(true));
    let switch = cluster.config.persistent_reservation_configuration.as_ref();
    if wants && switch.and_then(|switch| switch.enabled) != Some(true) {
        findings.forbidden(
            path.child("lun.reservation"),
            "persistent reservations are off: set spec.configuration.persistentReservationConfiguration.enabled of the KubeVirt object",
        );
    }
}

/// Whether a disk can stand for its volume.
fn check_match(disk: &Disk, volume: &Volume, path: &FieldPath, findings: &mut Findings) {
    let is_claim = volume.persistent_volume_claim.is_some() || volume.data_volume.is_some();
    if disk.lun.is_some() && !is_claim {
        findings.add(
            path.child("lun"),
            "only claims and data volumes are SCSI units: use disk",
        );
    }
    if volume.container_path.is_some() {
        findings.add(
            path.child("name"),
            "a containerPath volume is no disk: list it in spec.domain.devices.filesystems",
        );
    }
    if volume.downward_metrics.is_some() {
        match &disk.disk {
            _ if disk.lun.is_some() || disk.cdrom.is_some() => {
                findings.required(path.child("disk"), "required for downwardMetrics: use disk");
            }
            Some(target) if !matches!(target.bus.as_str(), "" | "virtio") => findings.add(
                path.child("disk.bus"),
                "downwardMetrics are read from a virtio disk: use virtio",
            ),
            _ => {}
        }
    }
}
