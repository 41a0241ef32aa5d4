//! What a cluster has before anybody uses it: namespaces, the kinds of KubeVirt, the storage class, roles, webhooks.

use futures::future::try_join_all;
use serde_json::{Value, json};

use crate::provisioner::{CLASS, PROVISIONER};
use apiserver::objects::{Objects, Refused};

/// Namespace of KubeVirt's components.
pub const KUBEVIRT: &str = "kubevirt";
/// Namespaces that a cluster has.
const NAMESPACES: [&str; 5] = [
    "default",
    "kube-system",
    "kube-public",
    "kube-node-lease",
    KUBEVIRT,
];

/// Processors of machines that share one of the node's: upstream's ten would let twenty machines onto two cores.
const CPU_ALLOCATION_RATIO: u32 = 100;

/// What cannot be installed.
#[derive(Debug, thiserror::Error)]
#[error("install {what}: {why}")]
pub struct BootstrapError {
    what: String,
    why: Refused,
}

/// What the node is made with.
#[derive(Clone, Debug)]
pub struct Installation {
    /// Whether KVM is of no use here, so that machines must not ask for it.
    pub emulates: bool,
    /// The authority that signs components' certificates, in PEM.
    pub authority: String,
}

/// Installs everything; what is there already is brought up to date, but for what users configure.
///
/// # Errors
///
/// Fails with the first object that the API server refuses.
pub async fn install(objects: &Objects, installation: &Installation) -> Result<(), BootstrapError> {
    apply_all(objects, NAMESPACES.map(namespace).into()).await?;
    for definition in api::crd::all() {
        apply_all(objects, vec![definition]).await?;
    }
    let mut all = vec![storage_class()];
    all.extend(priority_classes());
    all.extend(control_plane::virt_api::cluster_roles());
    all.extend(control_plane::virt_api::api_services());
    all.push(authority(&installation.authority));
    apply_all(objects, all).await?;
    create(objects, &kubevirt(installation)).await?;
    deployed(objects).await?;
    // Last: they ask about everything that is written.
    apply_all(objects, control_plane::virt_api::webhooks()).await
}

async fn apply_all(objects: &Objects, all: Vec<Value>) -> Result<(), BootstrapError> {
    let each = all.iter().map(async |object| {
        let path = path(object);
        let applied = objects.apply(&path, object).await;
        applied
            .map(|_| ())
            .map_err(|why| BootstrapError { what: path, why })
    });
    try_join_all(each).await.map(|_| ())
}

async fn create(objects: &Objects, object: &Value) -> Result<(), BootstrapError> {
    let path = path(object);
    let collection = path
        .rsplit_once('/')
        .map_or(path.as_str(), |(collection, _)| collection);
    match objects.create(collection, object).await {
        Err(why) if why.code != 409 => Err(BootstrapError { what: path, why }),
        _ => Ok(()),
    }
}

/// Returns the path of an object; plurals of our kinds are regular but for these.
fn path(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let version = text(&object["apiVersion"]);
    let base = if version.contains('/') {
        "/apis"
    } else {
        "/api"
    };
    let plural = match object["kind"].as_str().unwrap_or_default() {
        kind if kind.ends_with("Class") => format!("{}es", kind.to_lowercase()),
        kind => format!("{}s", kind.to_lowercase()),
    };
    let name = text(&object["metadata"]["name"]);
    match object["metadata"]["namespace"].as_str() {
        Some(namespace) => format!("{base}/{version}/namespaces/{namespace}/{plural}/{name}"),
        None => format!("{base}/{version}/{plural}/{name}"),
    }
}

fn namespace(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": name, "labels": {"kubernetes.io/metadata.name": name}},
    })
}

fn storage_class() -> Value {
    json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {"name": CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
        "provisioner": PROVISIONER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "Immediate",
    })
}

fn priority_classes() -> Vec<Value> {
    let class = |name: &str, value: i64| {
        json!({
            "apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass",
            "metadata": {"name": name}, "value": value,
        })
    };
    vec![
        class("system-node-critical", 2_000_001_000),
        class("system-cluster-critical", 2_000_000_000),
        class("kubevirt-cluster-critical", 1_000_000_000),
    ]
}

/// The config map in which the components of KubeVirt find whom to believe.
fn authority(certificate: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "kubevirt-ca", "namespace": KUBEVIRT},
        "data": {"ca-bundle": certificate},
    })
}

/// The KubeVirt object, which is the user's from then on. Images come into pods as volumes here.
fn kubevirt(installation: &Installation) -> Value {
    json!({
        "apiVersion": "kubevirt.io/v1", "kind": "KubeVirt",
        "metadata": {"name": "kubevirt", "namespace": KUBEVIRT},
        "spec": {"configuration": {"developerConfiguration": {
            "useEmulation": installation.emulates,
            "cpuAllocationRatio": CPU_ALLOCATION_RATIO,
            "featureGates": ["ImageVolume"],
        }}},
    })
}

/// Says that all of KubeVirt is there: it is this process.
async fn deployed(objects: &Objects) -> Result<(), BootstrapError> {
    let condition = |kind: &str, is: bool, reason: &str, message: &str| {
        json!({
            "type": kind, "status": if is { "True" } else { "False" }, "reason": reason, "message": message,
        })
    };
    let version = env!("CARGO_PKG_VERSION");
    let status = json!({"status": {
        "phase": "Deployed",
        "operatorVersion": version,
        "observedKubeVirtVersion": version,
        "targetKubeVirtVersion": version,
        "defaultArchitecture": "amd64",
        "conditions": [
            condition("Available", true, "AllComponentsReady", "All components are ready."),
            condition("Progressing", false, "AllComponentsReady", "All components are ready."),
            condition("Degraded", false, "AllComponentsReady", "All components are ready."),
            condition("Created", true, "AllResourcesCreated", "All resources were created."),
        ],
    }});
    let path = format!("/apis/kubevirt.io/v1/namespaces/{KUBEVIRT}/kubevirts/kubevirt/status");
    let told = objects.merge(&path, &status).await;
    told.map(|_| ())
        .map_err(|why| BootstrapError { what: path, why })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::path;

    #[test]
    fn objects_have_paths() {
        for (object, wanted) in [
            (
                json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}),
                "/api/v1/namespaces/a",
            ),
            (
                json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "c"}}),
                "/apis/storage.k8s.io/v1/storageclasses/c",
            ),
            (
                json!({"apiVersion": "kubevirt.io/v1", "kind": "KubeVirt", "metadata": {"name": "k", "namespace": "n"}}),
                "/apis/kubevirt.io/v1/namespaces/n/kubevirts/k",
            ),
        ] {
            assert_eq!(path(&object), wanted);
        }
    }
}
