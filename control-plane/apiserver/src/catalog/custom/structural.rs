//! What makes a schema structural (KEP-1111): types are said everywhere, and nothing hides in rules.

use serde_json::Value;

use crate::failure::Cause;
use crate::schema::{ListType, Schema};

/// Most causes of one schema.
const MAX_CAUSES: usize = 50;

/// Keywords that structural schemas may not have.
const FORBIDDEN: [&str; 8] = [
    "$ref",
    "$defs",
    "definitions",
    "dependencies",
    "deprecated",
    "id",
    "patternProperties",
    "additionalItems",
];

/// Adds what is wrong with a schema that could be read.
pub(super) fn check(json: &Value, schema: &Schema, field: &str, causes: &mut Vec<Cause>) {
    if schema.kind != "object" {
        let field = format!("{field}.type");
        causes.push(Cause::invalid(
            &field,
            &json["type"],
            "must be object at the root",
        ));
    }
    if json["nullable"] == true {
        causes.push(Cause::forbidden(
            &format!("{field}.nullable"),
            "nullable cannot be true at the root",
        ));
    }
    let most = causes.len() + MAX_CAUSES;
    keywords(json, field, causes, most);
    types(schema, field, causes, most);
}

/// Looks at the schema as it was written.
fn keywords(json: &Value, field: &str, causes: &mut Vec<Cause>, most: usize) {
    let Value::Object(all) = json else { return };
    if causes.len() >= most {
        return;
    }
    for name in FORBIDDEN {
        if all.contains_key(name) {
            let why = format!("{name} is not for structural schemas, write out what it stands for");
            causes.push(Cause::forbidden(&format!("{field}.{name}"), &why));
        }
    }
    if all.get("uniqueItems").is_some_and(|it| it == true) {
        let why = "uniqueItems cannot be set to true, use x-kubernetes-list-type: set";
        causes.push(Cause::forbidden(&format!("{field}.uniqueItems"), why));
    }
    if all
        .get("additionalProperties")
        .is_some_and(|it| it == false)
    {
        let why = "additionalProperties cannot be set to false, unknown fields are dropped anyway";
        causes.push(Cause::forbidden(
            &format!("{field}.additionalProperties"),
            why,
        ));
    }
    if all.contains_key("properties")
        && all
            .get("additionalProperties")
            .is_some_and(|it| *it != false)
    {
        let why = "additionalProperties and properties are mutual exclusive";
        causes.push(Cause::forbidden(
            &format!("{field}.additionalProperties"),
            why,
        ));
    }
    if let Some(Value::Object(fields)) = all.get("properties") {
        for (name, json) in fields {
            keywords(json, &format!("{field}.properties[{name}]"), causes, most);
        }
    }
    for name in ["items", "additionalProperties"] {
        if let Some(json) = all.get(name) {
            keywords(json, &format!("{field}.{name}"), causes, most);
        }
    }
}

/// Looks at the schema as it is understood.
fn types(schema: &Schema, field: &str, causes: &mut Vec<Cause>, most: usize) {
    if causes.len() >= most {
        return;
    }
    if let Some(problem) = schema.pattern.problem() {
        let why = format!("must be a regular expression: {problem}");
        causes.push(Cause::invalid(
            &format!("{field}.pattern"),
            &schema.pattern.as_str().into(),
            &why,
        ));
    }
    check_default(schema, field, causes);
    check_list(schema, field, causes);
    for (step, child) in schema.children() {
        let field = format!("{field}.{step}");
        let needs_type = !child.is_int_or_string && !child.keeps_unknown;
        if child.kind.is_empty() && needs_type {
            let why = "must not be empty for specified object fields and array items";
            causes.push(Cause::required(&format!("{field}.type"), why));
        }
        types(child, &field, causes, most);
    }
}

fn check_default(schema: &Schema, field: &str, causes: &mut Vec<Cause>) {
    let Some(default) = &schema.default else {
        return;
    };
    let field = format!("{field}.default");
    let mut filled = default.clone();
    let unknown = schema.prune(&mut filled);
    schema.fill_defaults(&mut filled);
    if let Some(first) = unknown.iter().find(|it| !it.is_empty()) {
        let why = format!("must not have fields that the schema does not know, such as {first}");
        causes.push(Cause::invalid(&field, default, &why));
    }
    for cause in schema.validate(&filled) {
        let why = format!(
            "does not fit its own schema: {} {}",
            cause.field, cause.message
        );
        causes.push(Cause::invalid(&field, default, &why));
    }
}

fn check_list(schema: &Schema, field: &str, causes: &mut Vec<Cause>) {
    let ListType::Map(keys) = &schema.list else {
        return;
    };
    let Some(item) = schema.items.as_ref().filter(|it| it.kind == "object") else {
        let why = "items of a list of type map must be objects";
        causes.push(Cause::invalid(
            &format!("{field}.items.type"),
            &Value::Null,
            why,
        ));
        return;
    };
    for key in keys {
        let Some(property) = item.properties.get(key) else {
            let why = format!("items must have the key {key} among their properties");
            let field = format!("{field}.x-kubernetes-list-map-keys");
            causes.push(Cause::invalid(&field, &Value::from(key.as_str()), &why));
            continue;
        };
        if property.default.is_none() && !item.required.contains(key) {
            let why = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
            causes.push(Cause::required(
                &format!("{field}.items.properties[{key}].default"),
                why,
            ));
        }
    }
}
