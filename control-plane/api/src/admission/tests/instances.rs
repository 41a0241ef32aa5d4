#![expect(
    clippy::needless_pass_by_value,
    reason = "checks read better with the literals in place"
)]

use serde_json::{Value, json};

use super::{CONTROLLER, HANDLER, USER, by, changed, defaulted, good, grants, names, with_gates};
use crate::admission::{Requester, create_vmi, keep_status, update_vmi};
use crate::field::Reason;
use crate::kubevirt::Configuration;

/// An instance is refused with a merge patch of its parts, and the field is named.
#[track_caller]
pub(super) fn refused(patch: Value, expected: &str) {
    let config = Configuration::default();
    let vmi = defaulted(changed(good(), &patch), &config);
    names(&create_vmi(&vmi, &by(USER, &config)), expected);
}

/// The patch of `spec` is refused without a gate and granted with it.
#[track_caller]
pub(super) fn gated(spec: Value, gate: &str, expected: &str) {
    let patch = json!({ "spec": spec });
    refused(patch.clone(), expected);
    let config = with_gates(&[gate]);
    let vmi = defaulted(changed(good(), &patch), &config);
    grants(&create_vmi(&vmi, &by(USER, &config)));
}

pub(super) fn spec(path: &str, value: Value) -> Value {
    let mut patch = value;
    for field in path.rsplit('.') {
        patch = json!({ field: patch });
    }
    json!({ "spec": patch })
}

#[track_caller]
pub(super) fn check(path: &str, value: Value, expected: &str) {
    refused(spec(path, value), expected);
}

#[track_caller]
pub(super) fn granted(patch: Value) {
    let config = Configuration::default();
    let vmi = defaulted(changed(good(), &patch), &config);
    grants(&create_vmi(&vmi, &by(USER, &config)));
}

#[test]
fn a_good_instance_is_taken_in() {
    granted(json!({}));
    let config = Configuration::default();
    let plain = json!({"metadata": {"name": "m"}, "spec": {"domain": {"resources": {"requests": {"memory": "1Gi"}}}}});
    grants(&create_vmi(&defaulted(plain, &config), &by(USER, &config)));
}

#[test]
fn reserved_labels_are_for_us() {
    let labels = json!({"metadata": {"labels": {"kubevirt.io/nodeName": "n"}}});
    refused(labels.clone(), "metadata.labels.kubevirt.io/nodeName");
    let config = Configuration::default();
    let vmi = defaulted(changed(good(), &labels), &config);
    grants(&create_vmi(&vmi, &by(CONTROLLER, &config)));
    let ignition = json!({"metadata": {"annotations": {"kubevirt.io/ignitiondata": "{}"}}});
    refused(ignition, "metadata.annotations.kubevirt.io/ignitiondata");
    let sidecar = json!({"metadata": {"annotations": {"hooks.kubevirt.io/hookSidecars": "[]"}}});
    refused(
        sidecar,
        "metadata.annotations.hooks.kubevirt.io/hookSidecars",
    );
}

#[test]
fn names_and_strategies_are_checked() {
    refused(json!({"metadata": {"name": "M_"}}), "metadata.name");
    check("hostname", json!("a.b"), "spec.hostname");
    check("subdomain", json!("A"), "spec.subdomain");
    granted(spec("subdomain", json!("a.b")));
    check("architecture", json!("z80"), "spec.architecture");
    check("startStrategy", json!("Later"), "spec.startStrategy");
    check(
        "evictionStrategy",
        json!("Sometimes"),
        "spec.evictionStrategy",
    );
    let paused = json!({"startStrategy": "Paused", "livenessProbe": {"exec": {"command": ["x"]}}});
    refused(json!({ "spec": paused }), "spec.startStrategy");
    check("serviceAccountName", json!("A!"), "spec.serviceAccountName");
    let volumes = json!([{"name": "a", "serviceAccount": {"serviceAccountName": "y"}}]);
    let accounts = json!({"serviceAccountName": "x", "volumes": volumes, "domain": {"devices": {"disks": [{"name": "a"}]}}});
    refused(json!({ "spec": accounts }), "spec.serviceAccountName");
}

#[test]
fn processors_are_checked() {
    let resources = "domain.resources";
    check(
        resources,
        json!({"requests": {"cpu": "3"}, "limits": {"cpu": "2"}}),
        "spec.domain.resources.requests.cpu",
    );
    check(
        resources,
        json!({"requests": {"cpu": "-1"}}),
        "spec.domain.resources.requests.cpu",
    );
    check(
        resources,
        json!({"limits": {"cpu": "-1"}}),
        "spec.domain.resources.limits.cpu",
    );
    let cpu = "domain.cpu";
    check(
        cpu,
        json!({"isolateEmulatorThread": true}),
        "spec.domain.cpu.isolateEmulatorThread",
    );
    check(
        cpu,
        json!({"features": [{"name": "x", "policy": "perhaps"}]}),
        "spec.domain.cpu.features[0].policy",
    );
    check(
        cpu,
        json!({"sockets": 4, "maxSockets": 2}),
        "spec.domain.cpu.maxSockets",
    );
    check(
        cpu,
        json!({"cores": 0, "sockets": 2}),
        "spec.domain.cpu.cores",
    );
    check(
        cpu,
        json!({"numa": {"guestMappingPassthrough": {}}}),
        "spec.domain.cpu.numa.guestMappingPassthrough",
    );
    check(
        cpu,
        json!({"realtime": {}}),
        "spec.domain.cpu.dedicatedCpuPlacement",
    );
    check(
        cpu,
        json!({"realtime": {}}),
        "spec.domain.cpu.numa.guestMappingPassthrough",
    );
    check(
        cpu,
        json!({"dedicatedCpuPlacement": true, "threads": 3}),
        "spec.domain.cpu.threads",
    );
}

#[test]
fn dedicated_processors_are_checked() {
    let dedicated = |resources: Value| json!({"spec": {"domain": {"cpu": {"dedicatedCpuPlacement": true}, "resources": resources}}});
    let of = |field: &str| format!("spec.domain.resources.{field}");
    refused(
        dedicated(json!({"requests": {"cpu": "1500m"}})),
        &of("requests.cpu"),
    );
    refused(
        dedicated(json!({"limits": {"cpu": "1500m"}})),
        &of("limits.cpu"),
    );
    let cpus = json!({"requests": {"cpu": 1}, "limits": {"cpu": 2}});
    refused(dedicated(cpus), &of("requests.cpu"));
    let memory = json!({"requests": {"memory": "64Mi"}, "limits": {"memory": "128Mi"}});
    refused(dedicated(memory), &of("requests.memory"));
    refused(
        dedicated(json!({"limits": {"cpu": 3}})),
        "spec.domain.cpu.dedicatedCpuPlacement",
    );
    granted(dedicated(json!({"limits": {"cpu": 2}})));
}

#[test]
fn memory_is_checked() {
    let request = "spec.domain.resources.requests.memory";
    check(
        "domain.resources.requests",
        json!({"memory": "-1"}),
        request,
    );
    check(
        "domain.resources.requests",
        json!({"memory": "1k"}),
        request,
    );
    let both = json!({"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}});
    check("domain.resources", both, request);
    check(
        "domain.resources.limits",
        json!({"memory": "32Mi"}),
        "spec.domain.memory.guest",
    );
    check(
        "domain.memory",
        json!({"hugepages": {"pageSize": "1Gi"}}),
        "spec.domain.memory.hugepages.pageSize",
    );
    check(
        "domain.memory",
        json!({"hugepages": {"pageSize": "3Mi"}}),
        "spec.domain.memory.hugepages.pageSize",
    );
    check(
        "domain.memory",
        json!({"maxGuest": "32Mi"}),
        "spec.domain.memory.maxGuest",
    );
    let memory = json!({"domain": {"memory": {"reservedOverhead": {"addedOverhead": "1Mi"}}}});
    gated(
        memory,
        "ReservedOverheadMemlock",
        "spec.domain.memory.reservedOverhead",
    );
    let config = Configuration::default();
    let none = json!({"metadata": {"name": "m"}, "spec": {"domain": {}}});
    let verdict = create_vmi(&defaulted(none, &config), &by(USER, &config));
    names(&verdict, "spec.domain.memory.guest");
    assert_eq!(verdict.errors[0].reason, Reason::Required);
}

#[test]
fn machine_types_follow_the_cluster() {
    check(
        "domain.machine.type",
        json!("pc"),
        "spec.domain.machine.type",
    );
    let config = serde_json::from_value(json!({"emulatedMachines": ["pc-q35-*"]})).unwrap();
    let vmi = |name: &str| {
        let vmi = changed(good(), &spec("domain.machine.type", json!(name)));
        create_vmi(&defaulted(vmi, &config), &by(USER, &config))
    };
    names(&vmi("q35"), "spec.domain.machine.type");
    grants(&vmi("pc-q35-9.0"));
}

#[test]
fn firmware_is_checked() {
    let firmware = "domain.firmware";
    check(
        firmware,
        json!({"bootloader": {"bios": {}, "efi": {}}}),
        "spec.domain.firmware.bootloader",
    );
    check(
        firmware,
        json!({"bootloader": {"efi": {}}}),
        "spec.domain.firmware.bootloader.efi.secureBoot",
    );
    check(firmware, json!({"acpi": {}}), "spec.domain.firmware.acpi");
    check(
        firmware,
        json!({"acpi": {"slicNameRef": "a"}}),
        "spec.domain.firmware.acpi.slicNameRef",
    );
    let container =
        |path: &str| json!({"kernelBoot": {"container": {"image": "i", "kernelPath": path}}});
    let path = "spec.domain.firmware.kernelBoot.container.kernelPath";
    check(firmware, container("/"), path);
    check(firmware, container("/boot/../x"), path);
    check(firmware, container("boot"), path);
    let image = "spec.domain.firmware.kernelBoot.container.image";
    check(
        firmware,
        json!({"kernelBoot": {"container": {"kernelPath": "/k"}}}),
        image,
    );
    check(firmware, json!({"uuid": "1"}), "spec.domain.firmware.uuid");
}

#[test]
fn confidential_machines_are_checked() {
    let with = |security: Value, firmware: Value| json!({"spec": {"domain": {"launchSecurity": security, "firmware": firmware}}});
    let plain = json!({"bootloader": {"efi": {"secureBoot": false}}});
    granted(with(json!({"sev": {}}), plain.clone()));
    let path = "spec.domain.launchSecurity";
    refused(with(json!({}), plain.clone()), path);
    refused(with(json!({"sev": {}, "snp": {}}), plain.clone()), path);
    refused(with(json!({"tdx": {}}), plain.clone()), path);
    refused(
        with(json!({"sev": {}}), json!({})),
        "spec.domain.launchSecurity.sev",
    );
    refused(
        with(json!({"sev": {"attestation": {}}}), plain),
        "spec.domain.launchSecurity.sev.attestation",
    );
    let kept = json!({"bootloader": {"efi": {"secureBoot": false, "persistent": true}}});
    refused(
        with(json!({"snp": {}}), kept),
        "spec.domain.launchSecurity.snp",
    );
}

#[test]
fn enlightenments_are_checked() {
    let features = "domain.features";
    check(
        features,
        json!({"hyperv": {}, "hypervPassthrough": {}}),
        "spec.domain.features.hyperv",
    );
    let off = json!({"hyperv": {"synic": {}, "vpindex": {"enabled": false}}});
    check(features, off, "spec.domain.features.hyperv.synic");
    let evmcs = json!({"domain": {
        "features": {"hyperv": {"evmcs": {}}}, "cpu": {"features": [{"name": "vmx", "policy": "disable"}]}}});
    refused(
        json!({ "spec": evmcs }),
        "spec.domain.cpu.features[0].policy",
    );
}

#[test]
fn a_running_instance_is_changed_by_us_only() {
    let config = Configuration::default();
    let old = defaulted(good(), &config);
    let new = changed(old.clone(), &spec("domain.cpu.cores", json!(4)));
    names(&update_vmi(&old, &new, &by(USER, &config)), "spec");
    grants(&update_vmi(&old, &new, &by(CONTROLLER, &config)));
    let labelled = changed(
        old.clone(),
        &json!({"metadata": {"labels": {"kubevirt.io/nodeName": "n"}}}),
    );
    let path = "metadata.labels.kubevirt.io/nodeName";
    names(&update_vmi(&old, &labelled, &by(USER, &config)), path);
    let own = changed(old.clone(), &json!({"metadata": {"labels": {"app": "x"}}}));
    grants(&update_vmi(&old, &own, &by(USER, &config)));
    let sockets = changed(old.clone(), &spec("domain.cpu.maxSockets", json!(4)));
    names(
        &update_vmi(&old, &sockets, &by(CONTROLLER, &config)),
        "spec.domain.cpu.maxSockets",
    );
}

#[test]
fn users_cannot_write_a_status() {
    let config = Configuration::default();
    let old = defaulted(good(), &config);
    let forged = changed(old.clone(), &json!({"status": {"phase": "Running"}}));
    let mut new = forged.clone();
    keep_status(&old, &mut new, &by(USER, &config));
    assert_eq!(new["status"], old["status"]);
    let mut new = forged.clone();
    keep_status(&old, &mut new, &by(HANDLER, &config));
    assert_eq!(new, forged);
}

#[test]
fn volumes_are_plugged_by_us() {
    let config = with_gates(&["UtilityVolumes"]);
    let mut old = defaulted(good(), &config);
    old["status"]["volumeStatus"] =
        json!([{"name": "a", "target": "vda"}, {"name": "b", "target": "vdb"}]);
    let with = |volume: Value, disk: Value| {
        let mut new = old.clone();
        let spec = &mut new["spec"];
        spec["volumes"].as_array_mut().unwrap().push(volume);
        if !disk.is_null() {
            spec["domain"]["devices"]["disks"]
                .as_array_mut()
                .unwrap()
                .push(disk);
        }
        update_vmi(&old, &new, &by(CONTROLLER, &config))
    };
    let claim = json!({"name": "c", "persistentVolumeClaim": {"claimName": "c"}});
    grants(&with(
        claim.clone(),
        json!({"name": "c", "disk": {"bus": "scsi"}}),
    ));
    names(&with(claim.clone(), Value::Null), "spec.volumes[2].name");
    names(
        &with(claim.clone(), json!({"name": "c", "disk": {"bus": "sata"}})),
        "spec.volumes[2].disk.bus",
    );
    names(
        &with(claim.clone(), json!({"name": "c", "cdrom": {}})),
        "spec.volumes[2].disk",
    );
    names(
        &with(
            json!({"name": "c", "emptyDisk": {"capacity": "1Gi"}}),
            Value::Null,
        ),
        "spec.volumes[2]",
    );
    let mut new = old.clone();
    new["spec"]["volumes"].as_array_mut().unwrap().pop();
    names(
        &update_vmi(&old, &new, &by(CONTROLLER, &config)),
        "spec.volumes",
    );
    let mut new = old.clone();
    new["spec"]["volumes"][0]["containerDisk"]["image"] = json!("y");
    names(
        &update_vmi(&old, &new, &by(CONTROLLER, &config)),
        "spec.volumes[0]",
    );
    let mut new = old.clone();
    new["spec"]["utilityVolumes"] = json!([{"name": "a", "claimName": "x"}]);
    names(
        &update_vmi(&old, &new, &by(CONTROLLER, &config)),
        "spec.utilityVolumes[0].name",
    );
}

#[test]
fn a_node_agent_changes_instances_of_its_node() {
    let config = Configuration::default();
    let mut old = defaulted(good(), &config);
    old["status"]["nodeName"] = json!("here");
    let new = changed(old.clone(), &json!({"status": {"phase": "Running"}}));
    let from = |node| {
        let mut cluster = by(HANDLER, &config);
        cluster.requester = Requester {
            user: HANDLER,
            node,
        };
        update_vmi(&old, &new, &cluster)
    };
    grants(&from(Some("here")));
    names(&from(Some("there")), "status.nodeName");
    names(&from(None), "status.nodeName");
    let moved = changed(
        old.clone(),
        &json!({"status": {"migrationState": {"targetNode": "there"}}}),
    );
    let mut cluster = by(HANDLER, &config);
    cluster.requester.node = Some("here");
    names(
        &update_vmi(&old, &moved, &cluster),
        "status.migrationState.targetNode",
    );
}
