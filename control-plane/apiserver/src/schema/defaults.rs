//! Defaults that a schema has.

use serde_json::{Map, Value};

use super::Schema;

/// Most defaults that are filled into one object: each item of a long list may want several.
const MAX_FILLED: usize = 100_000;

/// Fills in what is left out.
pub(super) fn fill(schema: &Schema, value: &mut Value) {
    let mut left = MAX_FILLED;
    fill_value(schema, value, &mut left);
}

fn fill_value(schema: &Schema, value: &mut Value, left: &mut usize) {
    match value {
        Value::Object(fields) => fill_object(schema, fields, left),
        Value::Array(items) => {
            if let Some(schema) = &schema.items {
                for item in items {
                    fill_value(schema, item, left);
                }
            }
        }
        _ => {}
    }
}

fn fill_object(schema: &Schema, fields: &mut Map<String, Value>, left: &mut usize) {
    for (name, field) in &schema.properties {
        let Some(default) = &field.default else {
            continue;
        };
        let is_missing = match fields.get(name) {
            Some(value) => value.is_null() && !field.is_nullable,
            None => true,
        };
        if is_missing && *left > 0 {
            *left -= 1;
            fields.insert(name.clone(), default.clone());
        }
    }
    for (name, value) in fields {
        if let Some(field) = schema.properties.get(name).or(schema.additional.as_ref()) {
            fill_value(field, value, left);
        }
    }
}
