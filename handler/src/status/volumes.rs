//! `status.volumeStatus` and `status.kernelBootStatus`.

use std::collections::BTreeMap;

use api::Vmi;
use api::status::{ImageFile, VmiStatus, VolumeStatus, volume_phase};
use api::volumes::Volume;
use proto::domain::{Disk, Domain};

use super::{kernel_file, text};

/// Brings the volumes to what the domain has. Statuses of volumes that are no disks are left alone.
pub(super) fn describe(
    status: &mut VmiStatus,
    vmi: &Vmi,
    domain: &Domain,
    checksums: &BTreeMap<String, u32>,
) {
    for disk in &domain.spec.devices.disks {
        let Some(alias) = &disk.alias else { continue };
        let mut volumes = vmi.spec.volumes.iter();
        let Some(volume) = volumes.find(|volume| volume.name == alias.name) else {
            continue;
        };
        let volume_status = entry(&mut status.volume_status, &volume.name);
        describe_disk(volume_status, volume, disk);
    }
    for volume in vmi
        .spec
        .volumes
        .iter()
        .filter(|volume| volume.container_disk.is_some())
    {
        if let Some(checksum) = checksums.get(&volume.name) {
            let volume_status = entry(&mut status.volume_status, &volume.name);
            volume_status.container_disk_volume = Some(file(*checksum));
        }
    }
    describe_kernel(status, checksums);
}

/// Returns the status of a volume, in the order of names where it has to be made.
fn entry<'s>(statuses: &'s mut Vec<VolumeStatus>, name: &str) -> &'s mut VolumeStatus {
    let at = match statuses.iter().position(|status| status.name == name) {
        Some(at) => at,
        None => {
            let later = |status: &VolumeStatus| status.name.as_str() > name;
            let at = statuses.iter().position(later).unwrap_or(statuses.len());
            let status = VolumeStatus {
                name: name.to_owned(),
                ..VolumeStatus::default()
            };
            statuses.insert(at, status);
            at
        }
    };
    &mut statuses[at]
}

fn describe_disk(status: &mut VolumeStatus, volume: &Volume, disk: &Disk) {
    status.target = text::bounded(&disk.target.device, text::NAME_CHARS_MAX);
    let is_going = [volume_phase::DETACHING, volume_phase::UNMOUNTED_FROM_POD];
    let is_dump = status.memory_dump_volume.is_some();
    if !is_dump && !is_going.contains(&status.phase.as_str()) {
        volume_phase::READY.clone_into(&mut status.phase);
    }
    if is_made_here(volume) && disk.capacity.is_some_and(|size| size > 0) {
        status.size = disk.capacity;
    }
}

/// Whether the launcher writes the volume's image from the content of objects.
fn is_made_here(volume: &Volume) -> bool {
    volume.cloud_init_no_cloud.is_some()
        || volume.cloud_init_config_drive.is_some()
        || volume.sysprep.is_some()
        || volume.config_map.is_some()
        || volume.secret.is_some()
        || volume.downward_api.is_some()
        || volume.service_account.is_some()
}

fn describe_kernel(status: &mut VmiStatus, checksums: &BTreeMap<String, u32>) {
    let kernel = checksums.get(kernel_file::KERNEL);
    let initrd = checksums.get(kernel_file::INITRD);
    if kernel.is_none() && initrd.is_none() {
        return;
    }
    let boot = status.kernel_boot_status.get_or_insert_default();
    if let Some(checksum) = kernel {
        boot.kernel_info = Some(file(*checksum));
    }
    if let Some(checksum) = initrd {
        boot.initrd_info = Some(file(*checksum));
    }
}

fn file(checksum: u32) -> ImageFile {
    ImageFile {
        checksum: Some(checksum),
    }
}
