//! What objects of built-in kinds leave out.

mod pod;
mod rest;
mod workloads;

use serde_json::{Map, Value};

use super::Resource;

/// Fills in what clients and controllers rely on in an object of a built-in kind, as Kubernetes does, and drops fields that
/// are `null`, which say that they are left out; of a custom kind, it drops those of the metadata alone. Doing it again
/// changes nothing.
///
/// It comes before validation, and on creation after the status was dropped: a pod's begins as `Pending` here.
pub fn default_builtin(resource: &Resource, object: &mut Value) {
    if resource.is_custom {
        if let Some(metadata) = object.get_mut("metadata") {
            drop_nulls(metadata);
        }
        return;
    }
    // What is inside these means what its author says.
    if !matches!(
        resource.kind.as_str(),
        "ControllerRevision" | "CustomResourceDefinition"
    ) {
        drop_nulls(object);
    }
    match resource.group.as_str() {
        "" => core(&resource.kind, object),
        "apps" | "batch" => workloads::fill(&resource.kind, object),
        _ => rest::fill(&resource.kind, object),
    }
}

fn core(kind: &str, object: &mut Value) {
    match kind {
        "Pod" => pod::fill(object),
        "PodTemplate" => {
            if let Some(template) = there(object, "template") {
                pod::fill_template(template);
            }
        }
        "ReplicationController" => workloads::fill(kind, object),
        _ => rest::fill_core(kind, object),
    }
}

/// Drops fields that are `null`, at any depth.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, it| !it.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Puts a value where there is none.
fn set(object: &mut Value, field: &str, value: impl Into<Value>) {
    if let Value::Object(fields) = object {
        fields.entry(field).or_insert_with(|| value.into());
    }
}

/// Puts a text where there is none, or an empty one.
fn set_text(object: &mut Value, field: &str, value: &str) {
    if object.get(field).is_none_or(|it| it == "") {
        put(object, field, value);
    }
}

/// Puts a value.
fn put(object: &mut Value, field: &str, value: impl Into<Value>) {
    if let Value::Object(fields) = object {
        fields.insert(field.to_owned(), value.into());
    }
}

/// Returns an object below, made where there is none; `None` when there is something else.
fn below<'a>(object: &'a mut Value, field: &str) -> Option<&'a mut Value> {
    let fields = object.as_object_mut()?;
    let value = fields.entry(field).or_insert_with(|| Map::new().into());
    value.is_object().then_some(value)
}

/// Returns an object below that is there.
fn there<'a>(object: &'a mut Value, field: &str) -> Option<&'a mut Value> {
    object.get_mut(field).filter(|it| it.is_object())
}

/// Returns the items of a list below.
fn items<'a>(object: &'a mut Value, field: &str) -> impl Iterator<Item = &'a mut Value> {
    let list = object.get_mut(field).and_then(Value::as_array_mut);
    list.into_iter().flatten()
}

#[cfg(test)]
mod tests;
