//! Resources from custom resource definitions (`apiextensions.k8s.io/v1`).

mod definition;
mod structural;

use std::cmp::Reverse;

use serde_json::Value;

use super::built_in::STORED;
use super::{Column, LazySchema, Resource, ScalePaths, Version};
use crate::failure::Cause;

/// Returns the resource that a custom resource definition makes, with the names that its status accepted, or those that it
/// asks for where no status says.
///
/// # Errors
///
/// All fields of the definition that are wrong.
pub fn custom(crd: &Value) -> Result<Resource, Vec<Cause>> {
    let causes = definition::check(crd);
    if causes.is_empty() {
        Ok(resource(crd))
    } else {
        Err(causes)
    }
}

/// Returns the resource of a definition that was checked when it was stored, without the work of checking it again; `None`
/// when it cannot make one.
#[must_use]
pub fn custom_stored(crd: &Value) -> Option<Resource> {
    let resource = resource(crd);
    let is_whole = !resource.plural.is_empty() && resource.versions.iter().any(|it| it.is_storage);
    is_whole.then_some(resource)
}

/// Whether a custom resource definition is in force: its condition `Established` is true.
#[must_use]
pub fn is_established(crd: &Value) -> bool {
    let conditions = crd.pointer("/status/conditions").and_then(Value::as_array);
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|it| it["type"] == "Established" && it["status"] == "True")
}

fn resource(crd: &Value) -> Resource {
    let spec = &crd["spec"];
    let asked = &spec["names"];
    let accepted = &crd["status"]["acceptedNames"];
    let names = if text(accepted, "plural").is_empty() {
        asked
    } else {
        accepted
    };
    let (group, kind) = (text(spec, "group"), text(names, "kind"));
    Resource {
        group: group.to_owned(),
        plural: text(names, "plural").to_owned(),
        singular: or(text(names, "singular"), kind.to_lowercase()),
        kind: kind.to_owned(),
        list_kind: or(text(names, "listKind"), format!("{kind}List")),
        short_names: texts(&names["shortNames"]),
        categories: texts(&names["categories"]),
        is_namespaced: spec["scope"] == "Namespaced",
        is_custom: true,
        verbs: STORED,
        subresources: Vec::new(),
        versions: versions(spec, group, kind),
    }
}

fn versions(spec: &Value, group: &str, kind: &str) -> Vec<Version> {
    let mut made: Vec<(String, LazySchema)> = Vec::new();
    let mut versions: Vec<_> = items(&spec["versions"])
        .map(|version| {
            let text = version["schema"]["openAPIV3Schema"].to_string();
            let known = made.iter().find(|(it, _)| *it == text);
            let schema = known.map(|(_, schema)| schema.clone());
            let schema = schema.unwrap_or_else(|| {
                let schema = LazySchema::from_text(&text);
                made.push((text, schema.clone()));
                schema
            });
            self::version(version, schema, group, kind)
        })
        .collect();
    versions.sort_by_cached_key(|it| Reverse(priority(&it.name)));
    versions
}

fn version(version: &Value, schema: LazySchema, group: &str, kind: &str) -> Version {
    let name = text(version, "name");
    let deprecation = (version["deprecated"] == true).then(|| {
        let warning = text(version, "deprecationWarning");
        or(warning, format!("{group}/{name} {kind} is deprecated"))
    });
    let columns = items(&version["additionalPrinterColumns"]).map(column);
    let below = &version["subresources"];
    Version {
        name: name.to_owned(),
        is_served: version["served"] == true,
        is_storage: version["storage"] == true,
        deprecation,
        schema,
        columns: columns.collect(),
        has_status: below["status"].is_object(),
        scale: below["scale"].is_object().then(|| scale(&below["scale"])),
    }
}

fn column(column: &Value) -> Column {
    let priority = column["priority"].as_i64().unwrap_or(0);
    Column {
        name: text(column, "name").to_owned(),
        kind: text(column, "type").to_owned(),
        format: text(column, "format").to_owned(),
        description: text(column, "description").to_owned(),
        priority: i32::try_from(priority).unwrap_or(i32::MAX),
        path: text(column, "jsonPath").to_owned(),
    }
}

fn scale(scale: &Value) -> ScalePaths {
    let selector = text(scale, "labelSelectorPath");
    ScalePaths {
        spec_replicas: text(scale, "specReplicasPath").to_owned(),
        status_replicas: text(scale, "statusReplicasPath").to_owned(),
        label_selector: (!selector.is_empty()).then(|| selector.to_owned()),
    }
}

/// Returns how much a version is preferred: `v2` before `v1`, then `v1beta2`, `v1alpha1`, then all other names, the first in
/// the alphabet first.
pub(crate) fn priority(version: &str) -> (u8, u32, u32, Reverse<String>) {
    let none = || (0, 0, 0, Reverse(version.to_owned()));
    let number = |text: &str| {
        text.parse::<u32>()
            .ok()
            .filter(|_| !text.starts_with(['0', '+']))
    };
    let Some(rest) = version.strip_prefix('v') else {
        return none();
    };
    let (major, level, minor) = match rest.find(|it: char| !it.is_ascii_digit()) {
        None => (number(rest), 3, Some(0)),
        Some(at) => {
            let (major, rest) = rest.split_at(at);
            let beta = rest.strip_prefix("beta").map(|it| (2, it));
            let Some((level, minor)) = beta.or(rest.strip_prefix("alpha").map(|it| (1, it))) else {
                return none();
            };
            (number(major), level, number(minor))
        }
    };
    match (major, minor) {
        (Some(major), Some(minor)) => (level, major, minor, Reverse(String::new())),
        _ => none(),
    }
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

fn texts(list: &Value) -> Vec<String> {
    let texts = items(list).filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

fn or(text: &str, other: String) -> String {
    if text.is_empty() {
        other
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests;
