//! Admission of migrations.

use api::components::{service_account, service_account_user};
use api::labels::{MIGRATION_FINALIZER, VMI_NAME};
use api::migration::priority;
use api::{FieldError, FieldPath};
use serde_json::{Value, json};

use super::ClusterConfig;
use super::answer::Answer;
use super::instance::add_finalizer;
use super::request::Request;
use crate::virt_api::objects::text;

/// Gives a new migration the label by which it is found, and the finalizer of the controller.
pub(super) fn mutate(request: &Request<'_>, _cluster: &ClusterConfig) -> Answer {
    let mut migration = request.object.clone();
    let name = text(request.object, "/spec/vmiName");
    let metadata = &mut migration["metadata"];
    if !metadata["labels"].is_object() {
        metadata["labels"] = json!({});
    }
    metadata["labels"][VMI_NAME] = json!(name);
    add_finalizer(metadata, MIGRATION_FINALIZER);
    Answer::change(request.object, &migration)
}

/// Decides on new migrations.
pub(super) fn validate_create(request: &Request<'_>, cluster: &ClusterConfig) -> Answer {
    let errors = spec_errors(request, cluster);
    if !errors.is_empty() {
        return Answer::of_errors(&errors);
    }
    let name = text(request.object, "/spec/vmiName");
    let no = |message: String| Answer::invalid("spec.vmiName", message);
    let Some(vmi) = &cluster.facts.instance else {
        return no(format!(
            "the VMI \"{}/{name}\" does not exist",
            request.namespace
        ));
    };
    if matches!(text(vmi, "/status/phase"), "Succeeded" | "Failed") {
        return no("Cannot migrate VMI in finalized state.".to_owned());
    }
    if let Some(condition) = not_migratable(vmi) {
        return no(format!(
            "Cannot migrate VMI, Reason: {}, Message: {}",
            text(condition, "/reason"),
            text(condition, "/message"),
        ));
    }
    if let Some(other) = cluster
        .facts
        .migrations
        .iter()
        .find(|one| is_under_way(one, name))
    {
        return no(format!(
            "in-flight migration detected. Active migration job ({}) is currently already in progress for VMI {name}.",
            text(other, "/metadata/uid"),
        ));
    }
    Answer::allow()
}

fn spec_errors(request: &Request<'_>, cluster: &ClusterConfig) -> Vec<FieldError> {
    let spec = &request.object["spec"];
    let mut errors = Vec::new();
    if text(request.object, "/spec/vmiName").is_empty() {
        let path = FieldPath::new("spec.vmiName");
        errors.push(FieldError::required(
            path,
            "name the instance that is to move",
        ));
    }
    for field in ["sendTo", "receive"] {
        if spec[field].is_object() {
            let text = "migrations between clusters are not supported";
            errors.push(FieldError::not_supported(
                FieldPath::new("spec").child(field),
                text,
            ));
        }
    }
    let Some(wanted) = spec["priority"].as_str() else {
        return errors;
    };
    let path = FieldPath::new("spec.priority");
    let namespace = &cluster.namespace;
    if request.user != service_account_user(namespace, service_account::CONTROLLER) {
        let text = "only virt-controller sets priorities: leave it out";
        errors.push(FieldError::forbidden(path, text));
    } else if !priority::ALL.contains(&wanted) {
        let text = format!("{wanted:?} is not known: use {}", priority::ALL.join(", "));
        errors.push(FieldError::not_supported(path, text));
    }
    errors
}

fn not_migratable(vmi: &Value) -> Option<&Value> {
    let conditions = vmi["status"]["conditions"].as_array()?;
    let mut conditions = conditions.iter();
    conditions.find(|one| one["type"] == "LiveMigratable" && one["status"] == "False")
}

fn is_under_way(migration: &Value, vmi: &str) -> bool {
    text(migration, "/spec/vmiName") == vmi
        && !matches!(text(migration, "/status/phase"), "Succeeded" | "Failed")
}

/// Decides on changes of migrations.
pub(super) fn validate_update(request: &Request<'_>, _cluster: &ClusterConfig) -> Answer {
    if request.has_changed("spec") {
        let message = "update of Migration object's spec is restricted";
        return Answer::restricted("spec", message);
    }
    let is_over = matches!(
        text(request.object, "/status/phase"),
        "Succeeded" | "Failed"
    );
    let label = |object: &Value| object["metadata"]["labels"][VMI_NAME].clone();
    let (new, old) = (label(request.object), label(request.old_object));
    if !is_over && !old.is_null() && new != old {
        let message = format!("the label {VMI_NAME} cannot change while a migration is under way");
        return Answer::restricted("metadata.labels", message);
    }
    Answer::allow()
}
