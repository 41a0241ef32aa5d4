//! Firmware, confidential computing, Hyper-V enlightenments, reboots.

use super::{Cluster, gate_text};
use crate::defaulting::admission::HYPERV_NEEDS;
use crate::domain::{DomainSpec, Firmware};
use crate::features::gate;
use crate::field::FieldPath;
use crate::launch_security::LaunchSecurity;
use crate::validate::Findings;
use crate::vmi::VmiSpec;

pub(super) fn check(spec: &VmiSpec, cluster: &Cluster<'_>, findings: &mut Findings) {
    let domain = &spec.domain;
    if let Some(firmware) = &domain.firmware {
        check_firmware(spec, firmware, findings);
    }
    if let Some(security) = &domain.launch_security {
        check_launch_security(spec, security, cluster, findings);
    }
    check_hyperv(domain, findings);
    if domain.reboot_policy.is_some() && !cluster.is_on(gate::REBOOT_POLICY) {
        let path = FieldPath::new("spec.domain.rebootPolicy");
        findings.forbidden(path, gate_text(gate::REBOOT_POLICY));
    }
}

fn check_firmware(spec: &VmiSpec, firmware: &Firmware, findings: &mut Findings) {
    let path = FieldPath::new("spec.domain.firmware");
    let efi = firmware.bootloader.as_ref().and_then(|of| of.efi.as_ref());
    let has_secure_boot = efi.is_some_and(|efi| efi.secure_boot != Some(false));
    let is_tdx = spec
        .domain
        .launch_security
        .as_ref()
        .is_some_and(|security| security.tdx.is_some());
    if has_secure_boot && !has_smm(&spec.domain) && !is_tdx {
        findings.add(
            path.child("bootloader.efi.secureBoot"),
            "Secure Boot needs features.smm: set smm: {} or secureBoot: false",
        );
    }
    if let Some(kernel_boot) = &firmware.kernel_boot
        && let Some(container) = &kernel_boot.container
    {
        let path = path.child("kernelBoot.container");
        for (field, value) in [
            ("kernelPath", &container.kernel_path),
            ("initrdPath", &container.initrd_path),
        ] {
            check_file_path(findings, path.child(field), value);
        }
    }
    let Some(acpi) = &firmware.acpi else { return };
    let path = path.child("acpi");
    if acpi.slic_name_ref.is_empty() && acpi.msdm_name_ref.is_empty() {
        findings.add(
            path.clone(),
            "names no volume: set slicNameRef or msdmNameRef",
        );
    }
    for (field, name) in [
        ("slicNameRef", &acpi.slic_name_ref),
        ("msdmNameRef", &acpi.msdm_name_ref),
    ] {
        let mut volumes = spec.volumes.iter();
        let is_secret = volumes.any(|volume| volume.name == *name && volume.secret.is_some());
        if !name.is_empty() && !is_secret {
            let text = format!("no secret volume is called {name:?}: add it to spec.volumes");
            findings.add(path.child(field), text);
        }
    }
}

/// Reports a path to a file that points to the root, or has `..` or `//` in it.
pub(super) fn check_file_path(findings: &mut Findings, path: FieldPath, value: &str) {
    let Some(relative) = value.strip_prefix('/') else {
        return;
    };
    let relative = relative.trim_end_matches('/');
    let is_clean = |part: &str| !part.is_empty() && part != "." && part != "..";
    if !relative.split('/').all(is_clean) {
        findings.add(
            path,
            format!("{value:?} is no path of a file: write it from the root, without `..` in it"),
        );
    }
}

fn has_smm(domain: &DomainSpec) -> bool {
    let smm = domain.features.as_ref().and_then(|f| f.smm.as_ref());
    smm.is_some_and(|smm| smm.enabled != Some(false))
}

fn check_launch_security(
    spec: &VmiSpec,
    security: &LaunchSecurity,
    cluster: &Cluster<'_>,
    findings: &mut Findings,
) {
    let path = FieldPath::new("spec.domain.launchSecurity");
    let kinds = [
        ("sev", security.sev.is_some(), gate::WORKLOAD_ENCRYPTION_SEV),
        ("snp", security.snp.is_some(), gate::WORKLOAD_ENCRYPTION_SEV),
        ("tdx", security.tdx.is_some(), gate::WORKLOAD_ENCRYPTION_TDX),
    ];
    let mut set = kinds.into_iter().filter(|(_, is_set, _)| *is_set);
    let (Some((kind, _, gate)), None) = (set.next(), set.next()) else {
        return findings.forbidden(path, "set exactly one of sev, snp and tdx");
    };
    if !cluster.is_on(gate) {
        return findings.forbidden(path, gate_text(gate));
    }
    let path = path.child(kind);
    if kind == "tdx" && has_smm(&spec.domain) {
        findings.add(path.clone(), "does not go with features.smm: remove smm");
    }
    let firmware = spec.domain.firmware.as_ref();
    let efi = firmware
        .and_then(|firmware| firmware.bootloader.as_ref())
        .and_then(|of| of.efi.as_ref());
    match efi {
        None => findings.add(path.clone(), "needs UEFI: set firmware.bootloader.efi"),
        Some(efi) if kind != "tdx" && efi.secure_boot != Some(false) => findings.add(
            path.clone(),
            "does not go with Secure Boot: set firmware.bootloader.efi.secureBoot to false",
        ),
        Some(_) => {}
    }
    if kind != "sev" && efi.is_some_and(|efi| efi.persistent == Some(true)) {
        findings.add(
            path.clone(),
            "does not go with kept variables: remove firmware.bootloader.efi.persistent",
        );
    }
    let is_attested = security
        .sev
        .as_ref()
        .is_some_and(|sev| sev.attestation.is_some());
    if is_attested && spec.start_strategy.as_deref() != Some("Paused") {
        findings.add(
            path.child("attestation"),
            "happens while the machine is paused: set spec.startStrategy to Paused",
        );
    }
    let interfaces = &spec.domain.devices.interfaces;
    if interfaces
        .iter()
        .any(|interface| interface.boot_order.is_some())
    {
        findings.add(
            path,
            "does not go with boot from a network: remove bootOrder of interfaces",
        );
    }
}

fn check_hyperv(domain: &DomainSpec, findings: &mut Findings) {
    let Some(features) = &domain.features else {
        return;
    };
    let Some(hyperv) = &features.hyperv else {
        return;
    };
    let path = FieldPath::new("spec.domain.features.hyperv");
    if features.hyperv_passthrough.is_some() {
        findings.add(
            path.clone(),
            "excludes hypervPassthrough: remove one of them",
        );
    }
    for (feature, need) in HYPERV_NEEDS {
        let is_off = hyperv
            .switches()
            .iter()
            .any(|(name, state)| *name == need && *state == Some(Some(false)));
        if hyperv.has(feature) && is_off {
            let text = format!("needs {need}, which is switched off: switch it on");
            findings.add(path.child(feature), text);
        }
    }
    let vmx = domain.cpu.as_ref().and_then(|cpu| {
        let features = cpu.features.iter().enumerate();
        features.clone().find(|(_, feature)| feature.name == "vmx")
    });
    if hyperv.has("evmcs")
        && let Some((index, feature)) = vmx
        && !matches!(feature.policy.as_str(), "" | "require")
    {
        let path = FieldPath::new("spec.domain.cpu.features").index(index);
        findings.add(
            path.child("policy"),
            "the enlightenment evmcs needs vmx: use the policy require",
        );
    }
}
