//! The aggregated form: `APIGroupDiscoveryList` (KEP-3352).

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{Group, GroupVersion, Resources, below};
use crate::catalog::{Resource, Version};

/// Returns the list of the groups that are chosen by name.
pub(super) fn list(groups: &[Group<'_>], version: &str, is_chosen: impl Fn(&str) -> bool) -> Value {
    let chosen = groups.iter().filter(|it| is_chosen(it.name));
    json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"), "metadata": {},
        "items": chosen.map(group).collect::<Vec<_>>(),
    })
}

fn group(group: &Group<'_>) -> Value {
    let metadata = if group.name.is_empty() {
        json!({"creationTimestamp": null})
    } else {
        json!({"name": group.name, "creationTimestamp": null})
    };
    let versions: Vec<_> = group
        .versions
        .iter()
        .map(|it| version(group.name, it))
        .collect();
    json!({"metadata": metadata, "versions": versions})
}

fn version(group: &str, version: &GroupVersion<'_>) -> Value {
    let (resources, freshness) = match &version.resources {
        Resources::Own(own) => (
            own.iter()
                .map(|(it, version)| resource(it, version))
                .collect(),
            "Current",
        ),
        Resources::Others(Some(list)) => (of_others(group, version.name, list), "Current"),
        Resources::Others(None) => (Vec::new(), "Stale"),
    };
    json!({"version": version.name, "resources": resources, "freshness": freshness})
}

fn resource(resource: &Resource, version: &Version) -> Value {
    let mut entry = json!({
        "resource": resource.plural,
        "responseKind": {"group": resource.group, "version": version.name, "kind": resource.kind},
        "scope": scope(resource.is_namespaced), "singularResource": resource.singular, "verbs": resource.verbs,
    });
    for (name, texts) in [
        ("shortNames", &resource.short_names),
        ("categories", &resource.categories),
    ] {
        if !texts.is_empty() {
            entry[name] = json!(texts);
        }
    }
    let below = below(resource, version);
    if !below.is_empty() {
        let below = below.iter().map(|it| {
            json!({
                "subresource": it.name, "verbs": it.verbs,
                "responseKind": {"group": it.group, "version": it.version, "kind": it.kind},
            })
        });
        entry["subresources"] = below.collect();
    }
    entry
}

fn scope(is_namespaced: bool) -> &'static str {
    if is_namespaced {
        "Namespaced"
    } else {
        "Cluster"
    }
}

/// Brings the `APIResourceList` of another server into this form.
fn of_others(group: &str, version: &str, list: &Value) -> Vec<Value> {
    let mut entries: BTreeMap<&str, Value> = BTreeMap::new();
    for resource in list["resources"].as_array().into_iter().flatten() {
        let Some(name) = resource["name"].as_str() else {
            continue;
        };
        let (plural, below) = name
            .split_once('/')
            .map_or((name, None), |(it, below)| (it, Some(below)));
        let text =
            |field: &str, otherwise: &str| resource[field].as_str().unwrap_or(otherwise).to_owned();
        let kind = json!({"group": text("group", group), "version": text("version", version), "kind": text("kind", "")});
        let entry = entries.entry(plural).or_insert_with(|| {
            let scope = scope(resource["namespaced"] == true);
            json!({"resource": plural, "scope": scope, "singularResource": "", "verbs": []})
        });
        let Some(below) = below else {
            entry["responseKind"] = kind;
            entry["singularResource"] = text("singularName", "").into();
            for field in ["verbs", "shortNames", "categories"] {
                if resource[field].is_array() {
                    entry[field] = resource[field].clone();
                }
            }
            continue;
        };
        let below = json!({"subresource": below, "responseKind": kind, "verbs": resource["verbs"]});
        match entry.get_mut("subresources").and_then(Value::as_array_mut) {
            Some(all) => all.push(below),
            None => entry["subresources"] = json!([below]),
        }
    }
    entries.into_values().collect()
}
