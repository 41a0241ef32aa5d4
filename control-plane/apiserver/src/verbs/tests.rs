//! Requests to a whole server in this process.

mod objects;
mod parts;
mod watches;

use axum::body::Body;
use http::{Request, StatusCode};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};

use crate::access::User;
use crate::server::{ApiServer, Options};

/// A server with the namespace `default`, and its directory.
struct Fixture {
    server: ApiServer,
    _directory: tempfile::TempDir,
}

impl Fixture {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = Options::new(directory.path(), vec![7; 32]);
        let server = ApiServer::open(options).unwrap();
        let fixture = Self {
            server,
            _directory: directory,
        };
        fixture
            .create(
                "/api/v1/namespaces",
                &json!({"metadata": {"name": "default"}}),
            )
            .await;
        fixture.define_widgets();
        fixture
    }

    /// Adds a custom kind with status, scale and two versions.
    fn define_widgets(&self) {
        let properties = json!({
            "type": "object",
            "properties": {
                "spec": {"type": "object", "properties": {
                    "replicas": {"type": "integer", "minimum": 0},
                    "colour": {"type": "string", "default": "grey"},
                    "parts": {"type": "array", "items": {"type": "object", "properties": {"name": {"type": "string"}}}},
                }},
                "status": {"type": "object", "properties": {
                    "replicas": {"type": "integer"}, "phase": {"type": "string"}, "selector": {"type": "string"},
                }},
            },
        });
        let version = |name: &str, is_storage: bool| {
            json!({
                "name": name, "served": true, "storage": is_storage,
                "schema": {"openAPIV3Schema": properties},
                "subresources": {"status": {}, "scale": {
                    "specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas",
                    "labelSelectorPath": ".status.selector",
                }},
            })
        };
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "widgets.example.org"},
            "spec": {
                "group": "example.org", "scope": "Namespaced",
                "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"},
                "versions": [version("v1", true), version("v1beta1", false)],
            },
        });
        let widgets = crate::catalog::custom(&definition).unwrap();
        let mut catalog = (*self.server.registry().catalog()).clone();
        let place = (widgets.group.clone(), widgets.plural.clone());
        catalog.resources.insert(place, widgets.into());
        self.server.registry().replace(catalog);
    }

    async fn send(&self, request: Request<Body>) -> Answer {
        let mut request = request;
        request.extensions_mut().insert(User::master("tests"));
        let response = self.server.call(request).await;
        let (parts, body) = response.into_parts();
        let bytes = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let warnings = parts.headers.get_all("warning").iter();
        Answer {
            status: parts.status,
            body,
            text: String::from_utf8(bytes.to_vec()).unwrap(),
            warnings: warnings.map(|it| it.to_str().unwrap().to_owned()).collect(),
        }
    }

    async fn ask(&self, method: &str, path: &str, media: &str, body: &Value) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", media);
        let body = if body.is_null() {
            Body::empty()
        } else {
            Body::from(body.to_string())
        };
        self.send(request.body(body).unwrap()).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "application/json", &Value::Null)
            .await
    }

    async fn get_as(&self, path: &str, accept: &str) -> Answer {
        let request = Request::builder().uri(path).header("accept", accept);
        self.send(request.body(Body::empty()).unwrap()).await
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask("POST", path, "application/json", body).await
    }

    async fn put(&self, path: &str, body: &Value) -> Answer {
        self.ask("PUT", path, "application/json", body).await
    }

    async fn merge(&self, path: &str, body: &Value) -> Answer {
        self.ask("PATCH", path, "application/merge-patch+json", body)
            .await
    }

    async fn delete(&self, path: &str, options: &Value) -> Answer {
        self.ask("DELETE", path, "application/json", options).await
    }

    async fn create(&self, path: &str, body: &Value) -> Value {
        let answer = self.post(path, body).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
        answer.body
    }
}

#[derive(Debug)]
struct Answer {
    status: StatusCode,
    body: Value,
    text: String,
    warnings: Vec<String>,
}

impl Answer {
    fn ok(self) -> Value {
        assert!(self.status.is_success(), "{} {}", self.status, self.text);
        self.body
    }

    /// Checks that it failed so, and returns what it says.
    fn failed(self, code: u16, reason: &str) -> String {
        assert_eq!(
            (self.status.as_u16(), &self.body["reason"]),
            (code, &json!(reason)),
            "{}",
            self.text
        );
        assert_eq!(
            (&self.body["kind"], &self.body["code"]),
            (&json!("Status"), &json!(code))
        );
        self.body["message"].as_str().unwrap_or_default().to_owned()
    }
}

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";
const WIDGETS: &str = "/apis/example.org/v1/namespaces/default/widgets";

fn map(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": "1"}})
}

fn widget(name: &str) -> Value {
    json!({"apiVersion": "example.org/v1", "kind": "Widget", "metadata": {"name": name}, "spec": {"replicas": 1}})
}

fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {"containers": [{"name": "main", "image": "example.org/a:1"}]},
    })
}

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().unwrap();
    items
        .iter()
        .map(|it| it["metadata"]["name"].as_str().unwrap().to_owned())
        .collect()
}
