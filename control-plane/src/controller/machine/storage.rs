//! Claims of a virtual machine's data volume templates.
//!
//! Data volumes are the Containerized Data Importer's (CDI). Without it, a template without content becomes an empty
//! claim, in which the launcher makes the disk; one with content waits for somebody to make its claim.

use serde_json::{Value, json};

use super::Case;
use crate::controller::actions::Action;
use crate::controller::change::{set, text};
use crate::controller::key::Kind;

/// Sources of content that is there already.
const EMPTY: &str = "blank";
/// Annotation of a claim that says how far its filling is.
const FILLING: &str = "cdi.kubevirt.io/storage.pod.phase";

/// What a virtual machine waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    /// For people.
    pub(super) text: String,
    /// Whether nothing will come of it without a person.
    pub(super) is_stuck: bool,
}

fn templates(machine: &Value) -> impl Iterator<Item = &Value> {
    let templates = machine.pointer("/spec/dataVolumeTemplates");
    templates.and_then(Value::as_array).into_iter().flatten()
}

/// Returns the names of the claims that a virtual machine refers to.
pub(crate) fn claim_names(machine: &Value) -> Vec<String> {
    let volumes = machine.pointer("/spec/template/spec/volumes");
    let volumes = volumes.and_then(Value::as_array).into_iter().flatten();
    let of_volumes = volumes.flat_map(|volume| {
        [
            text(volume, "/persistentVolumeClaim/claimName"),
            text(volume, "/dataVolume/name"),
            text(volume, "/ephemeral/persistentVolumeClaim/claimName"),
        ]
    });
    let of_templates = templates(machine).map(|template| text(template, "/metadata/name"));
    let mut names: Vec<String> = of_volumes
        .chain(of_templates)
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect();
    names.sort();
    names.dedup();
    names
}

/// Whether a template has no content to be fetched.
fn is_blank(template: &Value) -> bool {
    let spec = &template["spec"];
    if !spec["sourceRef"].is_null() {
        return false;
    }
    match spec["source"].as_object() {
        None => true,
        Some(source) => source
            .iter()
            .all(|(kind, source)| kind == EMPTY || source.is_null()),
    }
}

/// Makes what is missing of the claims.
pub(super) fn provide(case: &Case<'_>) -> Vec<Action> {
    let missing = templates(case.raw).filter(|template| {
        let name = text(template, "/metadata/name");
        !name.is_empty() && !case.observed.claims.contains_key(name)
    });
    missing
        .filter_map(|template| {
            if case.observed.has_importer {
                Some(data_volume(case, template))
            } else if is_blank(template) {
                Some(claim(case, template))
            } else {
                None
            }
        })
        .collect()
}

fn metadata(case: &Case<'_>, template: &Value) -> Value {
    let mut metadata = json!({
        "name": text(template, "/metadata/name"),
        "namespace": case.key.namespace,
        "ownerReferences": [{
            "apiVersion": Kind::Machine.api_version(),
            "kind": Kind::Machine.name(),
            "name": case.key.name,
            "uid": text(case.raw, "/metadata/uid"),
            "controller": true,
            "blockOwnerDeletion": true,
        }],
    });
    for field in ["labels", "annotations"] {
        let given = template.get("metadata").and_then(|given| given.get(field));
        if let Some(given) = given {
            metadata[field] = given.clone();
        }
    }
    let created_by = ["labels", api::labels::CREATED_BY];
    set(&mut metadata, &created_by, text(case.raw, "/metadata/uid"));
    metadata
}

fn data_volume(case: &Case<'_>, template: &Value) -> Action {
    let name = text(template, "/metadata/name");
    Action::Create {
        key: case.key.sibling(Kind::DataVolume, name),
        object: json!({
            "apiVersion": Kind::DataVolume.api_version(),
            "kind": Kind::DataVolume.name(),
            "metadata": metadata(case, template),
            "spec": template["spec"],
        }),
    }
}

fn claim(case: &Case<'_>, template: &Value) -> Action {
    let given = ["/spec/storage", "/spec/pvc"]
        .into_iter()
        .find_map(|place| template.pointer(place));
    let mut spec = given.cloned().unwrap_or_else(|| json!({}));
    let modes = spec["accessModes"].as_array();
    if modes.is_none_or(Vec::is_empty) {
        spec["accessModes"] = json!(["ReadWriteOnce"]);
    }
    Action::Create {
        key: case
            .key
            .sibling(Kind::Claim, text(template, "/metadata/name")),
        object: json!({
            "apiVersion": Kind::Claim.api_version(),
            "kind": Kind::Claim.name(),
            "metadata": metadata(case, template),
            "spec": spec,
        }),
    }
}

/// Returns the first thing that a start waits for.
pub(super) fn waiting(case: &Case<'_>) -> Option<Waiting> {
    templates(case.raw).find_map(|template| {
        let name = text(template, "/metadata/name").to_owned();
        let Some(claim) = case.observed.claims.get(&name) else {
            return Some(missing(case, template, &name));
        };
        let annotations = claim.pointer("/metadata/annotations");
        let filling = annotations.and_then(|known| known.get(FILLING));
        let is_filling = filling.is_some_and(|phase| phase != "Succeeded");
        is_filling.then(|| Waiting {
            text: format!("data volume {name} is being filled"),
            is_stuck: false,
        })
    })
}

fn missing(case: &Case<'_>, template: &Value, name: &str) -> Waiting {
    let comes = case.observed.has_importer || is_blank(template);
    let text = if comes {
        format!("claim {name} of data volume template {name} is being made")
    } else {
        format!(
            "data volume template {name} has content to be fetched, which the Containerized Data Importer (CDI) does, \
             and this cluster has no CDI: install it, or create a PVC named {name} that holds the disk"
        )
    };
    Waiting {
        text,
        is_stuck: !comes,
    }
}
