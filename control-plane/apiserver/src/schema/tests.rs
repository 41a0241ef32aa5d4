use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use serde_json::{Value, json};

use super::{ListType, Schema};

fn schema(json: &Value) -> Schema {
    Schema::from_json(json).unwrap()
}

fn vm() -> Schema {
    schema(&json!({
        "type": "object",
        "required": ["spec"],
        "properties": {
            "spec": {
                "type": "object",
                "required": ["template"],
                "properties": {
                    "running": {"type": "boolean"},
                    "runStrategy": {"type": "string", "enum": ["Always", "Halted"], "default": "Halted"},
                    "replicas": {"type": "integer", "minimum": 0, "maximum": 10, "default": 1},
                    "port": {"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]},
                    "name": {"type": "string", "pattern": "^[a-z]+$", "minLength": 2, "maxLength": 5},
                    "since": {"type": "string", "format": "date-time", "nullable": true},
                    "template": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                        "properties": {"inner": {"type": "object", "properties": {"a": {"type": "string"}}}}},
                    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                    "disks": {"type": "array", "maxItems": 3, "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["name"],
                        "items": {"type": "object", "required": ["name"],
                            "properties": {"name": {"type": "string"}, "boot": {"type": "integer", "default": 7}}}},
                },
            },
        },
    }))
}

fn messages(schema: &Schema, value: &Value) -> Vec<String> {
    let causes = schema.validate(value);
    let causes = causes.iter();
    causes
        .map(|it| format!("{} {}: {}", it.reason, it.field, it.message))
        .collect()
}

#[track_caller]
fn check_spec(spec: Value, expected: &[&str]) {
    let mut spec = spec;
    if spec.get("template").is_none() {
        spec["template"] = json!({});
    }
    assert_eq!(messages(&vm(), &json!({"spec": spec})), expected);
}

#[test]
fn a_value_that_fits_has_no_causes() {
    check_spec(
        json!({"running": true, "port": "http", "since": null, "name": "abc", "labels": {"a": "b"},
            "disks": [{"name": "x"}, {"name": "y"}]}),
        &[],
    );
    check_spec(
        json!({"port": 80, "since": "2026-01-02T03:04:05Z", "replicas": 3.0}),
        &[],
    );
}

#[test]
fn causes_read_as_those_of_kubernetes() {
    check_spec(
        json!({"running": "yes"}),
        &[
            "FieldValueTypeInvalid spec.running: Invalid value: \"string\": spec.running in body must be of type boolean: \"string\"",
        ],
    );
    check_spec(
        json!({"runStrategy": "Sometimes"}),
        &[
            "FieldValueNotSupported spec.runStrategy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"Halted\"",
        ],
    );
    check_spec(
        json!({"replicas": -1}),
        &[
            "FieldValueInvalid spec.replicas: Invalid value: -1: spec.replicas in body should be greater than or equal to 0",
        ],
    );
    check_spec(
        json!({"replicas": 11}),
        &[
            "FieldValueInvalid spec.replicas: Invalid value: 11: spec.replicas in body should be less than or equal to 10",
        ],
    );
    check_spec(
        json!({"name": "A1"}),
        &[
            "FieldValueInvalid spec.name: Invalid value: \"A1\": spec.name in body should match '^[a-z]+$'",
        ],
    );
    check_spec(
        json!({"name": "abcdef"}),
        &["FieldValueTooLong spec.name: Too long: may not be more than 5 bytes"],
    );
    check_spec(
        json!({"since": "yesterday"}),
        &[
            "FieldValueInvalid spec.since: Invalid value: \"yesterday\": spec.since in body must be of type date-time: \"yesterday\"",
        ],
    );
    check_spec(
        json!({"disks": [{"name": "a"}, {}]}),
        &["FieldValueRequired spec.disks[1].name: Required value"],
    );
    check_spec(
        json!({"disks": [{"name": "a"}, {"name": "a"}]}),
        &["FieldValueDuplicate spec.disks[1]: Duplicate value: {\"name\":\"a\"}"],
    );
    check_spec(
        json!({"port": true}),
        &[
            "FieldValueTypeInvalid spec.port: Invalid value: \"boolean\": spec.port in body must be of type integer,string: \"boolean\"",
        ],
    );
    assert_eq!(
        messages(&vm(), &json!({})),
        ["FieldValueRequired spec: Required value"]
    );
}

#[test]
fn choices_between_schemas_are_checked() {
    let schema = schema(&json!({
        "type": "object",
        "properties": {"a": {"type": "string"}, "b": {"type": "string"}},
        "oneOf": [{"required": ["a"]}, {"required": ["b"]}],
        "not": {"required": ["c"]},
    }));
    assert!(schema.validate(&json!({"a": "x"})).is_empty());
    let both = messages(&schema, &json!({"a": "x", "b": "y"}));
    assert!(
        both[0].contains("(oneOf). Found more than one valid"),
        "{both:?}"
    );
    let not = messages(&schema, &json!({"a": "x", "c": 1}));
    assert!(not[0].contains("must not validate"), "{not:?}");
}

#[test]
fn causes_are_bounded() {
    let schema = schema(&json!({"type": "array", "items": {"type": "string"}}));
    let many: Value = (0..5000).collect::<Vec<_>>().into();
    assert_eq!(schema.validate(&many).len(), 100);
}

#[test]
fn unknown_fields_go_and_are_named() {
    let mut value = json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine", "metadata": {"name": "x", "labels": {"a": "b"}},
        "typo": 1,
        "spec": {"foo": 1, "template": {"kept": {"deep": 1}, "inner": {"a": "1", "bar": 2}},
            "labels": {"any": "thing"}, "disks": [{"name": "a", "bar": 1}]},
    });
    let mut removed = vm().prune(&mut value);
    removed.sort();
    assert_eq!(
        removed,
        [
            "spec.disks[0].bar",
            "spec.foo",
            "spec.template.inner.bar",
            "typo"
        ]
    );
    assert_eq!(value["spec"]["template"]["kept"]["deep"], 1);
    assert_eq!(value["metadata"]["labels"]["a"], "b");
    assert!(value.get("typo").is_none());
}

#[test]
fn an_embedded_object_keeps_what_every_object_has() {
    let schema = schema(&json!({
        "type": "object",
        "properties": {"inner": {"type": "object", "x-kubernetes-embedded-resource": true,
            "properties": {"spec": {"type": "object"}}}},
    }));
    let mut value = json!({"inner": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "other": 1}});
    assert_eq!(schema.prune(&mut value), ["inner.other"]);
    assert_eq!(messages(&schema, &value), [] as [&str; 0]);
    let missing = messages(&schema, &json!({"inner": {"apiVersion": "v1"}}));
    assert_eq!(
        missing,
        ["FieldValueRequired inner.kind: Required value: must not be empty"]
    );
}

#[test]
fn defaults_are_filled_in_everywhere() {
    let mut value =
        json!({"spec": {"replicas": null, "disks": [{"name": "a"}, {"name": "b", "boot": 1}]}});
    vm().fill_defaults(&mut value);
    assert_eq!(
        value,
        json!({"spec": {"runStrategy": "Halted", "replicas": 1,
            "disks": [{"name": "a", "boot": 7}, {"name": "b", "boot": 1}]}})
    );
}

#[test]
fn references_and_options_of_schemars_are_understood() {
    let schema = schema(&json!({
        "$ref": "#/$defs/Outer",
        "$defs": {
            "Outer": {"type": "object", "properties": {
                "inner": {"anyOf": [{"$ref": "#/$defs/Inner"}, {"type": "null"}]},
                "name": {"type": ["string", "null"]},
                "mode": {"const": "fast"},
                "again": {"$ref": "#/$defs/Outer"},
            }},
            "Inner": {"type": "object", "properties": {"a": {"type": "integer", "format": "int32"}}},
        },
    }));
    assert!(
        schema.properties["again"].keeps_unknown,
        "a definition inside itself keeps any field"
    );
    assert!(
        schema
            .validate(&json!({"inner": null, "name": null, "mode": "fast"}))
            .is_empty()
    );
    let wrong = messages(
        &schema,
        &json!({"inner": {"a": 3_000_000_000_u32}, "mode": "slow"}),
    );
    assert_eq!(wrong.len(), 2, "{wrong:?}");
}

#[test]
fn how_lists_merge_is_read() {
    let schema = schema(&json!({"type": "object", "properties": {
        "disks": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
            "x-kubernetes-patch-merge-key": "name", "x-kubernetes-patch-strategy": "merge"},
        "finalizers": {"type": "array", "x-kubernetes-list-type": "set", "x-kubernetes-patch-strategy": "merge"},
        "plain": {"type": "array"},
    }}));
    let list = |name: &str| &schema.properties[name];
    assert_eq!(list("disks").list, ListType::Map(vec!["name".to_owned()]));
    assert_eq!(
        (list("disks").merge_key.as_str(), list("disks").merges_items),
        ("name", false)
    );
    assert_eq!(
        (&list("finalizers").list, list("finalizers").merges_items),
        (&ListType::Set, true)
    );
    assert_eq!(list("plain").list, ListType::Atomic);
}

#[test]
fn a_schema_that_is_none_is_refused_with_its_place() {
    let wrong = json!({"properties": {"spec": {"items": {"required": "name"}}}});
    let error = Schema::from_json(&wrong).unwrap_err();
    assert_eq!(
        error.to_string(),
        "read the schema at properties[spec].items: required must be a list"
    );
    let unknown = Schema::from_json(&json!({"properties": {"a": {"type": "strng"}}})).unwrap_err();
    assert!(
        unknown
            .to_string()
            .contains("properties[a]: type is \"strng\""),
        "{unknown}"
    );
    let missing = Schema::from_json(&json!({"$ref": "#/$defs/X"})).unwrap_err();
    assert!(
        missing.to_string().contains("\"X\", which is not defined"),
        "{missing}"
    );
    let looping = json!({"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/B"}, "B": {"$ref": "#/$defs/A"}}});
    assert!(Schema::from_json(&looping).is_ok());
}

#[test]
fn nesting_is_bounded() {
    let mut deep = json!({"type": "string"});
    for _ in 0..200 {
        deep = json!({"type": "array", "items": deep});
    }
    let error = Schema::from_json(&deep).unwrap_err();
    assert!(error.problem.contains("nested too deep"), "{error}");
}

#[test]
fn formats_are_checked() {
    #[track_caller]
    fn check(format: &str, good: &[&str], bad: &[&str]) {
        let schema = schema(&json!({"type": "string", "format": format}));
        for text in good {
            assert!(schema.validate(&json!(text)).is_empty(), "{format} {text}");
        }
        for text in bad {
            assert!(!schema.validate(&json!(text)).is_empty(), "{format} {text}");
        }
    }
    check(
        "cidr",
        &["10.0.0.0/8", "fd00::/64"],
        &["10.0.0.0", "10.0.0.0/33", "x/8"],
    );
    check(
        "mac",
        &["02:00:00:00:00:01"],
        &["02:00", "zz:00:00:00:00:01"],
    );
    check(
        "duration",
        &["1h5m3.5s", "0", "-3ms"],
        &["", "5", "5y", "."],
    );
    check("byte", &["aGVsbG8=", ""], &["a", "ä"]);
    check("hostname", &["a.example"], &["-a", ""]);
    check("quantity", &["1Gi", "100m"], &["1Xi", ""]);
    check("unknown", &["anything"], &[]);
}

fn values() -> impl Strategy<Value = Value> {
    let names = prop_oneof![
        Just("spec"),
        Just("a"),
        Just("b"),
        Just("type"),
        Just("properties"),
        Just("items"),
        Just("default"),
        Just("required"),
        Just("enum"),
        Just("pattern"),
        Just("$ref"),
        Just("$defs"),
        Just("additionalProperties"),
        Just("anyOf"),
        Just("oneOf"),
        Just("not"),
        Just("nullable"),
        Just("minimum"),
        Just("maxLength"),
        Just("format"),
        Just("x-kubernetes-list-type"),
        Just("x-kubernetes-list-map-keys"),
        Just("x-kubernetes-int-or-string"),
        Just("x-kubernetes-preserve-unknown-fields"),
        Just("x-kubernetes-embedded-resource"),
        Just("metadata"),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,4}".prop_map(Value::from),
        prop_oneof![
            Just("object"),
            Just("array"),
            Just("string"),
            Just("integer"),
            Just("number"),
            Just("boolean"),
            Just("null"),
            Just("#/$defs/a"),
            Just("map"),
            Just("set"),
            Just("date-time"),
            Just("byte"),
            Just("("),
            Just("a{1000}{1000}"),
        ]
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 60, 5, move |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(names.clone().prop_map(str::to_owned), inner, 0..6)
                .prop_map(|it| Value::Object(it.into_iter().collect())),
        ]
    })
}

/// Schemas that are well formed, so that the properties below say something.
fn schemas() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!({"type": "string", "default": "x"})),
        Just(json!({"type": "integer", "minimum": 0})),
        Just(json!({"type": "boolean", "nullable": true, "default": true})),
        Just(json!({"x-kubernetes-int-or-string": true})),
        Just(json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})),
    ];
    leaf.prop_recursive(4, 40, 4, |inner| {
        prop_oneof![
            inner
                .clone()
                .prop_map(|it| json!({"type": "array", "items": it})),
            inner
                .clone()
                .prop_map(|it| json!({"type": "object", "additionalProperties": it})),
            (inner.clone(), inner.clone(), any::<bool>()).prop_map(|(a, b, has_default)| {
                let mut schema = json!({"type": "object", "properties": {"a": a, "b": b}});
                if has_default {
                    schema["default"] = json!({});
                }
                schema
            }),
            (inner.clone(), inner).prop_map(|(a, spec)| {
                json!({"type": "object", "properties": {"a": a, "spec": spec}, "required": ["a"]})
            }),
        ]
    })
}

proptest! {
    #[test]
    fn no_json_makes_schemas_panic(json in values(), value in values()) {
        if let Ok(schema) = Schema::from_json(&json) {
            let mut value = value;
            schema.fill_defaults(&mut value);
            let _causes = schema.validate(&value);
            schema.prune(&mut value);
        }
    }

    #[test]
    fn pruning_again_removes_nothing(json in schemas(), value in values()) {
        let schema = schema(&json);
        let mut once = value;
        schema.prune(&mut once);
        let mut twice = once.clone();
        assert_eq!(schema.prune(&mut twice), Vec::<String>::new());
        assert_eq!(once, twice);
    }

    #[test]
    fn filling_defaults_again_changes_nothing(json in schemas(), value in values()) {
        let schema = schema(&json);
        let mut once = value;
        schema.fill_defaults(&mut once);
        let mut twice = once.clone();
        schema.fill_defaults(&mut twice);
        assert_eq!(once, twice);
    }

    #[test]
    fn defaults_and_pruning_break_nothing_that_fits(json in schemas(), value in values()) {
        let schema = schema(&json);
        let mut value = value;
        if schema.validate(&value).is_empty() {
            schema.prune(&mut value);
            schema.fill_defaults(&mut value);
            assert_eq!(schema.validate(&value), Vec::new());
        }
    }
}
