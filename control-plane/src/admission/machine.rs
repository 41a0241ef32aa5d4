//! Admission of virtual machines.

use api::vm::{RunStrategy, RunStrategyError};
use api::{FieldError, FieldPath, Reason, VirtualMachine, Vmi};
use serde_json::{Value, json};

use super::ClusterConfig;
use super::answer::Answer;
use super::instance::{self, PCI_TOPOLOGY, annotate};
use super::read::read;
use super::request::{Operation, Request};

/// Kinds of machine type that are filled in by architecture.
const MACHINE_TYPES: [(&str, &str); 3] = [
    ("amd64", "q35"),
    ("arm64", "virt"),
    ("s390x", "s390-ccw-virtio"),
];

/// Fills in what a machine must keep from start to start: identity, architecture, machine type.
pub(super) fn mutate(request: &Request<'_>, cluster: &ClusterConfig) -> Answer {
    if request.is_deleting() || !request.object["spec"]["template"].is_object() {
        return Answer::allow();
    }
    let mut vm = request.object.clone();
    let template = &mut vm["spec"]["template"];
    if request.operation == Operation::Create {
        if !template["metadata"].is_object() {
            template["metadata"] = json!({});
        }
        annotate(
            &mut template["metadata"],
            api::labels::PCI_TOPOLOGY_VERSION,
            PCI_TOPOLOGY,
        );
        let [uuid, serial] = cluster.fresh_ids;
        fill(
            template,
            &["spec", "domain", "firmware", "uuid"],
            &uuid.to_string(),
        );
        fill(
            template,
            &["spec", "domain", "firmware", "serial"],
            &serial.to_string(),
        );
    }
    let architectures = cluster.configuration.architecture_configuration.as_ref();
    let architecture = architectures.map(|known| known.default_architecture.as_str());
    let architecture = architecture
        .filter(|name| !name.is_empty())
        .unwrap_or("amd64");
    fill(template, &["spec", "architecture"], architecture);
    let machine_type = machine_type(template["spec"]["architecture"].as_str(), cluster);
    fill(
        template,
        &["spec", "domain", "machine", "type"],
        &machine_type,
    );
    Answer::change(request.object, &vm)
}

fn machine_type(architecture: Option<&str>, cluster: &ClusterConfig) -> String {
    let configuration = &cluster.configuration;
    let configured = configuration
        .architecture_configuration
        .as_ref()
        .and_then(|known| match architecture {
            Some("arm64") => known.arm64.as_ref(),
            Some("s390x") => known.s390x.as_ref(),
            _ => known.amd64.as_ref(),
        })
        .map_or(configuration.machine_type.as_str(), |one| {
            one.machine_type.as_str()
        });
    let built_in = MACHINE_TYPES
        .iter()
        .find(|(name, _)| Some(*name) == architecture)
        .map_or("q35", |(_, machine_type)| *machine_type);
    if configured.is_empty() {
        built_in
    } else {
        configured
    }
    .to_owned()
}

/// Sets a text unless there is one, making the objects on the way. What is of another type stays for validation.
fn fill(object: &mut Value, path: &[&str], value: &str) {
    let mut place = object;
    for field in path {
        match place {
            Value::Object(_) => {}
            Value::Null => *place = json!({}),
            _ => return,
        }
        place = &mut place[*field];
    }
    if place.is_null() || place == "" {
        *place = json!(value);
    }
}

/// Decides on machines.
pub(super) fn validate(request: &Request<'_>, cluster: &ClusterConfig) -> Answer {
    if request.is_deleting() {
        return Answer::allow();
    }
    let warnings = warnings(request.object);
    if request.operation == Operation::Update && !request.has_changed("spec") {
        return Answer::allow().warn(warnings);
    }
    let vm: VirtualMachine = match read(request.object) {
        Ok(vm) => vm,
        Err(error) => return Answer::of_errors(&[error]),
    };
    Answer::of_errors(&errors(request.object, &vm, cluster)).warn(warnings)
}

fn warnings(vm: &Value) -> Vec<String> {
    let mut warnings = Vec::new();
    if !vm["spec"]["running"].is_null() {
        let text = "spec.running is deprecated, please use spec.runStrategy instead.";
        warnings.push(text.to_owned());
    }
    warnings
}

fn errors(object: &Value, vm: &VirtualMachine, cluster: &ClusterConfig) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if let Err(error) = vm.run_strategy() {
        errors.push(run_strategy_error(&error));
    }
    if vm.run_strategy() == Ok(RunStrategy::WaitAsReceiver)
        && !cluster
            .configuration
            .has_feature("DecentralizedLiveMigration", false)
    {
        let text = "WaitAsReceiver needs the feature gate DecentralizedLiveMigration: add it to \
            spec.configuration.developerConfiguration.featureGates of the KubeVirt resource";
        errors.push(FieldError::invalid(
            FieldPath::new("spec.runStrategy"),
            text,
        ));
    }
    for field in ["instancetype", "preference"] {
        if object["spec"][field].is_object() {
            let path = FieldPath::new("spec").child(field);
            let text = "instance types and preferences are not supported: write cpu and memory \
                into spec.template.spec.domain";
            errors.push(FieldError::not_supported(path, text));
        }
    }
    if !object["spec"]["template"].is_object() {
        let path = FieldPath::new("spec.template");
        errors.push(FieldError::required(
            path,
            "missing virtual machine template",
        ));
        return errors;
    }
    let wrong = instance::errors(&instance::defaulted(&of_template(vm), cluster), cluster);
    errors.extend(wrong.into_iter().map(in_template));
    errors
}

/// Returns the instance of a machine; one whose name is still to be made up has the start of its name.
fn of_template(vm: &VirtualMachine) -> Vmi {
    let mut vmi = vm.instance();
    vmi.metadata
        .generate_name
        .clone_from(&vm.metadata.generate_name);
    vmi
}

fn run_strategy_error(error: &RunStrategyError) -> FieldError {
    let (field, reason) = match error {
        RunStrategyError::Neither => ("spec.runStrategy", Reason::Required),
        RunStrategyError::Both => ("spec.running", Reason::Invalid),
        RunStrategyError::Unknown(_) => ("spec.runStrategy", Reason::NotSupported),
    };
    FieldError::because(FieldPath::new(field), reason, error.to_string())
}

/// Moves an error about an instance to its place in a machine; a name is the machine's own.
fn in_template(error: FieldError) -> FieldError {
    if error.path.as_str().starts_with("spec") || error.path.as_str().starts_with("metadata.labels")
    {
        return error.inside(&FieldPath::new("spec.template"));
    }
    error
}

/// Decides on the status of machines: requests that nobody could carry out are refused.
pub(super) fn validate_status(request: &Request<'_>, _cluster: &ClusterConfig) -> Answer {
    let requests = &request.object["status"]["stateChangeRequests"];
    let requests = requests.as_array().into_iter().flatten();
    let path = FieldPath::new("status.stateChangeRequests");
    let errors: Vec<FieldError> = requests
        .enumerate()
        .filter(|(_, one)| !matches!(one["action"].as_str(), Some("Start" | "Stop")))
        .map(|(index, one)| {
            let path = path.index(index).child("action");
            let text = format!("{} is not known: use Start or Stop", one["action"]);
            FieldError::not_supported(path, text)
        })
        .collect();
    Answer::of_errors(&errors)
}
