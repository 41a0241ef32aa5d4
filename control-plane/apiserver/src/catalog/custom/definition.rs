//! What is wrong with a custom resource definition.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{items, structural, text, texts};
use crate::catalog::validation::names::{is_dns_1035, is_dns_label, is_dns_subdomain};
use crate::failure::Cause;
use crate::schema::Schema;

/// Most versions of one definition.
const MAX_VERSIONS: usize = 50;

const COLUMN_KINDS: [&str; 5] = ["integer", "number", "string", "boolean", "date"];

/// Returns all that is wrong.
pub(super) fn check(crd: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let spec = &crd["spec"];
    check_names(crd, &mut causes);
    if !["Namespaced", "Cluster"].contains(&text(spec, "scope")) {
        causes.push(Cause::not_supported(
            "spec.scope",
            &spec["scope"],
            &["Cluster", "Namespaced"],
        ));
    }
    if spec["preserveUnknownFields"] == true {
        let why = "must be false; set x-kubernetes-preserve-unknown-fields in the schema where unknown fields stay";
        causes.push(Cause::invalid(
            "spec.preserveUnknownFields",
            &true.into(),
            why,
        ));
    }
    let strategy = &spec["conversion"]["strategy"];
    if !strategy.is_null() && strategy != "None" {
        let field = "spec.conversion.strategy";
        causes.push(Cause::not_supported(field, strategy, &["None"]));
    }
    check_versions(spec, &mut causes);
    causes
}

fn check_names(crd: &Value, causes: &mut Vec<Cause>) {
    let spec = &crd["spec"];
    let (group, names) = (text(spec, "group"), &spec["names"]);
    if group.is_empty() {
        causes.push(Cause::required("spec.group", ""));
    } else if !is_dns_subdomain(group) || !group.contains('.') {
        let why = "must be a domain with at least one dot";
        causes.push(Cause::invalid("spec.group", &spec["group"], why));
    }
    for name in ["plural", "kind"] {
        if text(names, name).is_empty() {
            causes.push(Cause::required(&format!("spec.names.{name}"), ""));
        }
    }
    let why =
        "must be lower-case letters, digits and '-', beginning with a letter (RFC 1035 label)";
    for name in ["plural", "singular"] {
        let value = text(names, name);
        if !value.is_empty() && !is_dns_1035(value) {
            causes.push(Cause::invalid(
                &format!("spec.names.{name}"),
                &names[name],
                why,
            ));
        }
    }
    for name in ["kind", "listKind"] {
        let value = text(names, name);
        if !value.is_empty() && !is_dns_1035(&value.to_lowercase()) {
            let why = "must be letters, digits and '-', beginning with a letter";
            causes.push(Cause::invalid(
                &format!("spec.names.{name}"),
                &names[name],
                why,
            ));
        }
    }
    if !text(names, "kind").is_empty() && names["kind"] == names["listKind"] {
        let why = "kind and listKind may not be the same";
        causes.push(Cause::invalid(
            "spec.names.listKind",
            &names["listKind"],
            why,
        ));
    }
    for list in ["shortNames", "categories"] {
        for (index, name) in texts(&names[list]).iter().enumerate() {
            if !is_dns_1035(name) {
                let field = format!("spec.names.{list}[{index}]");
                causes.push(Cause::invalid(&field, &Value::from(name.as_str()), why));
            }
        }
    }
    let wanted = format!("{}.{group}", text(names, "plural"));
    if text(&crd["metadata"], "name") != wanted {
        let why = format!("must be spec.names.plural+\".\"+spec.group, \"{wanted}\"");
        causes.push(Cause::invalid(
            "metadata.name",
            &crd["metadata"]["name"],
            &why,
        ));
    }
}

fn check_versions(spec: &Value, causes: &mut Vec<Cause>) {
    let field = "spec.versions";
    let count = items(&spec["versions"]).count();
    if count == 0 {
        causes.push(Cause::required(field, "name at least one version"));
        return;
    }
    if count > MAX_VERSIONS {
        let why = format!("must have at most {MAX_VERSIONS} versions");
        causes.push(Cause::invalid(field, &count.into(), &why));
        return;
    }
    if items(&spec["versions"])
        .filter(|it| it["storage"] == true)
        .count()
        != 1
    {
        let why = "must have exactly one version marked as storage version";
        causes.push(Cause::invalid(field, &count.into(), why));
    }
    let mut seen = BTreeSet::new();
    let mut checked: Vec<&Value> = Vec::new();
    for (index, version) in items(&spec["versions"]).enumerate() {
        let field = format!("{field}[{index}]");
        let name = text(version, "name");
        if name.is_empty() {
            causes.push(Cause::required(&format!("{field}.name"), ""));
        } else if !is_dns_label(name) {
            let why = "must be lower-case letters, digits and '-'";
            causes.push(Cause::invalid(
                &format!("{field}.name"),
                &version["name"],
                why,
            ));
        } else if !seen.insert(name) {
            causes.push(Cause::duplicate(&format!("{field}.name"), &version["name"]));
        }
        // Versions often have one schema, and schemas are large.
        let schema = &version["schema"]["openAPIV3Schema"];
        if !checked.contains(&schema) {
            check_schema(schema, &format!("{field}.schema.openAPIV3Schema"), causes);
            checked.push(schema);
        }
        check_columns(
            version,
            &format!("{field}.additionalPrinterColumns"),
            causes,
        );
        check_scale(
            &version["subresources"]["scale"],
            &format!("{field}.subresources.scale"),
            causes,
        );
    }
}

fn check_schema(json: &Value, field: &str, causes: &mut Vec<Cause>) {
    if !json.is_object() {
        causes.push(Cause::required(field, "schemas are required"));
        return;
    }
    match Schema::from_json(json) {
        Ok(schema) => structural::check(json, &schema, field, causes),
        Err(error) => {
            let field = format!("{field}.{}", error.path);
            causes.push(Cause::invalid(&field, &Value::Null, &error.problem));
        }
    }
}

fn check_columns(version: &Value, field: &str, causes: &mut Vec<Cause>) {
    for (index, column) in items(&version["additionalPrinterColumns"]).enumerate() {
        for name in ["name", "type", "jsonPath"] {
            if text(column, name).is_empty() {
                causes.push(Cause::required(&format!("{field}[{index}].{name}"), ""));
            }
        }
        let kind = text(column, "type");
        if !kind.is_empty() && !COLUMN_KINDS.contains(&kind) {
            let field = format!("{field}[{index}].type");
            causes.push(Cause::not_supported(&field, &column["type"], &COLUMN_KINDS));
        }
    }
}

fn check_scale(scale: &Value, field: &str, causes: &mut Vec<Cause>) {
    if !scale.is_object() {
        return;
    }
    for (name, below) in [
        ("specReplicasPath", ".spec"),
        ("statusReplicasPath", ".status"),
    ] {
        let field = format!("{field}.{name}");
        let path = text(scale, name);
        if path.is_empty() {
            causes.push(Cause::required(&field, ""));
        } else if !path.starts_with(&format!("{below}.")) {
            let why = format!("should be a json path under {below}");
            causes.push(Cause::invalid(&field, &scale[name], &why));
        }
    }
}
