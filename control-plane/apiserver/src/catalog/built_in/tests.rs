use serde_json::{Map, Value, json};

use super::built_in;
use crate::catalog::lazy::Source;
use crate::catalog::native;
use crate::schema::{ListType, Schema};

/// Returns the definitions of all kinds.
pub(in crate::catalog) fn all_definitions() -> Map<String, Value> {
    let catalog = built_in();
    let types: Vec<_> = catalog
        .resources
        .values()
        .filter_map(|it| match it.versions[0].schema.source() {
            Source::Native(generate) => Some(*generate),
            Source::Made | Source::Text(_) => None,
        })
        .collect();
    native::definitions(&types).0
}

fn schema(group: &str, plural: &str) -> std::sync::Arc<Schema> {
    let catalog = built_in();
    let resource = catalog.get(group, plural).unwrap();
    std::sync::Arc::clone(resource.versions[0].schema.get())
}

#[test]
fn every_kind_has_a_schema_that_knows_its_metadata() {
    for resource in built_in().resources.values() {
        let schema = resource.versions[0].schema.get();
        let metadata = &schema.properties["metadata"];
        assert!(
            metadata.properties.contains_key("ownerReferences"),
            "{}",
            resource.kind
        );
        assert!(!schema.keeps_unknown, "{}", resource.kind);
    }
}

#[test]
fn kinds_are_named_and_scoped_as_kubernetes_has_them() {
    let catalog = built_in();
    let pods = catalog.get("", "pods").unwrap();
    assert_eq!((pods.kind.as_str(), pods.singular.as_str()), ("Pod", "pod"));
    assert_eq!(
        (pods.short_names.as_slice(), pods.categories.as_slice()),
        (&["po".to_owned()][..], &["all".to_owned()][..])
    );
    assert!(pods.is_namespaced && pods.versions[0].has_status && pods.is_stored());
    let nodes = catalog.get("", "nodes").unwrap();
    assert!(!nodes.is_namespaced);
    let review = catalog
        .get("authentication.k8s.io", "tokenreviews")
        .unwrap();
    assert!(!review.is_stored());
    let deployment = catalog.of_kind("apps", "Deployment").unwrap();
    assert_eq!(
        deployment.versions[0].scale.as_ref().unwrap().spec_replicas,
        ".spec.replicas"
    );
    let definitions = catalog
        .get("apiextensions.k8s.io", "customresourcedefinitions")
        .unwrap();
    assert_eq!(definitions.singular, "customresourcedefinition");
    assert_eq!(catalog.resources.len(), 51);
}

#[test]
fn lists_of_pods_merge_by_their_keys() {
    let pod = schema("", "pods");
    let spec = &pod.properties["spec"];
    let containers = &spec.properties["containers"];
    assert_eq!(containers.list, ListType::Map(vec!["name".to_owned()]));
    assert_eq!(containers.merge_key, "name");
    let container = containers.items.as_ref().unwrap();
    let ports = &container.properties["ports"];
    assert_eq!(
        ports.list,
        ListType::Map(vec!["containerPort".to_owned(), "protocol".to_owned()])
    );
    assert_eq!(ports.merge_key, "containerPort");
    assert_eq!(container.properties["command"].list, ListType::Atomic);
    assert!(pod.properties["metadata"].properties["finalizers"].merges_items);
    assert!(spec.properties["nodeSelector"].is_atomic_map);
    assert_eq!(spec.properties["tolerations"].merge_key, "");
}

#[test]
fn a_pod_is_pruned_and_checked() {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "creationTimestamp": null, "typo": 1},
        "spec": {"containers": [{"name": "c", "image": "i", "imagee": "typo",
            "resources": {"requests": {"cpu": "100m", "memory": 5, "any/thing": "1"}}, "livenessProbe":
            {"httpGet": {"port": "http"}}}], "restart": "Never"},
        "status": {"containerStatuses": [{"name": "c"}], "conditions": [{"type": "Ready"}]},
    });
    let schema = schema("", "pods");
    let mut removed = schema.prune(&mut pod);
    removed.sort();
    assert_eq!(
        removed,
        ["metadata.typo", "spec.containers[0].imagee", "spec.restart"]
    );
    assert_eq!(schema.validate(&pod), Vec::new());
    pod["spec"]["containers"][0]["resources"]["requests"]["cpu"] = json!("many");
    pod["spec"]["hostNetwork"] = json!("yes");
    let causes = schema.validate(&pod);
    let fields: Vec<_> = causes.iter().map(|it| it.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "spec.containers[0].resources.requests.cpu",
            "spec.hostNetwork"
        ]
    );
}

#[test]
fn definitions_of_custom_resources_keep_the_schemas_inside_them() {
    let schema = schema("apiextensions.k8s.io", "customresourcedefinitions");
    let inner = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"a":
        {"type": "array", "items": {"type": "string", "x-kubernetes-int-or-string": true}}}}}});
    let mut crd = json!({"metadata": {}, "spec": {"group": "x", "scope": "Namespaced", "names": {"kind": "A", "plural": "as"},
        "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": inner}}]}});
    assert_eq!(schema.prune(&mut crd), Vec::<String>::new());
    assert_eq!(
        crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"],
        inner
    );
    assert_eq!(schema.validate(&crd), Vec::new());
}

#[test]
fn controller_revisions_and_applied_fields_keep_any_data() {
    let mut revision = json!({"metadata": {"managedFields": [{"fieldsV1": {"f:data": {".": {}}}}]}, "revision": 1,
        "data": {"spec": {"any": [1, {"b": null}]}}});
    let before = revision.clone();
    let schema = schema("apps", "controllerrevisions");
    assert_eq!(schema.prune(&mut revision), Vec::<String>::new());
    assert_eq!(revision, before);
}

#[test]
fn kinds_share_what_they_have_in_common() {
    let pod = schema("", "pods");
    let deployment = schema("apps", "deployments");
    let template = &deployment.properties["spec"].properties["template"];
    assert!(std::sync::Arc::ptr_eq(
        &pod.properties["spec"],
        &template.properties["spec"]
    ));
}
