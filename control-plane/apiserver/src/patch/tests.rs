use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{apply, json as json_patch, merge, strategic, track};
use crate::schema::{ListType, Schema};

fn fields(fields: Vec<(&str, Schema)>) -> Schema {
    let named = fields
        .into_iter()
        .map(|(name, schema)| (name.to_owned(), Arc::new(schema)));
    Schema {
        kind: "object".to_owned(),
        properties: named.collect::<BTreeMap<_, _>>(),
        ..Schema::default()
    }
}

fn list(list: ListType, items: Schema) -> Schema {
    let merge_key = match &list {
        ListType::Map(keys) => keys[0].clone(),
        ListType::Set | ListType::Atomic => String::new(),
    };
    Schema {
        kind: "array".to_owned(),
        merges_items: list == ListType::Set,
        merge_key,
        list,
        items: Some(Arc::new(items)),
        ..Schema::default()
    }
}

fn keys(keys: &[&str]) -> ListType {
    ListType::Map(keys.iter().map(|it| (*it).to_owned()).collect())
}

/// A kind somewhat like a pod.
fn pod() -> Schema {
    let text = Schema::default;
    let protocol = Schema {
        default: Some(json!("TCP")),
        ..Schema::default()
    };
    let port = fields(vec![("containerPort", text()), ("protocol", protocol)]);
    let container = fields(vec![
        ("name", text()),
        ("image", text()),
        ("args", list(ListType::Atomic, text())),
        ("ports", list(keys(&["containerPort", "protocol"]), port)),
    ]);
    let spec = fields(vec![
        ("containers", list(keys(&["name"]), container)),
        ("groups", list(ListType::Set, text())),
        ("nodeName", text()),
    ]);
    fields(vec![("spec", spec)])
}

fn now() -> Timestamp {
    "2026-01-02T03:04:05Z".parse().unwrap()
}

fn applied(live: Option<&Value>, wanted: &Value, manager: &str) -> Value {
    apply(&pod(), live, wanted, manager, false, "", now()).unwrap()
}

/// What virtctl sends to give a machine its first key.
#[test]
fn a_field_that_is_not_there_passes_for_null_in_a_test() {
    let doc = json!({"spec": {"a/b": null, "list": [1]}});
    let tested = |path: &str, value: Value| {
        let patch = json!([
            {"op": "test", "path": path, "value": value},
            {"op": "add", "path": "/spec/keys", "value": ["k"]},
        ]);
        json_patch(&doc, &patch)
    };
    let changed = tested("/spec/keys", Value::Null).unwrap();
    assert_eq!(changed["spec"]["keys"], json!(["k"]));
    assert!(tested("/spec/a~1b", Value::Null).is_ok());
    for (path, value) in [
        ("/spec/keys", json!([])),
        ("/spec/list", Value::Null),
        ("/status/keys", Value::Null),
        ("/spec/list/1", Value::Null),
        ("", Value::Null),
    ] {
        assert_eq!(tested(path, value).unwrap_err().code, 422, "{path}");
    }
}

#[test]
fn a_json_patch_changes_and_a_failed_test_is_refused() {
    let doc = json!({"a": {"b": 1}});
    let changed = json_patch(
        &doc,
        &json!([{"op": "replace", "path": "/a/b", "value": 2}]),
    );
    assert_eq!(changed.unwrap(), json!({"a": {"b": 2}}));
    let refused = json_patch(&doc, &json!([{"op": "test", "path": "/a/b", "value": 2}]));
    assert_eq!(refused.unwrap_err().code, 422);
    let malformed = json_patch(&doc, &json!({"a": 1}));
    assert_eq!(malformed.unwrap_err().code, 400);
}

#[test]
fn a_json_patch_cannot_grow_an_object_without_bound() {
    let doc = json!({"a": vec![0; 1000]});
    let mut operations = Vec::new();
    for round in 0..40 {
        operations.push(json!({"op": "copy", "from": "/a", "path": format!("/a/{round}")}));
    }
    let failure = json_patch(&doc, &json!(operations)).unwrap_err();
    assert_eq!(failure.code, 413);
    let many = vec![json!({"op": "test", "path": "", "value": 1}); 10_001];
    assert_eq!(json_patch(&doc, &json!(many)).unwrap_err().code, 413);
}

#[test]
fn a_merge_patch_removes_with_null() {
    let doc = json!({"a": 1, "b": {"c": 2}});
    let merged = merge(&doc, &json!({"a": null, "b": {"d": 3}}));
    assert_eq!(merged, json!({"b": {"c": 2, "d": 3}}));
}

#[test]
fn containers_are_merged_by_name() {
    let doc = json!({"spec": {"containers": [{"name": "a", "image": "1", "args": ["x"]}, {"name": "b"}]}});
    let patch = json!({"spec": {"containers": [{"name": "a", "image": "2", "args": ["y"]}, {"name": "c"}]}});
    let patched = strategic(&pod(), &doc, &patch).unwrap();
    let wanted = json!({"spec": {"containers": [{"name": "a", "image": "2", "args": ["y"]}, {"name": "b"}, {"name": "c"}]}});
    assert_eq!(patched, wanted);
}

#[test]
fn directives_delete_replace_retain_and_order() {
    let doc = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}, {"name": "c"}], "groups": ["x", "y"], "nodeName": "n"}});
    let patch =
        |patch: Value| strategic(&pod(), &doc, &json!({"spec": patch})).unwrap()["spec"].clone();
    let deleted = patch(json!({"containers": [{"name": "b", "$patch": "delete"}]}));
    assert_eq!(deleted["containers"], json!([{"name": "a"}, {"name": "c"}]));
    let replaced = patch(json!({"containers": [{"name": "z"}, {"$patch": "replace"}]}));
    assert_eq!(replaced["containers"], json!([{"name": "z"}]));
    let ordered = patch(json!({
        "$setElementOrder/containers": [{"name": "c"}, {"name": "a"}],
        "containers": [{"name": "c", "image": "i"}],
    }));
    assert_eq!(
        ordered["containers"],
        json!([{"name": "c", "image": "i"}, {"name": "a"}, {"name": "b"}])
    );
    let primitives = patch(json!({"$deleteFromPrimitiveList/groups": ["x"], "groups": ["z"]}));
    assert_eq!(primitives["groups"], json!(["y", "z"]));
    let retained = patch(json!({"$retainKeys": ["groups"], "groups": ["y"]}));
    assert_eq!(retained, json!({"groups": ["x", "y"]}));
    let whole = patch(json!({"$patch": "replace", "nodeName": "m"}));
    assert_eq!(whole, json!({"nodeName": "m"}));
}

#[test]
fn malformed_strategic_patches_are_refused() {
    let doc = json!({"spec": {"containers": []}});
    for patch in [
        json!([]),
        json!({"$patch": "burn"}),
        json!({"spec": {"containers": [{"image": "nameless"}]}}),
        json!({"spec": {"containers": ["a"]}}),
    ] {
        let failure = strategic(&pod(), &doc, &patch).unwrap_err();
        assert_eq!(failure.code, 400, "{patch}");
    }
}

#[test]
fn owner_references_of_any_kind_are_merged_by_uid() {
    let doc = json!({"metadata": {"ownerReferences": [{"uid": "1", "name": "a"}]}});
    let patch = json!({"metadata": {"ownerReferences": [{"uid": "2", "name": "b"}]}});
    let patched = strategic(&Schema::default(), &doc, &patch).unwrap();
    let owners = patched["metadata"]["ownerReferences"].as_array();
    assert_eq!(owners.map(Vec::len), Some(2));
}

#[test]
fn what_is_applied_belongs_to_its_manager() {
    let wanted = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "labels": {"a": "1"}},
        "spec": {"containers": [{"name": "c", "image": "i", "ports": [{"containerPort": 80}]}]},
    });
    let object = applied(None, &wanted, "me");
    let entry = &object["metadata"]["managedFields"][0];
    assert_eq!(entry["manager"], "me");
    assert_eq!(entry["operation"], "Apply");
    let fields = json!({
        "f:metadata": {"f:labels": {"f:a": {}}},
        "f:spec": {"f:containers": {"k:{\"name\":\"c\"}": {
            ".": {}, "f:image": {}, "f:name": {},
            "f:ports": {"k:{\"containerPort\":80,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}}},
        }}},
    });
    assert_eq!(entry["fieldsV1"], fields);
}

#[test]
fn what_is_not_applied_any_more_goes_unless_others_own_it() {
    let first = json!({"apiVersion": "v1", "metadata": {"name": "p", "labels": {"a": "1", "b": "2"}}, "spec": {"containers": [{"name": "x", "image": "1"}, {"name": "y"}]}});
    let object = applied(None, &first, "me");
    let object = applied(
        Some(&object),
        &json!({"apiVersion": "v1", "metadata": {"name": "p", "labels": {"b": "2"}}}),
        "you",
    );
    let less = json!({"apiVersion": "v1", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "x"}]}});
    let object = applied(Some(&object), &less, "me");
    assert_eq!(object["metadata"]["labels"], json!({"b": "2"}));
    assert_eq!(object["spec"]["containers"], json!([{"name": "x"}]));
    let managers = object["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(managers.len(), 2);
}

#[test]
fn a_field_of_another_manager_is_a_conflict_until_forced() {
    let first = json!({"apiVersion": "v1", "metadata": {"name": "p"}, "spec": {"nodeName": "a"}});
    let object = applied(None, &first, "me");
    let other = json!({"apiVersion": "v1", "metadata": {"name": "p"}, "spec": {"nodeName": "b"}});
    let failure = apply(&pod(), Some(&object), &other, "you", false, "", now()).unwrap_err();
    assert_eq!((failure.code, failure.reason), (409, "Conflict"));
    assert_eq!(failure.causes[0].reason, "FieldManagerConflict");
    assert_eq!(failure.causes[0].field, ".spec.nodeName");
    assert_eq!(failure.causes[0].message, "conflict with \"me\"");
    let forced = apply(&pod(), Some(&object), &other, "you", true, "", now()).unwrap();
    assert_eq!(forced["spec"]["nodeName"], "b");
    let managers = forced["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(managers.len(), 1);
    assert_eq!(managers[0]["manager"], "you");
}

#[test]
fn the_same_value_is_owned_together() {
    let wanted = json!({"apiVersion": "v1", "metadata": {"name": "p"}, "spec": {"nodeName": "a"}});
    let object = applied(None, &wanted, "me");
    let object = applied(Some(&object), &wanted, "you");
    let managers = object["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(managers.len(), 2);
}

#[test]
fn applying_the_same_again_changes_nothing() {
    let wanted = json!({"apiVersion": "v1", "metadata": {"name": "p"}, "spec": {"nodeName": "a"}});
    let object = applied(None, &wanted, "me");
    let later = "2027-01-01T00:00:00Z".parse().unwrap();
    let again = apply(&pod(), Some(&object), &wanted, "me", false, "", later).unwrap();
    assert_eq!(again, object);
}

#[test]
fn updates_are_tracked_and_take_over_what_they_change() {
    let wanted = json!({"apiVersion": "v1", "metadata": {"name": "p"}, "spec": {"nodeName": "a", "groups": ["x"]}});
    let object = applied(None, &wanted, "me");
    let mut new = object.clone();
    new["spec"]["nodeName"] = json!("b");
    track(&pod(), Some(&object), &mut new, "editor", "", now());
    let managers = new["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(
        managers[0]["fieldsV1"],
        json!({"f:spec": {"f:groups": {"v:\"x\"": {}}}})
    );
    assert_eq!(managers[1]["manager"], "editor");
    assert_eq!(managers[1]["operation"], "Update");
    assert_eq!(
        managers[1]["fieldsV1"],
        json!({"f:spec": {"f:nodeName": {}}})
    );
}

#[test]
fn updates_without_a_list_of_managers_keep_it_and_many_become_ancient() {
    let mut object = json!({"apiVersion": "v1", "metadata": {"name": "p"}, "spec": {}});
    track(&pod(), None, &mut object, "m0", "", now());
    for index in 0..20 {
        let mut new = object.clone();
        new["metadata"]
            .as_object_mut()
            .unwrap()
            .remove("managedFields");
        new["spec"][format!("field{index}")] = json!(index);
        let at = format!("2026-01-01T00:00:{index:02}Z").parse().unwrap();
        track(
            &pod(),
            Some(&object),
            &mut new,
            &format!("m{index}"),
            "",
            at,
        );
        object = new;
    }
    let managers = object["metadata"]["managedFields"].as_array().unwrap();
    assert_eq!(managers.len(), 10);
    assert!(managers.iter().any(|it| it["manager"] == "ancient-changes"));
    let last = managers.last().unwrap();
    assert_eq!(last["manager"], "m19");
}

#[test]
fn managers_that_cannot_be_read_own_nothing() {
    let mut deep = json!({});
    for _ in 0..110 {
        deep = json!({"f:a": deep});
    }
    let mut object = json!({"apiVersion": "v1", "metadata": {"managedFields": [{"manager": "x", "operation": "Apply", "fieldsV1": deep}, 7]}});
    let before = object.clone();
    track(&pod(), Some(&before), &mut object, "me", "", now());
    assert_eq!(object["metadata"].get("managedFields"), None);
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0..4).prop_map(Value::from),
        "[ab]{1}".prop_map(Value::from),
    ];
    let names = prop_oneof![
        Just("spec"),
        Just("metadata"),
        Just("containers"),
        Just("name"),
        Just("groups"),
        Just("ports"),
        Just("containerPort"),
        Just("$patch"),
        Just("$setElementOrder/containers"),
        Just("managedFields"),
    ];
    leaf.prop_recursive(6, 48, 5, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(names.clone().prop_map(str::to_owned), inner, 0..5)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn no_value_makes_a_patch_panic(doc in values(), patch in values()) {
        let schema = pod();
        let doc = json!({"apiVersion": "v1", "metadata": {}, "spec": doc});
        let _one = json_patch(&doc, &patch);
        let _two = strategic(&schema, &doc, &patch);
        let _three = merge(&doc, &patch);
        let patch = json!({"apiVersion": "v1", "metadata": {}, "spec": patch});
        let _four = strategic(&schema, &doc, &patch);
        let _five = apply(&schema, Some(&doc), &patch, "m", true, "", now());
        let mut new = patch;
        track(&schema, Some(&doc), &mut new, "m", "", now());
    }

    #[test]
    fn applying_twice_is_applying_once(doc in values(), wanted in values()) {
        let schema = pod();
        let doc = json!({"apiVersion": "v1", "metadata": {"name": "p"}, "spec": {"any": doc}});
        let wanted = json!({"apiVersion": "v1", "metadata": {"name": "p"}, "spec": {"any": wanted}});
        let once = apply(&schema, Some(&doc), &wanted, "m", true, "", now()).unwrap();
        let twice = apply(&schema, Some(&once), &wanted, "m", true, "", now()).unwrap();
        prop_assert_eq!(once, twice);
    }
}

#[test]
fn a_json_patch_cannot_nest_without_bound() {
    let mut operations = vec![json!({"op": "add", "path": "/a", "value": {}})];
    for level in 1..200 {
        let path = "/a".repeat(level + 1);
        operations.push(json!({"op": "add", "path": path, "value": {}}));
    }
    let error = super::json(&json!({}), &Value::Array(operations)).unwrap_err();
    assert_eq!((error.code, error.reason), (413, "RequestEntityTooLarge"));
}
