use jiff::Timestamp;
use proptest::prelude::proptest;
use serde_json::{Value, json};

use super::path::Path;
use super::{IncludeObject, age, render};
use crate::catalog::{Column, built_in, custom};

fn now() -> Timestamp {
    "2026-01-10T12:00:00Z".parse().unwrap()
}

/// Returns the cells of one object, joined by `|`.
fn row(group: &str, plural: &str, object: &Value) -> String {
    let catalog = built_in();
    let resource = catalog.get(group, plural).unwrap();
    let table = render(
        resource,
        &resource.versions[0],
        &[object],
        IncludeObject::None,
        &json!({}),
        now(),
    );
    let columns = table["columnDefinitions"].as_array().unwrap().len();
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(columns, cells.len());
    cells
        .iter()
        .map(super::cells::plain)
        .collect::<Vec<_>>()
        .join("|")
}

fn metadata() -> Value {
    json!({"name": "x", "creationTimestamp": "2026-01-10T11:54:57Z"})
}

#[test]
fn ages_have_the_units_that_matter() {
    for (seconds, expected) in [
        (-5, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (303, "5m3s"),
        (600, "10m"),
        (10_799, "179m"),
        (3 * 3600, "3h"),
        (7 * 3600 + 600, "7h10m"),
        (8 * 3600, "8h"),
        (47 * 3600, "47h"),
        (52 * 3600, "2d4h"),
        (192 * 3600, "8d"),
        (729 * 86400, "729d"),
        (730 * 86400, "2y"),
        (800 * 86400, "2y70d"),
        (9 * 365 * 86400, "9y"),
    ] {
        assert_eq!(age::duration(seconds), expected, "{seconds}");
    }
    assert_eq!(age::since(&json!(null), now()), "<unknown>");
    assert_eq!(age::since(&json!("soon"), now()), "<invalid>");
}

#[track_caller]
fn check_pod(status: Value, expected: &str) {
    let mut pod = json!({"metadata": metadata(), "spec": {
        "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}],
        "containers": [{"name": "a"}, {"name": "b"}], "nodeName": "here"}});
    pod["status"] = status;
    assert!(
        row("", "pods", &pod).starts_with(&format!("x|{expected}|5m3s|")),
        "{}",
        row("", "pods", &pod)
    );
}

#[test]
fn pods_show_what_their_containers_add_up_to() {
    check_pod(json!({"phase": "Pending"}), "0/3|Pending|0");
    check_pod(
        json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "state": {"running": {}}}]}),
        "0/3|Init:0/2|0",
    );
    check_pod(
        json!({"phase": "Pending", "initContainerStatuses": [{"name": "i", "restartCount": 2,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"finishedAt": "2026-01-10T11:59:00Z"}}}]}),
        "0/3|Init:CrashLoopBackOff|2 (60s ago)",
    );
    let done = json!({"name": "i", "state": {"terminated": {"exitCode": 0}}});
    let sidecar = json!({"name": "s", "started": true, "ready": true, "state": {"running": {}}});
    let running = |name: &str| json!({"name": name, "ready": true, "state": {"running": {}}});
    check_pod(
        json!({"phase": "Running", "initContainerStatuses": [done, sidecar],
            "containerStatuses": [running("a"), running("b")]}),
        "3/3|Running|0",
    );
    check_pod(
        json!({"phase": "Running", "initContainerStatuses": [done, sidecar], "containerStatuses": [running("a"),
            {"name": "b", "state": {"terminated": {"exitCode": 137, "signal": 9}}}]}),
        "2/3|Signal:9|0",
    );
    check_pod(
        json!({"phase": "Succeeded", "containerStatuses": [{"name": "a", "state": {"terminated": {"reason": "Completed"}}}]}),
        "0/3|Completed|0",
    );
    let mut pod = json!({"metadata": metadata(), "spec": {"containers": [{}]}, "status": {"phase": "Running"}});
    pod["metadata"]["deletionTimestamp"] = json!("2026-01-10T11:54:57Z");
    assert_eq!(
        row("", "pods", &pod),
        "x|0/1|Terminating|0|5m3s|<none>|<none>|<none>|<none>"
    );
}

#[test]
fn other_kinds_show_what_kubernetes_shows() {
    let of = |mut it: Value| {
        it["metadata"] = metadata();
        it
    };
    let node = json!({
        "metadata": {"name": "n", "labels": {"node-role.kubernetes.io/control-plane": "", "node-role.kubernetes.io/worker": ""},
            "creationTimestamp": "2026-01-08T08:00:00Z"},
        "spec": {"unschedulable": true},
        "status": {"conditions": [{"type": "Ready", "status": "True"}], "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
            "nodeInfo": {"kubeletVersion": "v1.33.0"}},
    });
    assert_eq!(
        row("", "nodes", &node),
        "n|Ready,SchedulingDisabled|control-plane,worker|2d4h|v1.33.0|10.0.0.1|<none>|<unknown>|<unknown>|<unknown>"
    );
    let event = of(
        json!({"lastTimestamp": "2026-01-10T11:59:50Z", "type": "Normal", "reason": "Started", "message": "it began\n",
        "involvedObject": {"kind": "VirtualMachine", "name": "vm"}, "source": {"component": "c", "host": "h"}, "count": 2}),
    );
    assert_eq!(
        row("", "events", &event),
        "10s|Normal|Started|virtualmachine/vm||c, h|it began|<unknown>|2|x"
    );
    let service = of(
        json!({"spec": {"type": "NodePort", "clusterIP": "10.0.0.2", "selector": {"a": "b"},
        "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}}),
    );
    assert_eq!(
        row("", "services", &service),
        "x|NodePort|10.0.0.2|<none>|80:30080/TCP,53/UDP|5m3s|a=b"
    );
    let claim = of(
        json!({"spec": {"volumeName": "v", "storageClassName": "s", "volumeMode": "Block"},
        "status": {"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce", "ReadOnlyMany"]}}),
    );
    assert_eq!(
        row("", "persistentvolumeclaims", &claim),
        "x|Bound|v|1Gi|RWO,ROX|s|<unset>|5m3s|Block"
    );
    let deployment = of(
        json!({"spec": {"replicas": 2, "selector": {"matchLabels": {"a": "b"},
        "matchExpressions": [{"key": "c", "operator": "In", "values": ["d", "e"]}]},
        "template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}, "status": {"readyReplicas": 1}}),
    );
    assert_eq!(
        row("apps", "deployments", &deployment),
        "x|1/2|0|0|5m3s|c|i|a=b,c in (d,e)"
    );
    let class = json!({"metadata": {"name": "c", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": "p"});
    assert_eq!(
        row("storage.k8s.io", "storageclasses", &class),
        "c (default)|p|Delete|Immediate|false|<unknown>"
    );
    let crd = of(json!({}));
    assert_eq!(
        row("apiextensions.k8s.io", "customresourcedefinitions", &crd),
        "x|2026-01-10T11:54:57Z"
    );
    let binding = of(
        json!({"roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "User", "name": "u"},
        {"kind": "ServiceAccount", "namespace": "n", "name": "s"}]}),
    );
    assert_eq!(
        row("rbac.authorization.k8s.io", "rolebindings", &binding),
        "x|Role/r|5m3s|u||n/s"
    );
    assert_eq!(
        row("apps", "controllerrevisions", &of(json!({"revision": 3}))),
        "x|<none>|3|5m3s"
    );
    assert_eq!(row("", "podtemplates", &of(json!({}))), "x|5m3s");
}

fn box_resource() -> crate::catalog::Resource {
    let column =
        |name: &str, kind: &str, path: &str| json!({"name": name, "type": kind, "jsonPath": path});
    let crd = json!({
        "metadata": {"name": "boxes.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "boxes", "kind": "Box"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}},
                "additionalPrinterColumns": [
                    column("Age", "date", ".metadata.creationTimestamp"),
                    column("Ready", "string", ".status.conditions[?(@.type=='Ready')].status"),
                    column("Size", "integer", ".spec.size"),
                    column("IPs", "string", ".status.list[*].ip"),
                    column("Map", "string", ".spec.map"),
                    column("Wrong", "integer", ".metadata.name"),
                ]}]},
    });
    custom(&crd).unwrap()
}

#[test]
fn custom_kinds_show_the_columns_of_their_definition() {
    let resource = box_resource();
    let object = json!({"metadata": metadata(), "spec": {"size": 4.0, "map": {"a": 1}}, "status": {
        "conditions": [{"type": "Other", "status": "False"}, {"type": "Ready", "status": "True"}],
        "list": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}]}});
    let table = render(
        &resource,
        &resource.versions[0],
        &[&object],
        IncludeObject::Metadata,
        &json!({"resourceVersion": "5"}),
        now(),
    );
    assert_eq!(
        table["rows"][0]["cells"],
        json!([
            "x",
            "5m3s",
            "True",
            4,
            "10.0.0.1 10.0.0.2",
            "{\"a\":1}",
            null
        ])
    );
    assert_eq!(
        table["rows"][0]["object"],
        json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": metadata()})
    );
    assert_eq!(table["metadata"]["resourceVersion"], "5");
    assert_eq!(table["columnDefinitions"][0]["format"], "name");
    let bare = json!({"metadata": {"name": "y"}});
    let table = render(
        &resource,
        &resource.versions[0],
        &[&bare],
        IncludeObject::Object,
        &json!({}),
        now(),
    );
    assert_eq!(
        table["rows"][0]["cells"],
        json!(["y", null, null, null, null, null, null])
    );
    assert_eq!(table["rows"][0]["object"], bare);
}

#[test]
fn custom_kinds_without_columns_show_their_age() {
    let mut resource = box_resource();
    resource.versions[0].columns = Vec::<Column>::new();
    let table = render(
        &resource,
        &resource.versions[0],
        &[&json!({"metadata": metadata()})],
        IncludeObject::None,
        &json!({}),
        now(),
    );
    assert_eq!(table["rows"], json!([{"cells": ["x", "5m3s"]}]));
}

#[test]
fn paths_lead_to_values() {
    let object = json!({"a": {"b.c": 1, "list": [{"n": "x", "v": 1}, {"n": "y", "v": 2}]}});
    #[track_caller]
    fn check(object: &Value, path: &str, expected: &Value) {
        let found: Vec<_> = Path::read(path).find(object).into_iter().cloned().collect();
        assert_eq!(Value::from(found), *expected, "{path}");
    }
    check(&object, r".a.b\.c", &json!([1]));
    check(&object, "{.a['b.c']}", &json!([1]));
    check(&object, "$.a.list[1].v", &json!([2]));
    check(&object, "a.list[-1].n", &json!(["y"]));
    check(&object, ".a.list[*].v", &json!([1, 2]));
    check(&object, r#".a.list[?(@.n=="y")].v"#, &json!([2]));
    check(&object, ".a.list[?(@.v != 1)].n", &json!(["y"]));
    check(&object, ".a.list[?(@.z)].n", &json!([]));
    for unreadable in [
        ".a[",
        ".a[x]",
        ".a[?(",
        ".a..b",
        ".a[?(x)]",
        &".a".repeat(100),
    ] {
        check(&object, unreadable, &json!([]));
    }
}

proptest! {
    #[test]
    fn no_path_makes_a_table_panic(path in r#"[.\[\]?(@)='"a*0:\\{}$-]{0,24}"#) {
        let _found = Path::read(&path).find(&json!({"a": [{"a": "a"}, 1]})).len();
    }
}

#[test]
fn nothing_that_an_object_may_be_makes_a_table_panic() {
    let objects = [
        json!(null),
        json!([1]),
        json!({"spec": 1, "status": [], "metadata": "x"}),
        json!({"metadata": {"labels": 3}, "status": {"conditions": {}, "containerStatuses": [1, null]}, "spec": {"ports": [[]]}}),
    ];
    for resource in built_in().resources.values() {
        for object in &objects {
            let _table = render(
                resource,
                &resource.versions[0],
                &[object],
                IncludeObject::Metadata,
                &json!({}),
                now(),
            );
        }
    }
}
