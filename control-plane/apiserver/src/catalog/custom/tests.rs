use std::cmp::Reverse;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{custom, custom_stored, is_established, priority};
use crate::catalog::{Catalog, built_in, crd_status};
use crate::failure::Cause;

fn crd() -> Value {
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {"size": {"type": "integer", "default": 1}}},
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    }});
    let version = |name: &str, storage: bool| {
        json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": schema},
            "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"}},
            "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size", "priority": 1}]})
    };
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "boxes.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "boxes", "kind": "Box", "shortNames": ["bx"], "categories": ["all"]},
            "versions": [version("v1alpha1", false), version("v1", true)]},
    })
}

fn wrong(change: impl FnOnce(&mut Value)) -> Vec<Cause> {
    let mut crd = crd();
    change(&mut crd);
    custom(&crd).unwrap_err()
}

#[track_caller]
fn check(change: impl FnOnce(&mut Value), expected: &[&str]) {
    let causes = wrong(change);
    let fields: Vec<_> = causes
        .iter()
        .map(|it| format!("{} {}", it.reason, it.field))
        .collect();
    assert_eq!(fields, expected);
}

#[test]
fn a_definition_makes_a_resource() {
    let resource = custom(&crd()).unwrap();
    assert_eq!(
        (
            resource.group.as_str(),
            resource.plural.as_str(),
            resource.singular.as_str(),
            resource.list_kind.as_str()
        ),
        ("example.com", "boxes", "box", "BoxList")
    );
    assert_eq!(
        (
            resource.short_names.as_slice(),
            resource.categories.as_slice()
        ),
        (&["bx".to_owned()][..], &["all".to_owned()][..])
    );
    assert!(resource.is_namespaced && resource.is_custom && resource.is_stored());
    let names: Vec<_> = resource
        .versions
        .iter()
        .map(|it| it.name.as_str())
        .collect();
    assert_eq!(
        names,
        ["v1", "v1alpha1"],
        "the preferred version comes first"
    );
    assert_eq!(resource.storage().name, "v1");
    let version = &resource.versions[0];
    assert!(version.has_status);
    assert_eq!(version.scale.as_ref().unwrap().spec_replicas, ".spec.size");
    assert_eq!(
        (
            version.columns[0].name.as_str(),
            version.columns[0].priority
        ),
        ("Size", 1)
    );
    let (one, other) = (version.schema.get(), resource.versions[1].schema.get());
    assert!(
        std::sync::Arc::ptr_eq(one, other),
        "versions with the same schema share it"
    );
    let mut object = json!({"apiVersion": "x", "kind": "Box", "metadata": {"name": "a", "unknown": 1}, "spec": {"siez": 1}});
    let removed = version.schema.prune(&mut object);
    version.schema.fill_defaults(&mut object);
    assert_eq!(removed, ["metadata.unknown", "spec.siez"]);
    assert_eq!(object["spec"], json!({"size": 1}));
}

#[test]
fn a_stored_definition_makes_its_resource_again() {
    let resource = custom_stored(&crd()).unwrap();
    assert_eq!(
        (resource.plural.as_str(), resource.storage().name.as_str()),
        ("boxes", "v1")
    );
    assert!(custom_stored(&json!({})).is_none());
    let mut crd = crd();
    crd["spec"]["versions"][1]["storage"] = json!(false);
    assert!(custom_stored(&crd).is_none());
}

#[test]
fn our_own_definitions_are_structural() {
    for definition in api::crd::all() {
        let resource = custom(&definition);
        assert_eq!(resource.err(), None, "{}", definition["metadata"]["name"]);
    }
}

#[test]
fn deprecated_versions_warn() {
    let mut crd = crd();
    crd["spec"]["versions"][0]["deprecated"] = json!(true);
    let resource = custom(&crd).unwrap();
    assert_eq!(
        resource.versions[1].deprecation.as_deref(),
        Some("example.com/v1alpha1 Box is deprecated")
    );
    crd["spec"]["versions"][0]["deprecationWarning"] = json!("use v1");
    let resource = custom(&crd).unwrap();
    assert_eq!(resource.versions[1].deprecation.as_deref(), Some("use v1"));
}

#[test]
fn what_is_wrong_with_a_definition_is_named() {
    check(
        |it| it["metadata"]["name"] = json!("box"),
        &["FieldValueInvalid metadata.name"],
    );
    check(
        |it| it["spec"]["scope"] = json!("World"),
        &["FieldValueNotSupported spec.scope"],
    );
    check(
        |it| it["spec"]["versions"] = json!([]),
        &["FieldValueRequired spec.versions"],
    );
    check(
        |it| it["spec"]["versions"][0]["storage"] = json!(true),
        &["FieldValueInvalid spec.versions"],
    );
    check(
        |it| it["spec"]["versions"][0]["schema"] = Value::Null,
        &["FieldValueRequired spec.versions[0].schema.openAPIV3Schema"],
    );
    check(
        |it| it["spec"]["names"]["shortNames"] = json!(["B"]),
        &["FieldValueInvalid spec.names.shortNames[0]"],
    );
    check(
        |it| it["spec"]["versions"][0]["additionalPrinterColumns"][0]["type"] = json!("text"),
        &["FieldValueNotSupported spec.versions[0].additionalPrinterColumns[0].type"],
    );
    check(
        |it| it["spec"]["conversion"] = json!({"strategy": "Webhook"}),
        &["FieldValueNotSupported spec.conversion.strategy"],
    );
    check(
        |it| *it = json!({}),
        &[
            "FieldValueRequired spec.group",
            "FieldValueRequired spec.names.plural",
            "FieldValueRequired spec.names.kind",
            "FieldValueInvalid metadata.name",
            "FieldValueNotSupported spec.scope",
            "FieldValueRequired spec.versions",
        ],
    );
}

#[test]
fn schemas_must_be_structural() {
    let place = "spec.versions[0].schema.openAPIV3Schema";
    let check = |schema: Value, reason: &str, at: &str| {
        let causes = wrong(|it| it["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = schema);
        assert_eq!(
            (causes[0].reason, causes[0].field.as_str()),
            (reason, format!("{place}.{at}").as_str())
        );
    };
    let object = |field: Value| json!({"type": "object", "properties": {"a": field}});
    check(json!({"type": "array"}), "FieldValueInvalid", "type");
    check(
        object(json!({"description": "no type"})),
        "FieldValueRequired",
        "properties[a].type",
    );
    check(
        object(json!({"type": "string", "pattern": "("})),
        "FieldValueInvalid",
        "properties[a].pattern",
    );
    check(
        object(json!({"type": "string", "default": 1})),
        "FieldValueInvalid",
        "properties[a].default",
    );
    check(
        object(json!({"type": "array", "items": {"type": "string"}, "uniqueItems": true})),
        "FieldValueForbidden",
        "properties[a].uniqueItems",
    );
    check(
        object(json!({"type": "object", "additionalProperties": false})),
        "FieldValueForbidden",
        "properties[a].additionalProperties",
    );
    check(
        object(
            json!({"type": "array", "items": {"type": "object", "properties": {"k": {"type": "string"}}},
            "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]}),
        ),
        "FieldValueRequired",
        "properties[a].items.properties[k].default",
    );
    check(
        object(json!({"type": 3})),
        "FieldValueInvalid",
        "properties[a]",
    );
}

fn now() -> Timestamp {
    "2026-01-02T03:04:05.678Z".parse().unwrap()
}

#[test]
fn names_that_nobody_has_are_accepted() {
    let mut crd = crd();
    assert!(!is_established(&crd));
    crd["status"] = crd_status(&crd, &built_in(), now());
    assert_eq!(
        crd["status"],
        json!({
            "acceptedNames": {"plural": "boxes", "singular": "box", "kind": "Box", "listKind": "BoxList",
                "shortNames": ["bx"], "categories": ["all"]},
            "conditions": [
                {"type": "NamesAccepted", "status": "True", "reason": "NoConflicts", "message": "no conflicts found",
                    "lastTransitionTime": "2026-01-02T03:04:06Z"},
                {"type": "Established", "status": "True", "reason": "InitialNamesAccepted",
                    "message": "the initial names have been accepted", "lastTransitionTime": "2026-01-02T03:04:06Z"}],
            "storedVersions": ["v1"],
        })
    );
    assert!(is_established(&crd));
    let later = "2026-02-02T03:04:05Z".parse().unwrap();
    assert_eq!(
        crd_status(&crd, &built_in(), later),
        crd["status"],
        "nothing changes when nothing changed"
    );
}

#[test]
fn names_that_another_has_are_not_accepted() {
    let mut other = crd();
    other["metadata"]["name"] = json!("crates.example.com");
    other["spec"]["names"] = json!({"plural": "crates", "kind": "Crate", "shortNames": ["bx"]});
    let mut catalog = Catalog::default();
    let resource = custom(&other).unwrap();
    catalog.resources.insert(
        ("example.com".to_owned(), "crates".to_owned()),
        std::sync::Arc::new(resource),
    );
    let mut crd = crd();
    crd["status"] = crd_status(&crd, &catalog, now());
    assert!(!is_established(&crd));
    let condition = &crd["status"]["conditions"][0];
    assert_eq!(
        (&condition["status"], &condition["reason"]),
        (&json!("False"), &json!("ShortNamesConflict"))
    );
}

#[test]
fn versions_are_ordered_by_their_stability() {
    let mut names = [
        "v1alpha1", "foo", "v2", "v1beta2", "v10", "v1", "v2beta1", "bar",
    ];
    names.sort_by_cached_key(|it| Reverse(priority(it)));
    assert_eq!(
        names,
        [
            "v10", "v2", "v1", "v2beta1", "v1beta2", "v1alpha1", "bar", "foo"
        ]
    );
}
