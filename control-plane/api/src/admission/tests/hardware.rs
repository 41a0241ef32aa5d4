use serde_json::{Value, json};

use super::instances::{check, gated, granted, refused, spec};
use super::{USER, by, changed, defaulted, good, grants, names, with_gates};
use crate::admission::create_vmi;

#[test]
fn disks_are_checked() {
    let disk = |disk: Value, field: &str| {
        let mut disk = disk;
        disk["name"] = json!("a");
        let disks = json!([disk, {"name": "b"}]);
        check(
            "domain.devices.disks",
            disks,
            &format!("spec.domain.devices.disks[0]{field}"),
        );
    };
    disk(json!({"disk": {}, "lun": {}}), "");
    disk(json!({"disk": {"bus": "ide"}}), ".disk.bus");
    disk(json!({"cdrom": {"bus": "virtio"}}), ".cdrom.bus");
    disk(json!({"cdrom": {"tray": "ajar"}}), ".cdrom.tray");
    disk(json!({"lun": {"bus": "floppy"}}), ".lun.bus");
    disk(json!({"lun": {"bus": "scsi"}}), ".lun");
    disk(json!({"lun": {"reservation": true}}), ".lun.reservation");
    disk(
        json!({"disk": {"bus": "sata", "readonly": true}}),
        ".disk.readonly",
    );
    disk(
        json!({"disk": {"bus": "scsi", "pciAddress": "0000:00:05.0"}}),
        ".disk.pciAddress",
    );
    disk(json!({"disk": {"pciAddress": "5.0"}}), ".disk.pciAddress");
    disk(
        json!({"disk": {"bus": "sata"}, "dedicatedIOThread": true}),
        ".dedicatedIOThread",
    );
    disk(json!({"bootOrder": 0}), ".bootOrder");
    disk(json!({"serial": "a b"}), ".serial");
    disk(json!({"serial": "a".repeat(257)}), ".serial");
    disk(json!({"cache": "fast"}), ".cache");
    disk(json!({"io": "slow"}), ".io");
    disk(json!({"errorPolicy": "pray"}), ".errorPolicy");
    disk(
        json!({"blockSize": {"custom": {"logical": 100, "physical": 512}}}),
        ".blockSize.custom.logical",
    );
    disk(
        json!({"blockSize": {"custom": {"logical": 512, "physical": 600}}}),
        ".blockSize.custom.physical",
    );
    disk(
        json!({"blockSize": {"custom": {"logical": 4096, "physical": 512}}}),
        ".blockSize.custom.physical",
    );
    disk(
        json!({"blockSize": {"custom": {"logical": 512, "physical": 512}, "matchVolume": {}}}),
        ".blockSize.custom",
    );
    let granularity = json!({"logical": 512, "physical": 512, "discardGranularity": 700});
    disk(
        json!({"blockSize": {"custom": granularity}}),
        ".blockSize.custom.discardGranularity",
    );
    let sata = json!({"disk": {"bus": "sata"}, "blockSize": {"custom": {"logical": 4096, "physical": 4096}}});
    disk(sata, ".blockSize.custom.logical");
}

#[test]
fn disks_fit_their_volumes() {
    let disks = "domain.devices.disks";
    check(
        disks,
        json!([{"name": "a"}, {"name": "a"}]),
        "spec.domain.devices.disks[1].name",
    );
    check(
        disks,
        json!([{"name": "a"}, {"name": "b"}, {"name": "c"}]),
        "spec.domain.devices.disks[2].name",
    );
    check(
        disks,
        json!([{"name": "a"}, {"name": "A_"}]),
        "spec.domain.devices.disks[1].name",
    );
    let twice = json!([{"name": "a", "bootOrder": 1}, {"name": "b", "bootOrder": 1}]);
    check(disks, twice, "spec.domain.devices.disks[1].bootOrder");
    let empty = json!({"disks": [{"name": "a"}, {"name": "b"}, {"name": "c", "cdrom": {}}]});
    granted(json!({"spec": {"domain": {"devices": empty}}}));
    let off = serde_json::from_value(
        json!({"developerConfiguration": {"disabledFeatureGates": ["DeclarativeHotplugVolumes"]}}),
    )
    .unwrap();
    let vmi = changed(good(), &json!({"spec": {"domain": {"devices": empty}}}));
    names(
        &create_vmi(&defaulted(vmi, &off), &by(USER, &off)),
        "spec.domain.devices.disks[2].name",
    );
    let metrics = json!({"volumes": [{"name": "a", "downwardMetrics": {}}],
        "domain": {"devices": {"disks": [{"name": "a", "disk": {"bus": "scsi"}}]}}});
    refused(
        json!({ "spec": metrics }),
        "spec.domain.devices.disks[0].disk.bus",
    );
    let cdrom = json!({"volumes": [{"name": "a", "downwardMetrics": {}}],
        "domain": {"devices": {"disks": [{"name": "a", "cdrom": {}}]}}});
    refused(
        json!({ "spec": cdrom }),
        "spec.domain.devices.disks[0].disk",
    );
}

#[test]
fn volumes_are_checked() {
    let volume = |volume: Value, field: &str| {
        let mut volume = volume;
        volume["name"] = json!("a");
        let volumes = json!([volume, {"name": "b", "emptyDisk": {"capacity": "1Gi"}}]);
        check("volumes", volumes, &format!("spec.volumes[0]{field}"));
    };
    volume(json!({}), "");
    volume(
        json!({"emptyDisk": {"capacity": "1Gi"}, "secret": {"secretName": "s"}}),
        "",
    );
    volume(
        json!({"containerDisk": {"image": ""}}),
        ".containerDisk.image",
    );
    volume(
        json!({"containerDisk": {"image": "i", "path": "/"}}),
        ".containerDisk.path",
    );
    volume(
        json!({"containerDisk": {"image": "i", "path": "/a/../b"}}),
        ".containerDisk.path",
    );
    volume(json!({"dataVolume": {"name": ""}}), ".dataVolume.name");
    volume(
        json!({"persistentVolumeClaim": {"claimName": ""}}),
        ".persistentVolumeClaim.claimName",
    );
    volume(json!({"configMap": {"name": ""}}), ".configMap.name");
    volume(json!({"secret": {"secretName": ""}}), ".secret.secretName");
    volume(
        json!({"serviceAccount": {}}),
        ".serviceAccount.serviceAccountName",
    );
    volume(
        json!({"memoryDump": {"claimName": ""}}),
        ".memoryDump.claimName",
    );
    volume(json!({"emptyDisk": {}}), ".emptyDisk.capacity");
    volume(json!({"cloudInitNoCloud": {}}), ".cloudInitNoCloud");
    volume(
        json!({"cloudInitNoCloud": {"userData": "x", "userDataBase64": "eA=="}}),
        ".cloudInitNoCloud",
    );
    volume(
        json!({"cloudInitNoCloud": {"userDataBase64": "!"}}),
        ".cloudInitNoCloud.userDataBase64",
    );
    volume(
        json!({"cloudInitNoCloud": {"userData": "x".repeat(2049)}}),
        ".cloudInitNoCloud.userData",
    );
    let network = json!({"userData": "x", "networkData": "x".repeat(2049)});
    volume(
        json!({"cloudInitConfigDrive": network}),
        ".cloudInitConfigDrive.networkData",
    );
}

#[test]
fn lists_of_volumes_are_checked() {
    let empty = json!({"capacity": "1Gi"});
    let same = json!([{"name": "a", "emptyDisk": empty}, {"name": "a", "emptyDisk": empty}]);
    check("volumes", same, "spec.volumes[1].name");
    let twice = json!([
        {"name": "a", "serviceAccount": {"serviceAccountName": "x"}},
        {"name": "b", "serviceAccount": {"serviceAccountName": "x"}}]);
    check("volumes", twice, "spec.volumes[1].serviceAccount");
    let dumps = json!([
        {"name": "a", "containerDisk": {"image": "x"}}, {"name": "b", "emptyDisk": empty},
        {"name": "c", "memoryDump": {"claimName": "c"}}, {"name": "d", "memoryDump": {"claimName": "d"}}]);
    check("volumes", dumps, "spec.volumes[3].memoryDump");
    check(
        "utilityVolumes",
        json!([{"name": "u", "claimName": "c"}]),
        "spec.utilityVolumes",
    );
}

#[test]
fn files_of_the_node_need_their_gate() {
    let spec = |disk: Value| json!({"volumes": [{"name": "a", "hostDisk": disk}], "domain": {"devices": {"disks": [{"name": "a"}]}}});
    let disk = json!({"path": "/data/disk.img", "type": "Disk"});
    gated(spec(disk), "HostDisk", "spec.volumes[0].hostDisk");
    let config = with_gates(&["HostDisk"]);
    let refused = |disk: Value, field: &str| {
        let vmi = changed(good(), &json!({ "spec": spec(disk) }));
        let verdict = create_vmi(&defaulted(vmi, &config), &by(USER, &config));
        names(&verdict, &format!("spec.volumes[0].hostDisk.{field}"));
    };
    refused(json!({"path": "", "type": "Disk"}), "path");
    refused(json!({"path": "/d"}), "type");
    refused(json!({"path": "/d", "type": "Tape"}), "type");
    refused(
        json!({"path": "/d", "type": "Disk", "capacity": "1Gi"}),
        "capacity",
    );
    refused(json!({"path": "/d", "type": "DiskOrCreate"}), "capacity");
}

#[test]
fn shared_file_systems_are_checked() {
    let with = |volume: Value| {
        json!({
        "volumes": [{"name": "a", "containerDisk": {"image": "x"}}, volume],
        "domain": {"devices": {"disks": [{"name": "a"}], "filesystems": [{"name": "f", "virtiofs": {}}]}}})
    };
    let claim = json!({"name": "f", "persistentVolumeClaim": {"claimName": "c"}});
    gated(
        with(claim),
        "EnableVirtioFsStorageVolumes",
        "spec.domain.devices.filesystems[0]",
    );
    granted(json!({"spec": with(json!({"name": "f", "configMap": {"name": "c"}}))}));
    let folder = json!({"name": "f", "containerPath": {"path": "/var/run/secrets/x"}});
    gated(
        with(folder),
        "ContainerPathVolumes",
        "spec.volumes[1].containerPath",
    );
    let own = json!({"name": "f", "containerPath": {"path": "/var/run/kubevirt/x"}});
    refused(
        json!({"spec": with(own)}),
        "spec.volumes[1].containerPath.path",
    );
    let disk = json!({"volumes": [{"name": "a", "containerPath": {"path": "/x"}}],
        "domain": {"devices": {"disks": [{"name": "a"}]}}});
    refused(
        json!({"spec": disk.clone()}),
        "spec.domain.devices.disks[0].name",
    );
    refused(
        json!({ "spec": disk }),
        "spec.volumes[0].containerPath.path",
    );
    let none = json!([{"name": "f"}]);
    check(
        "domain.devices.filesystems",
        none,
        "spec.domain.devices.filesystems[0].virtiofs",
    );
}

#[test]
fn networks_are_checked() {
    let networks = |networks: Value, interfaces: Value, expected: &str| {
        let spec = json!({"networks": networks, "domain": {"devices": {"interfaces": interfaces}}});
        refused(json!({ "spec": spec }), expected);
    };
    let (a, b) = (
        json!({"name": "a", "bridge": {}}),
        json!({"name": "b", "bridge": {}}),
    );
    networks(
        json!([{"name": "a", "pod": {}}, {"name": "b", "pod": {}}]),
        json!([a, b]),
        "spec.networks[1]",
    );
    let multus = json!({"networkName": "x", "default": true});
    networks(
        json!([{"name": "a", "pod": {}}, {"name": "b", "multus": multus}]),
        json!([a, b]),
        "spec.networks[1]",
    );
    networks(
        json!([{"name": "a", "pod": {}, "multus": multus}]),
        json!([a]),
        "spec.networks[0]",
    );
    networks(json!([{"name": "a"}]), json!([a]), "spec.networks[0]");
    networks(
        json!([{"name": "a", "multus": {}}]),
        json!([a]),
        "spec.networks[0].multus.networkName",
    );
    networks(
        json!([{"name": "a", "pod": {}}, {"name": "a", "multus": multus}]),
        json!([a]),
        "spec.networks[1].name",
    );
    networks(
        json!([{"name": "a", "pod": {}}, {"name": "b", "multus": multus}]),
        json!([a]),
        "spec.networks[1].name",
    );
    networks(
        json!([{"name": "a", "pod": {}}]),
        json!([a, b]),
        "spec.domain.devices.interfaces[1].name",
    );
    networks(
        json!([{"name": "a", "pod": {}}]),
        json!([a, a]),
        "spec.domain.devices.interfaces[1].name",
    );
    let claim = json!([{"name": "a", "resourceClaim": {"claimName": "c", "requestName": "r"}}]);
    networks(
        claim,
        json!([{"name": "a", "sriov": {}}]),
        "spec.networks[0].resourceClaim",
    );
}

#[test]
fn interfaces_are_checked() {
    let interface = |interface: Value, field: &str| {
        let mut interface = interface;
        interface["name"] = json!("n");
        let expected = format!("spec.domain.devices.interfaces[0]{field}");
        check("domain.devices.interfaces", json!([interface]), &expected);
    };
    interface(json!({}), "");
    interface(json!({"bridge": {}, "masquerade": {}}), "");
    interface(json!({"slirp": {}}), ".slirp");
    interface(json!({"macvtap": {}}), ".macvtap");
    interface(json!({"passt": {}}), ".passt");
    interface(json!({"binding": {}}), ".binding.name");
    interface(
        json!({"masquerade": {}, "macAddress": "02:00:00:00:00:00"}),
        ".macAddress",
    );
    interface(json!({"masquerade": {}, "macAddress": "x"}), ".macAddress");
    interface(json!({"masquerade": {}, "model": "ne1000"}), ".model");
    interface(json!({"masquerade": {}, "pciAddress": "1"}), ".pciAddress");
    interface(json!({"masquerade": {}, "bootOrder": 0}), ".bootOrder");
    interface(json!({"masquerade": {}, "state": "sideways"}), ".state");
    interface(json!({"masquerade": {}, "state": "absent"}), ".state");
    interface(json!({"bridge": {}, "state": "absent"}), ".state");
    interface(json!({"sriov": {}, "state": "down"}), ".state");
    interface(
        json!({"masquerade": {}, "ports": [{"port": 0}]}),
        ".ports[0].port",
    );
    interface(
        json!({"masquerade": {}, "ports": [{"port": 80, "protocol": "SCTP"}]}),
        ".ports[0].protocol",
    );
    interface(
        json!({"masquerade": {}, "ports": [{"port": 80, "name": "A"}]}),
        ".ports[0].name",
    );
    let same = json!([{"port": 80, "name": "a"}, {"port": 81, "name": "a"}]);
    interface(json!({"masquerade": {}, "ports": same}), ".ports[1].name");
    interface(
        json!({"masquerade": {}, "dhcpOptions": {"ntpServers": ["ntp"]}}),
        ".dhcpOptions.ntpServers[0]",
    );
    let private = |numbers: [i32; 2]| {
        let options = numbers.map(|number| json!({"option": number, "value": "x"}));
        json!({"masquerade": {}, "dhcpOptions": {"privateOptions": options}})
    };
    interface(private([100, 240]), ".dhcpOptions.privateOptions[0].option");
    interface(private([240, 240]), ".dhcpOptions.privateOptions[1].option");
    interface(json!({"masquerade": {}, "portRanges": [{}]}), ".portRanges");
}

#[test]
fn ranges_of_ports_are_checked() {
    let config = with_gates(&["PortRangesSpec"]);
    let verdict = |interface: Value| {
        let mut interface = interface;
        interface["name"] = json!("n");
        let vmi = changed(
            good(),
            &spec("domain.devices.interfaces", json!([interface])),
        );
        create_vmi(&defaulted(vmi, &config), &by(USER, &config))
    };
    let range = |start: i32, end: i32| json!({"protocol": "TCP", "start": start, "end": end});
    grants(&verdict(
        json!({"masquerade": {}, "portRanges": [range(1, 2), range(3, 4)]}),
    ));
    let path = |field: &str| format!("spec.domain.devices.interfaces[0].portRanges{field}");
    let refused = |ranges: Value, field: &str| {
        names(
            &verdict(json!({"masquerade": {}, "portRanges": ranges})),
            &path(field),
        );
    };
    refused(json!([range(2, 1)]), "[0].start");
    refused(json!([range(0, 1)]), "[0].start");
    refused(json!([range(1, 70_000)]), "[0].end");
    refused(json!([range(1, 3), range(3, 4)]), "[1]");
    refused(json!([{"start": 1, "end": 2}]), "[0].protocol");
    refused(Value::Array(vec![range(1, 1); 11]), "");
    names(
        &verdict(json!({"bridge": {}, "portRanges": [range(1, 2)]})),
        &path(""),
    );
    let both = json!({"masquerade": {}, "ports": [{"port": 1}], "portRanges": [range(1, 2)]});
    names(&verdict(both), &path(""));
}

#[test]
fn the_cluster_can_forbid_bridges() {
    let config =
        serde_json::from_value(json!({"network": {"permitBridgeInterfaceOnPodNetwork": false}}))
            .unwrap();
    let vmi = changed(
        good(),
        &spec(
            "domain.devices.interfaces",
            json!([{"name": "n", "bridge": {}}]),
        ),
    );
    let verdict = create_vmi(&defaulted(vmi, &config), &by(USER, &config));
    names(&verdict, "spec.domain.devices.interfaces[0].bridge");
}

#[test]
fn other_devices_are_checked() {
    let device = |device: Value, field: &str| {
        check(
            "domain.devices",
            device,
            &format!("spec.domain.devices.{field}"),
        );
    };
    device(
        json!({"inputs": [{"name": "i", "bus": "ps2"}]}),
        "inputs[0].bus",
    );
    device(
        json!({"inputs": [{"name": "i", "type": "mouse"}]}),
        "inputs[0].type",
    );
    device(json!({"sound": {"name": ""}}), "sound.name");
    device(
        json!({"sound": {"name": "s", "model": "sb16"}}),
        "sound.model",
    );
    device(
        json!({"watchdog": {"name": "w", "diag288": {}}}),
        "watchdog.diag288",
    );
    device(
        json!({"watchdog": {"name": "w", "i6300esb": {"action": "bark"}}}),
        "watchdog.i6300esb.action",
    );
    device(
        json!({"panicDevices": [{"model": "x"}]}),
        "panicDevices[0].model",
    );
    device(json!({"video": {"type": "cga"}}), "video.type");
    device(
        json!({"video": {}, "autoattachGraphicsDevice": false}),
        "video",
    );
    device(
        json!({"hostDevices": [{"name": "", "deviceName": "d"}]}),
        "hostDevices[0].name",
    );
    device(
        json!({"hostDevices": [{"name": "h"}]}),
        "hostDevices[0].deviceName",
    );
    device(
        json!({"gpus": [{"name": "g", "claimName": "c", "requestName": "r"}]}),
        "gpus[0].claimName",
    );
    let gpu =
        |name: &str| json!({"name": name, "deviceName": "d", "virtualGPUOptions": {"display": {}}});
    device(
        json!({"gpus": [gpu("a"), gpu("b")]}),
        "gpus[1].virtualGPUOptions.display.ramFB",
    );
    gated(
        json!({"domain": {"devices": {"autoattachVSOCK": true}}}),
        "VSOCK",
        "spec.domain.devices.autoattachVSOCK",
    );
    gated(
        json!({"domain": {"devices": {"downwardMetrics": {}}}}),
        "DownwardMetrics",
        "spec.domain.devices.downwardMetrics",
    );
    granted(spec(
        "domain.devices.hostDevices",
        json!([{"name": "usb", "deviceName": "kubevirt.io/stick"}]),
    ));
    granted(spec("domain.rebootPolicy", json!("Terminate")));
    check(
        "domain.ioThreadsPolicy",
        json!("many"),
        "spec.domain.ioThreadsPolicy",
    );
    let pool = "spec.domain.ioThreads.supplementalPoolThreadCount";
    check("domain.ioThreadsPolicy", json!("supplementalPool"), pool);
}

#[test]
fn resource_claims_are_checked() {
    let path = |field: &str| format!("spec.resourceClaims[0]{field}");
    check("resourceClaims", json!([{"name": "c"}]), &path(""));
    let both = json!([{"name": "c", "resourceClaimName": "a", "resourceClaimTemplateName": "b"}]);
    check("resourceClaims", both, &path(""));
    check(
        "resourceClaims",
        json!([{"name": "c", "resourceClaimName": "A"}]),
        &path(".resourceClaimName"),
    );
    let twice =
        json!([{"name": "c", "resourceClaimName": "a"}, {"name": "c", "resourceClaimName": "b"}]);
    check("resourceClaims", twice, "spec.resourceClaims[1].name");
}

#[test]
fn probes_and_credentials_are_checked() {
    check("readinessProbe", json!({}), "spec.readinessProbe");
    check(
        "readinessProbe",
        json!({"exec": {"command": ["x"]}, "guestAgentPing": {}}),
        "spec.readinessProbe",
    );
    let no_pod = json!({"readinessProbe": {"tcpSocket": {"port": 1}},
        "networks": [{"name": "n", "multus": {"networkName": "x"}}],
        "domain": {"devices": {"interfaces": [{"name": "n", "bridge": {}}]}}});
    refused(json!({ "spec": no_pod }), "spec.readinessProbe.tcpSocket");
    check(
        "accessCredentials",
        json!([{}]),
        "spec.accessCredentials[0]",
    );
}

#[test]
fn names_services_are_checked() {
    check("dnsPolicy", json!("Guess"), "spec.dnsPolicy");
    check("dnsPolicy", json!("None"), "spec.dnsConfig.nameservers");
    let dns =
        |config: Value, field: &str| check("dnsConfig", config, &format!("spec.dnsConfig.{field}"));
    dns(json!({"nameservers": ["x"]}), "nameservers[0]");
    dns(
        json!({"nameservers": ["1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4"]}),
        "nameservers",
    );
    dns(json!({"searches": ["A"]}), "searches[0]");
    dns(
        json!({"searches": ["a", "b", "c", "d", "e", "f", "g"]}),
        "searches",
    );
    dns(json!({"options": [{"value": "x"}]}), "options[0].name");
}

#[test]
fn placement_is_checked() {
    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
    let affinity = |affinity: Value, field: &str| {
        check("affinity", affinity, &format!("spec.affinity.{field}"));
    };
    let terms = |expression: Value| json!({"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}});
    let term = format!("nodeAffinity.{REQUIRED}.nodeSelectorTerms[0].matchExpressions[0]");
    affinity(
        json!({"nodeAffinity": {REQUIRED: {}}}),
        &format!("nodeAffinity.{REQUIRED}.nodeSelectorTerms"),
    );
    affinity(terms(json!({"operator": "Exists"})), &format!("{term}.key"));
    affinity(
        terms(json!({"key": "k", "operator": "Is"})),
        &format!("{term}.operator"),
    );
    affinity(
        terms(json!({"key": "k", "operator": "In"})),
        &format!("{term}.values"),
    );
    affinity(
        terms(json!({"key": "k", "operator": "Exists", "values": ["x"]})),
        &format!("{term}.values"),
    );
    affinity(
        terms(json!({"key": "k", "operator": "Gt", "values": []})),
        &format!("{term}.values"),
    );
    let weight = json!({"nodeAffinity": {PREFERRED: [{"weight": 0, "preference": {}}]}});
    affinity(weight, &format!("nodeAffinity.{PREFERRED}[0].weight"));
    let pods = json!({"podAntiAffinity": {REQUIRED: [{"labelSelector": {}}]}});
    affinity(pods, &format!("podAntiAffinity.{REQUIRED}[0].topologyKey"));
    let spread = |constraint: Value, field: &str| {
        let path = format!("spec.topologySpreadConstraints[0].{field}");
        check("topologySpreadConstraints", json!([constraint]), &path);
    };
    spread(
        json!({"maxSkew": 0, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule"}),
        "maxSkew",
    );
    spread(
        json!({"maxSkew": 1, "whenUnsatisfiable": "DoNotSchedule"}),
        "topologyKey",
    );
    spread(
        json!({"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "Panic"}),
        "whenUnsatisfiable",
    );
    let domains = json!({"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "ScheduleAnyway", "minDomains": 1});
    spread(domains, "minDomains");
}
