mod admission;
mod lifecycle;
mod rights;
mod scripted;
mod streams;

use http::{Method, Request, StatusCode};
use serde_json::{Value, json};

use scripted::Cluster;

/// A machine of a run strategy, and its instance in a phase.
fn machine(strategy: &str) -> Value {
    json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine",
        "metadata": {"name": "vm", "namespace": "ns", "uid": "vm-uid", "resourceVersion": "7"},
        "spec": {"runStrategy": strategy, "template": {"spec": {"domain": {"devices": {}}}}},
        "status": {"created": true},
    })
}

fn instance(phase: &str) -> Value {
    json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
        "metadata": {
            "name": "vm", "namespace": "ns", "uid": "vmi-uid", "resourceVersion": "8",
            "ownerReferences": [{"uid": "vm-uid", "kind": "VirtualMachine", "name": "vm"}],
        },
        "spec": {"domain": {"devices": {}}},
        "status": {"phase": phase, "nodeName": "node"},
    })
}

const SUBRESOURCES: &str = "/apis/subresources.kubevirt.io/v1/namespaces/ns";

#[tokio::test]
async fn discovery_lists_what_is_served() {
    let cluster = Cluster::default();
    let (status, group) = cluster
        .ask(Method::GET, "/apis/subresources.kubevirt.io", None)
        .await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(group["preferredVersion"]["version"], "v1");
    for version in ["v1", "v1alpha3"] {
        let path = format!("/apis/subresources.kubevirt.io/{version}");
        let (_, list) = cluster.ask(Method::GET, &path, None).await;
        assert_eq!(list["kind"], "APIResourceList");
        assert_eq!(
            list["groupVersion"],
            format!("subresources.kubevirt.io/{version}")
        );
        let resources = list["resources"].as_array().unwrap();
        assert!(
            resources
                .iter()
                .any(|one| one["name"] == "virtualmachineinstances/console")
        );
        let (status, answer) = cluster
            .ask(Method::GET, &format!("{path}/version"), None)
            .await;
        assert_eq!(status, StatusCode::OK);
        assert!(answer["gitVersion"].as_str().unwrap().starts_with('v'));
    }
}

#[tokio::test]
async fn what_is_not_there_is_told_as_a_status() {
    let cluster = Cluster::default();
    for (method, path, code) in [
        (
            Method::GET,
            "/apis/subresources.kubevirt.io/v2".to_owned(),
            404,
        ),
        (
            Method::GET,
            format!("{SUBRESOURCES}/virtualmachines/vm/nothing"),
            404,
        ),
        (
            Method::GET,
            format!("{SUBRESOURCES}/virtualmachines/vm/start"),
            405,
        ),
        (
            Method::PUT,
            format!("{SUBRESOURCES}/virtualmachines/vm/start"),
            404,
        ),
        (
            Method::GET,
            format!("{SUBRESOURCES}/virtualmachineinstances/vm/console"),
            404,
        ),
        (
            Method::PUT,
            format!("{SUBRESOURCES}/virtualmachines/..%2Fpods/start"),
            400,
        ),
    ] {
        let (status, answer) = cluster.ask(method, &path, None).await;
        assert_eq!(status.as_u16(), code, "{path}: {answer}");
        assert_eq!(answer["kind"], "Status");
        assert_eq!(answer["code"], code);
    }
}

#[tokio::test]
async fn functions_that_machines_lack_are_refused_with_the_reason() {
    let cluster = Cluster::default();
    cluster.put("virtualmachines", machine("Always"));
    cluster.put("virtualmachineinstances", instance("Running"));
    let volume = json!({
        "name": "new", "disk": {"disk": {"bus": "scsi"}},
        "volumeSource": {"dataVolume": {"name": "dv"}},
    });
    for (method, path, body) in [
        (Method::PUT, "virtualmachines/vm/memorydump", None),
        (Method::GET, "virtualmachineinstances/vm/usbredir", None),
        (Method::GET, "virtualmachineinstances/vm/vsock", None),
        (
            Method::GET,
            "virtualmachineinstances/vm/sev/fetchcertchain",
            None,
        ),
        (Method::PUT, "virtualmachineinstances/vm/backup", None),
        (
            Method::PUT,
            "virtualmachineinstances/vm/addvolume",
            Some(volume.clone()),
        ),
        (Method::PUT, "virtualmachines/vm/addvolume", Some(volume)),
    ] {
        let (status, answer) = cluster
            .ask(method, &format!("{SUBRESOURCES}/{path}"), body)
            .await;
        assert_eq!(status, StatusCode::NOT_IMPLEMENTED, "{path}: {answer}");
        assert_eq!(answer["reason"], "NotImplemented");
        assert_eq!(answer["details"]["name"], "vm");
    }
}

#[tokio::test]
async fn volumes_are_checked_before_they_are_refused() {
    let cluster = Cluster::default();
    cluster.put("virtualmachineinstances", instance("Succeeded"));
    let path = format!("{SUBRESOURCES}/virtualmachineinstances/vm/addvolume");
    let (status, answer) = cluster
        .ask(Method::PUT, &path, Some(json!({"name": ""})))
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let causes = answer["details"]["causes"].as_array().unwrap();
    let fields: Vec<_> = causes
        .iter()
        .map(|cause| cause["field"].as_str().unwrap())
        .collect();
    assert_eq!(fields, ["name", "disk", "volumeSource"]);
    let path = format!("{SUBRESOURCES}/virtualmachineinstances/vm/removevolume");
    let (status, answer) = cluster
        .ask(Method::PUT, &path, Some(json!({"name": "v"})))
        .await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(
        answer["message"]
            .as_str()
            .unwrap()
            .ends_with("VMI is not running"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_specification_without_instance_type_is_its_own_expansion() {
    let cluster = Cluster::default();
    let vm = machine("Always");
    cluster.put("virtualmachines", vm.clone());
    let path = format!("{SUBRESOURCES}/virtualmachines/vm/expand-spec");
    let (status, answer) = cluster.ask(Method::GET, &path, None).await;
    assert_eq!(
        (status, answer["spec"] == vm["spec"]),
        (StatusCode::OK, true)
    );
    let path = format!("{SUBRESOURCES}/expand-vm-spec");
    let mut other = vm.clone();
    other["metadata"]["namespace"] = json!("other");
    let (status, answer) = cluster.ask(Method::PUT, &path, Some(other)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(answer["message"], "VM namespace must be empty or ns");
    let mut typed = vm;
    typed["spec"]["instancetype"] = json!({"name": "u1.small"});
    let (status, answer) = cluster.ask(Method::PUT, &path, Some(typed)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(
        answer["message"]
            .as_str()
            .unwrap()
            .starts_with("spec.instancetype: "),
        "{answer}"
    );
}

#[tokio::test]
async fn the_objects_of_a_machine_are_a_tree() {
    let cluster = Cluster::default();
    let mut vm = machine("Always");
    vm["spec"]["template"]["spec"]["volumes"] = json!([
        {"name": "disk", "persistentVolumeClaim": {"claimName": "claim"}},
        {"name": "init", "cloudInitNoCloud": {"userData": ""}},
    ]);
    cluster.put("virtualmachines", vm);
    cluster.put("virtualmachineinstances", instance("Running"));
    let pod = json!({"metadata": {"name": "virt-launcher-vm-x", "namespace": "ns",
        "labels": {"kubevirt.io/created-by": "vmi-uid"}}});
    cluster.put("pods", pod);
    let path = format!("{SUBRESOURCES}/virtualmachines/vm/objectgraph");
    let (_, tree) = cluster.ask(Method::GET, &path, None).await;
    assert_eq!(tree["objectReference"]["kind"], "VirtualMachine");
    let children = &tree["children"];
    assert_eq!(
        children[0]["objectReference"]["kind"],
        "VirtualMachineInstance"
    );
    assert_eq!(
        children[0]["children"][0]["objectReference"]["name"],
        "virt-launcher-vm-x"
    );
    assert_eq!(children[1]["objectReference"]["name"], "claim");
    assert_eq!(children.as_array().unwrap().len(), 2);
    // virtctl sends what it wants in the body of a GET.
    let compute = json!({"matchLabels": {"kubevirt.io/dependency-type": "compute"}});
    let wish = json!({"includeOptionalNodes": true, "labelSelector": compute});
    let (_, tree) = cluster.ask(Method::GET, &path, Some(wish)).await;
    assert_eq!(tree["children"].as_array().unwrap().len(), 1, "{tree}");
}

#[tokio::test]
async fn bodies_that_are_too_long_or_no_json_are_refused() {
    let cluster = Cluster::default();
    cluster.put("virtualmachines", machine("Manual"));
    let ask = |body: Vec<u8>| {
        let path = format!("{SUBRESOURCES}/virtualmachines/vm/start");
        Request::put(path).body(body.into()).unwrap()
    };
    let (status, _) = cluster.send(ask(vec![b' '; 100 << 10])).await;
    assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    let (status, answer) = cluster.send(ask(b"{".to_vec())).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(answer["reason"], "BadRequest");
    assert!(cluster.writes().is_empty());
}
