//! What objects get when they come in, as JSON patches.

use api::defaulting::admission::{Fresh, default_migration, default_vm, default_vmi};
use api::{FieldError, FieldPath, VirtualMachine, Vmi};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::answer::Answer;
use super::presets;
use super::request::{Operation, Request};
use super::{ClusterConfig, validation};

/// Fills in new instances, and takes back what others than the installation do to the status of old ones.
pub(super) fn instance(request: &Request<'_>, cluster: &ClusterConfig) -> Answer {
    let mut vmi = request.object.clone();
    match request.operation {
        Operation::Create => new_instance(request, vmi, cluster),
        Operation::Update => {
            let asked = validation::cluster(request, cluster);
            api::admission::keep_status(request.old_object, &mut vmi, &asked);
            Answer::change(request.object, &vmi)
        }
        Operation::Delete | Operation::Other => Answer::allow(),
    }
}

fn new_instance(request: &Request<'_>, mut vmi: Value, cluster: &ClusterConfig) -> Answer {
    let warnings = match presets::apply(&mut vmi, &cluster.facts.presets) {
        Ok(warnings) => warnings,
        Err(message) => return Answer::deny(422, "Invalid", message),
    };
    // Defaults take the place of what they cannot read, which its author should hear of instead.
    if let Err(error) = read::<Vmi>(&vmi) {
        return Answer::of_errors(&[error]);
    }
    // A status that comes with a new object is a copy's: nothing of it is true.
    if let Some(fields) = vmi.as_object_mut() {
        fields.remove("status");
    }
    default_vmi(&mut vmi, &cluster.configuration, &fresh(cluster));
    Answer::change(request.object, &vmi).warn(warnings)
}

/// Reads an object; an error names the field of the wrong type.
fn read<T: DeserializeOwned>(object: &Value) -> Result<T, FieldError> {
    serde_path_to_error::deserialize(object).map_err(|error| {
        let path = FieldPath::new(&error.path().to_string());
        FieldError::invalid(path, error.inner().to_string())
    })
}

/// Fills in what a machine must keep from start to start.
pub(super) fn machine(request: &Request<'_>, cluster: &ClusterConfig) -> Answer {
    let mut vm = request.object.clone();
    if !vm["spec"]["template"].is_object() {
        return Answer::allow();
    }
    if let Err(error) = read::<VirtualMachine>(&vm) {
        return Answer::of_errors(&[error]);
    }
    let warnings = forget_inference(&mut vm);
    let is_new = request.operation == Operation::Create;
    default_vm(&mut vm, &cluster.configuration, is_new, &fresh(cluster));
    Answer::change(request.object, &vm).warn(warnings)
}

/// Removes instance types and preferences that are to be taken from the labels of a volume if it has any, as `virtctl
/// create vm` asks for without being told; returns what the author should know.
fn forget_inference(vm: &mut Value) -> Vec<String> {
    let mut warnings = Vec::new();
    for field in ["instancetype", "preference"] {
        let wish = &vm["spec"][field];
        let volume = wish["inferFromVolume"].as_str().unwrap_or_default();
        if volume.is_empty() || wish["inferFromVolumeFailurePolicy"] != "Ignore" {
            continue;
        }
        warnings.push(format!(
            "spec.{field}: removed, as this version infers nothing from volumes: {volume:?} is used as it is"
        ));
        if let Some(Value::Object(spec)) = vm.get_mut("spec") {
            spec.remove(field);
        }
    }
    warnings
}

fn fresh(cluster: &ClusterConfig) -> Fresh {
    let [uuid, serial] = cluster.fresh_ids;
    Fresh {
        uuid: uuid.to_string(),
        serial: serial.to_string(),
        now: cluster.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    }
}

/// Gives a new migration the label by which it is found, and the finalizer of the controller.
pub(super) fn migration(request: &Request<'_>, cluster: &ClusterConfig) -> Answer {
    let mut migration = request.object.clone();
    default_migration(&mut migration, &cluster.configuration);
    Answer::change(request.object, &migration)
}
