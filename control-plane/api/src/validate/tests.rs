use serde_json::{Value, json};

use super::validate_vmi;
use crate::defaulting::default_vmi;
use crate::manifest::parse_vmi_json;

/// An instance that is fine.
fn good() -> Value {
    json!({
        "metadata": {"name": "m"},
        "spec": {
            "domain": {
                "cpu": {"cores": 2},
                "memory": {"guest": "64Mi"},
                "firmware": {"kernelBoot": {"container": {"image": "i", "kernelPath": "/k"}}},
                "devices": {
                    "disks": [{"name": "a", "disk": {"bus": "virtio"}}, {"name": "b"}],
                    "interfaces": [{"name": "n", "masquerade": {}}],
                },
            },
            "volumes": [
                {"name": "a", "containerDisk": {"image": "x"}},
                {"name": "b", "emptyDisk": {"capacity": "1Gi"}},
            ],
            "networks": [{"name": "n", "pod": {}}],
        },
    })
}

/// The errors of the good instance with one value replaced (JSON pointer).
fn with(pointer: &str, value: Value) -> Vec<String> {
    let mut json = good();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = json.pointer_mut(parent).unwrap();
    match parent {
        Value::Array(list) if key == "-" => list.push(value),
        Value::Array(list) => list[key.parse::<usize>().unwrap()] = value,
        other => other[key] = value,
    }
    let (vmi, _) = parse_vmi_json(json.to_string().as_bytes()).unwrap();
    validate_vmi(&default_vmi(&vmi))
        .iter()
        .map(ToString::to_string)
        .collect()
}

#[track_caller]
fn check(pointer: &str, value: Value, expected_path: &str) {
    let errors = with(pointer, value);
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(
        errors[0].starts_with(&format!("{expected_path}: ")),
        "{errors:?}"
    );
}

#[test]
fn a_good_instance_has_no_errors() {
    assert_eq!(with("/spec/hostname", json!("h")), Vec::<String>::new());
}

#[test]
fn names_must_be_dns_names() {
    check("/metadata/name", json!(""), "metadata.name");
    check("/metadata/name", json!("Über"), "metadata.name");
    check("/metadata/name", json!("../x"), "metadata.name");
    check("/metadata/namespace", json!("a/b"), "metadata.namespace");
    check("/spec/hostname", json!("a.b"), "spec.hostname");
}

#[test]
fn zero_and_too_many_cpus_are_refused() {
    check(
        "/spec/domain/cpu",
        json!({"cores": 0}),
        "spec.domain.cpu.cores",
    );
    check(
        "/spec/domain/cpu",
        json!({"sockets": 0}),
        "spec.domain.cpu.sockets",
    );
    check(
        "/spec/domain/cpu",
        json!({"sockets": 5, "cores": 13}),
        "spec.domain.cpu",
    );
    let huge = json!({"sockets": u32::MAX, "cores": u32::MAX, "threads": u32::MAX});
    check("/spec/domain/cpu", huge, "spec.domain.cpu");
    check(
        "/spec/domain/cpu",
        json!({"sockets": 2, "maxSockets": 1}),
        "spec.domain.cpu.maxSockets",
    );
}

#[test]
fn a_zero_cpu_request_is_named_where_it_stands() {
    let mut json = good();
    json["spec"]["domain"]["cpu"] = json!({});
    json["spec"]["domain"]["resources"] = json!({"requests": {"cpu": "0"}});
    let (vmi, _) = parse_vmi_json(json.to_string().as_bytes()).unwrap();
    let errors = validate_vmi(&default_vmi(&vmi));
    assert_eq!(
        errors[0].path.as_str(),
        "spec.domain.resources.requests.cpu"
    );
}

#[test]
fn memory_outside_the_bounds_is_refused() {
    check(
        "/spec/domain/memory",
        json!({"guest": "1Mi"}),
        "spec.domain.memory.guest",
    );
    check(
        "/spec/domain/memory",
        json!({"guest": "2Ti"}),
        "spec.domain.memory.guest",
    );
    check(
        "/spec/domain/memory",
        json!({"guest": "-1Gi"}),
        "spec.domain.memory.guest",
    );
    check("/spec/domain/memory", json!({}), "spec.domain.memory.guest");
    check(
        "/spec/domain/memory",
        json!({"guest": "64Mi", "hugepages": {"pageSize": "4Ki"}}),
        "spec.domain.memory.hugepages.pageSize",
    );
}

#[test]
fn memory_taken_from_the_request_is_named_there() {
    let mut json = good();
    json["spec"]["domain"]["memory"] = json!({});
    json["spec"]["domain"]["resources"] = json!({"requests": {"memory": "1Mi"}});
    let (vmi, _) = parse_vmi_json(json.to_string().as_bytes()).unwrap();
    let errors = validate_vmi(&default_vmi(&vmi));
    assert_eq!(
        errors[0].path.as_str(),
        "spec.domain.resources.requests.memory"
    );
}

#[test]
fn disks_and_volumes_pair_up() {
    check(
        "/spec/domain/devices/disks/-",
        json!({"name": "c"}),
        "spec.domain.devices.disks[2].name",
    );
    check(
        "/spec/volumes/-",
        json!({"name": "c", "emptyDisk": {"capacity": "1Gi"}}),
        "spec.volumes[2].name",
    );
    check(
        "/spec/domain/devices/disks/-",
        json!({"name": "a"}),
        "spec.domain.devices.disks[2].name",
    );
    check(
        "/spec/volumes/-",
        json!({"name": "a", "emptyDisk": {"capacity": "1Gi"}}),
        "spec.volumes[2].name",
    );
}

#[test]
fn a_cdrom_drive_may_be_empty() {
    let vmi = |drive: &str| -> crate::Vmi {
        let mut disk = json!({"name": "empty"});
        disk[drive] = json!({});
        let domain = json!({"memory": {"guest": "64Mi"}, "devices": {"disks": [disk]}});
        let vmi = json!({"metadata": {"name": "vm"}, "spec": {"domain": domain}});
        default_vmi(&serde_json::from_value(vmi).unwrap())
    };
    let about_disk = |drive: &str| {
        let errors = validate_vmi(&vmi(drive));
        errors
            .iter()
            .filter(|error| error.path.as_str().contains("disks[0]"))
            .count()
    };
    assert_eq!((about_disk("cdrom"), about_disk("disk")), (0, 1));
}

#[test]
fn disk_fields_are_checked() {
    let disk = "/spec/domain/devices/disks/0";
    let path = "spec.domain.devices.disks[0]";
    for (fields, field) in [
        (json!({"disk": {"bus": "floppy"}}), ".disk.bus"),
        (json!({"cache": "always"}), ".cache"),
        (json!({"io": "uring"}), ".io"),
        (json!({"serial": "a b"}), ".serial"),
        (json!({"bootOrder": 0}), ".bootOrder"),
        (json!({"disk": {}, "cdrom": {}}), ""),
        (
            json!({"blockSize": {"custom": {"logical": 3, "physical": 4096}}}),
            ".blockSize.custom.logical",
        ),
    ] {
        let mut value = json!({"name": "a"});
        value
            .as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        check(disk, value, &format!("{path}{field}"));
    }
}

#[test]
fn a_boot_order_is_used_once() {
    let disks = json!([{"name": "a", "bootOrder": 1}, {"name": "b", "bootOrder": 1}]);
    check(
        "/spec/domain/devices/disks",
        disks,
        "spec.domain.devices.disks[1].bootOrder",
    );
}

#[test]
fn volume_sources_are_checked() {
    let path = "spec.volumes[0]";
    for (fields, field) in [
        (json!({}), ""),
        (
            json!({"emptyDisk": {"capacity": "1Gi"}, "containerDisk": {"image": "x"}}),
            "",
        ),
        (json!({"emptyDisk": {}}), ".emptyDisk.capacity"),
        (
            json!({"emptyDisk": {"capacity": "0"}}),
            ".emptyDisk.capacity",
        ),
        (json!({"containerDisk": {}}), ".containerDisk.image"),
        (
            json!({"containerDisk": {"image": "x", "path": "disk/a"}}),
            ".containerDisk.path",
        ),
        (
            json!({"hostDisk": {"path": "a", "type": "Disk"}}),
            ".hostDisk.path",
        ),
        (
            json!({"hostDisk": {"path": "/a", "capacity": "1Gi"}}),
            ".hostDisk.capacity",
        ),
        (
            json!({"hostDisk": {"path": "/a", "type": "File"}}),
            ".hostDisk.type",
        ),
        (
            json!({"hostDisk": {"path": "/a", "type": "DiskOrCreate"}}),
            ".hostDisk.capacity",
        ),
        (json!({"cloudInitNoCloud": {}}), ".cloudInitNoCloud"),
        (
            json!({"cloudInitNoCloud": {"userDataBase64": "*"}}),
            ".cloudInitNoCloud.userDataBase64",
        ),
        (
            json!({"cloudInitConfigDrive": {"userData": "a", "userDataBase64": "YQ=="}}),
            ".cloudInitConfigDrive",
        ),
        (
            json!({"cloudInitNoCloud": {"secretRef": {}}}),
            ".cloudInitNoCloud.secretRef.name",
        ),
        (json!({"configMap": {}}), ".configMap.name"),
        (json!({"secret": {}}), ".secret.secretName"),
        (
            json!({"secret": {"secretName": "s", "volumeLabel": "x".repeat(33)}}),
            ".secret.volumeLabel",
        ),
        (
            json!({"persistentVolumeClaim": {}}),
            ".persistentVolumeClaim.claimName",
        ),
        (
            json!({"ephemeral": {}}),
            ".ephemeral.persistentVolumeClaim.claimName",
        ),
    ] {
        let mut value = json!({"name": "a"});
        value
            .as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        check("/spec/volumes/0", value, &format!("{path}{field}"));
    }
}

#[test]
fn a_second_cloud_init_volume_is_refused() {
    let volumes = json!([
        {"name": "a", "cloudInitNoCloud": {"userData": "x"}},
        {"name": "b", "cloudInitConfigDrive": {"userData": "x"}},
    ]);
    check("/spec/volumes", volumes, "spec.volumes[1]");
}

#[test]
fn firmware_is_checked() {
    let firmware = "/spec/domain/firmware";
    let path = "spec.domain.firmware";
    check(firmware, json!({"uuid": "42"}), &format!("{path}.uuid"));
    check(
        firmware,
        json!({"bootloader": {"bios": {}, "efi": {}}}),
        &format!("{path}.bootloader"),
    );
    check(
        firmware,
        json!({"kernelBoot": {"kernelArgs": "x"}}),
        &format!("{path}.kernelBoot.container"),
    );
    check(
        firmware,
        json!({"kernelBoot": {"container": {"image": "i", "initrdPath": "/i"}}}),
        &format!("{path}.kernelBoot.container.kernelPath"),
    );
    check(
        "/spec/domain/machine",
        json!({"type": "virt"}),
        "spec.domain.machine.type",
    );
}

#[test]
fn interfaces_and_networks_pair_up() {
    check(
        "/spec/domain/devices/interfaces",
        json!([]),
        "spec.networks[0].name",
    );
    check(
        "/spec/networks",
        json!([]),
        "spec.domain.devices.interfaces[0].name",
    );
    check("/spec/networks", json!([{"name": "n"}]), "spec.networks[0]");
}

#[test]
fn interface_fields_are_checked() {
    let path = "spec.domain.devices.interfaces[0]";
    for (fields, field) in [
        (json!({"masquerade": {}, "bridge": {}}), ""),
        (json!({"macAddress": "zz"}), ".macAddress"),
        (json!({"macAddress": "01:00:00:00:00:00"}), ".macAddress"),
        (json!({"ports": [{"port": 0}]}), ".ports[0].port"),
    ] {
        let mut value = json!({"name": "n"});
        value
            .as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        check(
            "/spec/domain/devices/interfaces/0",
            value,
            &format!("{path}{field}"),
        );
    }
}

#[test]
fn probes_and_credentials_that_make_sense_are_accepted() {
    let probe = json!({
        "httpGet": {"path": "/ok", "port": 80, "scheme": "HTTP", "httpHeaders": [{"name": "a", "value": "b"}]},
        "initialDelaySeconds": 5, "timeoutSeconds": 1, "periodSeconds": 10,
        "successThreshold": 1, "failureThreshold": 3,
    });
    assert_eq!(with("/spec/livenessProbe", probe), Vec::<String>::new());
    for action in [
        json!({"tcpSocket": {"port": "web"}}),
        json!({"guestAgentPing": {}}),
        json!({"exec": {"command": ["true"]}, "successThreshold": 2}),
    ] {
        assert_eq!(with("/spec/readinessProbe", action), Vec::<String>::new());
    }
    let source = json!({"secret": {"secretName": "s"}});
    let credentials = json!([
        {"sshPublicKey": {"source": source, "propagationMethod": {"qemuGuestAgent": {"users": ["root"]}}}},
        {"userPassword": {"source": source, "propagationMethod": {"qemuGuestAgent": {}}}},
    ]);
    assert_eq!(
        with("/spec/accessCredentials", credentials),
        Vec::<String>::new()
    );
}

#[test]
fn probe_actions_are_checked() {
    let field = "spec.readinessProbe";
    let check = |probe, path: &str| check("/spec/readinessProbe", probe, path);
    check(json!({}), field);
    check(
        json!({"exec": {"command": ["a"]}, "guestAgentPing": {}}),
        field,
    );
    check(json!({"exec": {}}), &format!("{field}.exec.command"));
    check(json!({"tcpSocket": {}}), &format!("{field}.tcpSocket.port"));
    for port in [
        json!(0),
        json!(65536),
        json!(i64::MAX),
        json!("Web"),
        json!("80"),
    ] {
        check(
            json!({"tcpSocket": {"port": port}}),
            &format!("{field}.tcpSocket.port"),
        );
    }
    check(
        json!({"httpGet": {"port": 80, "scheme": "FTP"}}),
        &format!("{field}.httpGet.scheme"),
    );
    check(
        json!({"httpGet": {"port": 80, "path": "x"}}),
        &format!("{field}.httpGet.path"),
    );
    check(
        json!({"guestAgentPing": {}, "periodSeconds": -1}),
        &format!("{field}.periodSeconds"),
    );
}

#[test]
fn a_liveness_probe_is_good_after_one_success() {
    check(
        "/spec/livenessProbe",
        json!({"guestAgentPing": {}, "successThreshold": 2}),
        "spec.livenessProbe.successThreshold",
    );
}

#[test]
fn a_probe_over_the_network_needs_the_pod_network() {
    let mut json = good();
    json["spec"]["livenessProbe"] = json!({"tcpSocket": {"port": 22}});
    json["spec"]["networks"] = json!([{"name": "n", "multus": {"networkName": "x"}}]);
    json["spec"]["domain"]["devices"]["interfaces"] = json!([{"name": "n", "bridge": {}}]);
    let paths = |json: &Value| -> Vec<String> {
        let (vmi, _) = parse_vmi_json(json.to_string().as_bytes()).unwrap();
        let errors = validate_vmi(&default_vmi(&vmi));
        errors.iter().map(|error| error.path.to_string()).collect()
    };
    assert_eq!(paths(&json), ["spec.livenessProbe.tcpSocket"]);

    json["spec"]["networks"] = json!([]);
    json["spec"]["domain"]["devices"]["interfaces"] = json!([]);
    assert_eq!(paths(&json), Vec::<String>::new());

    json["spec"]["domain"]["devices"]["autoattachPodInterface"] = json!(false);
    assert_eq!(paths(&json), ["spec.livenessProbe.tcpSocket"]);
}

#[test]
fn credentials_are_checked() {
    let field = "spec.accessCredentials[0]";
    let check =
        |credential, path: &str| check("/spec/accessCredentials", json!([credential]), path);
    let ssh = |method| json!({"sshPublicKey": {"source": {"secret": {"secretName": "s"}}, "propagationMethod": method}});
    let agent = json!({"qemuGuestAgent": {}});
    check(json!({}), field);
    check(json!({"sshPublicKey": {}, "userPassword": {}}), field);
    let method = format!("{field}.sshPublicKey.propagationMethod");
    check(ssh(json!({})), &method);
    check(ssh(json!({"noCloud": {}, "configDrive": {}})), &method);
    check(ssh(json!({"noCloud": {}})), &format!("{method}.noCloud"));
    check(
        ssh(json!({"configDrive": {}})),
        &format!("{method}.configDrive"),
    );
    check(
        ssh(agent.clone()),
        &format!("{method}.qemuGuestAgent.users"),
    );
    let secret = format!("{field}.userPassword.source.secret.secretName");
    check(
        json!({"userPassword": {"propagationMethod": agent}}),
        &secret,
    );
    check(
        json!({"userPassword": {"source": {"secret": {"secretName": "s"}}}}),
        &format!("{field}.userPassword.propagationMethod.qemuGuestAgent"),
    );
}
