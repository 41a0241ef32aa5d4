//! The plain form: `APIVersions`, `APIGroupList`, `APIGroup`, `APIResourceList`.

use serde_json::{Value, json};

use super::{Group, GroupVersion, Resources, below};

/// Returns `/api`.
pub(super) fn core_versions() -> Value {
    json!({"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []})
}

/// Returns `/apis`.
pub(super) fn groups(groups: &[Group<'_>]) -> Value {
    let named = groups.iter().filter(|it| !it.name.is_empty());
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": named.map(group).collect::<Vec<_>>()})
}

/// Returns `/apis/GROUP`.
pub(super) fn group_alone(one: &Group<'_>) -> Value {
    let mut group = group(one);
    group["kind"] = "APIGroup".into();
    group["apiVersion"] = "v1".into();
    group
}

fn group(group: &Group<'_>) -> Value {
    let version = |it: &GroupVersion<'_>| json!({"groupVersion": group.group_version(it.name), "version": it.name});
    let versions: Vec<_> = group.versions.iter().map(version).collect();
    json!({"name": group.name, "preferredVersion": versions.first(), "versions": versions})
}

/// Returns `/apis/GROUP/VERSION`, unless another server did not answer.
pub(super) fn resources(group: &Group<'_>, version: &GroupVersion<'_>) -> Option<Value> {
    let own = match &version.resources {
        Resources::Own(resources) => resources,
        Resources::Others(list) => return list.cloned(),
    };
    let mut all = Vec::new();
    for (resource, version) in own {
        let mut entry = json!({
            "name": resource.plural, "singularName": resource.singular, "namespaced": resource.is_namespaced,
            "kind": resource.kind, "verbs": resource.verbs,
        });
        for (name, texts) in [
            ("shortNames", &resource.short_names),
            ("categories", &resource.categories),
        ] {
            if !texts.is_empty() {
                entry[name] = json!(texts);
            }
        }
        all.push(entry);
        for below in below(resource, version) {
            let mut entry = json!({
                "name": format!("{}/{}", resource.plural, below.name), "singularName": "",
                "namespaced": resource.is_namespaced, "kind": below.kind, "verbs": below.verbs,
            });
            if (below.group, below.version) != (resource.group.as_str(), version.name.as_str()) {
                entry["group"] = below.group.into();
                entry["version"] = below.version.into();
            }
            all.push(entry);
        }
    }
    Some(json!({
        "kind": "APIResourceList", "apiVersion": "v1",
        "groupVersion": group.group_version(version.name), "resources": all,
    }))
}
