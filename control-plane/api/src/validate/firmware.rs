//! Machine type, firmware and kernel.

use uuid::Uuid;

use super::Findings;
use crate::domain::{DomainSpec, KernelBoot};
use crate::field::FieldPath;

pub(crate) fn check(domain: &DomainSpec, findings: &mut Findings) {
    if let Some(machine) = &domain.machine {
        let name = machine.machine_type.as_str();
        if !matches!(name, "" | "q35") && !name.starts_with("pc-q35-") {
            findings.add(
                FieldPath::new("spec.domain.machine.type"),
                format!("machine type {name:?} is not available: use q35 or leave it out"),
            );
        }
    }
    let Some(firmware) = &domain.firmware else {
        return;
    };
    let path = FieldPath::new("spec.domain.firmware");
    if !firmware.uuid.is_empty() && Uuid::try_parse(&firmware.uuid).is_err() {
        findings.add(
            path.child("uuid"),
            format!(
                "{:?} is no UUID: write it as 8-4-4-4-12 hexadecimal digits",
                firmware.uuid
            ),
        );
    }
    if let Some(bootloader) = &firmware.bootloader
        && bootloader.bios.is_some()
        && bootloader.efi.is_some()
    {
        findings.add(
            path.child("bootloader"),
            "bios and efi exclude each other: remove one",
        );
    }
    if let Some(kernel_boot) = &firmware.kernel_boot {
        check_kernel_boot(kernel_boot, &path.child("kernelBoot"), findings);
    }
}

fn check_kernel_boot(kernel_boot: &KernelBoot, path: &FieldPath, findings: &mut Findings) {
    let path = path.child("container");
    let Some(container) = &kernel_boot.container else {
        return findings.required(path, "required: name the image, kernelPath and initrdPath");
    };
    if container.image.is_empty() {
        findings.required(
            path.child("image"),
            "required: name the container image that holds the kernel",
        );
    }
    if container.kernel_path.is_empty() {
        findings.required(
            path.child("kernelPath"),
            "required: give the kernel's path in the image",
        );
    }
    for (field, value) in [
        ("kernelPath", &container.kernel_path),
        ("initrdPath", &container.initrd_path),
    ] {
        absolute(findings, path.child(field), value);
    }
}

/// Reports a path that doesn't start at the root.
pub(crate) fn absolute(findings: &mut Findings, path: FieldPath, value: &str) {
    if !value.is_empty() && !value.starts_with('/') {
        findings.add(
            path,
            format!("{value:?} is relative: write it from the root, /{value}"),
        );
    }
}
