//! The objects that belong to a machine or an instance, as a tree.

use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use http::StatusCode;
use serde_json::{Value, json};

use super::answer::{Refusal, json_response};
use super::objects::{Kind, text};
use super::request::{Desk, Named, Route};

/// Children that are listed of one object; machines have 256 volumes at most.
const CHILDREN_MAX: usize = 1024;

/// Returns who answers which action of machines.
pub(super) fn machine_routes() -> Vec<Route> {
    vec![("objectgraph", get(machine))]
}

/// Returns who answers which action of instances.
pub(super) fn instance_routes() -> Vec<Route> {
    vec![("objectgraph", get(instance))]
}

async fn machine(State(desk): State<Desk>, named: Named) -> Result<Response, Refusal> {
    let vm = desk.objects.get(&named.object(Kind::Machine)).await?;
    let vmi = desk.objects.find(&named.object(Kind::Instance)).await?;
    let mut children = sources(&vm["spec"]["template"]["spec"], &named.namespace);
    if let Some(vmi) = &vmi {
        children.insert(0, instance_node(&desk, vmi).await?);
    }
    let machine = ("kubevirt.io", "VirtualMachine");
    Ok(json_response(
        StatusCode::OK,
        &node(
            machine,
            text(&vm, "/metadata/name"),
            &named.namespace,
            children,
        ),
    ))
}

async fn instance(State(desk): State<Desk>, named: Named) -> Result<Response, Refusal> {
    let vmi = desk.objects.get(&named.object(Kind::Instance)).await?;
    Ok(json_response(
        StatusCode::OK,
        &instance_node(&desk, &vmi).await?,
    ))
}

async fn instance_node(desk: &Desk, vmi: &Value) -> Result<Value, Refusal> {
    let namespace = text(vmi, "/metadata/namespace");
    let uid = text(vmi, "/metadata/uid");
    let query = format!("labelSelector=kubevirt.io%2Fcreated-by%3D{uid}");
    let pods = desk.objects.list(Kind::Pod, namespace, &query).await?;
    let pod = |pod: &Value| {
        node(
            ("", "Pod"),
            text(pod, "/metadata/name"),
            namespace,
            Vec::new(),
        )
    };
    let mut children: Vec<Value> = pods.iter().map(pod).collect();
    children.extend(sources(&vmi["spec"], namespace));
    let instance = ("kubevirt.io", "VirtualMachineInstance");
    Ok(node(
        instance,
        text(vmi, "/metadata/name"),
        namespace,
        children,
    ))
}

fn node((group, kind): (&str, &str), name: &str, namespace: &str, children: Vec<Value>) -> Value {
    let mut node = json!({
        "objectReference": {"apiGroup": group, "kind": kind, "name": name, "namespace": namespace},
    });
    if !children.is_empty() {
        node["children"] = children.into();
    }
    node
}

/// Returns the objects that an instance's volumes and credentials come from.
fn sources(spec: &Value, namespace: &str) -> Vec<Value> {
    const SOURCES: [(&str, &str, &str, &str); 7] = [
        (
            "persistentVolumeClaim",
            "claimName",
            "",
            "PersistentVolumeClaim",
        ),
        ("dataVolume", "name", "cdi.kubevirt.io", "DataVolume"),
        ("configMap", "name", "", "ConfigMap"),
        ("secret", "secretName", "", "Secret"),
        ("serviceAccount", "serviceAccountName", "", "ServiceAccount"),
        ("memoryDump", "claimName", "", "PersistentVolumeClaim"),
        ("ephemeral", "", "", "PersistentVolumeClaim"),
    ];
    let volumes = spec["volumes"].as_array().into_iter().flatten();
    let of_volumes = volumes.flat_map(|volume| {
        SOURCES
            .iter()
            .filter_map(move |(source, field, group, kind)| {
                let name = match *source {
                    "ephemeral" => &volume["ephemeral"]["persistentVolumeClaim"]["claimName"],
                    source => &volume[source][field],
                };
                Some(((*group, *kind), name.as_str()?))
            })
    });
    let credentials = spec["accessCredentials"].as_array().into_iter().flatten();
    let of_credentials = credentials.flat_map(|credential| {
        ["sshPublicKey", "userPassword"]
            .into_iter()
            .filter_map(move |kind| {
                let secret = &credential[kind]["source"]["secret"]["secretName"];
                Some((("", "Secret"), secret.as_str()?))
            })
    });
    of_volumes
        .chain(of_credentials)
        .take(CHILDREN_MAX)
        .map(|(kind, name)| node(kind, name, namespace, Vec::new()))
        .collect()
}
