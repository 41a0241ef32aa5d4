//! Tables for `kubectl get` (`meta.k8s.io/v1` Table).

mod age;
mod cells;
mod kinds;
pub(crate) mod path;
mod pod;
mod workloads;

use jiff::Timestamp;
use serde_json::{Value, json};

use self::path::Path;
use crate::catalog::{Column, Resource, Version};

/// What a row carries of its object (`includeObject`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IncludeObject {
    /// Its metadata, as a PartialObjectMetadata.
    #[default]
    Metadata,
    /// All of it.
    Object,
    /// Nothing.
    None,
}

/// Returns a table with a row for each object. Built-in kinds have the columns that Kubernetes gives them, custom kinds those
/// of their definition, others `Name` and `Age`; ages are texts such as `5m3s`, counted to `now`.
#[must_use]
pub fn render(
    resource: &Resource,
    version: &Version,
    objects: &[&Value],
    include: IncludeObject,
    list_meta: &Value,
    now: Timestamp,
) -> Value {
    let columns = Columns::of(resource, version);
    let rows = objects.iter().map(|object| {
        let cells = columns.cells(object, now);
        match included(object, include) {
            Some(object) => json!({"cells": cells, "object": object}),
            None => json!({"cells": cells}),
        }
    });
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": list_meta,
        "columnDefinitions": columns.definitions(), "rows": rows.collect::<Vec<_>>(),
    })
}

fn included(object: &Value, include: IncludeObject) -> Option<Value> {
    match include {
        IncludeObject::None => None,
        IncludeObject::Object => Some(object.clone()),
        IncludeObject::Metadata => Some(json!({
            "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"],
        })),
    }
}

/// A column of a built-in kind.
#[derive(Clone, Copy)]
struct Native {
    name: &'static str,
    kind: &'static str,
    priority: i32,
    cell: fn(&Value, Timestamp) -> Value,
}

enum Columns<'a> {
    Native(&'static [Native]),
    Custom(Vec<(&'a Column, Path)>),
}

impl<'a> Columns<'a> {
    fn of(resource: &Resource, version: &'a Version) -> Self {
        if version.columns.is_empty() {
            let own = if resource.is_custom {
                None
            } else {
                kinds::columns(resource)
            };
            return Self::Native(own.unwrap_or(kinds::NAME_AND_AGE));
        }
        let columns = version.columns.iter();
        Self::Custom(columns.map(|it| (it, Path::read(&it.path))).collect())
    }

    fn definitions(&self) -> Vec<Value> {
        match self {
            Self::Native(columns) => columns.iter().map(Native::definition).collect(),
            Self::Custom(columns) => {
                let name = json!({
                    "name": "Name", "type": "string", "format": "name", "priority": 0,
                    "description": "Name must be unique within a namespace.",
                });
                let columns = columns.iter().map(|(column, _)| {
                    json!({
                        "name": column.name, "type": column.kind, "format": column.format,
                        "description": column.description, "priority": column.priority,
                    })
                });
                std::iter::once(name).chain(columns).collect()
            }
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        match self {
            Self::Native(columns) => columns.iter().map(|it| (it.cell)(object, now)).collect(),
            Self::Custom(columns) => {
                let name = object["metadata"]["name"].clone();
                let columns = columns.iter();
                let columns = columns.map(|(column, path)| custom(column, path, object, now));
                std::iter::once(name).chain(columns).collect()
            }
        }
    }
}

impl Native {
    fn definition(&self) -> Value {
        let format = if self.name == "Name" { "name" } else { "" };
        json!({
            "name": self.name, "type": self.kind, "format": format, "description": "", "priority": self.priority,
        })
    }
}

/// Returns the cell of a column of a definition; empty when there is no such value.
fn custom(column: &Column, path: &Path, object: &Value, now: Timestamp) -> Value {
    let found = path.find(object);
    let Some(first) = found.first().copied().filter(|it| !it.is_null()) else {
        return Value::Null;
    };
    match column.kind.as_str() {
        "date" => age::since(first, now).into(),
        "integer" => match first {
            Value::Number(number) if !number.is_f64() => first.clone(),
            Value::Number(number) => whole(number.as_f64()),
            _ => Value::Null,
        },
        "number" if first.is_number() => first.clone(),
        "boolean" if first.is_boolean() => first.clone(),
        "number" | "boolean" => Value::Null,
        _ => {
            let texts = found.iter().map(|it| cells::plain(it));
            texts.collect::<Vec<_>>().join(" ").into()
        }
    }
}

fn whole(number: Option<f64>) -> Value {
    let text = number.map(|it| format!("{:.0}", it.trunc()));
    let number = text.and_then(|it| it.parse::<i64>().ok());
    number.map_or(Value::Null, Value::from)
}

#[cfg(test)]
mod tests;
