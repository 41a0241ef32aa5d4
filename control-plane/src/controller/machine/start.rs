//! The instance that a virtual machine starts, and the revision that says what it was made from.

use api::labels;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::controller::actions::Action;
use crate::controller::cache::uid;
use crate::controller::change::{set, text};
use crate::controller::key::{Key, Kind};

/// Returns the system UUID of a virtual machine's instances: that of the one that is there, else one of its own.
pub(super) fn system_uuid(machine: &Value, instance: Option<&Value>) -> String {
    if let Some(instance) = instance {
        let known = text(instance, "/spec/domain/firmware/uuid");
        if !known.is_empty() {
            return known.to_owned();
        }
        return api::defaulting::system_uuid(text(instance, "/metadata/name")).to_string();
    }
    Uuid::new_v5(&Uuid::NAMESPACE_OID, uid(machine).as_bytes()).to_string()
}

/// Returns a virtual machine's generation.
pub(super) fn generation(machine: &Value) -> i64 {
    let generation = machine.pointer("/metadata/generation");
    generation.and_then(Value::as_i64).unwrap_or_default()
}

/// Returns the generation that an instance was made from.
pub(super) fn generation_of(instance: &Value) -> Option<i64> {
    let annotations = instance.pointer("/metadata/annotations")?;
    annotations
        .get(labels::VM_GENERATION)?
        .as_str()?
        .parse()
        .ok()
}

/// Returns the name of the revision that an instance was made from; `None` where it is the present one.
pub(crate) fn revision_name(machine: &Value, instance: &Value) -> Option<String> {
    let from = generation_of(instance).filter(|from| *from != generation(machine))?;
    Some(name(machine, from))
}

fn name(machine: &Value, generation: i64) -> String {
    format!("revision-start-vm-{}-{generation}", uid(machine))
}

fn owner(machine: &Value) -> Value {
    json!([{
        "apiVersion": Kind::Machine.api_version(),
        "kind": Kind::Machine.name(),
        "name": text(machine, "/metadata/name"),
        "uid": uid(machine),
        "controller": true,
        "blockOwnerDeletion": true,
    }])
}

/// Keeps the specification that an instance is made from.
pub(super) fn revision(key: &Key, machine: &Value) -> Action {
    let name = name(machine, generation(machine));
    let spec = machine.get("spec").cloned().unwrap_or_default();
    Action::Create {
        object: json!({
            "apiVersion": Kind::Revision.api_version(),
            "kind": Kind::Revision.name(),
            "metadata": {
                "name": name,
                "namespace": key.namespace,
                "ownerReferences": owner(machine),
            },
            "data": { "spec": spec },
            "revision": generation(machine),
        }),
        key: key.sibling(Kind::Revision, &name),
    }
}

/// Makes an instance.
pub(super) fn instance(key: &Key, machine: &Value, is_paused: bool) -> Action {
    let template = machine.pointer("/spec/template");
    let part = |pointer| {
        let part = template.and_then(|template| template.pointer(pointer));
        part.filter(|part: &&Value| part.is_object())
            .cloned()
            .unwrap_or_else(|| json!({}))
    };
    let generation = generation(machine);
    let mut instance = json!({
        "apiVersion": Kind::Instance.api_version(),
        "kind": Kind::Instance.name(),
        "metadata": {
            "name": key.name,
            "namespace": key.namespace,
            "labels": part("/metadata/labels"),
            "annotations": part("/metadata/annotations"),
            "ownerReferences": owner(machine),
            "finalizers": [labels::VMI_FINALIZER],
        },
        "spec": part("/spec"),
        "status": {
            "virtualMachineRevisionName": name(machine, generation),
        },
    });
    let annotation = ["metadata", "annotations", labels::VM_GENERATION];
    set(&mut instance, &annotation, generation.to_string());
    for annotation in [
        labels::INSTANCETYPE_NAME,
        labels::CLUSTER_INSTANCETYPE_NAME,
        labels::PREFERENCE_NAME,
        labels::CLUSTER_PREFERENCE_NAME,
    ] {
        let annotations = machine.pointer("/metadata/annotations");
        if let Some(value) = annotations.and_then(|known| known.get(annotation)) {
            set(
                &mut instance,
                &["metadata", "annotations", annotation],
                value.clone(),
            );
        }
    }
    if is_paused {
        set(&mut instance, &["spec", "startStrategy"], "Paused");
    }
    Action::Create {
        key: key.sibling(Kind::Instance, &key.name),
        object: instance,
    }
}
