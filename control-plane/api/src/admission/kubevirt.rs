//! The installation.

use std::time::Duration;

use serde_json::Value;

use super::{Verdict, read};
use crate::duration;
use crate::features::{self, gate};
use crate::field::{FieldError, FieldPath};
use crate::kubevirt::{Configuration, KubeVirt, SelfSignedCertificates, TlsConfiguration};
use crate::validate::Findings;

/// Cipher suites of TLS 1.2 by their IANA names; those of TLS 1.3 cannot be chosen.
const CIPHERS: [&str; 17] = [
    "TLS_RSA_WITH_AES_128_CBC_SHA",
    "TLS_RSA_WITH_AES_256_CBC_SHA",
    "TLS_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
];
const UNINSTALL_STRATEGIES: [&str; 2] = ["RemoveWorkloads", "BlockUninstallIfWorkloadsExist"];
/// Life of the authority and of its certificates, and the time before their ends at which the next ones
/// are made, when nobody says.
const CA_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
const CA_RENEWAL: Duration = Duration::from_secs(7 * 24 * 3600 / 5);
const SERVER_LIFE: Duration = Duration::from_secs(24 * 3600);
const SERVER_RENEWAL: Duration = Duration::from_secs(24 * 3600 / 5);

/// Decides on a new installation, `existing` telling how many there are.
pub fn create_kubevirt(kubevirt: &Value, existing: usize) -> Verdict {
    let mut verdict = check(kubevirt, None);
    if existing > 0 {
        let text = "a cluster has one KubeVirt object, and there is one already: change that one";
        let path = FieldPath::new("metadata.name");
        verdict.errors.push(FieldError::forbidden(path, text));
    }
    verdict
}

/// Decides on a changed installation.
pub fn update_kubevirt(old: &Value, new: &Value) -> Verdict {
    check(new, Some(old))
}

/// Decides on the removal of an installation, `workloads` being the names of kinds of which there are
/// objects (virtual machines, instances, replica sets).
pub fn delete_kubevirt(kubevirt: &Value, workloads: &[&str]) -> Verdict {
    let kubevirt: KubeVirt = match read(kubevirt) {
        Ok(kubevirt) => kubevirt,
        // What cannot be read must be removable all the same.
        Err(_) => return Verdict::default(),
    };
    let blocks = kubevirt.spec.uninstall_strategy == UNINSTALL_STRATEGIES[1];
    if !blocks || kubevirt.status.phase != "Deployed" || workloads.is_empty() {
        return Verdict::default();
    }
    let text = format!(
        "forbids removal while there are objects of {}: delete them, or set it to RemoveWorkloads",
        workloads.join(", ")
    );
    let path = FieldPath::new("spec.uninstallStrategy");
    Verdict::refused(FieldError::forbidden(path, text))
}

fn check(new: &Value, old: Option<&Value>) -> Verdict {
    let (new, old): (KubeVirt, Option<KubeVirt>) = match (read(new), old.map(read).transpose()) {
        (Ok(new), Ok(old)) => (new, old),
        (Err(refused), _) | (_, Err(refused)) => return refused,
    };
    let old = old.unwrap_or_default();
    let spec = FieldPath::new("spec");
    let mut findings = Findings::default();
    let strategy = &new.spec.uninstall_strategy;
    findings.one_of(
        spec.child("uninstallStrategy"),
        strategy,
        &UNINSTALL_STRATEGIES,
    );
    let methods = &new.spec.workload_update_strategy.workload_update_methods;
    for (index, method) in methods.iter().enumerate() {
        let path = spec
            .child("workloadUpdateStrategy.workloadUpdateMethods")
            .index(index);
        findings.one_of(path, method, &["LiveMigrate", "Evict"]);
    }
    check_patches(&new, &mut findings);
    if let Some(certificates) = &new.spec.certificate_rotate_strategy.self_signed {
        check_certificates(certificates, &mut findings);
    }
    let replicas = new.spec.infra.as_ref().and_then(|infra| infra.replicas);
    if replicas == Some(0) {
        findings.add(
            spec.child("infra.replicas"),
            "the control plane needs at least 1: use 1 or more",
        );
    }
    check_configuration(
        &old.spec.configuration,
        &new.spec.configuration,
        &mut findings,
    );
    let developer = &new.spec.configuration.developer_configuration;
    let was = &old.spec.configuration.developer_configuration;
    let gates = |of: &crate::kubevirt::DeveloperConfiguration| {
        (of.feature_gates.clone(), of.disabled_feature_gates.clone())
    };
    let mut warnings = Vec::new();
    if gates(developer) != gates(was) {
        findings.errors.extend(features::conflicts(developer));
        warnings.extend(features::warnings(developer));
    }
    warnings.extend(deprecated(&new.spec.configuration));
    Verdict {
        errors: findings.errors,
        warnings,
    }
}

fn check_patches(kubevirt: &KubeVirt, findings: &mut Findings) {
    for (index, patch) in kubevirt
        .spec
        .customize_components
        .patches
        .iter()
        .enumerate()
    {
        let path = FieldPath::new("spec.customizeComponents.patches").index(index);
        if serde_json::from_str::<serde::de::IgnoredAny>(&patch.patch).is_err() {
            findings.one_of_text(
                path.child("patch"),
                "is no valid JSON: write the patch as JSON text",
            );
        }
        findings.one_of(
            path.child("type"),
            &patch.patch_type,
            &["json", "merge", "strategic"],
        );
    }
}

fn check_certificates(given: &SelfSignedCertificates, findings: &mut Findings) {
    let path = FieldPath::new("spec.certificateRotateStrategy.selfSigned");
    let old_fields = [
        ("caRotateInterval", &given.ca_rotate_interval),
        ("certRotateInterval", &given.cert_rotate_interval),
        ("caOverlapInterval", &given.ca_overlap_interval),
    ];
    let is_new = given.ca.is_some() || given.server.is_some();
    if let Some((field, _)) = old_fields.iter().find(|(_, value)| value.is_some())
        && is_new
    {
        let text = "is deprecated and excludes ca and server: remove it";
        findings.forbidden(path.child(field), text);
    }
    let ca = given.ca.clone().unwrap_or_default();
    let server = given.server.clone().unwrap_or_default();
    let mut read = |field: &str, texts: [&Option<String>; 2], default: Duration| {
        let text = texts.into_iter().flatten().next();
        let Some(text) = text else { return default };
        duration::parse(text).unwrap_or_else(|error| {
            findings.add(path.child(field), format!("{error}"));
            default
        })
    };
    let ca_life = read(
        "ca.duration",
        [&ca.duration, &given.ca_rotate_interval],
        CA_LIFE,
    );
    let ca_renewal = read(
        "ca.renewBefore",
        [&ca.renew_before, &given.ca_overlap_interval],
        CA_RENEWAL.min(ca_life),
    );
    let life = read(
        "server.duration",
        [&server.duration, &given.cert_rotate_interval],
        SERVER_LIFE.min(ca_life),
    );
    let renewal = read(
        "server.renewBefore",
        [&server.renew_before, &None],
        SERVER_RENEWAL.min(life),
    );
    for (field, renewal, life) in [("ca", ca_renewal, ca_life), ("server", renewal, life)] {
        if renewal > life {
            let text = "is longer than the certificate's life: lower it or raise duration";
            findings.add(path.child(field).child("renewBefore"), text);
        }
    }
    if life > ca_life {
        let text = "is longer than the authority's life: lower it or raise ca.duration";
        findings.add(path.child("server.duration"), text);
    }
}

fn check_configuration(old: &Configuration, new: &Configuration, findings: &mut Findings) {
    let path = FieldPath::new("spec.configuration");
    if let Some(ratio) = &new.additional_guest_memory_overhead_ratio {
        let is_fit = ratio
            .parse::<f64>()
            .is_ok_and(|ratio| ratio.is_finite() && ratio >= 1.0);
        if !is_fit {
            let text = format!("{ratio:?} is no factor: use 1.0 or more, as text");
            findings.one_of_text(path.child("additionalGuestMemoryOverheadRatio"), text);
        }
    }
    let eviction = new.eviction_strategy.as_deref().unwrap_or_default();
    let strategies = ["None", "LiveMigrate", "LiveMigrateIfPossible", "External"];
    findings.one_of(path.child("evictionStrategy"), eviction, &strategies);
    let template = new.virt_template_deployment.as_ref();
    if template.and_then(|switch| switch.enabled) == Some(true) && !new.is_on(gate::TEMPLATE) {
        let text = super::gate_text(gate::TEMPLATE);
        findings.forbidden(path.child("virtTemplateDeployment.enabled"), text);
    }
    let aggregation = new.role_aggregation_strategy.as_deref();
    if aggregation == Some("Manual") && !new.is_on(gate::OPT_OUT_ROLE_AGGREGATION) {
        let text = super::gate_text(gate::OPT_OUT_ROLE_AGGREGATION);
        findings.forbidden(path.child("roleAggregationStrategy"), text);
    }
    let downtime = |of: &Configuration| of.migrations.as_ref().and_then(|m| m.max_downtime_ms);
    let may_tune =
        new.is_on(gate::MIGRATION_DOWNTIME_TUNING) || new.is_on(gate::MIGRATION_STALL_DETECTION);
    if downtime(new).is_some() && downtime(old) != downtime(new) && !may_tune {
        let text = super::gate_text(gate::MIGRATION_DOWNTIME_TUNING);
        findings.forbidden(path.child("migrations.maxDowntimeMs"), text);
    }
    if let Some(tls) = &new.tls_configuration {
        check_tls(tls, &path.child("tlsConfiguration"), findings);
    }
    if let Some(seccomp) = &new.seccomp_configuration
        && let Some(profile) = &seccomp.virtual_machine_instance_profile
    {
        let path = path.child("seccompConfiguration.virtualMachineInstanceProfile.customProfile");
        match &profile.custom_profile {
            None => findings.required(
                path,
                "required: set localhostProfile or runtimeDefaultProfile",
            ),
            Some(custom)
                if custom.localhost_profile.is_some()
                    && custom.runtime_default_profile == Some(true) =>
            {
                findings.add(
                    path,
                    "localhostProfile and runtimeDefaultProfile exclude each other: keep one",
                );
            }
            Some(_) => {}
        }
    }
    let network = new
        .network
        .as_ref()
        .map_or("", |n| n.default_network_interface.as_str());
    let bindings = ["bridge", "masquerade"];
    findings.one_of(
        path.child("network.defaultNetworkInterface"),
        network,
        &bindings,
    );
}

fn check_tls(tls: &TlsConfiguration, path: &FieldPath, findings: &mut Findings) {
    let versions = [
        "VersionTLS10",
        "VersionTLS11",
        "VersionTLS12",
        "VersionTLS13",
    ];
    let least = tls.min_tls_version.as_str();
    findings.one_of(path.child("minTLSVersion"), least, &versions);
    let path = path.child("ciphers");
    if matches!(least, "" | "VersionTLS13") {
        if !tls.ciphers.is_empty() {
            let text =
                "cannot be chosen for TLS 1.3: remove them, or set minTLSVersion to VersionTLS12";
            findings.one_of_text(path, text);
        }
        return;
    }
    for (index, cipher) in tls.ciphers.iter().enumerate() {
        if !CIPHERS.contains(&cipher.as_str()) {
            let text = format!(
                "{cipher:?} is not known: use IANA names, such as {}",
                CIPHERS[10]
            );
            findings.one_of_text(path.index(index), text);
        }
    }
}

/// Returns warnings about fields that go away.
fn deprecated(configuration: &Configuration) -> Vec<String> {
    let mut warnings = Vec::new();
    let path = "spec.configuration.mediatedDevicesConfiguration";
    if let Some(devices) = &configuration.mediated_devices_configuration {
        if !devices.mediated_devices_types.is_empty() {
            warnings.push(format!(
                "{path}.mediatedDevicesTypes is deprecated: use mediatedDeviceTypes"
            ));
        }
        let of_nodes = devices.node_mediated_device_types.iter().enumerate();
        for (index, _) in of_nodes.filter(|(_, of)| !of.mediated_devices_types.is_empty()) {
            warnings.push(format!(
                "{path}.nodeMediatedDeviceTypes[{index}].mediatedDevicesTypes is deprecated: use mediatedDeviceTypes"
            ));
        }
    }
    let of_architecture = configuration.architecture_configuration.as_ref();
    if of_architecture.is_some_and(|of| of.ppc64le.is_some()) {
        let text = "spec.configuration.architectureConfiguration.ppc64le has no effect: remove it";
        warnings.push(text.to_owned());
    }
    warnings
}
