use axum::body::Body;
use http::{Request, StatusCode};
use serde_json::json;
use tower::ServiceExt;

use super::scripted::{Cluster, read};
use super::{SUBRESOURCES, machine};

fn request(path: &str) -> http::request::Builder {
    Request::put(path)
        .header("X-Remote-User", "jane")
        .header("X-Remote-Group", "system:authenticated")
        .header("X-Remote-Group", "admins")
        .header("X-Remote-Extra-Example.com%2Fscope", "all")
}

#[tokio::test]
async fn each_request_is_reviewed_for_its_user() {
    let cluster = Cluster::default();
    cluster.put("virtualmachines", machine("Halted"));
    let path = format!("{SUBRESOURCES}/virtualmachines/vm/start");
    let request = request(&path).body(Body::empty()).unwrap();
    let response = cluster.router(true).oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    let (_, path, review) = cluster.writes().remove(0);
    assert!(
        path.starts_with("/apis/authorization.k8s.io/v1/subjectaccessreviews"),
        "{path}"
    );
    assert_eq!(
        review["spec"],
        json!({
            "user": "jane", "groups": ["system:authenticated", "admins"],
            "extra": {"example.com/scope": ["all"]},
            "resourceAttributes": {
                "group": "subresources.kubevirt.io", "version": "v1", "namespace": "ns",
                "resource": "virtualmachines", "name": "vm", "subresource": "start",
                "verb": "update",
            },
        })
    );
}

#[tokio::test]
async fn who_has_no_right_is_forbidden_and_nothing_is_done() {
    let cluster = Cluster::default();
    cluster.put("virtualmachines", machine("Halted"));
    cluster.deny_access();
    let path = format!("{SUBRESOURCES}/virtualmachines/vm/start");
    let request = request(&path).body(Body::empty()).unwrap();
    let response = cluster.router(true).oneshot(request).await.unwrap();
    let (status, answer) = read(response).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert_eq!(answer["reason"], "Forbidden");
    let message = answer["message"].as_str().unwrap();
    assert!(message.contains("User \"jane\" cannot update"), "{message}");
    assert_eq!(cluster.writes().len(), 1);
}

#[tokio::test]
async fn who_is_not_named_is_not_let_in() {
    let cluster = Cluster::default();
    let path = format!("{SUBRESOURCES}/virtualmachines/vm/start");
    let request = Request::put(path).body(Body::empty()).unwrap();
    let response = cluster.router(true).oneshot(request).await.unwrap();
    assert_eq!(read(response).await.0, StatusCode::UNAUTHORIZED);
    assert!(cluster.writes().is_empty());
}

#[tokio::test]
async fn everybody_may_ask_what_is_there() {
    let cluster = Cluster::default();
    cluster.deny_access();
    for path in [
        "/healthz",
        "/apis/subresources.kubevirt.io",
        "/apis/subresources.kubevirt.io/v1",
        "/apis/subresources.kubevirt.io/v1alpha3/version",
        "/apis/subresources.kubevirt.io/v1/healthz",
    ] {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = cluster.router(true).oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
    }
}
