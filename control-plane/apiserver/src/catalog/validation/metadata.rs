//! Rules of the metadata that every object has.

use serde_json::Value;

use super::names::{
    LABEL, QUALIFIED, SUBDOMAIN, VALUE, is_dns_1035, is_dns_label, is_dns_subdomain,
    is_label_value, is_path_segment, is_qualified,
};
use super::{items, needs, text};
use crate::catalog::Resource;
use crate::failure::Cause;

/// Most bytes of all annotations.
const MAX_ANNOTATIONS: usize = 256 << 10;

/// Adds what is wrong with the metadata of an object.
pub(super) fn check(resource: &Resource, object: &Value, found: &mut Vec<Cause>) {
    let metadata = &object["metadata"];
    name(resource, metadata, found);
    labels(&metadata["labels"], "metadata.labels", found);
    annotations(&metadata["annotations"], found);
    for (path, finalizer) in items(metadata, "metadata", "finalizers") {
        if !finalizer.as_str().is_some_and(is_qualified) {
            found.push(Cause::invalid(&path, finalizer, QUALIFIED));
        }
    }
    let mut controllers = 0;
    for (path, owner) in items(metadata, "metadata", "ownerReferences") {
        for field in ["apiVersion", "kind", "name", "uid"] {
            needs(owner, &path, field, found);
        }
        controllers += usize::from(owner["controller"] == true);
    }
    if controllers > 1 {
        let why = "only one reference can have controller set to true";
        let owners = &metadata["ownerReferences"];
        found.push(Cause::invalid("metadata.ownerReferences", owners, why));
    }
}

fn name(resource: &Resource, metadata: &Value, found: &mut Vec<Cause>) {
    let name = text(metadata, "name");
    let generated = text(metadata, "generateName");
    if name.is_empty() {
        if generated.is_empty() && resource.is_stored() {
            found.push(Cause::required(
                "metadata.name",
                "name or generateName is required",
            ));
        }
        return;
    }
    let (is_good, why): (fn(&str) -> bool, _) = match (
        resource.group.as_str(),
        resource.kind.as_str(),
    ) {
        ("", "Namespace") => (is_dns_label, LABEL),
        ("", "Service") => {
            let why = "must be at most 63 lower-case letters, digits and '-', beginning with a letter (an RFC 1035 label)";
            (is_dns_1035, why)
        }
        ("rbac.authorization.k8s.io", _) => (
            is_path_segment,
            "must not be '.' or '..', and not contain '/' or '%'",
        ),
        _ => (is_dns_subdomain, SUBDOMAIN),
    };
    if !is_good(name) {
        found.push(Cause::invalid("metadata.name", &metadata["name"], why));
    }
}

/// Adds what is wrong with labels.
pub(super) fn labels(labels: &Value, path: &str, found: &mut Vec<Cause>) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        if !is_qualified(key) {
            found.push(Cause::invalid(path, &Value::from(key.as_str()), QUALIFIED));
        }
        if value.as_str().is_some_and(|it| !is_label_value(it)) {
            found.push(Cause::invalid(path, value, VALUE));
        }
    }
}

fn annotations(annotations: &Value, found: &mut Vec<Cause>) {
    let mut size = 0;
    for (key, value) in annotations.as_object().into_iter().flatten() {
        if !is_qualified(&key.to_lowercase()) {
            found.push(Cause::invalid(
                "metadata.annotations",
                &Value::from(key.as_str()),
                QUALIFIED,
            ));
        }
        size += key.len() + value.as_str().unwrap_or_default().len();
    }
    if size > MAX_ANNOTATIONS {
        let message = format!("Too long: may not be more than {MAX_ANNOTATIONS} bytes");
        found.push(Cause {
            reason: "FieldValueTooLong",
            message,
            field: "metadata.annotations".to_owned(),
        });
    }
}
