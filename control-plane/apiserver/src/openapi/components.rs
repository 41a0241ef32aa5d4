//! Schemas of a document.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::Kind;
use crate::catalog::{DEFINITIONS, OBJECT_META, Source, definitions, object_meta_type};

const QUANTITY: &str = "io.k8s.apimachinery.pkg.api.resource.Quantity";
const INT_OR_STRING: &str = "io.k8s.apimachinery.pkg.util.intstr.IntOrString";

/// Returns the schemas that some kinds need, and the name of the schema of each.
pub(super) fn schemas(kinds: &[Kind<'_>]) -> (Map<String, Value>, Vec<String>) {
    let native = |kind: &Kind<'_>| match kind.1.schema.source() {
        Source::Native(generate) => Some(*generate),
        Source::Made | Source::Text(_) => None,
    };
    let mut types: Vec<_> = kinds.iter().filter_map(native).collect();
    types.push(object_meta_type());
    let (mut schemas, native_names) = definitions(&types);
    name_scalars(&mut schemas);
    schemas.values_mut().for_each(nest_references);
    let mut native_names = native_names.into_iter();
    let mut names = Vec::new();
    for kind in kinds {
        let name = match kind.1.schema.source() {
            Source::Native(_) => native_names.next().unwrap_or_default(),
            Source::Text(text) => add(
                &mut schemas,
                kind,
                serde_json::from_str(text).unwrap_or_default(),
            ),
            Source::Made => add(&mut schemas, kind, json!({"type": "object"})),
        };
        if let Some(schema) = schemas.get_mut(&name) {
            schema["x-kubernetes-group-version-kind"] = json!([group_version_kind(kind)]);
        }
        names.push(name);
    }
    if kinds.iter().all(|it| it.0.is_custom) {
        keep_used(&mut schemas, &names);
    }
    (schemas, names)
}

/// Returns what a kind is, as documents say it.
pub(super) fn group_version_kind((resource, version): &Kind<'_>) -> Value {
    json!({"group": resource.group, "version": version.name, "kind": resource.kind})
}

/// Adds the schema of a custom kind.
fn add(schemas: &mut Map<String, Value>, kind: &Kind<'_>, mut schema: Value) -> String {
    let group: Vec<_> = kind.0.group.rsplit('.').collect();
    let name = format!("{}.{}.{}", group.join("."), kind.1.name, kind.0.kind);
    if !schema.is_object() {
        schema = json!({"type": "object"});
    }
    if !schema["properties"].is_object() {
        schema["properties"] = json!({});
    }
    let fields = &mut schema["properties"];
    for (field, description) in [
        (
            "apiVersion",
            "Version of the schema of this object, with its group.",
        ),
        ("kind", "Kind of this object."),
    ] {
        fields[field] = json!({"type": "string", "description": description});
    }
    fields["metadata"] = json!({
        "description": "Metadata that every object has.",
        "allOf": [{"$ref": format!("#{DEFINITIONS}/{OBJECT_META}")}],
    });
    schemas.insert(name.clone(), schema);
    name
}

/// Says what the types are that are written as one of two.
fn name_scalars(schemas: &mut Map<String, Value>) {
    for (name, format, other) in [
        (QUANTITY, "quantity", "number"),
        (INT_OR_STRING, "int-or-string", "integer"),
    ] {
        if let Some(Value::Object(schema)) = schemas.get_mut(name) {
            schema.insert("format".to_owned(), format.into());
            schema.insert(
                "oneOf".to_owned(),
                json!([{"type": other}, {"type": "string"}]),
            );
        }
    }
}

/// Puts references into `allOf` where something stands beside them: OpenAPI 3.0 has references alone.
fn nest_references(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.values_mut().for_each(nest_references);
            if fields.len() > 1 && fields.get("$ref").is_some_and(Value::is_string) {
                let reference = fields.remove("$ref");
                fields.insert("allOf".to_owned(), json!([{"$ref": reference}]));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(nest_references),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Drops schemas to which nothing leads.
fn keep_used(schemas: &mut Map<String, Value>, roots: &[String]) {
    let mut used: BTreeSet<String> = BTreeSet::new();
    let mut left = roots.to_vec();
    while let Some(name) = left.pop() {
        if let Some(schema) = schemas.get(&name).filter(|_| !used.contains(&name)) {
            references(schema, &mut left);
            used.insert(name);
        }
    }
    schemas.retain(|name, _| used.contains(name));
}

fn references(schema: &Value, found: &mut Vec<String>) {
    match schema {
        Value::Object(fields) => {
            if let Some(Value::String(reference)) = fields.get("$ref") {
                found.extend(reference.rsplit('/').next().map(str::to_owned));
            }
            fields.values().for_each(|it| references(it, found));
        }
        Value::Array(items) => items.iter().for_each(|it| references(it, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
