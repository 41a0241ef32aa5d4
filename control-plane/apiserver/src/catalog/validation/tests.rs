use serde_json::{Value, json};

use super::validate_builtin;
use crate::catalog::{built_in, default_builtin};

fn causes(group: &str, plural: &str, old: Option<&Value>, new: &Value) -> Vec<String> {
    let catalog = built_in();
    let resource = catalog.get(group, plural).unwrap();
    let filled = |it: &Value| {
        let mut it = it.clone();
        default_builtin(resource, &mut it);
        it
    };
    let old = old.map(filled);
    let causes = validate_builtin(resource, old.as_ref(), &filled(new));
    causes
        .iter()
        .map(|it| format!("{} {}", it.reason, it.field))
        .collect()
}

fn pod() -> Value {
    json!({"metadata": {"name": "a"}, "spec": {
        "containers": [{"name": "c", "image": "i:1", "volumeMounts": [{"name": "v", "mountPath": "/v"}]}],
        "volumes": [{"name": "v", "emptyDir": {}}],
    }})
}

#[track_caller]
fn check_pod(change: impl FnOnce(&mut Value), expected: &[&str]) {
    let mut pod = pod();
    change(&mut pod);
    assert_eq!(causes("", "pods", None, &pod), expected);
}

#[test]
fn a_good_pod_has_no_causes() {
    check_pod(|_| {}, &[]);
}

#[test]
fn what_is_wrong_with_a_pod_is_named() {
    check_pod(
        |it| it["metadata"]["name"] = json!("A_b"),
        &["FieldValueInvalid metadata.name"],
    );
    check_pod(
        |it| it["metadata"] = json!({}),
        &["FieldValueRequired metadata.name"],
    );
    check_pod(
        |it| it["metadata"]["labels"] = json!({"a b": "c", "a": "-"}),
        &["FieldValueInvalid metadata.labels"; 2],
    );
    check_pod(
        |it| it["spec"]["containers"] = json!([]),
        &["FieldValueRequired spec.containers"],
    );
    check_pod(
        |it| it["spec"]["containers"] = json!([{"name": "c"}, {"name": "c", "image": "x"}]),
        &[
            "FieldValueRequired spec.containers[0].image",
            "FieldValueDuplicate spec.containers[1].name",
        ],
    );
    check_pod(
        |it| it["spec"]["containers"][0]["volumeMounts"][0]["name"] = json!("w"),
        &["FieldValueNotFound spec.containers[0].volumeMounts[0].name"],
    );
    check_pod(
        |it| it["spec"]["containers"][0]["volumeMounts"][0]["subPath"] = json!("../etc"),
        &["FieldValueInvalid spec.containers[0].volumeMounts[0].subPath"],
    );
    check_pod(
        |it| {
            it["spec"]["containers"][0]["ports"] =
                json!([{"containerPort": 0}, {"containerPort": 80, "name": "UP"}]);
        },
        &[
            "FieldValueInvalid spec.containers[0].ports[0].containerPort",
            "FieldValueInvalid spec.containers[0].ports[1].name",
        ],
    );
    check_pod(
        |it| it["spec"]["volumes"][0]["secret"] = json!({"secretName": "s"}),
        &["FieldValueForbidden spec.volumes[0].secret"],
    );
    check_pod(
        |it| it["spec"]["restartPolicy"] = json!("Sometimes"),
        &["FieldValueNotSupported spec.restartPolicy"],
    );
    check_pod(
        |it| {
            it["spec"]["containers"][0]["resources"] =
                json!({"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}});
        },
        &["FieldValueInvalid spec.containers[0].resources.requests"],
    );
    check_pod(
        |it| {
            it["spec"]["containers"][0]["livenessProbe"] =
                json!({"exec": {}, "tcpSocket": {"port": 1}});
        },
        &["FieldValueForbidden spec.containers[0].livenessProbe"],
    );
}

#[test]
fn a_pod_that_runs_changes_its_image_alone() {
    let old = pod();
    let mut new = pod();
    new["spec"]["containers"][0]["image"] = json!("j:2");
    new["spec"]["nodeName"] = json!("here");
    assert_eq!(causes("", "pods", Some(&old), &new), [] as [&str; 0]);
    let mut moved = new.clone();
    moved["spec"]["nodeName"] = json!("there");
    assert_eq!(
        causes("", "pods", Some(&new), &moved),
        ["FieldValueForbidden spec"]
    );
    new["spec"]["containers"][0]["command"] = json!(["x"]);
    assert_eq!(
        causes("", "pods", Some(&old), &new),
        ["FieldValueForbidden spec"]
    );
}

#[track_caller]
fn check(group: &str, plural: &str, new: Value, expected: &[&str]) {
    let mut new = new;
    if new["metadata"].is_null() {
        new["metadata"] = json!({"name": "x"});
    }
    assert_eq!(causes(group, plural, None, &new), expected, "{plural}");
}

#[test]
fn other_kinds_are_checked() {
    check(
        "",
        "services",
        json!({"spec": {"ports": [{"port": 1}, {"port": 2}]}}),
        &[
            "FieldValueRequired spec.ports[0].name",
            "FieldValueRequired spec.ports[1].name",
        ],
    );
    check(
        "",
        "services",
        json!({"spec": {}}),
        &["FieldValueRequired spec.ports"],
    );
    check(
        "",
        "configmaps",
        json!({"data": {"a/b": "c"}}),
        &["FieldValueInvalid data[a/b]"],
    );
    check(
        "",
        "namespaces",
        json!({"metadata": {"name": "a.b"}}),
        &["FieldValueInvalid metadata.name"],
    );
    check(
        "",
        "persistentvolumeclaims",
        json!({"spec": {"resources": {"requests": {"storage": "0"}}}}),
        &[
            "FieldValueRequired spec.accessModes",
            "FieldValueInvalid spec.resources[storage]",
        ],
    );
    check(
        "",
        "persistentvolumes",
        json!({"spec": {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}}}),
        &["FieldValueRequired spec"],
    );
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}});
    check(
        "apps",
        "deployments",
        json!({"spec": {"selector": {"matchLabels": {"a": "c"}}, "template": template}}),
        &["FieldValueInvalid spec.template.metadata.labels"],
    );
    check(
        "apps",
        "deployments",
        json!({"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}}),
        &[],
    );
    check(
        "batch",
        "jobs",
        json!({"spec": {"template": template}}),
        &["FieldValueNotSupported spec.template.spec.restartPolicy"],
    );
    check(
        "rbac.authorization.k8s.io",
        "clusterroles",
        json!({"metadata": {"name": "system:x"}, "rules": [{"verbs": []}]}),
        &[
            "FieldValueRequired rules[0].verbs",
            "FieldValueRequired rules[0].apiGroups",
            "FieldValueRequired rules[0].resources",
        ],
    );
    check(
        "rbac.authorization.k8s.io",
        "rolebindings",
        json!({"roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "ServiceAccount", "name": "s"}]}),
        &["FieldValueRequired subjects[0].namespace"],
    );
    check(
        "policy",
        "poddisruptionbudgets",
        json!({"spec": {"minAvailable": 1, "maxUnavailable": "5%"}}),
        &["FieldValueInvalid spec"],
    );
    check(
        "coordination.k8s.io",
        "leases",
        json!({"spec": {"leaseDurationSeconds": 0}}),
        &["FieldValueInvalid spec.leaseDurationSeconds"],
    );
    check(
        "apiregistration.k8s.io",
        "apiservices",
        json!({"spec": {"group": "g.x", "version": "v1"}}),
        &["FieldValueInvalid metadata.name"],
    );
}

#[test]
fn what_may_not_change_does_not() {
    let secret = |text: &str, kind: &str, immutable: bool| json!({"kind": "Secret", "metadata": {"name": "s"}, "type": kind, "immutable": immutable, "stringData": {"a": text}});
    let changed = causes(
        "",
        "secrets",
        Some(&secret("x", "a", true)),
        &secret("y", "b", true),
    );
    assert_eq!(
        changed,
        ["FieldValueForbidden data", "FieldValueInvalid type"]
    );
    let claim = |class: &str, size: &str| {
        json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": class,
            "resources": {"requests": {"storage": size}}}})
    };
    let plural = "persistentvolumeclaims";
    assert_eq!(
        causes("", plural, Some(&claim("a", "1Gi")), &claim("a", "2Gi")),
        [] as [&str; 0]
    );
    assert_eq!(
        causes("", plural, Some(&claim("a", "1Gi")), &claim("b", "1Gi")),
        ["FieldValueForbidden spec"]
    );
}

#[test]
fn nothing_that_an_object_may_be_makes_validation_panic() {
    let specs = [
        json!(null),
        json!("x"),
        json!({"containers": [1, {"env": [null]}], "ports": [[]], "selector": [], "template": 4, "volumes": [{"name": {}}]}),
    ];
    for resource in built_in().resources.values() {
        for spec in &specs {
            let object = json!({"metadata": {"name": 4, "labels": [], "ownerReferences": [3]}, "spec": spec, "data": spec,
                "rules": spec, "webhooks": [spec], "roleRef": 3});
            let _causes = validate_builtin(resource, Some(spec), &object);
            let _causes = validate_builtin(resource, Some(&object), spec);
        }
    }
}
