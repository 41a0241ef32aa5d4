//! Status of custom resource definitions.

use jiff::{Timestamp, Unit};
use serde_json::{Value, json};

use super::{Catalog, Resource};

/// Returns the `status` that a custom resource definition has: names accepted or in conflict with those of other
/// resources of the catalog, the conditions `NamesAccepted` and `Established`, and the versions that objects were stored in.
/// What the status says beyond these stays, and so do times of conditions that did not change.
#[must_use]
pub fn crd_status(crd: &Value, catalog: &Catalog, now: Timestamp) -> Value {
    let mut status = match &crd["status"] {
        Value::Object(status) => status.clone(),
        _ => serde_json::Map::new(),
    };
    let asked = names(&crd["spec"]["names"]);
    let conflict = conflict(crd, &asked, catalog);
    let was_established = super::is_established(crd);
    if conflict.is_none() {
        status.insert("acceptedNames".to_owned(), asked);
    } else if !status.contains_key("acceptedNames") {
        status.insert(
            "acceptedNames".to_owned(),
            json!({"plural": "", "kind": ""}),
        );
    }
    let (accepted, established) = conditions(conflict.as_ref(), was_established);
    let mut conditions = match status.get("conditions") {
        Some(Value::Array(conditions)) => conditions.clone(),
        _ => Vec::new(),
    };
    set(&mut conditions, accepted, now);
    set(&mut conditions, established, now);
    status.insert("conditions".to_owned(), conditions.into());
    let stored = stored_versions(crd);
    status.insert("storedVersions".to_owned(), stored.into());
    status.into()
}

/// A name that another resource of the group has.
struct Conflict {
    reason: &'static str,
    name: String,
}

fn names(asked: &Value) -> Value {
    let mut names = asked.clone();
    let kind = asked["kind"].as_str().unwrap_or_default();
    for (name, text) in [
        ("singular", kind.to_lowercase()),
        ("listKind", format!("{kind}List")),
    ] {
        if names[name].as_str().unwrap_or_default().is_empty() {
            names[name] = text.into();
        }
    }
    names
}

fn conflict(crd: &Value, asked: &Value, catalog: &Catalog) -> Option<Conflict> {
    let group = crd["spec"]["group"].as_str().unwrap_or_default();
    let plural = asked["plural"].as_str().unwrap_or_default();
    let others = catalog.resources.values();
    let others: Vec<_> = others
        .filter(|it| it.group == group && it.plural != plural)
        .collect();
    let text = |name: &str| asked[name].as_str().unwrap_or_default().to_owned();
    let is_resource = |name: &str| others.iter().any(|it| has_resource_name(it, name));
    let is_kind = |name: &str| {
        others
            .iter()
            .any(|it| it.kind == name || it.list_kind == name)
    };
    let short = asked["shortNames"].as_array().into_iter().flatten();
    let short = short.filter_map(|it| Some(("ShortNamesConflict", it.as_str()?.to_owned())));
    let resources = [
        ("PluralConflict", text("plural")),
        ("SingularConflict", text("singular")),
    ];
    let kinds = [
        ("KindConflict", text("kind")),
        ("ListKindConflict", text("listKind")),
    ];
    let resource = resources
        .into_iter()
        .chain(short)
        .find(|(_, name)| is_resource(name));
    let found = resource.or_else(|| kinds.into_iter().find(|(_, name)| is_kind(name)));
    found.map(|(reason, name)| Conflict { reason, name })
}

fn has_resource_name(resource: &Resource, name: &str) -> bool {
    resource.plural == name
        || resource.singular == name
        || resource.short_names.iter().any(|it| it == name)
}

fn conditions(conflict: Option<&Conflict>, was_established: bool) -> (Value, Value) {
    let accepted = match conflict {
        None => json!({
            "type": "NamesAccepted", "status": "True",
            "reason": "NoConflicts", "message": "no conflicts found",
        }),
        Some(Conflict { reason, name }) => json!({
            "type": "NamesAccepted", "status": "False", "reason": reason,
            "message": format!("\"{name}\" is already in use, choose another name"),
        }),
    };
    let is_established = conflict.is_none() || was_established;
    let established = if is_established {
        json!({
            "type": "Established", "status": "True", "reason": "InitialNamesAccepted",
            "message": "the initial names have been accepted",
        })
    } else {
        json!({
            "type": "Established", "status": "False", "reason": "NotAccepted",
            "message": "not all names are accepted",
        })
    };
    (accepted, established)
}

fn set(conditions: &mut Vec<Value>, mut condition: Value, now: Timestamp) {
    let now = now.round(Unit::Second).unwrap_or(now);
    let old = conditions
        .iter_mut()
        .find(|it| it["type"] == condition["type"]);
    let since = old
        .as_deref()
        .filter(|it| it["status"] == condition["status"]);
    let since = since.and_then(|it| it.get("lastTransitionTime").cloned());
    condition["lastTransitionTime"] = since.unwrap_or_else(|| now.to_string().into());
    match old {
        Some(old) => *old = condition,
        None => conditions.push(condition),
    }
}

fn stored_versions(crd: &Value) -> Vec<Value> {
    let stored = crd["status"]["storedVersions"].as_array();
    let mut stored = stored.cloned().unwrap_or_default();
    let versions = crd["spec"]["versions"].as_array().into_iter().flatten();
    for version in versions.filter(|it| it["storage"] == true) {
        if !stored.contains(&version["name"]) {
            stored.push(version["name"].clone());
        }
    }
    stored
}
