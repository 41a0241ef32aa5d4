//! The objects that belong to a machine or an instance, as a tree (`ObjectGraphNode`).

use api::options::{MAX_OPTIONS_LEN, parse};
use api::selector::LabelSelector;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use axum::routing::get;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

use super::answer::{Refusal, json_response};
use super::objects::{Kind, text};
use super::request::{Desk, Named, Route, bytes};

/// Children that are listed of one object; machines have 256 volumes at most.
const CHILDREN_MAX: usize = 1024;
/// Label that says what a machine needs an object for.
const DEPENDENCY: &str = "kubevirt.io/dependency-type";

/// Returns who answers which action of machines.
pub(super) fn machine_routes() -> Vec<Route> {
    vec![("objectgraph", get(machine))]
}

/// Returns who answers which action of instances.
pub(super) fn instance_routes() -> Vec<Route> {
    vec![("objectgraph", get(instance))]
}

/// Which objects are wanted (`ObjectGraphOptions`), in the body of the question.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Wish {
    include_optional_nodes: Option<bool>,
    label_selector: Option<LabelSelector>,
}

/// An object, and those that belong to it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Node {
    object_reference: Reference,
    labels: BTreeMap<String, String>,
    /// Whether a machine gets on without it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    optional: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    children: Vec<Node>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    api_group: &'static str,
    kind: &'static str,
    name: String,
    namespace: String,
}

/// Group and kind of an object, and what it is needed for.
type Sort = (&'static str, &'static str, &'static str);

const MACHINE: Sort = ("kubevirt.io", "VirtualMachine", "compute");
const INSTANCE: Sort = ("kubevirt.io", "VirtualMachineInstance", "compute");
const POD: Sort = ("", "Pod", "compute");
const CLAIM: Sort = ("", "PersistentVolumeClaim", "storage");
const DATA_VOLUME: Sort = ("cdi.kubevirt.io", "DataVolume", "storage");
const CONFIG_MAP: Sort = ("", "ConfigMap", "config");
const SECRET: Sort = ("", "Secret", "config");
const SERVICE_ACCOUNT: Sort = ("", "ServiceAccount", "config");
const NETWORK: Sort = ("k8s.cni.cncf.io", "NetworkAttachmentDefinition", "network");

/// Where a volume names an object.
const VOLUME_SOURCES: [(&str, Sort); 13] = [
    ("/persistentVolumeClaim/claimName", CLAIM),
    ("/ephemeral/persistentVolumeClaim/claimName", CLAIM),
    ("/memoryDump/claimName", CLAIM),
    ("/dataVolume/name", DATA_VOLUME),
    ("/configMap/name", CONFIG_MAP),
    ("/sysprep/configMap/name", CONFIG_MAP),
    ("/secret/secretName", SECRET),
    ("/sysprep/secret/name", SECRET),
    ("/cloudInitNoCloud/secretRef/name", SECRET),
    ("/cloudInitNoCloud/networkDataSecretRef/name", SECRET),
    ("/cloudInitConfigDrive/secretRef/name", SECRET),
    ("/cloudInitConfigDrive/networkDataSecretRef/name", SECRET),
    ("/serviceAccount/serviceAccountName", SERVICE_ACCOUNT),
];
/// Where a credential names one.
const CREDENTIAL_SOURCES: [(&str, Sort); 2] = [
    ("/sshPublicKey/source/secret/secretName", SECRET),
    ("/userPassword/source/secret/secretName", SECRET),
];

impl Node {
    fn new((api_group, kind, need): Sort, namespace: &str, name: &str) -> Self {
        Self {
            object_reference: Reference {
                api_group,
                kind,
                name: name.to_owned(),
                namespace: namespace.to_owned(),
            },
            labels: BTreeMap::from([(DEPENDENCY.to_owned(), need.to_owned())]),
            optional: false,
            children: Vec::new(),
        }
    }
}

impl Wish {
    /// Keeps the wanted children, and of those the wanted children.
    fn prune(&self, node: &mut Node) {
        node.children.retain(|child| self.wants(child));
        node.children.iter_mut().for_each(|child| self.prune(child));
    }

    fn wants(&self, node: &Node) -> bool {
        let leaves_out = node.optional && self.include_optional_nodes == Some(false);
        let selector = self.label_selector.as_ref();
        !leaves_out && selector.is_none_or(|selector| selector.matches(&node.labels))
    }
}

async fn machine(State(desk): State<Desk>, named: Named, body: Body) -> Result<Response, Refusal> {
    let vm = desk.objects.get(&named.object(Kind::Machine)).await?;
    let vmi = desk.objects.find(&named.object(Kind::Instance)).await?;
    let mut root = Node::new(MACHINE, &named.namespace, &named.name);
    if let Some(vmi) = &vmi {
        let mut node = Node::new(INSTANCE, &named.namespace, &named.name);
        node.children = pods(&desk, vmi).await?;
        // A volume of the template is told below the machine; the instance has more when it was plugged in.
        let plugged = sources(&vmi["spec"], &named.namespace);
        let of_template = sources(&vm["spec"]["template"]["spec"], &named.namespace);
        let plugged = plugged.into_iter().filter(|it| !of_template.contains(it));
        node.children.extend(plugged);
        root.children.push(node);
    }
    let template = &vm["spec"]["template"]["spec"];
    root.children.extend(sources(template, &named.namespace));
    answer(root, body).await
}

async fn instance(State(desk): State<Desk>, named: Named, body: Body) -> Result<Response, Refusal> {
    let vmi = desk.objects.get(&named.object(Kind::Instance)).await?;
    let mut root = Node::new(INSTANCE, &named.namespace, &named.name);
    root.children = pods(&desk, &vmi).await?;
    root.children
        .extend(sources(&vmi["spec"], &named.namespace));
    answer(root, body).await
}

async fn answer(mut root: Node, body: Body) -> Result<Response, Refusal> {
    let wish: Wish = parse(&bytes(body, MAX_OPTIONS_LEN).await?)?;
    wish.prune(&mut root);
    let root = serde_json::to_value(&root).unwrap_or_default();
    Ok(json_response(StatusCode::OK, &root))
}

async fn pods(desk: &Desk, vmi: &Value) -> Result<Vec<Node>, Refusal> {
    let namespace = text(vmi, "/metadata/namespace");
    let uid = text(vmi, "/metadata/uid");
    let query = format!("labelSelector=kubevirt.io%2Fcreated-by%3D{uid}");
    let pods = desk.objects.list(Kind::Pod, namespace, &query).await?;
    let pod = |pod: &Value| Node::new(POD, namespace, text(pod, "/metadata/name"));
    Ok(pods.iter().map(pod).collect())
}

/// Returns the objects that an instance's credentials, volumes and networks come from.
fn sources(spec: &Value, namespace: &str) -> Vec<Node> {
    let list = |field: &str| spec[field].as_array().into_iter().flatten();
    let credentials = list("accessCredentials").flat_map(|it| named(it, &CREDENTIAL_SOURCES));
    let volumes = list("volumes").flat_map(|it| named(it, &VOLUME_SOURCES));
    let objects = credentials.chain(volumes).map(|(sort, name)| {
        let mut node = Node::new(sort, namespace, name);
        if sort == DATA_VOLUME {
            node.children.push(Node::new(CLAIM, namespace, name));
        }
        node
    });
    let networks = list("networks").filter_map(|it| network(it, namespace));
    objects.chain(networks).take(CHILDREN_MAX).collect()
}

fn named<'a>(
    from: &'a Value,
    sources: &'static [(&'static str, Sort)],
) -> impl Iterator<Item = (Sort, &'a str)> {
    let names = sources.iter().map(|(at, sort)| (*sort, text(from, at)));
    names.filter(|(_, name)| !name.is_empty())
}

/// Returns what a secondary network is defined by, `NAME` or `NAMESPACE/NAME`.
fn network(network: &Value, namespace: &str) -> Option<Node> {
    let name = text(network, "/multus/networkName");
    let (namespace, name) = name.split_once('/').unwrap_or((namespace, name));
    let node = Node::new(NETWORK, namespace, name);
    (!name.is_empty()).then_some(Node {
        optional: true,
        ..node
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{MACHINE, Node, Wish, sources};

    fn names(nodes: &[Node]) -> Vec<String> {
        let name = |node: &Node| node.object_reference.name.clone();
        nodes.iter().map(name).collect()
    }

    fn root() -> Node {
        let spec = json!({
            "accessCredentials": [{"userPassword": {"source": {"secret": {"secretName": "password"}}}}],
            "volumes": [
                {"name": "a", "dataVolume": {"name": "dv"}},
                {"name": "b", "cloudInitNoCloud": {"secretRef": {"name": "user-data"}}},
                {"name": "c", "sysprep": {"configMap": {"name": "unattend"}}},
                {"name": "d", "emptyDisk": {"capacity": "1Gi"}},
            ],
            "networks": [{"name": "n", "multus": {"networkName": "lab/blue"}}, {"name": "p", "pod": {}}],
        });
        let mut root = Node::new(MACHINE, "ns", "vm");
        root.children = sources(&spec, "ns");
        root
    }

    #[test]
    fn all_that_a_machine_names_is_found() {
        let root = root();
        let expected = ["password", "dv", "user-data", "unattend", "blue"];
        assert_eq!(names(&root.children), expected);
        assert_eq!(names(&root.children[1].children), ["dv"]);
        let blue = serde_json::to_value(&root.children[4]).unwrap();
        let expected = json!({
            "objectReference": {"apiGroup": "k8s.cni.cncf.io", "kind": "NetworkAttachmentDefinition", "name": "blue", "namespace": "lab"},
            "labels": {"kubevirt.io/dependency-type": "network"},
            "optional": true,
        });
        assert_eq!(blue, expected);
    }

    #[test]
    fn a_question_may_be_for_some_of_them() {
        #[track_caller]
        fn check(wish: serde_json::Value, expected: &[&str]) {
            let wish: Wish = serde_json::from_value(wish).unwrap();
            let mut root = root();
            wish.prune(&mut root);
            assert_eq!(names(&root.children), expected);
        }
        let storage = json!({"matchLabels": {"kubevirt.io/dependency-type": "storage"}});
        check(json!({"labelSelector": storage}), &["dv"]);
        let needed = ["password", "dv", "user-data", "unattend"];
        check(json!({"includeOptionalNodes": false}), &needed);
        let all = ["password", "dv", "user-data", "unattend", "blue"];
        check(
            json!({"includeOptionalNodes": true, "labelSelector": null}),
            &all,
        );
    }
}
