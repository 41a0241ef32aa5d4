use std::sync::Arc;

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures::FutureExt;
use http::{Request, Response};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::{Admission, Operation};
use crate::access::User;
use crate::proxy::{LocalService, LocalServices};
use crate::store::{Expect, Key, Limits, Store};

/// Answers every review with a response; `uid` is filled in.
fn webhook(response: Value) -> LocalService {
    Arc::new(move |request: Request<Body>| {
        let mut response = response.clone();
        async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let review: Value = serde_json::from_slice(&body).unwrap();
            if response["uid"].is_null() {
                response["uid"] = review["request"]["uid"].clone();
            }
            Response::new(Body::from(json!({"response": response}).to_string()))
        }
        .boxed()
    })
}

struct Scene {
    admission: Admission,
    store: Store,
    user: User,
    _folder: tempfile::TempDir,
}

impl Scene {
    async fn new(kind: &str, mut hook: Value, response: Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path(), Limits::default()).unwrap();
        let services = LocalServices::default();
        services.insert("kubevirt", "virt-api", webhook(response));
        hook["name"] = json!("hook.example");
        let client =
            json!({"service": {"namespace": "kubevirt", "name": "virt-api", "path": "/check"}});
        if hook["clientConfig"].is_null() {
            hook["clientConfig"] = client;
        }
        if hook["rules"].is_null() {
            hook["rules"] = json!([{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["*"], "resources": ["pods"]}]);
        }
        let scene = Self {
            admission: Admission::new(store.clone(), services),
            store,
            user: User::master("admin"),
            _folder: folder,
        };
        let resource = format!("{kind}webhookconfigurations.admissionregistration.k8s.io");
        let object = json!({"metadata": {"name": "c"}, "webhooks": [hook]});
        scene.put(&resource, "c", object).await;
        scene
    }

    async fn put(&self, resource: &str, name: &str, object: Value) {
        let key = Key {
            resource: resource.into(),
            namespace: String::new(),
            name: name.to_owned(),
        };
        self.store.put(key, Expect::Absent, object).await.unwrap();
    }

    fn operation(&self) -> Operation<'_> {
        Operation {
            verb: "CREATE",
            group: "",
            version: "v1",
            resource: "pods",
            subresource: "",
            kind: "Pod",
            object_kind: None,
            namespace: "default",
            name: "p",
            user: &self.user,
            is_dry_run: false,
            options: Value::Null,
        }
    }
}

#[tokio::test]
async fn a_mutating_webhook_patches_and_warns() {
    let patch = STANDARD.encode(r#"[{"op": "add", "path": "/spec", "value": {"a": 1}}]"#);
    let response =
        json!({"allowed": true, "patchType": "JSONPatch", "patch": patch, "warnings": ["old"]});
    let scene = Scene::new("mutating", json!({}), response).await;
    let admitted = scene
        .admission
        .mutate(&scene.operation(), json!({}), &Value::Null)
        .await
        .unwrap();
    assert_eq!(admitted.object, json!({"spec": {"a": 1}}));
    assert_eq!(admitted.warnings, ["old"]);
}

#[tokio::test]
async fn a_refusal_reaches_the_client_with_code_and_causes() {
    let status = json!({"message": "no", "code": 422, "reason": "Invalid", "details": {"causes": [
        {"reason": "FieldValueRequired", "message": "is required", "field": "spec.domain"}]}});
    let response = json!({"allowed": false, "status": status});
    let scene = Scene::new("validating", json!({}), response).await;
    let refused = scene
        .admission
        .validate(&scene.operation(), &json!({}), &Value::Null)
        .await;
    let failure = refused.unwrap_err();
    assert_eq!((failure.code, failure.reason), (422, "Invalid"));
    assert_eq!(
        failure.message,
        "admission webhook \"hook.example\" denied the request: no"
    );
    assert_eq!(failure.causes[0].field, "spec.domain");
}

#[tokio::test]
async fn only_what_rules_and_selectors_name_is_asked_about() {
    let denied = json!({"allowed": false});
    let hook = json!({"namespaceSelector": {"matchLabels": {"vm": "yes"}}, "objectSelector": {"matchExpressions": [
        {"key": "app", "operator": "In", "values": ["x"]}]}});
    let scene = Scene::new("validating", hook, denied).await;
    let labelled = json!({"metadata": {"labels": {"app": "x"}}});
    let ask = |operation, object: Value| {
        let scene = &scene;
        async move {
            scene
                .admission
                .validate(&operation, &object, &Value::Null)
                .await
        }
    };
    assert!(
        ask(scene.operation(), labelled.clone()).await.is_ok(),
        "the namespace has no label"
    );
    scene
        .put(
            "namespaces",
            "default",
            json!({"metadata": {"name": "default", "labels": {"vm": "yes"}}}),
        )
        .await;
    assert!(ask(scene.operation(), labelled.clone()).await.is_err());
    assert!(ask(scene.operation(), json!({})).await.is_ok());
    let update = Operation {
        verb: "UPDATE",
        ..scene.operation()
    };
    assert!(ask(update, labelled.clone()).await.is_ok());
    let status = Operation {
        subresource: "status",
        ..scene.operation()
    };
    assert!(ask(status, labelled).await.is_ok());
}

#[tokio::test]
async fn a_webhook_that_cannot_be_asked_counts_by_its_policy() {
    let elsewhere = json!({"service": {"namespace": "kubevirt", "name": "gone"}});
    let scene = Scene::new("validating", json!({"clientConfig": elsewhere}), json!({})).await;
    let refused = scene
        .admission
        .validate(&scene.operation(), &json!({}), &Value::Null)
        .await;
    let failure = refused.unwrap_err();
    assert_eq!(failure.code, 500);
    assert!(
        failure.message.contains("kubevirt/gone does not run"),
        "{failure}"
    );
    let hook = json!({"clientConfig": elsewhere, "failurePolicy": "Ignore"});
    let scene = Scene::new("validating", hook, json!({})).await;
    let asked = scene
        .admission
        .validate(&scene.operation(), &json!({}), &Value::Null)
        .await;
    assert!(asked.is_ok());
}

#[tokio::test]
async fn an_answer_to_another_question_is_none() {
    let response = json!({"allowed": true, "uid": "another"});
    let scene = Scene::new("validating", json!({}), response).await;
    let asked = scene
        .admission
        .validate(&scene.operation(), &json!({}), &Value::Null)
        .await;
    assert_eq!(asked.unwrap_err().code, 500);
}
