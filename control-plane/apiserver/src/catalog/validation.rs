//! Rules of built-in kinds that no schema says.

mod cluster;
mod metadata;
pub(super) mod names;
mod pod;
mod service;
mod storage;
mod workloads;

use serde_json::Value;

use super::{Resource, custom};
use crate::failure::Cause;

/// Returns what is wrong with an object of a built-in kind beyond its schema, `old` being the object that it replaces;
/// for custom kinds, the rules of metadata alone. Objects are expected to fit their schema and to have their defaults.
#[must_use]
pub fn validate_builtin(resource: &Resource, old: Option<&Value>, new: &Value) -> Vec<Cause> {
    let mut found = Vec::new();
    metadata::check(resource, new, &mut found);
    if resource.is_custom {
        return found;
    }
    match (resource.group.as_str(), resource.kind.as_str()) {
        ("", "Pod") => pod::check(old, new, &mut found),
        ("", "Service") => service::check(new, &mut found),
        ("", "ConfigMap" | "Secret") => storage::data(old, new, &mut found),
        ("", "PersistentVolumeClaim") => storage::claim(old, new, &mut found),
        ("", "PersistentVolume") => storage::volume(new, &mut found),
        ("storage.k8s.io", "StorageClass") => storage::class(old, new, &mut found),
        ("apps" | "batch", kind) => workloads::check(kind, old, new, &mut found),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => definition(old, new, &mut found),
        _ => cluster::check(&resource.kind, old, new, &mut found),
    }
    found
}

fn definition(old: Option<&Value>, new: &Value, found: &mut Vec<Cause>) {
    found.extend(custom(new).err().into_iter().flatten());
    for field in ["group", "scope"] {
        same(old, new, &format!("/spec/{field}"), found);
    }
    same(old, new, "/spec/names/plural", found);
    same(old, new, "/spec/names/kind", found);
}

/// Says that a field may not change.
fn same(old: Option<&Value>, new: &Value, pointer: &str, found: &mut Vec<Cause>) {
    let Some(old) = old else {
        return;
    };
    if old.pointer(pointer) != new.pointer(pointer) {
        let field = pointer.trim_start_matches('/').replace('/', ".");
        let value = new.pointer(pointer).unwrap_or(&Value::Null);
        found.push(Cause::invalid(&field, value, "field is immutable"));
    }
}

/// Returns the text of a field, empty where there is none.
fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

/// Returns the items of a list, each with its path.
fn items<'a>(value: &'a Value, path: &str, field: &str) -> Vec<(String, &'a Value)> {
    let list = value[field].as_array().into_iter().flatten();
    let list = list.enumerate();
    list.map(|(index, item)| (format!("{path}.{field}[{index}]"), item))
        .collect()
}

/// Says that a text must be there.
fn needs(value: &Value, path: &str, field: &str, found: &mut Vec<Cause>) -> bool {
    let is_there = !text(value, field).is_empty();
    if !is_there {
        found.push(Cause::required(&format!("{path}.{field}"), ""));
    }
    is_there
}

/// Says that a text, if there is one, must be one of a few.
fn one_of(value: &Value, path: &str, field: &str, choices: &[&str], found: &mut Vec<Cause>) {
    let text = text(value, field);
    if !text.is_empty() && !choices.contains(&text) {
        found.push(Cause::not_supported(
            &format!("{path}.{field}"),
            &value[field],
            choices,
        ));
    }
}

/// Says that a number, if there is one, must be in a range.
fn in_range(value: &Value, path: &str, field: &str, range: (i64, i64), found: &mut Vec<Cause>) {
    let Some(number) = value[field].as_i64() else {
        return;
    };
    if number < range.0 || number > range.1 {
        let (least, most) = range;
        let why = if most == i64::MAX {
            format!("must be greater than or equal to {least}")
        } else {
            format!("must be between {least} and {most}, inclusive")
        };
        found.push(Cause::invalid(
            &format!("{path}.{field}"),
            &value[field],
            &why,
        ));
    }
}

#[cfg(test)]
mod tests;
