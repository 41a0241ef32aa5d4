use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::instance;
use super::scripted::Cluster;

fn review(operation: &str, name: &str, object: &Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "u", "operation": operation, "namespace": "ns", "name": name,
            "userInfo": {"username": "jane"}, "object": object, "oldObject": null,
        },
    })
}

#[tokio::test]
async fn webhooks_read_what_their_answer_depends_on() {
    let cluster = Cluster::default();
    let migration = json!({"metadata": {"name": "m"}, "spec": {"vmiName": "vm"}});
    let review = review("CREATE", "m", &migration);
    let at = "/migration-validate-create";
    let (status, answer) = cluster.ask(Method::POST, at, Some(review.clone())).await;
    assert_eq!(
        (status, &answer["response"]["allowed"]),
        (StatusCode::OK, &json!(false))
    );
    cluster.put("virtualmachineinstances", instance("Running"));
    let (_, answer) = cluster.ask(Method::POST, at, Some(review)).await;
    assert_eq!(answer["response"]["allowed"], true, "{answer}");
}

#[tokio::test]
async fn the_clusters_configuration_decides() {
    let cluster = Cluster::default();
    let at = "/virtualmachineinstances-mutate";
    let asked = review(
        "CREATE",
        "vm",
        &json!({"metadata": {"name": "vm"}, "spec": {"domain": {}}}),
    );
    let status = async |cluster: &Cluster| {
        let (_, answer) = cluster.ask(Method::POST, at, Some(asked.clone())).await;
        let patch = answer["response"]["patch"].as_str().unwrap().to_owned();
        let patch = base64::Engine::decode(&base64::prelude::BASE64_STANDARD, patch).unwrap();
        String::from_utf8(patch).unwrap()
    };
    assert!(status(&cluster).await.contains("runtimeUser"));
    let gates = json!({"developerConfiguration": {"featureGates": ["Root"]}});
    cluster.put(
        "kubevirts",
        json!({"metadata": {"name": "kubevirt"}, "spec": {"configuration": gates}}),
    );
    assert!(!status(&cluster).await.contains("runtimeUser"));
}

#[tokio::test]
async fn an_evicted_machine_that_can_move_is_marked() {
    let cluster = Cluster::default();
    let mut vmi = instance("Running");
    vmi["spec"]["evictionStrategy"] = json!("LiveMigrate");
    vmi["status"]["conditions"] = json!([{"type": "LiveMigratable", "status": "True"}]);
    cluster.put("virtualmachineinstances", vmi);
    cluster.put(
        "pods",
        json!({
            "metadata": {
                "name": "virt-launcher-vm-x", "namespace": "ns",
                "labels": {"kubevirt.io": "virt-launcher"},
                "annotations": {"kubevirt.io/domain": "vm"},
            },
            "spec": {"nodeName": "node"}, "status": {"phase": "Running"},
        }),
    );
    let asked = review("CREATE", "virt-launcher-vm-x", &json!({"metadata": {}}));
    let (_, answer) = cluster
        .ask(Method::POST, "/pod-eviction-validate", Some(asked))
        .await;
    assert_eq!(answer["response"]["status"]["code"], 429);
    let vmi = cluster.get("virtualmachineinstances", "vm");
    assert_eq!(vmi["status"]["evacuationNodeName"], "node");
}

#[tokio::test]
async fn what_is_no_review_is_a_bad_request() {
    let cluster = Cluster::default();
    let at = "/virtualmachines-validate";
    let (status, _) = cluster.ask(Method::POST, at, None).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, _) = cluster.ask(Method::GET, at, None).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
}
