//! Disks and file systems.

use std::collections::{BTreeMap, BTreeSet};

use super::Findings;
use crate::devices::{BlockSize, Disk};
use crate::field::FieldPath;
use crate::vmi::VmiSpec;

/// Most disks; beyond it there are no slots.
const MAX_DISKS: usize = 256;
/// Longest serial number of any bus.
const MAX_SERIAL_LEN: usize = 256;

pub(super) fn check(spec: &VmiSpec, findings: &mut Findings) {
    let devices = FieldPath::new("spec.domain.devices");
    let path = devices.child("disks");
    let disks = &spec.domain.devices.disks;
    if disks.len() > MAX_DISKS {
        findings.add(
            path.clone(),
            format!("{} disks: at most {MAX_DISKS} fit", disks.len()),
        );
    }
    let volumes: BTreeSet<&str> = spec
        .volumes
        .iter()
        .map(|volume| volume.name.as_str())
        .collect();
    let mut names = BTreeMap::new();
    for (index, disk) in disks.iter().enumerate() {
        let path = path.index(index);
        findings.unique_name(&path.child("name"), &disk.name, &mut names);
        // A CD-ROM drive may be empty.
        if disk.cdrom.is_none() {
            require_volume(findings, &volumes, path.child("name"), &disk.name);
        }
        check_disk(disk, &path, findings);
    }
    for (index, filesystem) in spec.domain.devices.filesystems.iter().enumerate() {
        let path = devices.child("filesystems").index(index).child("name");
        findings.unique_name(&path, &filesystem.name, &mut names);
        require_volume(findings, &volumes, path, &filesystem.name);
    }
    check_boot_order(spec, &devices, findings);
}

fn require_volume(findings: &mut Findings, volumes: &BTreeSet<&str>, path: FieldPath, name: &str) {
    if !name.is_empty() && !volumes.contains(name) {
        findings.add(
            path,
            format!("no volume is called {name:?}: add it to spec.volumes or remove this device"),
        );
    }
}

fn check_disk(disk: &Disk, path: &FieldPath, findings: &mut Findings) {
    let targets = [
        disk.disk.is_some(),
        disk.lun.is_some(),
        disk.cdrom.is_some(),
    ];
    if targets.iter().filter(|set| **set).count() > 1 {
        findings.add(
            path.clone(),
            "disk, lun and cdrom exclude each other: keep one",
        );
    }
    if let Some(target) = &disk.disk {
        let buses = ["virtio", "sata", "scsi", "usb"];
        findings.one_of(path.child("disk.bus"), &target.bus, &buses);
    }
    if let Some(target) = &disk.cdrom {
        findings.one_of(path.child("cdrom.bus"), &target.bus, &["sata", "scsi"]);
        findings.one_of(path.child("cdrom.tray"), &target.tray, &["open", "closed"]);
    }
    findings.one_of(
        path.child("cache"),
        &disk.cache,
        &["none", "writethrough", "writeback"],
    );
    findings.one_of(
        path.child("io"),
        &disk.io,
        &["native", "threads", "default"],
    );
    let error_policy = disk.error_policy.as_deref().unwrap_or_default();
    let policies = ["stop", "ignore", "report", "enospace"];
    findings.one_of(path.child("errorPolicy"), error_policy, &policies);
    check_serial(&disk.serial, path.child("serial"), findings);
    if let Some(block_size) = &disk.block_size {
        check_block_size(block_size, &path.child("blockSize"), findings);
    }
}

fn check_serial(serial: &str, path: FieldPath, findings: &mut Findings) {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.+-".contains(&byte);
    if serial.len() > MAX_SERIAL_LEN {
        findings.add(
            path,
            format!("longer than {MAX_SERIAL_LEN} bytes: shorten it"),
        );
    } else if !serial.bytes().all(allowed) {
        findings.add(
            path,
            format!(
                "{serial:?} has other characters than letters, digits and _ . + -: remove them"
            ),
        );
    }
}

fn check_block_size(block_size: &BlockSize, path: &FieldPath, findings: &mut Findings) {
    let Some(custom) = &block_size.custom else {
        return;
    };
    let path = path.child("custom");
    if block_size.match_volume.is_some() {
        findings.add(
            path.clone(),
            "custom and matchVolume exclude each other: remove one",
        );
    }
    let logical = custom.logical.unwrap_or(0);
    if !matches!(logical, 512 | 4096) {
        findings.add(
            path.child("logical"),
            format!("{logical} bytes cannot be a sector: use 512 or 4096"),
        );
    }
    let physical = custom.physical.unwrap_or(0);
    if !physical.is_power_of_two() || physical < logical || physical > 2 << 20 {
        findings.add(
            path.child("physical"),
            format!("{physical} bytes cannot be a sector: use a power of two from the logical size to 2097152"),
        );
    }
}

/// Boot order numbers start at 1 and are used once, over disks and interfaces.
fn check_boot_order(spec: &VmiSpec, devices: &FieldPath, findings: &mut Findings) {
    let disks = spec.domain.devices.disks.iter().enumerate();
    let interfaces = spec.domain.devices.interfaces.iter().enumerate();
    let numbered = disks
        .map(|(index, disk)| (devices.child("disks").index(index), disk.boot_order))
        .chain(interfaces.map(|(index, interface)| {
            (
                devices.child("interfaces").index(index),
                interface.boot_order,
            )
        }));
    let mut seen = BTreeMap::new();
    for (path, order) in numbered {
        let Some(order) = order else { continue };
        let path = path.child("bootOrder");
        if order == 0 {
            findings.add(path, "boot order starts at 1: use 1 or more");
        } else if let Some(first) = seen.insert(order, path.clone()) {
            findings.add(
                path,
                format!("{order} is already used at {first}: choose another"),
            );
        }
    }
}
