//! Admission of instances.

use api::labels::{
    CREATED_BY, INSTALL_STRATEGY, MIGRATION_JOB_UID, MIGRATION_TARGET_NODE_NAME, NODE_NAME,
    PCI_TOPOLOGY_VERSION, SCHEDULABLE, VMI_FINALIZER,
};
use api::{FieldError, FieldPath, Vmi, default_vmi, validate_vmi};
use serde_json::{Value, json};

use super::ClusterConfig;
use super::answer::Answer;
use super::overlay::overlay;
use super::presets;
use super::read::read;
use super::request::{Operation, Request};

/// User of launchers that have no root.
const RUNTIME_USER: u64 = 107;
/// Layout of PCI slots of new machines.
pub(super) const PCI_TOPOLOGY: &str = "v3";
/// Labels that only the installation may set.
const RESERVED_LABELS: [&str; 6] = [
    CREATED_BY,
    MIGRATION_JOB_UID,
    NODE_NAME,
    MIGRATION_TARGET_NODE_NAME,
    SCHEDULABLE,
    INSTALL_STRATEGY,
];

/// Fills in new instances, and takes back what others than the installation do to the status of old ones.
pub(super) fn mutate(request: &Request<'_>, cluster: &ClusterConfig) -> Answer {
    match request.operation {
        Operation::Create => fill_in(request.object, cluster),
        Operation::Update if !cluster.is_component(request.user) => keep_status(request),
        _ => Answer::allow(),
    }
}

fn fill_in(object: &Value, cluster: &ClusterConfig) -> Answer {
    let mut vmi = object.clone();
    let warnings = match presets::apply(&mut vmi, &cluster.facts.presets) {
        Ok(warnings) => warnings,
        Err(message) => return Answer::deny(422, "Invalid", message),
    };
    let before: Vmi = match read(&vmi) {
        Ok(typed) => typed,
        Err(error) => return Answer::of_errors(&[error]),
    };
    let mut after = defaulted(&before, cluster);
    after.metadata = before.metadata.clone();
    overlay(&mut vmi, &before, &after);
    let metadata = &mut vmi["metadata"];
    annotate(metadata, PCI_TOPOLOGY_VERSION, PCI_TOPOLOGY);
    add_finalizer(metadata, VMI_FINALIZER);
    let time = cluster.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut status = json!({
        "phase": "Pending",
        "phaseTransitionTimestamps":
            [{"phase": "Pending", "phaseTransitionTimestamp": time}],
    });
    if !cluster.configuration.has_feature("Root", false) {
        status["runtimeUser"] = json!(RUNTIME_USER);
    }
    // A status that comes with a new object is a copy's: nothing of it is true.
    vmi["status"] = status;
    Answer::change(object, &vmi).warn(warnings)
}

/// Returns an instance with its defaults, as this cluster has them.
pub(super) fn defaulted(vmi: &Vmi, cluster: &ClusterConfig) -> Vmi {
    let named = !vmi.metadata.name.is_empty();
    let mut defaulted = default_vmi(vmi);
    if !named {
        // The system UUID follows from the name, which the API server has not made up yet.
        let given = vmi.spec.domain.firmware.as_ref();
        let uuid = given.map(|firmware| firmware.uuid.clone());
        if let Some(firmware) = &mut defaulted.spec.domain.firmware {
            firmware.uuid = uuid.unwrap_or_default();
        }
    }
    let strategy = &mut defaulted.spec.eviction_strategy;
    if strategy.is_none() {
        strategy.clone_from(&cluster.configuration.eviction_strategy);
    }
    defaulted
}

/// Sets an annotation unless there is one.
pub(super) fn annotate(metadata: &mut Value, name: &str, value: &str) {
    if !metadata["annotations"].is_object() {
        metadata["annotations"] = json!({});
    }
    let annotation = &mut metadata["annotations"][name];
    if annotation.is_null() {
        *annotation = json!(value);
    }
}

/// Adds a finalizer unless there is one.
pub(super) fn add_finalizer(metadata: &mut Value, name: &str) {
    if !metadata["finalizers"].is_array() {
        metadata["finalizers"] = json!([]);
    }
    if let Some(finalizers) = metadata["finalizers"].as_array_mut()
        && !finalizers.iter().any(|known| known == name)
    {
        finalizers.push(json!(name));
    }
}

fn keep_status(request: &Request<'_>) -> Answer {
    if !request.has_changed("status") {
        return Answer::allow();
    }
    let mut kept = request.object.clone();
    match &request.old_object["status"] {
        Value::Null => {
            if let Some(fields) = kept.as_object_mut() {
                fields.remove("status");
            }
        }
        status => kept["status"] = status.clone(),
    }
    Answer::change(request.object, &kept)
}

/// Decides on new instances.
pub(super) fn validate_create(request: &Request<'_>, cluster: &ClusterConfig) -> Answer {
    let vmi: Vmi = match read(request.object) {
        Ok(vmi) => vmi,
        Err(error) => return Answer::of_errors(&[error]),
    };
    let mut errors = errors(&defaulted(&vmi, cluster), cluster);
    if !cluster.is_component(request.user) {
        errors.extend(reserved_labels(request.object, &Value::Null));
    }
    Answer::of_errors(&errors)
}

/// Returns what is wrong with an instance whose defaults are filled in.
pub(super) fn errors(vmi: &Vmi, _cluster: &ClusterConfig) -> Vec<FieldError> {
    let mut vmi = vmi.clone();
    let is_made_up = vmi.metadata.name.is_empty() && !vmi.metadata.generate_name.is_empty();
    if is_made_up {
        // Five characters follow in the name that the API server makes up.
        vmi.metadata.name = format!("{}xxxxx", vmi.metadata.generate_name);
    }
    validate_vmi(&vmi)
}

/// Decides on changes of instances.
pub(super) fn validate_update(request: &Request<'_>, cluster: &ClusterConfig) -> Answer {
    if cluster.is_component(request.user) {
        return Answer::of_errors(&changed_ceilings(request));
    }
    if request.has_changed("spec") {
        return Answer::restricted("spec", "update of VMI object is restricted");
    }
    let old_labels = &request.old_object["metadata"]["labels"];
    Answer::of_errors(&reserved_labels(request.object, old_labels))
}

/// Returns which bounds of a running machine were changed: they are what it was started with.
fn changed_ceilings(request: &Request<'_>) -> Vec<FieldError> {
    const CEILINGS: [(&str, &str); 2] = [
        (
            "/spec/domain/cpu/maxSockets",
            "CPU topology maxSockets changed",
        ),
        ("/spec/domain/memory/maxGuest", "Memory maxGuest changed"),
    ];
    let changed = CEILINGS.iter().filter(|(pointer, _)| {
        let old = request.old_object.pointer(pointer);
        old.is_some() && request.object.pointer(pointer) != old
    });
    let error = |(pointer, message): &(&str, &str)| {
        let path = pointer[1..].replace('/', ".");
        FieldError::invalid(FieldPath::new(&path), *message)
    };
    changed.map(error).collect()
}

/// Returns which labels were changed that only the installation may set.
fn reserved_labels(object: &Value, old_labels: &Value) -> Vec<FieldError> {
    let labels = &object["metadata"]["labels"];
    let changed = RESERVED_LABELS
        .iter()
        .filter(|label| labels[**label] != old_labels[**label]);
    let error = |label: &&str| {
        let text = format!("the label {label} is reserved: KubeVirt sets it itself");
        FieldError::not_supported(FieldPath::new("metadata.labels"), text)
    };
    changed.map(error).collect()
}
