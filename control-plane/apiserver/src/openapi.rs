//! OpenAPI v3 documents, by which clients explain and check manifests.
//!
//! There is one for each group version, made when it is asked for; the index names each with a hash of what it is made
//! from, by which clients keep it.

mod components;
mod operations;

use std::fmt::Write as _;

use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::catalog::{Catalog, Resource, Source, Version};

const ROOT: &str = "/openapi/v3";

/// Version of what documents describe.
const VERSION: &str = concat!("v1.33.0+ferrovirt-", env!("CARGO_PKG_VERSION"));

/// What clients ask for, and what they are answered: the name that they use is none that headers may have (RFC 9110).
const V2_ASKED: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
const V2_PROTOBUF: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// The message `openapi.v2.Document` (gnostic) with its field 1, `swagger`, alone.
const V2_MESSAGE: &[u8] = b"\x0a\x032.0";

/// Returns the answer to `/openapi/v3` and paths below it.
#[must_use]
pub fn answer(catalog: &Catalog, path: &str) -> Option<Value> {
    let below = path.trim_end_matches('/').strip_prefix(ROOT)?;
    if below.is_empty() {
        return Some(index(catalog));
    }
    let steps: Vec<_> = below.split('/').collect();
    match steps.as_slice() {
        ["", "api", version] => document(catalog, "", version),
        ["", "apis", group, version] if !group.is_empty() => document(catalog, group, version),
        _ => None,
    }
}

/// Returns the content type and the answer to `/openapi/v2`: a document that says nothing.
///
/// kubectl asks for it before it sends a `List`, to check what is inside against it, and takes a kind that the document lacks
/// as it is; the server checks all kinds anyway. Without any document it sends no list at all.
#[must_use]
pub fn version_2(accept: &str) -> (&'static str, Vec<u8>) {
    if accept.contains(V2_ASKED) {
        return (V2_PROTOBUF, V2_MESSAGE.to_vec());
    }
    let info = json!({"title": "Kubernetes", "version": VERSION});
    let document = json!({"swagger": "2.0", "info": info, "paths": {}, "definitions": {}});
    ("application/json", document.to_string().into_bytes())
}

/// A resource in one of its versions.
type Kind<'a> = (&'a Resource, &'a Version);

fn index(catalog: &Catalog) -> Value {
    let mut versions: Vec<_> = served(catalog)
        .map(|(it, version)| (it.group.as_str(), version.name.as_str()))
        .collect();
    versions.sort_unstable();
    versions.dedup();
    let mut paths = Map::new();
    for (group, version) in versions {
        let place = place(group, version);
        let hash = hash(&kinds(catalog, group, version));
        let url = format!("{ROOT}/{place}?hash={hash}");
        paths.insert(place, json!({"serverRelativeURL": url}));
    }
    json!({"paths": paths})
}

fn document(catalog: &Catalog, group: &str, version: &str) -> Option<Value> {
    let kinds = kinds(catalog, group, version);
    if kinds.is_empty() {
        return None;
    }
    let (schemas, names) = components::schemas(&kinds);
    let mut paths = Map::new();
    for (kind, name) in kinds.iter().zip(&names) {
        operations::add(kind, name, &mut paths);
    }
    Some(json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": VERSION},
        "paths": paths,
        "components": {"schemas": schemas},
    }))
}

fn served(catalog: &Catalog) -> impl Iterator<Item = Kind<'_>> {
    let resources = catalog.resources.values();
    resources.flat_map(|resource| {
        let versions = resource.versions.iter().filter(|it| it.is_served);
        versions.map(move |version| (resource.as_ref(), version))
    })
}

fn kinds<'a>(catalog: &'a Catalog, group: &str, version: &str) -> Vec<Kind<'a>> {
    let is_there = |kind: &Kind<'_>| kind.0.group == group && kind.1.name == version;
    served(catalog).filter(is_there).collect()
}

fn place(group: &str, version: &str) -> String {
    if group.is_empty() {
        format!("api/{version}")
    } else {
        format!("apis/{group}/{version}")
    }
}

/// Returns a hash that changes whenever the document does.
fn hash(kinds: &[Kind<'_>]) -> String {
    let mut hasher = Sha256::new();
    hasher.update(env!("CARGO_PKG_VERSION"));
    for (resource, version) in kinds {
        hasher.update(format!(
            "{}\0{}\0{}\0",
            resource.plural, resource.kind, version.name
        ));
        hasher.update([
            u8::from(version.has_status),
            u8::from(version.scale.is_some()),
        ]);
        if let Source::Text(text) = version.schema.source() {
            hasher.update(text.as_bytes());
        }
    }
    let mut text = String::new();
    for byte in hasher.finalize().iter().take(16) {
        let _infallible = write!(text, "{byte:02X}");
    }
    text
}

#[cfg(test)]
mod tests;
