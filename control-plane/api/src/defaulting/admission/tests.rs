#![expect(
    clippy::needless_pass_by_value,
    reason = "checks read better with the literals in place"
)]

use serde_json::{Value, json};

use super::{Fresh, default_migration, default_vm, default_vmi, default_vmirs};
use crate::defaulting::patch;
use crate::kubevirt::Configuration;

fn config(json: Value) -> Configuration {
    serde_json::from_value(json).unwrap()
}

fn fresh() -> Fresh {
    Fresh {
        uuid: "u".to_owned(),
        serial: "s".to_owned(),
        now: "2026-01-01T00:00:00Z".to_owned(),
    }
}

fn instance(spec: Value, cluster: Value) -> Value {
    let mut vmi = json!({"metadata": {"name": "m"}, "spec": spec});
    default_vmi(&mut vmi, &config(cluster), &fresh());
    vmi
}

#[track_caller]
fn check(spec: Value, cluster: Value, pointer: &str, expected: Value) {
    let vmi = instance(spec, cluster);
    assert_eq!(vmi.pointer(pointer), Some(&expected), "{vmi}");
}

#[test]
fn what_has_no_name_yet_gets_no_uuid_of_it() {
    let nameless =
        || json!({"metadata": {"generateName": "m-"}, "spec": {"template": {"spec": {}}}});
    let mut vmi = nameless();
    default_vmi(&mut vmi, &Configuration::default(), &fresh());
    assert_eq!(vmi["spec"]["domain"].get("firmware"), None);
    let mut vm = nameless();
    let unknown = Fresh::default();
    default_vm(&mut vm, &Configuration::default(), true, &unknown);
    assert_eq!(vm.pointer("/spec/template/spec/domain/firmware"), None);
}

#[test]
fn an_empty_instance_becomes_a_whole_one() {
    let domain = json!({"resources": {"requests": {"memory": "64Mi"}}});
    let vmi = instance(json!({"domain": domain}), json!({}));
    let expected = json!({
        "metadata": {
            "name": "m",
            "annotations": {"kubevirt.io/pci-topology-version": "v3"},
            "finalizers": ["kubevirt.io/foregroundDeleteVirtualMachine"],
        },
        "spec": {
            "architecture": "amd64",
            "domain": {
                "cpu": {"sockets": 1, "cores": 1, "threads": 1, "model": "host-model"},
                "devices": {"interfaces": [{"name": "default", "bridge": {}}]},
                "firmware": {"uuid": crate::defaulting::system_uuid("m").to_string()},
                "machine": {"type": "q35"},
                "memory": {"guest": "64Mi"},
                "resources": {"requests": {"memory": "64Mi"}},
            },
            "networks": [{"name": "default", "pod": {}}],
        },
        "status": {
            "phase": "Pending",
            "phaseTransitionTimestamps":
                [{"phase": "Pending", "phaseTransitionTimestamp": "2026-01-01T00:00:00Z"}],
            "runtimeUser": 107,
            "currentCPUTopology": {"sockets": 1, "cores": 1, "threads": 1},
            "memory": {"guestAtBoot": "64Mi", "guestCurrent": "64Mi", "guestRequested": "64Mi"},
        },
    });
    assert_eq!(vmi, expected);
    let mut again = vmi.clone();
    default_vmi(&mut again, &Configuration::default(), &fresh());
    assert!(patch(&vmi, &again).is_empty());
}

#[test]
fn the_cluster_decides_what_the_instance_leaves_open() {
    let none = json!({});
    check(
        none.clone(),
        json!({"machineType": "pc-q35-9"}),
        "/spec/domain/machine/type",
        json!("pc-q35-9"),
    );
    let of_architecture = json!({"architectureConfiguration": {"amd64": {"machineType": "q35-x"}}});
    check(
        none.clone(),
        of_architecture,
        "/spec/domain/machine/type",
        json!("q35-x"),
    );
    check(
        none.clone(),
        json!({"cpuModel": "EPYC"}),
        "/spec/domain/cpu/model",
        json!("EPYC"),
    );
    check(
        none.clone(),
        json!({"evictionStrategy": "External"}),
        "/spec/evictionStrategy",
        json!("External"),
    );
    check(
        none.clone(),
        json!({"cpuRequest": "50m"}),
        "/spec/domain/resources/requests/cpu",
        json!("50m"),
    );
    let masquerade = json!({"network": {"defaultNetworkInterface": "masquerade"}});
    let interfaces = "/spec/domain/devices/interfaces/0";
    check(
        none.clone(),
        masquerade,
        interfaces,
        json!({"name": "default", "masquerade": {}}),
    );
    let no_bridge = json!({"network": {"permitBridgeInterfaceOnPodNetwork": false}});
    check(
        none,
        no_bridge,
        interfaces,
        json!({"name": "default", "masquerade": {}}),
    );
}

#[test]
fn what_is_given_stays() {
    let spec = json!({
        "evictionStrategy": "None", "future": {"x": [1]},
        "domain": {"cpu": {"cores": 2, "model": "max", "odd": 1}, "machine": {"type": "q35"}},
        "networks": [{"name": "n", "pod": {}}],
    });
    let vmi = instance(spec, json!({"evictionStrategy": "External"}));
    assert_eq!(vmi["spec"]["future"], json!({"x": [1]}));
    let cpu = json!({"cores": 2, "sockets": 1, "threads": 1, "model": "max", "odd": 1});
    assert_eq!(vmi["spec"]["domain"]["cpu"], cpu);
    assert_eq!(vmi["spec"]["evictionStrategy"], "None");
    assert!(vmi["spec"]["domain"]["devices"].get("interfaces").is_none());
    let off = json!({"domain": {"devices": {"autoattachPodInterface": false}}});
    assert!(instance(off, json!({}))["spec"].get("networks").is_none());
}

#[test]
fn sizes_follow_resources() {
    let resources = |value: Value| json!({"domain": {"resources": value}});
    let sockets = "/spec/domain/cpu/sockets";
    check(
        resources(json!({"requests": {"cpu": "1500m"}})),
        json!({}),
        sockets,
        json!(2),
    );
    check(
        resources(json!({"limits": {"cpu": 3}})),
        json!({}),
        sockets,
        json!(3),
    );
    let request = "/spec/domain/resources/requests/cpu";
    check(
        resources(json!({"limits": {"cpu": 3}})),
        json!({}),
        request,
        json!("3"),
    );
    let guest = "/spec/domain/memory/guest";
    check(
        resources(json!({"limits": {"memory": "1Gi"}})),
        json!({}),
        guest,
        json!("1Gi"),
    );
    let pages = json!({"domain": {"memory": {"hugepages": {"pageSize": "2Mi"}}}});
    check(pages, json!({}), guest, json!("2Mi"));
}

#[test]
fn volumes_get_disks_and_disks_get_buses() {
    let spec = json!({
        "domain": {"devices": {"disks": [{"name": "a"}, {"name": "c", "cdrom": {}}, {"name": "l", "lun": {}}]}},
        "volumes": [
            {"name": "a", "containerDisk": {"image": "x"}}, {"name": "b", "containerDisk": {"image": "x:1"}},
            {"name": "d", "memoryDump": {"claimName": "d"}},
        ],
    });
    let vmi = instance(spec, json!({}));
    assert_eq!(
        vmi["spec"]["domain"]["devices"]["disks"],
        json!([
            {"name": "a", "disk": {"bus": "virtio"}},
            {"name": "c", "cdrom": {"bus": "sata", "readonly": true, "tray": "closed"}},
            {"name": "l", "lun": {"bus": "scsi"}},
            {"name": "b", "disk": {"bus": "virtio"}},
        ])
    );
    assert_eq!(
        vmi["spec"]["volumes"][0]["containerDisk"]["imagePullPolicy"],
        "Always"
    );
    assert_eq!(
        vmi["spec"]["volumes"][1]["containerDisk"]["imagePullPolicy"],
        "IfNotPresent"
    );
}

#[test]
fn smaller_devices_get_their_defaults() {
    let spec = json!({
        "readinessProbe": {"guestAgentPing": {}},
        "domain": {
            "devices": {"inputs": [{"name": "t"}], "watchdog": {"name": "w"}},
            "features": {"hyperv": {"synictimer": {}, "evmcs": {"enabled": false}}},
        },
    });
    let vmi = instance(spec, json!({}));
    let spec = &vmi["spec"];
    assert_eq!(spec["readinessProbe"]["failureThreshold"], 3);
    let devices = &spec["domain"]["devices"];
    assert_eq!(
        devices["inputs"][0],
        json!({"name": "t", "bus": "usb", "type": "tablet"})
    );
    assert_eq!(devices["watchdog"]["i6300esb"]["action"], "reset");
    let hyperv = json!({
        "synictimer": {}, "evmcs": {"enabled": false},
        "synic": {"enabled": true}, "vpindex": {"enabled": true},
    });
    assert_eq!(spec["domain"]["features"]["hyperv"], hyperv);
}

#[test]
fn room_to_grow_is_set_aside_where_the_cluster_asks_for_it() {
    let spec = json!({"domain": {"memory": {"guest": "1Gi"}, "cpu": {"sockets": 2}}});
    let vmi = instance(spec.clone(), json!({}));
    assert!(vmi["spec"]["domain"]["cpu"].get("maxSockets").is_none());
    let live = json!({"vmRolloutStrategy": "LiveUpdate"});
    check(
        spec.clone(),
        live.clone(),
        "/spec/domain/cpu/maxSockets",
        json!(8),
    );
    check(
        spec.clone(),
        live,
        "/spec/domain/memory/maxGuest",
        json!("4294967296"),
    );
    let bounds = json!({"vmRolloutStrategy": "LiveUpdate", "liveUpdateConfiguration": {"maxCpuSockets": 1, "maxGuest": "2Gi"}});
    check(
        spec.clone(),
        bounds.clone(),
        "/spec/domain/cpu/maxSockets",
        json!(2),
    );
    check(spec, bounds, "/spec/domain/memory/maxGuest", json!("2Gi"));
}

#[test]
fn virtual_machines_keep_their_identity() {
    let mut vm =
        json!({"metadata": {"name": "m"}, "spec": {"template": {"spec": {"domain": {"x": 1}}}}});
    let old = vm.clone();
    default_vm(&mut vm, &Configuration::default(), true, &fresh());
    let spec = &vm["spec"]["template"]["spec"];
    assert_eq!(
        spec["domain"]["firmware"],
        json!({"uuid": "u", "serial": "s"})
    );
    assert_eq!(spec["domain"]["machine"]["type"], "q35");
    assert!(
        patch(&old, &vm)
            .iter()
            .all(|operation| operation["op"] == "add")
    );
    let mut updated = old.clone();
    default_vm(&mut updated, &Configuration::default(), false, &fresh());
    assert!(
        updated["spec"]["template"]["spec"]["domain"]
            .get("firmware")
            .is_none()
    );
}

#[test]
fn sets_get_a_number_and_migrations_a_label() {
    let mut set = json!({"spec": {}});
    default_vmirs(&mut set, &Configuration::default());
    assert_eq!(set["spec"]["replicas"], 1);
    let mut migration = json!({"metadata": {"name": "x"}, "spec": {"vmiName": "m"}});
    default_migration(&mut migration, &Configuration::default());
    assert_eq!(
        migration["metadata"],
        json!({
            "name": "x", "labels": {"kubevirt.io/vmi-name": "m"},
            "finalizers": ["kubevirt.io/migrationJobFinalize"],
        })
    );
}

mod properties {
    use proptest::prelude::*;
    use serde_json::{Map, Value};

    use super::{Fresh, default_migration, default_vm, default_vmi, default_vmirs};
    use crate::defaulting::patch;
    use crate::kubevirt::Configuration;

    const NAMES: &str = "spec|template|domain|cpu|memory|devices|disks|interfaces|volumes|networks|metadata|resources|status|guest|name|labels|features|hyperv|finalizers|[a-c]";

    /// Any JSON, with the names of fields that matter.
    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            "[a-z0-9]{0,4}".prop_map(Value::from),
        ];
        leaf.prop_recursive(6, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((NAMES, inner), 0..5)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
            ]
        })
    }

    proptest! {
        #[test]
        fn no_json_makes_defaulting_panic(mut object in any_json(), old in any_json()) {
            let config = Configuration::default();
            default_vmi(&mut object, &config, &Fresh::default());
            default_vm(&mut object, &config, true, &Fresh::default());
            default_vmirs(&mut object, &config);
            default_migration(&mut object, &config);
            patch(&old, &object);
        }
    }
}
