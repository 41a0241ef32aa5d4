#![expect(
    clippy::needless_pass_by_value,
    reason = "checks read better with the literals in place"
)]

use serde_json::{Value, json};

use super::{USER, by, changed, good, grants, names, with_gates};
use crate::admission::{create_preset, create_replica_set, create_vm, update_vm, update_vm_status};
use crate::kubevirt::Configuration;

fn machine() -> Value {
    json!({
        "kind": "VirtualMachine",
        "metadata": {"name": "m", "namespace": "default"},
        "spec": {
            "runStrategy": "Halted",
            "template": {"metadata": {"labels": {"app": "x"}}, "spec": good()["spec"]},
        },
    })
}

#[track_caller]
fn refused(spec: Value, expected: &str) {
    let config = Configuration::default();
    let vm = changed(machine(), &json!({ "spec": spec }));
    names(&create_vm(&vm, &by(USER, &config)), expected);
}

#[test]
fn a_good_machine_is_taken_in_and_the_old_field_warned_of() {
    let config = Configuration::default();
    let verdict = create_vm(&machine(), &by(USER, &config));
    grants(&verdict);
    assert!(verdict.warnings.is_empty());
    let old = changed(
        machine(),
        &json!({"spec": {"runStrategy": null, "running": false}}),
    );
    let verdict = create_vm(&old, &by(USER, &config));
    grants(&verdict);
    assert!(verdict.warnings[0].contains("spec.running is deprecated"));
}

#[test]
fn memory_may_be_given_later() {
    let config = Configuration::default();
    let vm = json!({"metadata": {"name": "m"}, "spec": {"running": false, "template": {"spec": {"domain": {"devices": {}}}}}});
    grants(&create_vm(&vm, &by(USER, &config)));
    let small = changed(
        vm,
        &json!({"spec": {"template": {"spec": {"domain": {"memory": {"guest": "1Mi"}}}}}}),
    );
    names(
        &create_vm(&small, &by(USER, &config)),
        "spec.template.spec.domain.memory.guest",
    );
}

#[test]
fn when_it_runs_must_be_clear() {
    refused(json!({"running": true}), "spec.running");
    refused(json!({"runStrategy": null}), "spec.runStrategy");
    refused(json!({"runStrategy": "Sometimes"}), "spec.runStrategy");
    refused(json!({"template": null}), "spec.template");
    refused(
        json!({"updateVolumesStrategy": "Hope"}),
        "spec.updateVolumesStrategy",
    );
    let off = serde_json::from_value(
        json!({"developerConfiguration": {"disabledFeatureGates": ["DecentralizedLiveMigration"]}}),
    )
    .unwrap();
    let vm = changed(
        machine(),
        &json!({"spec": {"runStrategy": "WaitAsReceiver"}}),
    );
    names(&create_vm(&vm, &by(USER, &off)), "spec.runStrategy");
    grants(&create_vm(&vm, &by(USER, &Configuration::default())));
}

#[test]
fn fields_of_the_template_are_named_from_the_top() {
    let template = |spec: Value| json!({"template": {"spec": spec}});
    refused(
        template(json!({"hostname": "A"})),
        "spec.template.spec.hostname",
    );
    let disk = json!([{"name": "a", "disk": {"bus": "ide"}}, {"name": "b"}]);
    refused(
        template(json!({"domain": {"devices": {"disks": disk}}})),
        "spec.template.spec.domain.devices.disks[0].disk.bus",
    );
    let labels = json!({"template": {"metadata": {"labels": {"kubevirt.io/created-by": "x"}}}});
    refused(
        labels,
        "spec.template.metadata.labels.kubevirt.io/created-by",
    );
    let wrong = template(json!({"domain": {"cpu": {"cores": "two"}}}));
    refused(wrong, "spec.template.spec.domain.cpu.cores");
    let config = Configuration::default();
    let named = changed(machine(), &json!({"metadata": {"name": "M!"}}));
    names(&create_vm(&named, &by(USER, &config)), "metadata.name");
    let host_disk = json!([{"name": "a", "hostDisk": {"path": "/d", "type": "Disk"}}]);
    let spec = template(json!({"volumes": host_disk, "domain": {"devices": {"disks": []}}}));
    refused(spec.clone(), "spec.template.spec.volumes[0].hostDisk");
    let vm = changed(machine(), &json!({ "spec": spec }));
    grants(&create_vm(&vm, &by(USER, &with_gates(&["HostDisk"]))));
}

#[test]
fn instance_types_are_checked() {
    refused(json!({"instancetype": {}}), "spec.instancetype.name");
    refused(
        json!({"instancetype": {"name": "i", "kind": "Size"}}),
        "spec.instancetype.kind",
    );
    refused(
        json!({"preference": {"name": "p", "inferFromVolumeFailurePolicy": "x"}}),
        "spec.preference.inferFromVolumeFailurePolicy",
    );
    refused(
        json!({"instancetype": {"name": "i"}}),
        "spec.template.spec.domain.cpu",
    );
    refused(
        json!({"instancetype": {"name": "i"}}),
        "spec.template.spec.domain.memory.guest",
    );
    let config = Configuration::default();
    let open = json!({"instancetype": {"name": "i", "kind": "virtualmachineclusterinstancetype"},
        "template": {"spec": {"domain": {"cpu": null, "memory": null}}}});
    grants(&create_vm(
        &changed(machine(), &json!({ "spec": open })),
        &by(USER, &config),
    ));
}

#[test]
fn data_volumes_are_checked() {
    let with = |volume: Value| {
        let volumes = json!([
            {"name": "a", "dataVolume": {"name": "d"}}, {"name": "b", "emptyDisk": {"capacity": "1Gi"}}]);
        json!({"dataVolumeTemplates": [volume], "template": {"spec": {"volumes": volumes}}})
    };
    let spec = json!({"storage": {}, "source": {"blank": {}}});
    let config = Configuration::default();
    let good = with(json!({"metadata": {"name": "d"}, "spec": spec}));
    grants(&create_vm(
        &changed(machine(), &json!({ "spec": good })),
        &by(USER, &config),
    ));
    let check = |volume: Value, field: &str| {
        refused(with(volume), &format!("spec.dataVolumeTemplates[0]{field}"));
    };
    check(json!({"metadata": {}, "spec": spec}), ".metadata.name");
    check(json!({"metadata": {"name": "other"}, "spec": spec}), "");
    check(
        json!({"metadata": {"name": "d", "namespace": "x"}, "spec": spec}),
        ".metadata.namespace",
    );
    let of = |spec: Value| json!({"metadata": {"name": "d"}, "spec": spec});
    check(of(json!({"source": {"blank": {}}})), ".spec");
    check(
        of(json!({"storage": {}, "pvc": {}, "source": {"blank": {}}})),
        ".spec",
    );
    check(of(json!({"storage": {}})), ".spec.source");
    check(
        of(json!({"storage": {}, "source": {"blank": {}, "upload": {}}})),
        ".spec.source",
    );
    check(
        of(
            json!({"storage": {}, "source": {"blank": {}}, "sourceRef": {"kind": "DataSource", "name": "x"}}),
        ),
        ".spec.source",
    );
    check(
        of(json!({"pvc": {"dataSource": {"name": "x"}}, "source": {"blank": {}}})),
        ".spec.source",
    );
}

#[test]
fn a_machine_that_is_being_deleted_may_change_as_it_likes() {
    let config = Configuration::default();
    let going = changed(
        machine(),
        &json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"template": null}}),
    );
    grants(&update_vm(&machine(), &going, &by(USER, &config)));
}

#[test]
fn snapshots_and_restores_hold_the_machine() {
    let config = Configuration::default();
    let busy = |status: Value, spec: Value| {
        let new = changed(machine(), &json!({"status": status, "spec": spec}));
        update_vm(&machine(), &new, &by(USER, &config))
    };
    let started = json!({"runStrategy": "Always"});
    names(
        &busy(json!({"restoreInProgress": "r"}), started.clone()),
        "spec.runStrategy",
    );
    names(
        &busy(json!({"snapshotInProgress": "s"}), started.clone()),
        "spec.runStrategy",
    );
    let volumes = json!({"template": {"spec": {"volumes": [{"name": "a", "containerDisk": {"image": "y"}}]}}});
    names(
        &busy(json!({"snapshotInProgress": "s"}), volumes),
        "spec.template.spec.volumes",
    );
    grants(&busy(json!({}), started));
}

#[test]
fn requests_for_volumes_are_checked() {
    let status = |requests: Value| {
        let vm = changed(machine(), &json!({"status": {"volumeRequests": requests}}));
        update_vm_status(&vm, None)
    };
    let add = |name: &str, bus: &str| {
        let source = json!({"persistentVolumeClaim": {"claimName": "c"}});
        json!({"addVolumeOptions": {"name": name, "disk": {"disk": {"bus": bus}}, "volumeSource": source}})
    };
    grants(&status(json!([add("v", "scsi")])));
    names(&status(json!([{}])), "status.volumeRequests[0]");
    names(
        &status(json!([add("v", "scsi"), add("v", "scsi")])),
        "status.volumeRequests[1].addVolumeOptions.name",
    );
    names(
        &status(json!([add("v", "sata")])),
        "status.volumeRequests[0].addVolumeOptions.disk.disk.bus",
    );
    names(
        &status(json!([add("a", "scsi")])),
        "status.volumeRequests[0].addVolumeOptions.name",
    );
    let remove = json!({"removeVolumeOptions": {"name": "v"}});
    names(
        &status(json!([remove, remove])),
        "status.volumeRequests[1].removeVolumeOptions.name",
    );
    let moving = json!({"metadata": {"name": "m"}, "status": {"migrationState": {"startTimestamp": "2026-01-01T00:00:00Z"}}});
    let vm = changed(
        machine(),
        &json!({"status": {"volumeRequests": [add("v", "scsi")]}}),
    );
    names(
        &update_vm_status(&vm, Some(&moving)),
        "status.volumeRequests",
    );
}

#[test]
fn replica_sets_are_checked() {
    let config = Configuration::default();
    let set = |patch: Value| {
        let template = machine()["spec"]["template"].clone();
        let spec =
            json!({"replicas": 2, "selector": {"matchLabels": {"app": "x"}}, "template": template});
        let set = json!({"metadata": {"name": "s"}, "spec": spec});
        create_replica_set(&changed(set, &json!({ "spec": patch })), &by(USER, &config))
    };
    grants(&set(json!({})));
    names(
        &set(json!({"selector": {"matchLabels": {"app": "y"}}})),
        "spec.selector",
    );
    names(&set(json!({"selector": null})), "spec.selector");
    names(
        &set(json!({"selector": {"matchLabels": null}})),
        "spec.selector",
    );
    let expression = json!({"matchExpressions": [{"key": "app", "operator": "Like"}]});
    names(
        &set(json!({"selector": expression})),
        "spec.selector.matchExpressions[0].operator",
    );
    names(&set(json!({"replicas": -1})), "spec.replicas");
    names(&set(json!({"template": null})), "spec.template");
    names(
        &set(json!({"template": {"spec": {"hostname": "A"}}})),
        "spec.template.spec.hostname",
    );
}

#[test]
fn presets_are_checked() {
    let config = Configuration::default();
    let preset = |domain: Value| {
        let preset = json!({"metadata": {"name": "p"}, "spec": {"selector": {}, "domain": domain}});
        create_preset(&preset, &by(USER, &config))
    };
    grants(&preset(json!({"cpu": {"cores": 2}})));
    names(&preset(Value::Null), "spec.domain");
    let both = json!({"firmware": {"bootloader": {"bios": {}, "efi": {}}}});
    names(&preset(both), "spec.domain.firmware.bootloader");
    let disk = json!({"devices": {"disks": [{"name": "d", "lun": {"bus": "x"}}]}});
    names(&preset(disk), "spec.domain.devices.disks[0].lun.bus");
}
