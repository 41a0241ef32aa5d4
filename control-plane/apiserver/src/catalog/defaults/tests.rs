use serde_json::{Value, json};

use super::default_builtin;
use crate::catalog::built_in;

fn filled(group: &str, plural: &str, object: &Value) -> Value {
    let catalog = built_in();
    let resource = catalog.get(group, plural).unwrap();
    let mut once = object.clone();
    default_builtin(resource, &mut once);
    let mut twice = once.clone();
    default_builtin(resource, &mut twice);
    assert_eq!(once, twice, "filling again changes nothing");
    let causes = resource.versions[0].schema.validate(&once);
    assert_eq!(causes, Vec::new(), "defaults fit the schema");
    once
}

#[test]
fn a_pod_gets_what_kubelets_and_clients_rely_on() {
    let pod = filled(
        "",
        "pods",
        &json!({"metadata": {"name": "a", "creationTimestamp": null}, "spec": {
        "containers": [
            {"name": "a", "image": "registry:5000/a", "ports": [{"containerPort": 80}],
                "resources": {"limits": {"memory": "1Gi"}}, "readinessProbe": {"httpGet": {"port": 80}}},
            {"name": "b", "image": "b:1"}],
        "volumes": [{"name": "v"}, {"name": "c", "configMap": {"name": "c"}}]}}),
    );
    let spec = &pod["spec"];
    assert_eq!(spec["restartPolicy"], "Always");
    assert_eq!(spec["dnsPolicy"], "ClusterFirst");
    assert_eq!(spec["terminationGracePeriodSeconds"], 30);
    assert_eq!(spec["enableServiceLinks"], true);
    let container = &spec["containers"][0];
    assert_eq!(container["imagePullPolicy"], "Always");
    assert_eq!(spec["containers"][1]["imagePullPolicy"], "IfNotPresent");
    assert_eq!(container["resources"]["requests"]["memory"], "1Gi");
    assert_eq!(container["ports"][0]["protocol"], "TCP");
    assert_eq!(
        container["readinessProbe"],
        json!({"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1, "periodSeconds": 10,
            "successThreshold": 1, "failureThreshold": 3})
    );
    assert_eq!(
        spec["volumes"],
        json!([{"name": "v", "emptyDir": {}}, {"name": "c", "configMap": {"name": "c", "defaultMode": 420}}])
    );
    assert_eq!(
        pod["status"],
        json!({"phase": "Pending", "qosClass": "Burstable"})
    );
    assert_eq!(pod["metadata"], json!({"name": "a"}));
}

#[test]
fn texts_of_a_secret_become_data() {
    let secret = filled(
        "",
        "secrets",
        &json!({"metadata": {}, "data": {"a": "eA=="}, "stringData": {"b": "hello", "a": "y"}}),
    );
    assert_eq!(
        secret,
        json!({"metadata": {}, "type": "Opaque", "data": {"a": "eQ==", "b": "aGVsbG8="}})
    );
}

#[test]
fn deployments_and_jobs_are_filled_with_their_templates() {
    let template = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "a", "image": "a:1"}]}});
    let deployment = filled(
        "apps",
        "deployments",
        &json!({"metadata": {}, "spec": {"selector": {}, "template": template}}),
    );
    assert_eq!(
        deployment["spec"]["strategy"]["rollingUpdate"]["maxSurge"],
        "25%"
    );
    assert_eq!(
        deployment["spec"]["template"]["spec"]["schedulerName"],
        "default-scheduler"
    );
    assert_eq!(
        deployment["spec"]["template"]["spec"].get("enableServiceLinks"),
        None
    );
    let job = filled(
        "batch",
        "jobs",
        &json!({"metadata": {}, "spec": {"template": template}}),
    );
    assert_eq!(
        (&job["spec"]["completions"], &job["spec"]["backoffLimit"]),
        (&json!(1), &json!(6))
    );
}

#[test]
fn other_kinds_are_filled() {
    #[track_caller]
    fn check(group: &str, plural: &str, object: &Value, at: &str, expected: &Value) {
        let filled = filled(group, plural, object);
        assert_eq!(filled.pointer(at), Some(expected), "{plural} {at}");
    }
    let named = |it: Value| json!({"metadata": {"name": "x"}, "spec": it});
    check(
        "",
        "services",
        &named(json!({"ports": [{"port": 80}]})),
        "/spec/ports/0/targetPort",
        &json!(80),
    );
    for left_out in [json!(0), json!("")] {
        let ports = json!([{"port": 80, "targetPort": left_out}]);
        let service = named(json!({"ports": ports}));
        let at = "/spec/ports/0/targetPort";
        check("", "services", &service, at, &json!(80));
    }
    check(
        "",
        "services",
        &named(json!({})),
        "/spec/type",
        &json!("ClusterIP"),
    );
    check(
        "",
        "persistentvolumeclaims",
        &named(json!({})),
        "/spec/volumeMode",
        &json!("Filesystem"),
    );
    check(
        "",
        "namespaces",
        &named(json!({})),
        "/metadata/labels/kubernetes.io~1metadata.name",
        &json!("x"),
    );
    let binding = json!({"metadata": {}, "roleRef": {"kind": "Role", "name": "r"}, "subjects": [{"kind": "User", "name": "u"}]});
    check(
        "rbac.authorization.k8s.io",
        "rolebindings",
        &binding,
        "/subjects/0/apiGroup",
        &json!("rbac.authorization.k8s.io"),
    );
    let class = json!({"metadata": {}, "provisioner": "p"});
    check(
        "storage.k8s.io",
        "storageclasses",
        &class,
        "/volumeBindingMode",
        &json!("Immediate"),
    );
}

#[test]
fn nothing_that_an_object_may_be_makes_defaults_panic() {
    for resource in built_in().resources.values() {
        for spec in [
            json!(null),
            json!([1]),
            json!("x"),
            json!({"template": [], "volumes": {}, "containers": [1, null], "ports": 3, "names": 1}),
        ] {
            for mut object in [
                spec.clone(),
                json!({"spec": spec, "status": 1, "metadata": []}),
            ] {
                default_builtin(resource, &mut object);
            }
        }
    }
}
