//! How lists and maps of built-in kinds merge (the markers `listType`, `listMapKey`, `patchMergeKey`, `patchStrategy`,
//! `structType` of the Kubernetes types), which k8s-openapi leaves out.

use serde_json::{Map, Value, json};

const API: &str = "io.k8s.api.";
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";

/// How one list merges.
enum Merge {
    /// Items are found by one field, both by apply and by strategic merge patches.
    By(&'static str),
    /// The same, and strategic merge patches of clients say which fields of an item stay.
    Retaining(&'static str),
    /// Items are found by one field by strategic merge patches, and replaced as a whole by apply.
    StrategicBy(&'static str),
    /// Items are found by several fields by apply, by the first alone by strategic merge patches.
    ByAll(&'static [&'static str]),
    /// Items are found by one field by apply, and replaced as a whole by strategic merge patches.
    ApplyBy(&'static str),
    /// Equal items are there once; strategic merge patches add to them.
    Set,
    /// Equal items are there once; strategic merge patches replace all.
    ApplySet,
    /// A map that is replaced as a whole by apply.
    AtomicMap,
    /// An object of which a strategic merge patch of a client retains only the fields that it names.
    RetainKeys,
}

use Merge::{ApplyBy, ApplySet, AtomicMap, By, ByAll, RetainKeys, Retaining, Set, StrategicBy};

/// Type (after `io.k8s.api.`), field, how it merges.
const FIELDS: &[(&str, &str, Merge)] = &[
    (
        "admissionregistration.v1.MutatingWebhook",
        "matchConditions",
        By("name"),
    ),
    (
        "admissionregistration.v1.MutatingWebhookConfiguration",
        "webhooks",
        By("name"),
    ),
    (
        "admissionregistration.v1.ValidatingWebhook",
        "matchConditions",
        By("name"),
    ),
    (
        "admissionregistration.v1.ValidatingWebhookConfiguration",
        "webhooks",
        By("name"),
    ),
    ("apps.v1.DaemonSetStatus", "conditions", By("type")),
    ("apps.v1.DeploymentSpec", "strategy", RetainKeys),
    ("apps.v1.DeploymentStatus", "conditions", By("type")),
    ("apps.v1.ReplicaSetStatus", "conditions", By("type")),
    ("apps.v1.StatefulSetStatus", "conditions", By("type")),
    (
        "autoscaling.v2.HorizontalPodAutoscalerStatus",
        "conditions",
        By("type"),
    ),
    ("batch.v1.JobStatus", "conditions", StrategicBy("type")),
    (
        "batch.v1.PodFailurePolicyOnExitCodesRequirement",
        "values",
        ApplySet,
    ),
    ("batch.v1.UncountedTerminatedPods", "failed", ApplySet),
    ("batch.v1.UncountedTerminatedPods", "succeeded", ApplySet),
    ("core.v1.Container", "env", By("name")),
    (
        "core.v1.Container",
        "ports",
        ByAll(&["containerPort", "protocol"]),
    ),
    ("core.v1.Container", "volumeDevices", By("devicePath")),
    ("core.v1.Container", "volumeMounts", By("mountPath")),
    (
        "core.v1.ContainerStatus",
        "allocatedResourcesStatus",
        By("name"),
    ),
    ("core.v1.ContainerStatus", "volumeMounts", By("mountPath")),
    ("core.v1.EphemeralContainer", "env", By("name")),
    (
        "core.v1.EphemeralContainer",
        "ports",
        ByAll(&["containerPort", "protocol"]),
    ),
    (
        "core.v1.EphemeralContainer",
        "volumeDevices",
        By("devicePath"),
    ),
    (
        "core.v1.EphemeralContainer",
        "volumeMounts",
        By("mountPath"),
    ),
    ("core.v1.NamespaceStatus", "conditions", By("type")),
    ("core.v1.NodeSpec", "podCIDRs", Set),
    ("core.v1.NodeStatus", "addresses", By("type")),
    ("core.v1.NodeStatus", "conditions", By("type")),
    (
        "core.v1.PersistentVolumeClaimStatus",
        "conditions",
        By("type"),
    ),
    ("core.v1.PodSpec", "containers", By("name")),
    ("core.v1.PodSpec", "ephemeralContainers", By("name")),
    ("core.v1.PodSpec", "hostAliases", By("ip")),
    ("core.v1.PodSpec", "imagePullSecrets", By("name")),
    ("core.v1.PodSpec", "initContainers", By("name")),
    ("core.v1.PodSpec", "nodeSelector", AtomicMap),
    ("core.v1.PodSpec", "resourceClaims", Retaining("name")),
    ("core.v1.PodSpec", "schedulingGates", By("name")),
    (
        "core.v1.PodSpec",
        "topologySpreadConstraints",
        ByAll(&["topologyKey", "whenUnsatisfiable"]),
    ),
    ("core.v1.PodSpec", "volumes", Retaining("name")),
    ("core.v1.PodStatus", "conditions", By("type")),
    ("core.v1.PodStatus", "podIPs", By("ip")),
    (
        "core.v1.PodStatus",
        "resourceClaimStatuses",
        Retaining("name"),
    ),
    ("core.v1.ReplicationControllerSpec", "selector", AtomicMap),
    (
        "core.v1.ReplicationControllerStatus",
        "conditions",
        By("type"),
    ),
    ("core.v1.ResourceRequirements", "claims", ApplyBy("name")),
    ("core.v1.ServiceAccount", "secrets", By("name")),
    ("core.v1.ServiceSpec", "ports", ByAll(&["port", "protocol"])),
    ("core.v1.ServiceSpec", "selector", AtomicMap),
    ("core.v1.ServiceStatus", "conditions", By("type")),
    ("discovery.v1.Endpoint", "addresses", ApplySet),
    ("node.v1.Scheduling", "nodeSelector", AtomicMap),
    (
        "policy.v1.PodDisruptionBudgetStatus",
        "conditions",
        By("type"),
    ),
    ("storage.v1.CSIDriverSpec", "volumeLifecycleModes", ApplySet),
    ("storage.v1.CSINodeSpec", "drivers", By("name")),
];

/// The same of types that are in other places.
const OTHER_FIELDS: &[(&str, &str, Merge)] = &[
    (
        "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta",
        "finalizers",
        Set,
    ),
    (
        "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta",
        "ownerReferences",
        By("uid"),
    ),
    (
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinitionStatus",
        "conditions",
        ApplyBy("type"),
    ),
    (
        "io.k8s.kube-aggregator.pkg.apis.apiregistration.v1.APIServiceStatus",
        "conditions",
        By("type"),
    ),
];

/// Types that apply replaces as a whole.
const ATOMIC: &[&str] = &[
    "core.v1.ConfigMapKeySelector",
    "core.v1.EndpointAddress",
    "core.v1.EndpointPort",
    "core.v1.LocalObjectReference",
    "core.v1.NodeSelector",
    "core.v1.NodeSelectorTerm",
    "core.v1.ObjectFieldSelector",
    "core.v1.ObjectReference",
    "core.v1.ResourceFieldSelector",
    "core.v1.ScopeSelector",
    "core.v1.SecretKeySelector",
    "core.v1.SecretReference",
    "core.v1.TopologySelectorTerm",
    "core.v1.TypedLocalObjectReference",
    "rbac.v1.RoleRef",
    "rbac.v1.Subject",
];

/// Adds to definitions how their lists and maps merge, as the OpenAPI documents of Kubernetes say it.
pub(super) fn annotate(definitions: &mut Map<String, Value>) {
    let fields = FIELDS.iter();
    let fields = fields.map(|(name, field, merge)| (format!("{API}{name}"), *field, merge));
    let others = OTHER_FIELDS.iter();
    let others = others.map(|(name, field, merge)| ((*name).to_owned(), *field, merge));
    for (name, field, merge) in fields.chain(others) {
        let field = definitions.get_mut(&name).and_then(|it| {
            it.pointer_mut(&format!("/properties/{field}"))?
                .as_object_mut()
        });
        if let Some(field) = field {
            field.extend(merge.keywords());
        }
    }
    let atomic = ATOMIC.iter().map(|it| format!("{API}{it}"));
    let selector = ["LabelSelector", "OwnerReference"].map(|it| format!("{META}{it}"));
    for name in atomic.chain(selector) {
        if let Some(Value::Object(definition)) = definitions.get_mut(&name) {
            definition.extend(AtomicMap.keywords());
        }
    }
}

impl Merge {
    fn keywords(&self) -> Map<String, Value> {
        let keywords = match self {
            By(key) => json!({
                "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key],
                "x-kubernetes-patch-merge-key": key, "x-kubernetes-patch-strategy": "merge",
            }),
            Retaining(key) => json!({
                "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key],
                "x-kubernetes-patch-merge-key": key, "x-kubernetes-patch-strategy": "merge,retainKeys",
            }),
            StrategicBy(key) => json!({
                "x-kubernetes-list-type": "atomic",
                "x-kubernetes-patch-merge-key": key, "x-kubernetes-patch-strategy": "merge",
            }),
            ByAll(keys) => json!({
                "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": keys,
                "x-kubernetes-patch-merge-key": keys[0], "x-kubernetes-patch-strategy": "merge",
            }),
            ApplyBy(key) => {
                json!({"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]})
            }
            Set => json!({"x-kubernetes-list-type": "set", "x-kubernetes-patch-strategy": "merge"}),
            ApplySet => json!({"x-kubernetes-list-type": "set"}),
            AtomicMap => json!({"x-kubernetes-map-type": "atomic"}),
            RetainKeys => json!({"x-kubernetes-patch-strategy": "retainKeys"}),
        };
        match keywords {
            Value::Object(keywords) => keywords,
            _ => Map::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{API, ATOMIC, FIELDS, OTHER_FIELDS};
    use crate::catalog::built_in::all_definitions;

    /// A slip of the pen in the tables above would change nothing and be seen by nobody.
    #[test]
    fn every_row_names_a_field_that_there_is() {
        let definitions = all_definitions();
        let fields = FIELDS
            .iter()
            .map(|(name, field, _)| (format!("{API}{name}"), field));
        let others = OTHER_FIELDS
            .iter()
            .map(|(name, field, _)| ((*name).to_owned(), field));
        for (name, field) in fields.chain(others) {
            assert!(
                definitions[&name]["properties"].get(field).is_some(),
                "{name} {field}"
            );
        }
        for name in ATOMIC {
            assert!(definitions.contains_key(&format!("{API}{name}")), "{name}");
        }
    }
}
