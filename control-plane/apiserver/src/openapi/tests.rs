use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{answer, version_2};
use crate::catalog::{Catalog, built_in, custom};

fn boxes(description: &str) -> Catalog {
    let crd = json!({
        "metadata": {"name": "boxes.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "boxes", "kind": "Box"},
            "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "description": description}}}}}]},
    });
    let mut catalog = built_in();
    let resource = custom(&crd).unwrap();
    catalog.resources.insert(
        ("example.com".to_owned(), "boxes".to_owned()),
        resource.into(),
    );
    catalog
}

fn hash_of(catalog: &Catalog, place: &str) -> String {
    let index = answer(catalog, "/openapi/v3").unwrap();
    let url = index["paths"][place]["serverRelativeURL"].as_str().unwrap();
    assert!(
        url.starts_with(&format!("/openapi/v3/{place}?hash=")),
        "{url}"
    );
    url.to_owned()
}

fn each_reference(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            found.extend(
                fields
                    .get("$ref")
                    .and_then(Value::as_str)
                    .map(str::to_owned),
            );
            fields.values().for_each(|it| each_reference(it, found));
        }
        Value::Array(items) => items.iter().for_each(|it| each_reference(it, found)),
        _ => {}
    }
}

#[test]
fn the_index_changes_with_what_a_document_is_made_from() {
    let (one, other) = (boxes("one"), boxes("other"));
    assert_eq!(
        hash_of(&one, "apis/example.com/v1"),
        hash_of(&boxes("one"), "apis/example.com/v1")
    );
    assert_ne!(
        hash_of(&one, "apis/example.com/v1"),
        hash_of(&other, "apis/example.com/v1")
    );
    assert_eq!(hash_of(&one, "api/v1"), hash_of(&other, "api/v1"));
}

#[test]
fn every_document_is_whole() {
    let catalog = boxes("some");
    let index = answer(&catalog, "/openapi/v3/").unwrap();
    for place in index["paths"].as_object().unwrap().keys() {
        let document = answer(&catalog, &format!("/openapi/v3/{place}")).unwrap();
        let mut references = BTreeSet::new();
        each_reference(&document, &mut references);
        for reference in references {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{place} {reference}");
        }
    }
}

#[test]
fn operations_say_their_kind_and_take_field_validation() {
    let document = answer(&built_in(), "/openapi/v3/api/v1").unwrap();
    let path = "/api/v1/namespaces/{namespace}/pods";
    let pod = json!({"group": "", "version": "v1", "kind": "Pod"});
    let post = &document["paths"][path]["post"];
    assert_eq!(
        (
            &post["x-kubernetes-action"],
            &post["x-kubernetes-group-version-kind"]
        ),
        (&json!("post"), &pod)
    );
    for (path, action) in [
        (path.to_owned(), "post"),
        (format!("{path}/{{name}}"), "put"),
        (format!("{path}/{{name}}"), "patch"),
    ] {
        let parameters = document["paths"][&path][action]["parameters"]
            .as_array()
            .unwrap();
        assert!(
            parameters.iter().any(|it| it["name"] == "fieldValidation"),
            "{path} {action}"
        );
    }
    let patch = &document["paths"][format!("{path}/{{name}}")]["patch"];
    assert!(
        patch["requestBody"]["content"]
            .get("application/strategic-merge-patch+json")
            .is_some()
    );
    assert_eq!(
        document["paths"]["/api/v1/nodes"]["get"]["x-kubernetes-action"],
        "list"
    );
    assert!(
        document["paths"]
            .get("/api/v1/nodes/{name}/status")
            .is_some()
    );
}

#[test]
fn schemas_describe_fields_and_how_lists_merge() {
    let document = answer(&built_in(), "/openapi/v3/api/v1").unwrap();
    let schemas = &document["components"]["schemas"];
    let pod = &schemas["io.k8s.api.core.v1.Pod"];
    assert_eq!(
        pod["x-kubernetes-group-version-kind"],
        json!([{"group": "", "version": "v1", "kind": "Pod"}])
    );
    assert!(pod["description"].as_str().unwrap().starts_with("Pod is"));
    let spec = &pod["properties"]["spec"];
    assert_eq!(
        spec["allOf"],
        json!([{"$ref": "#/components/schemas/io.k8s.api.core.v1.PodSpec"}])
    );
    assert!(spec["description"].is_string());
    let containers = &schemas["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
    assert_eq!(containers["x-kubernetes-patch-strategy"], "merge");
    assert!(schemas["io.k8s.apimachinery.pkg.api.resource.Quantity"]["oneOf"].is_array());
}

#[test]
fn custom_kinds_have_documents_with_little_else() {
    let document = answer(&boxes("what is in it"), "/openapi/v3/apis/example.com/v1").unwrap();
    let schemas = document["components"]["schemas"].as_object().unwrap();
    let schema = &schemas["com.example.v1.Box"];
    assert_eq!(schema["properties"]["spec"]["description"], "what is in it");
    assert_eq!(schema["x-kubernetes-group-version-kind"][0]["kind"], "Box");
    assert_eq!(schema["properties"]["kind"]["type"], "string");
    assert!(
        schemas.len() < 8,
        "{:?}",
        schemas.keys().collect::<Vec<_>>()
    );
    let path = "/apis/example.com/v1/namespaces/{namespace}/boxes/{name}";
    let patches = &document["paths"][path]["patch"]["requestBody"]["content"];
    assert!(patches.get("application/merge-patch+json").is_some());
    assert!(
        patches
            .get("application/strategic-merge-patch+json")
            .is_none()
    );
}

#[test]
fn the_second_version_is_there_and_says_nothing() {
    let (media, message) = version_2("application/com.github.proto-openapi.spec.v2@v1.0+protobuf");
    assert_eq!(
        (media, message.as_slice()),
        (
            "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
            &b"\x0a\x032.0"[..]
        )
    );
    let (media, text) = version_2("application/json");
    let document: Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(
        (media, &document["swagger"], &document["paths"]),
        ("application/json", &json!("2.0"), &json!({}))
    );
}

#[test]
fn other_paths_are_not_answered() {
    for path in [
        "/openapi/v2",
        "/openapi/v3/apis/none/v1",
        "/openapi/v3/api/v2",
        "/openapi/v3/apis//v1",
        "/openapi/v3x",
    ] {
        assert_eq!(answer(&built_in(), path), None, "{path}");
    }
}
