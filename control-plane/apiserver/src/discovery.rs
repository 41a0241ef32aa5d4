//! What there is: `/api`, `/apis` and below, plain and aggregated (`apidiscovery.k8s.io`).

mod aggregated;
mod plain;

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde_json::Value;

use crate::catalog::{Catalog, Resource, Version, version_priority};

/// A group version that another server answers for (`apiregistration.k8s.io` APIService with a service).
#[derive(Clone, Debug, PartialEq)]
pub struct ApiService {
    /// `subresources.kubevirt.io`.
    pub group: String,
    /// `v1`.
    pub version: String,
    /// Its `APIResourceList`, if the other server gave one.
    pub resources: Option<Value>,
}

const JSON: &str = "application/json";
const V2: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
const V2_BETA1: &str = "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList";

/// Groups that come first, as Kubernetes orders them: where groups share a short name or a kind, clients take the first.
const FIRST: [&str; 15] = [
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
];

/// Returns the content type and the answer to a discovery request: aggregated at `/api` and `/apis` when `accept` asks for
/// that first, else plain. The resources of a group version of another server are for that server to list, unless it gave
/// its list.
#[must_use]
pub fn answer(
    catalog: &Catalog,
    extra: &[ApiService],
    path: &str,
    accept: &str,
) -> Option<(&'static str, Value)> {
    let path = path.trim_end_matches('/');
    let steps: Vec<_> = path.trim_start_matches('/').split('/').collect();
    let groups = groups(catalog, extra);
    match steps.as_slice() {
        ["api"] => Some(match aggregation(accept) {
            Some((media, version)) => (media, aggregated::list(&groups, version, str::is_empty)),
            None => (JSON, plain::core_versions()),
        }),
        ["apis"] => Some(match aggregation(accept) {
            Some((media, version)) => (
                media,
                aggregated::list(&groups, version, |it| !it.is_empty()),
            ),
            None => (JSON, plain::groups(&groups)),
        }),
        ["api", version] => group_version(&groups, "", version),
        ["apis", group] if !group.is_empty() => {
            let group = groups.iter().find(|it| it.name == *group)?;
            Some((JSON, plain::group_alone(group)))
        }
        ["apis", group, version] if !group.is_empty() => group_version(&groups, group, version),
        _ => None,
    }
}

fn group_version(
    groups: &[Group<'_>],
    group: &str,
    version: &str,
) -> Option<(&'static str, Value)> {
    let group = groups.iter().find(|it| it.name == group)?;
    let version = group.versions.iter().find(|it| it.name == version)?;
    Some((JSON, plain::resources(group, version)?))
}

/// A group with its versions, the preferred one first.
struct Group<'a> {
    name: &'a str,
    versions: Vec<GroupVersion<'a>>,
}

struct GroupVersion<'a> {
    name: &'a str,
    resources: Resources<'a>,
}

enum Resources<'a> {
    /// Ours, in the order of the alphabet.
    Own(Vec<(&'a Resource, &'a Version)>),
    /// Those of another server, if it answered.
    Others(Option<&'a Value>),
}

fn groups<'a>(catalog: &'a Catalog, extra: &'a [ApiService]) -> Vec<Group<'a>> {
    let mut found: BTreeMap<&str, BTreeMap<&str, Resources<'_>>> = BTreeMap::new();
    for resource in catalog.resources.values() {
        for version in resource.versions.iter().filter(|it| it.is_served) {
            let versions = found.entry(&resource.group).or_default();
            let resources = versions
                .entry(&version.name)
                .or_insert_with(|| Resources::Own(Vec::new()));
            if let Resources::Own(resources) = resources {
                resources.push((resource, version));
            }
        }
    }
    for service in extra {
        let versions = found.entry(&service.group).or_default();
        let others = Resources::Others(service.resources.as_ref());
        versions.entry(&service.version).or_insert(others);
    }
    let mut groups: Vec<_> = found
        .into_iter()
        .map(|(name, versions)| Group::new(name, versions))
        .collect();
    let rank = |name: &str| {
        FIRST
            .iter()
            .position(|it| *it == name)
            .unwrap_or(FIRST.len())
    };
    groups.sort_by_key(|it| rank(it.name));
    groups
}

impl<'a> Group<'a> {
    fn new(name: &'a str, versions: BTreeMap<&'a str, Resources<'a>>) -> Self {
        let versions = versions.into_iter();
        let mut versions: Vec<_> = versions
            .map(|(name, resources)| GroupVersion { name, resources })
            .collect();
        versions.sort_by_cached_key(|it| Reverse(version_priority(it.name)));
        Self { name, versions }
    }

    fn group_version(&self, version: &str) -> String {
        if self.name.is_empty() {
            version.to_owned()
        } else {
            format!("{}/{version}", self.name)
        }
    }
}

/// Something below a resource, in the terms of both forms.
struct Below<'a> {
    name: &'a str,
    group: &'a str,
    version: &'a str,
    kind: &'a str,
    verbs: &'a [&'a str],
}

const UPDATE: &[&str] = &["get", "patch", "update"];

/// Returns what there is below a resource in a version.
fn below<'a>(resource: &'a Resource, version: &'a Version) -> Vec<Below<'a>> {
    let own = resource.subresources.iter().map(|it| Below {
        name: it.name,
        group: it.group,
        version: it.version,
        kind: it.kind,
        verbs: it.verbs,
    });
    let status = version.has_status.then(|| Below {
        name: "status",
        group: &resource.group,
        version: &version.name,
        kind: &resource.kind,
        verbs: UPDATE,
    });
    let scale = version.scale.as_ref().map(|_| Below {
        name: "scale",
        group: "autoscaling",
        version: "v1",
        kind: "Scale",
        verbs: UPDATE,
    });
    let mut all: Vec<_> = own.chain(status).chain(scale).collect();
    all.sort_by_key(|it| it.name);
    all
}

/// Returns the aggregated form that a client prefers to the plain one: its content type and its version.
fn aggregation(accept: &str) -> Option<(&'static str, &'static str)> {
    for range in accept.split(',') {
        let mut parts = range.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        if !matches!(media, JSON | "application/*" | "*/*") {
            continue;
        }
        let parameters: Vec<_> = parts.filter_map(|it| it.split_once('=')).collect();
        let has = |name, value| parameters.contains(&(name, value));
        if !parameters.iter().any(|(name, _)| *name == "as") {
            return None;
        }
        let is_list = has("g", "apidiscovery.k8s.io") && has("as", "APIGroupDiscoveryList");
        if is_list && has("v", "v2") {
            return Some((V2, "v2"));
        }
        if is_list && has("v", "v2beta1") {
            return Some((V2_BETA1, "v2beta1"));
        }
    }
    None
}

#[cfg(test)]
mod tests;
