//! Admission of replica sets and presets.

use api::selector::LabelSelector;
use api::{FieldError, FieldPath, Preset, ReplicaSet, Vmi};

use super::ClusterConfig;
use super::answer::Answer;
use super::instance;
use super::read::read;
use super::request::{Operation, Request};

/// Decides on replica sets.
pub(super) fn validate_replica_set(request: &Request<'_>, cluster: &ClusterConfig) -> Answer {
    let is_same = request.operation == Operation::Update && !request.has_changed("spec");
    if request.is_deleting() || is_same {
        return Answer::allow();
    }
    let set: ReplicaSet = match read(request.object) {
        Ok(set) => set,
        Err(error) => return Answer::of_errors(&[error]),
    };
    let mut errors = selector_errors(&set);
    if !request.object["spec"]["template"].is_object() {
        let path = FieldPath::new("spec.template");
        errors.push(FieldError::required(
            path,
            "missing virtual machine template",
        ));
        return Answer::of_errors(&errors);
    }
    let wrong = instance::errors(&instance::defaulted(&of_template(&set), cluster), cluster);
    let template = FieldPath::new("spec.template");
    errors.extend(wrong.into_iter().map(|error| error.inside(&template)));
    Answer::of_errors(&errors)
}

/// Returns an instance of a set, which gets a name of its own.
fn of_template(set: &ReplicaSet) -> Vmi {
    let mut metadata = set.spec.template.metadata.clone();
    metadata.name.clear();
    metadata.generate_name = match set.metadata.name.as_str() {
        "" => set.metadata.generate_name.clone(),
        name => name.to_owned(),
    };
    Vmi {
        metadata,
        spec: set.spec.template.spec.clone(),
        ..Vmi::default()
    }
}

fn selector_errors(set: &ReplicaSet) -> Vec<FieldError> {
    let path = FieldPath::new("spec.selector");
    let labels = &set.spec.template.metadata.labels;
    match &set.spec.selector {
        None => vec![FieldError::required(
            path,
            "say by which labels the set knows its instances",
        )],
        Some(selector) if *selector == LabelSelector::default() => vec![FieldError::invalid(
            path,
            "an empty selector means all instances of the namespace: name labels of the template",
        )],
        Some(selector) if !selector.matches(labels) => vec![FieldError::invalid(
            path,
            "selector does not match labels: make it fit spec.template.metadata.labels",
        )],
        Some(_) => Vec::new(),
    }
}

/// Decides on presets.
pub(super) fn validate_preset(request: &Request<'_>, _cluster: &ClusterConfig) -> Answer {
    let preset: Preset = match read(request.object) {
        Ok(preset) => preset,
        Err(error) => return Answer::of_errors(&[error]),
    };
    let mut errors = Vec::new();
    if preset.spec.domain.is_none() {
        let path = FieldPath::new("spec.domain");
        errors.push(FieldError::required(path, "missing domain"));
    }
    Answer::of_errors(&errors)
}
