use std::sync::Arc;

use api::Vmi;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Attachments, Claims, definitions, missing_network, render, unpermitted};
use crate::controller::configuration::Config;

fn config(gates: &[&str], emulates: bool) -> Config {
    let mut config = Config {
        launcher_image: "registry.example/ferrovirt/virt-launcher:latest".to_owned(),
        ..Config::default()
    };
    let developer = &mut config.cluster.developer_configuration;
    developer.feature_gates = gates.iter().map(|gate| (*gate).to_owned()).collect();
    developer.use_emulation = Some(emulates);
    config
}

fn vmi(spec: &Value) -> Value {
    json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
        "metadata": {"name": "vm", "namespace": "ns", "uid": "vmi-uid"},
        "spec": spec,
    })
}

fn pod_of(raw: &Value, claims: &Claims, config: &Config) -> Value {
    let typed = api::default_vmi(&Vmi::deserialize(raw).unwrap());
    render(&typed, raw, claims, &attachments(), config)
}

/// Definitions of networks: one with a device, one without.
fn attachments() -> Attachments {
    let definition =
        |name: &str, resource: &str| (("ns".to_owned(), name.to_owned()), resource.to_owned());
    Attachments::from([definition("vf", "intel.com/vf"), definition("plain", "")])
}

fn pod(spec: &Value) -> Value {
    pod_of(
        &vmi(spec),
        &Claims::default(),
        &config(&["ImageVolume"], true),
    )
}

fn named<'v>(list: &'v Value, name: &str) -> &'v Value {
    let mut all = list.as_array().unwrap().iter();
    all.find(|item| item["name"] == name)
        .unwrap_or(&Value::Null)
}

fn compute(pod: &Value) -> &Value {
    named(&pod["spec"]["containers"], "compute")
}

fn mount<'v>(pod: &'v Value, volume: &str) -> &'v Value {
    &named(&compute(pod)["volumeMounts"], volume)["mountPath"]
}

fn command(pod: &Value) -> Vec<&str> {
    let command = compute(pod)["command"].as_array().unwrap();
    command.iter().map(|word| word.as_str().unwrap()).collect()
}

#[track_caller]
fn snapshot(name: &str, pod: &Value) {
    insta::assert_snapshot!(name, serde_json::to_string_pretty(pod).unwrap());
}

#[test]
fn a_machine_with_a_container_disk_as_an_image_volume() {
    let spec = json!({
        "domain": {
            "devices": {
                "disks": [{"name": "root", "disk": {"bus": "virtio"}}],
                "interfaces": [{"name": "default", "masquerade": {}, "ports": [{"name": "ssh", "port": 22}]}],
            },
            "memory": {"guest": "256Mi"},
        },
        "networks": [{"name": "default", "pod": {}}],
        "volumes": [
            {"name": "root", "containerDisk": {"image": "registry.example/debian:12", "imagePullSecret": "pull"}},
            {"name": "init", "cloudInitNoCloud": {"userData": "#cloud-config"}},
        ],
    });
    snapshot("image_volume", &pod(&spec));
}

#[test]
fn a_machine_with_container_disks_in_containers() {
    let spec = json!({
        "domain": {
            "cpu": {"cores": 2},
            "devices": {"interfaces": [{"name": "default", "masquerade": {}}]},
            "firmware": {"kernelBoot": {"container": {"image": "kernel:1", "kernelPath": "/boot/vmlinuz"}}},
            "resources": {"requests": {"memory": "1Gi"}},
        },
        "networks": [{"name": "default", "pod": {}}],
        "volumes": [{"name": "root", "containerDisk": {"image": "disk:1", "imagePullPolicy": "Always"}}],
    });
    snapshot(
        "containers",
        &pod_of(&vmi(&spec), &Claims::default(), &config(&[], false)),
    );
}

#[test]
fn volumes_are_where_the_launcher_looks() {
    let spec = json!({
        "domain": {"devices": {}},
        "accessCredentials": [
            {"sshPublicKey": {"source": {"secret": {"secretName": "keys"}}, "propagationMethod": {"noCloud": {}}}},
            {"sshPublicKey": {"source": {"secret": {"secretName": "keys"}}, "propagationMethod": {"configDrive": {}}}},
        ],
        "volumes": [
            {"name": "fs", "persistentVolumeClaim": {"claimName": "c1"}},
            {"name": "blk", "dataVolume": {"name": "c2"}},
            {"name": "eph", "ephemeral": {"persistentVolumeClaim": {"claimName": "c1"}}},
            {"name": "host", "hostDisk": {"path": "/data/disks/a.img", "type": "DiskOrCreate"}},
            {"name": "cm", "configMap": {"name": "m", "optional": true}},
            {"name": "sec", "secret": {"secretName": "s"}},
            {"name": "dw", "downwardAPI": {"fields": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
            {"name": "sa", "serviceAccount": {"serviceAccountName": "robot"}},
            {"name": "sys", "sysprep": {"secret": {"name": "answers"}}},
            {"name": "met", "downwardMetrics": {}},
            {"name": "empty", "emptyDisk": {"capacity": "1Gi"}},
            {"name": "one", "cloudInitNoCloud": {"secretRef": {"name": "x"}, "networkDataSecretRef": {"name": "x"}}},
            {"name": "two", "cloudInitConfigDrive": {"secretRef": {"name": "x"}, "networkDataSecretRef": {"name": "y"}}},
            {"name": "private", "secret": {"secretName": "clash"}},
            {"name": "image", "containerDisk": {"image": "i"}},
        ],
    });
    let claim = |mode: &str, access: &str| {
        Arc::new(json!({"spec": {"volumeMode": mode, "accessModes": [access]}}))
    };
    let claims = Claims::from([
        ("c1".to_owned(), claim("Filesystem", "ReadWriteMany")),
        ("c2".to_owned(), claim("Block", "ReadWriteOnce")),
    ]);
    let pod = pod_of(&vmi(&spec), &claims, &config(&["ImageVolume"], true));
    let private = "/var/run/kubevirt-private";
    for (volume, path) in [
        ("fs", format!("{private}/vmi-disks/fs")),
        ("eph", format!("{private}/vmi-disks/eph")),
        ("host", format!("{private}/vmi-disks/host")),
        ("cm", format!("{private}/config-map/cm")),
        ("sec", format!("{private}/secret/sec")),
        ("dw", format!("{private}/downwardapi/dw")),
        ("sys", format!("{private}/sysprep/sys")),
        ("met", format!("{private}/downwardmetric-disk")),
        ("one", format!("{private}/secret/one")),
        ("two", format!("{private}/secret/two")),
        (
            "keys-access-cred",
            format!("{private}/secret/keys-access-cred"),
        ),
        ("private", private.to_owned()),
        ("volume-private", format!("{private}/secret/private")),
        ("image", "/var/run/kubevirt-image-volume/disk_14".to_owned()),
        ("libvirt-runtime", "/var/run/libvirt".to_owned()),
        ("sockets", "/var/run/kubevirt/sockets".to_owned()),
    ] {
        assert_eq!(mount(&pod, volume), &json!(path), "{volume}");
    }
    let volumes = &pod["spec"]["volumes"];
    assert_eq!(
        compute(&pod)["volumeDevices"],
        json!([{"name": "blk", "devicePath": "/dev/blk"}])
    );
    assert_eq!(
        named(volumes, "host")["hostPath"],
        json!({"path": "/data/disks", "type": "DirectoryOrCreate"})
    );
    assert_eq!(
        named(volumes, "eph")["persistentVolumeClaim"]["readOnly"],
        true
    );
    assert_eq!(
        named(volumes, "cm")["configMap"],
        json!({"name": "m", "optional": true})
    );
    assert_eq!(named(volumes, "sys")["secret"]["secretName"], "answers");
    assert_eq!(named(volumes, "one")["secret"]["secretName"], "x");
    let sources = &named(volumes, "two")["projected"]["sources"];
    assert_eq!(
        sources,
        &json!([{"secret": {"name": "y"}}, {"secret": {"name": "x"}}])
    );
    assert_eq!(pod["spec"]["serviceAccountName"], "robot");
    assert_eq!(pod["spec"]["automountServiceAccountToken"], true);
    let shared = named(&compute(&pod)["env"], "SHARED_FILESYSTEM_PATHS");
    let shared = shared["value"].as_str().unwrap().to_owned();
    assert_eq!(
        shared,
        format!("{private}/vmi-disks/fs:{private}/vmi-disks/eph")
    );
    let mut names: Vec<&str> = volumes
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v["name"].as_str().unwrap())
        .collect();
    let all = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all);
}

#[test]
fn the_launcher_is_told_what_upstreams_is_told() {
    let mut raw = vmi(&json!({"domain": {"devices": {}}, "terminationGracePeriodSeconds": 5}));
    raw["metadata"]["annotations"] =
        json!({"kubevirt.io/keep-launcher-alive-after-failure": "true"});
    let mut config = config(&["ImageVolume"], true);
    config.launcher_arguments = vec!["--accel".to_owned(), "soft".to_owned()];
    let pod = pod_of(&raw, &Claims::default(), &config);
    let command = command(&pod);
    assert_eq!(command[0], "/usr/bin/virt-launcher-monitor");
    for pair in [
        ["--name", "vm"],
        ["--uid", "vmi-uid"],
        ["--namespace", "ns"],
        ["--grace-period-seconds", "20"],
        ["--hypervisor", "kvm"],
        ["--accel", "soft"],
    ] {
        assert!(
            command.windows(2).any(|words| words == pair),
            "{pair:?} in {command:?}"
        );
    }
    for switch in [
        "--run-as-nonroot",
        "--allow-emulation",
        "--image-volume",
        "--keep-after-failure",
    ] {
        assert!(command.contains(&switch), "{switch}");
    }
    assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 35);
    let wait = command[2]
        .strip_suffix('s')
        .unwrap()
        .parse::<u64>()
        .unwrap();
    assert!((240..360).contains(&wait));
}

#[test]
fn devices_are_asked_for_where_they_are_needed() {
    let devices = |spec: &Value, emulates: bool| {
        let pod = pod_of(&vmi(spec), &Claims::default(), &config(&[], emulates));
        let limits = compute(&pod)["resources"]["limits"]
            .as_object()
            .cloned()
            .unwrap_or_default();
        let mut devices: Vec<String> = limits
            .iter()
            .map(|(name, count)| format!("{name}={}", count.as_str().unwrap()))
            .collect();
        devices.retain(|device| device.contains('/'));
        devices
    };
    let bare = json!({"domain": {"devices": {}}});
    assert_eq!(devices(&bare, false), ["devices.kubevirt.io/kvm=1"]);
    assert!(devices(&bare, true).is_empty());
    let full = json!({"domain": {"devices": {
        "interfaces": [{"name": "a", "masquerade": {}}, {"name": "b", "sriov": {}}],
        "autoattachVSOCK": true,
        "hostDevices": [{"name": "x", "deviceName": "v.example/usb"}, {"name": "y", "deviceName": "v.example/usb"}],
        "gpus": [{"name": "z", "deviceName": "v.example/gpu"}],
    }}});
    assert_eq!(
        devices(&full, true),
        [
            "devices.kubevirt.io/tun=1",
            "devices.kubevirt.io/vhost-vsock=1",
            "v.example/gpu=1",
            "v.example/usb=2"
        ]
    );
    let sriov = json!({
        "domain": {"devices": {"interfaces": [{"name": "b", "sriov": {}}, {"name": "c", "sriov": {}}, {"name": "d", "sriov": {}}]}},
        "networks": [
            {"name": "b", "multus": {"networkName": "vf"}},
            {"name": "c", "multus": {"networkName": "ns/vf"}},
            {"name": "d", "multus": {"networkName": "plain"}},
        ],
    });
    assert_eq!(devices(&sriov, true), ["intel.com/vf=2"]);
}

#[test]
fn devices_must_be_permitted_where_there_is_a_list() {
    let raw = vmi(&json!({"domain": {"devices": {
        "hostDevices": [
            {"name": "a", "deviceName": "v.example/usb"},
            {"name": "b", "deviceName": "v.example/pci"},
            {"name": "c", "deviceName": "v.example/other"},
            {"name": "d", "deviceName": "v.example/other"},
            {"name": "e", "claimName": "claim", "requestName": "r"},
        ],
        "gpus": [{"name": "z", "deviceName": "v.example/gpu"}],
    }}}));
    let typed = Vmi::deserialize(&raw).unwrap();
    let refusal = |permitted: Value| {
        let mut config = config(&[], true);
        config.cluster.permitted_host_devices = serde_json::from_value(permitted).unwrap();
        unpermitted(&typed, &config)
    };
    assert_eq!(refusal(Value::Null), None);
    let usb = json!([{"resourceName": "v.example/usb", "externalResourceProvider": true}]);
    let pci = json!([{"resourceName": "v.example/pci"}]);
    let refused = refusal(json!({"usb": usb, "pciHostDevices": pci})).unwrap();
    assert_eq!(
        refused.split(": ").next().unwrap(),
        "GPU v.example/gpu is not permitted in permittedHostDevices configuration, \
         HostDevice v.example/other is not permitted in permittedHostDevices configuration"
    );
    assert!(refused.contains("spec.configuration.permittedHostDevices"));
    let gpus = json!([{"resourceName": "v.example/gpu"}, {"resourceName": "v.example/other"}]);
    let all = json!({"usb": usb, "pciHostDevices": pci, "mediatedDevices": gpus});
    assert_eq!(refusal(all), None);
    assert!(refusal(json!({})).unwrap().contains("v.example/usb"));
}

#[test]
fn networks_need_their_definitions() {
    let networks = |names: &[&str]| {
        let networks: Value = names
            .iter()
            .map(|name| json!({"name": "n", "multus": {"networkName": name}}))
            .collect();
        let raw = vmi(&json!({"domain": {"devices": {}}, "networks": networks}));
        Vmi::deserialize(&raw).unwrap()
    };
    let missing = |names: &[&str]| missing_network(&networks(names), &attachments());
    assert_eq!(missing(&["vf", "ns/plain"]), None);
    let told = missing(&["vf", "other/vf"]).unwrap();
    assert!(
        told.starts_with("failed to locate network attachment definition other/vf of network n: "),
        "{told}"
    );
    let known = definitions(&networks(&[
        "vf",
        "ns/vf",
        "../x",
        "a/b/../c",
        "",
        "other/net.1",
    ]));
    let known: Vec<_> = known
        .iter()
        .map(|(ns, name)| format!("{ns}/{name}"))
        .collect();
    assert_eq!(known, ["ns/vf", "other/net.1"]);
}

#[test]
fn memory_is_the_guests_and_the_launchers() {
    const MIB: u64 = 1 << 20;
    let resources = |domain: Value, config: &Config| {
        let pod = pod_of(
            &vmi(&json!({ "domain": domain })),
            &Claims::default(),
            config,
        );
        compute(&pod)["resources"].clone()
    };
    let bytes = |resources: &Value, kind: &str| {
        resources[kind]["memory"]
            .as_str()
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    let plain = config(&[], true);
    let of_guest = resources(json!({"devices": {}, "memory": {"guest": "256Mi"}}), &plain);
    let overhead = bytes(&of_guest, "requests") - 256 * MIB;
    assert!((8 * MIB..100 * MIB).contains(&overhead), "{overhead}");
    assert_eq!(of_guest.get("limits"), None);
    let given = json!({"devices": {}, "memory": {"guest": "256Mi"}, "resources": {
        "requests": {"memory": "128Mi", "cpu": "2"}, "limits": {"memory": "512Mi", "cpu": "1500m"},
    }});
    let of_pod = resources(given.clone(), &plain);
    // The limit makes two processors.
    let overhead_of_two = overhead + 8 * MIB;
    assert_eq!(bytes(&of_pod, "requests"), 128 * MIB + overhead_of_two);
    assert_eq!(bytes(&of_pod, "limits"), 512 * MIB + overhead_of_two);
    assert_eq!(
        (&of_pod["requests"]["cpu"], &of_pod["limits"]["cpu"]),
        (&json!("2"), &json!("1500m"))
    );
    let mut alone = given;
    alone["resources"]["overcommitGuestOverhead"] = json!(true);
    assert_eq!(bytes(&resources(alone, &plain), "requests"), 128 * MIB);
    let mut half = config(&[], true);
    half.cluster.developer_configuration.memory_overcommit = Some(200);
    let of_guest = resources(json!({"devices": {}, "memory": {"guest": "256Mi"}}), &half);
    assert_eq!(bytes(&of_guest, "requests"), 128 * MIB + overhead);
    let huge =
        json!({"devices": {}, "memory": {"guest": "64Mi", "hugepages": {"pageSize": "2Mi"}}});
    let huge = resources(huge, &plain);
    assert_eq!(
        huge["limits"]["hugepages-2Mi"],
        json!((64 * MIB).to_string())
    );
    assert!(bytes(&huge, "requests") < 64 * MIB);
}

#[test]
fn processors_are_shared_unless_they_are_dedicated() {
    let cpu = |cpu: Value| {
        let pod = pod(&json!({"domain": {"devices": {}, "cpu": cpu}}));
        let resources = &compute(&pod)["resources"];
        (
            resources["requests"]["cpu"].clone(),
            resources["limits"]["cpu"].clone(),
        )
    };
    assert_eq!(cpu(json!({"cores": 4})), (json!("400m"), Value::Null));
    let dedicated =
        json!({"cores": 4, "dedicatedCpuPlacement": true, "isolateEmulatorThread": true});
    assert_eq!(cpu(dedicated), (json!("5"), json!("5")));
}

#[test]
fn probes_go_through_the_launcher_or_to_the_guests_port() {
    let pod = pod(&json!({
        "domain": {"devices": {}},
        "readinessProbe": {"exec": {"command": ["cat", "/tmp/x"]}, "timeoutSeconds": 3, "initialDelaySeconds": 5},
        "livenessProbe": {"tcpSocket": {"port": 22}, "periodSeconds": 7},
    }));
    let readiness = &compute(&pod)["readinessProbe"];
    assert_eq!(
        readiness["exec"]["command"],
        json!([
            "/usr/bin/virt-probe",
            "--socket",
            "/var/run/kubevirt/sockets/launcher-sock",
            "--domainName",
            "ns_vm",
            "--timeoutSeconds",
            "3",
            "--command",
            "cat",
            "--",
            "/tmp/x",
        ])
    );
    assert_eq!(
        (
            &readiness["timeoutSeconds"],
            &readiness["initialDelaySeconds"]
        ),
        (&json!(4), &json!(15))
    );
    let liveness = &compute(&pod)["livenessProbe"];
    assert_eq!(
        liveness,
        &json!({"tcpSocket": {"port": 22}, "periodSeconds": 7, "initialDelaySeconds": 10})
    );
    let ping = super::tests::pod(
        &json!({"domain": {"devices": {}}, "livenessProbe": {"guestAgentPing": {}}}),
    );
    let command = compute(&ping)["livenessProbe"]["exec"]["command"]
        .as_array()
        .unwrap();
    assert_eq!(command.last().unwrap(), "--guestAgentPing");
    assert!(
        compute(&ping)["livenessProbe"]
            .get("guestAgentPing")
            .is_none()
    );
}

#[test]
fn placement_is_what_the_machine_needs_and_the_user_wants() {
    let pod = pod(&json!({
        "domain": {"devices": {}, "cpu": {
            "model": "Haswell", "dedicatedCpuPlacement": true,
            "features": [{"name": "avx2"}, {"name": "vmx", "policy": "forbid"}, {"name": "x", "policy": "optional"}],
        }},
        "nodeSelector": {"disk": "ssd"},
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]},
        ]}}},
        "tolerations": [{"key": "t", "operator": "Exists"}],
        "priorityClassName": "high",
        "schedulerName": "mine",
    }));
    let spec = &pod["spec"];
    assert_eq!(
        spec["nodeSelector"],
        json!({
            "kubevirt.io/schedulable": "true", "kubernetes.io/arch": "amd64",
            "cpu-model.node.kubevirt.io/Haswell": "true",
            "cpu-feature.node.kubevirt.io/avx2": "true", "kubevirt.io/cpumanager": "true", "disk": "ssd",
        })
    );
    let terms = &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let terms = &terms["nodeSelectorTerms"][0]["matchExpressions"];
    assert_eq!(terms[0]["key"], "zone");
    assert_eq!(
        terms[1],
        json!({"key": "cpu-feature.node.kubevirt.io/vmx", "operator": "DoesNotExist"})
    );
    assert_eq!(
        spec["tolerations"],
        json!([{"key": "t", "operator": "Exists"}])
    );
    assert_eq!(
        (&spec["priorityClassName"], &spec["schedulerName"]),
        (&json!("high"), &json!("mine"))
    );
    assert!(spec.get("topologySpreadConstraints").is_none());
}

#[test]
fn networks_beside_the_pods_own_are_named_to_multus() {
    let pod = pod(&json!({
        "domain": {"devices": {"interfaces": [
            {"name": "blue", "bridge": {}, "macAddress": "02:00:00:00:00:01"},
            {"name": "red", "sriov": {}},
        ]}},
        "networks": [
            {"name": "blue", "multus": {"networkName": "other/blue-net"}},
            {"name": "red", "multus": {"networkName": "red-net"}},
            {"name": "main", "multus": {"networkName": "main-net", "default": true}},
        ],
    }));
    let annotations = &pod["metadata"]["annotations"];
    assert_eq!(annotations["v1.multus-cni.io/default-network"], "main-net");
    let networks: Value =
        serde_json::from_str(annotations["k8s.v1.cni.cncf.io/networks"].as_str().unwrap()).unwrap();
    assert_eq!(
        (&networks[0]["name"], &networks[0]["namespace"]),
        (&json!("blue-net"), &json!("other"))
    );
    assert_eq!(networks[0]["mac"], "02:00:00:00:00:01");
    assert_eq!(networks[1]["namespace"], "ns");
    // The first 11 digits of the SHA-256 of "blue".
    assert_eq!(networks[0]["interface"], "pod16477688c0e");
    assert_eq!(mount(&pod, "network-info-annotation"), "/etc/podinfo");
}

#[test]
fn names_that_are_too_long_are_shortened() {
    let mut raw = vmi(&json!({"domain": {"devices": {}}, "hostname": "a.b.c"}));
    raw["metadata"]["name"] = json!("x".repeat(100));
    let pod = pod_of(&raw, &Claims::default(), &config(&[], true));
    assert!(pod["metadata"]["name"].as_str().unwrap().len() <= 63);
    // By this label upstream's `virtctl expose` finds pods.
    let id = format!("{}-50e48369", "x".repeat(54));
    assert_eq!(pod["metadata"]["labels"]["vmi.kubevirt.io/id"], id);
    assert_eq!(pod["spec"]["hostname"], "a");
}

#[test]
fn the_console_is_logged_unless_somebody_doesnt_want_it() {
    let logs = |devices: Value, config: &Config| {
        let pod = pod_of(
            &vmi(&json!({"domain": {"devices": devices}})),
            &Claims::default(),
            config,
        );
        pod["spec"].get("initContainers").is_some()
    };
    let plain = config(&["ImageVolume"], true);
    assert!(logs(json!({}), &plain));
    assert!(!logs(json!({"logSerialConsole": false}), &plain));
    assert!(!logs(json!({"autoattachSerialConsole": false}), &plain));
    let mut without = config(&["ImageVolume"], true);
    let options = json!({"disableSerialConsoleLog": {}});
    without.cluster.virtual_machine_options = serde_json::from_value(options).unwrap();
    assert!(!logs(json!({}), &without));
    assert!(logs(json!({"logSerialConsole": true}), &without));
}
