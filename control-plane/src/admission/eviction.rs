//! Evictions of launchers' pods: a machine that can move is marked to leave its node instead, which the controller
//! sees, and the eviction is told to try again (KubeVirt, "evictionStrategy").

use api::components::{HOTPLUG_DISK, VIRT_LAUNCHER};
use api::labels::{APP, DOMAIN, EVICTION_SOURCE};
use serde_json::{Value, json};

use super::ClusterConfig;
use super::answer::Answer;
use super::request::Request;
use crate::virt_api::objects::{condition, text};
use crate::virt_api::patches::Operations;

/// Annotation by which the descheduler signs its evictions, and its signature.
const REQUESTED_BY: (&str, &str) = ("requested-by", "sigs.k8s.io/descheduler");

/// What becomes of an eviction.
#[derive(Clone, Debug, PartialEq)]
pub enum EvictionPlan {
    /// The pod goes.
    Allow,
    /// It stays for now, with what its evictor is told.
    Deny(String),
    /// It stays for now, and the instance is marked by a patch.
    Mark {
        /// Namespace of the instance.
        namespace: String,
        /// Its name.
        name: String,
        /// The mark.
        patch: json_patch::Patch,
        /// Whether it is only asked what would be done.
        is_dry: bool,
        /// What the evictor is told.
        message: String,
    },
}

/// Returns what becomes of the eviction that a review asks about.
#[must_use]
pub fn plan_eviction(review: &Value, cluster: &ClusterConfig) -> EvictionPlan {
    match Request::read(review) {
        Ok(request) => plan(&request, cluster),
        Err(message) => EvictionPlan::Deny(message),
    }
}

/// Answers an eviction, as if the mark were made.
pub(super) fn review(request: &Request<'_>, cluster: &ClusterConfig) -> Answer {
    match plan(request, cluster) {
        EvictionPlan::Allow => Answer::allow(),
        EvictionPlan::Deny(message) | EvictionPlan::Mark { message, .. } => {
            Answer::deny(429, "TooManyRequests", message)
        }
    }
}

fn plan(request: &Request<'_>, cluster: &ClusterConfig) -> EvictionPlan {
    let facts = &cluster.facts;
    let Some(pod) = &facts.pod else {
        return EvictionPlan::Allow;
    };
    let app = pod["metadata"]["labels"][APP].as_str().unwrap_or_default();
    match app {
        HOTPLUG_DISK => plan_plugged(pod, facts.owner.as_ref(), facts.instance.as_ref()),
        VIRT_LAUNCHER if !is_over(pod) => plan_launcher(request, cluster, pod),
        _ => EvictionPlan::Allow,
    }
}

fn is_over(pod: &Value) -> bool {
    matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

fn plan_plugged(pod: &Value, owner: Option<&Value>, instance: Option<&Value>) -> EvictionPlan {
    let is_launcher = |owner: &&Value| owner["metadata"]["labels"][APP] == VIRT_LAUNCHER;
    let owner = owner.filter(is_launcher).filter(|owner| !is_over(owner));
    let (Some(_), Some(vmi)) = (owner, instance) else {
        return EvictionPlan::Allow;
    };
    EvictionPlan::Deny(format!(
        "cannot evict hotplug pod: {} associated with running vmi: {} in namespace {}",
        text(pod, "/metadata/name"),
        text(vmi, "/metadata/name"),
        text(pod, "/metadata/namespace"),
    ))
}

fn plan_launcher(request: &Request<'_>, cluster: &ClusterConfig, pod: &Value) -> EvictionPlan {
    let instance_name = pod["metadata"]["annotations"][DOMAIN].as_str();
    let Some(instance_name) = instance_name else {
        return EvictionPlan::Allow;
    };
    let Some(vmi) = &cluster.facts.instance else {
        return EvictionPlan::Deny(format!(
            "kubevirt failed getting the vmi: there is no {instance_name:?} in namespace {:?}",
            request.namespace
        ));
    };
    let own = text(vmi, "/spec/evictionStrategy");
    let strategy = match own {
        "" => cluster.configuration.eviction_strategy.as_deref(),
        own => Some(own),
    };
    let name = text(vmi, "/metadata/name");
    let moves = condition(vmi, "LiveMigratable") == Some("True");
    match (strategy.unwrap_or("None"), moves) {
        ("LiveMigrate", false) => EvictionPlan::Deny(format!(
            "VMI {name} is configured with an eviction strategy but is not live-migratable"
        )),
        ("LiveMigrate" | "LiveMigrateIfPossible", true) | ("External", _) => {
            mark(request, pod, vmi)
        }
        _ => EvictionPlan::Allow,
    }
}

/// Marks an instance to leave the node of its pod. The descheduler reads the message.
fn mark(request: &Request<'_>, pod: &Value, vmi: &Value) -> EvictionPlan {
    let (namespace, name) = (
        text(vmi, "/metadata/namespace"),
        text(vmi, "/metadata/name"),
    );
    let message = format!("Eviction triggered evacuation of VMI \"{namespace}/{name}\"");
    if !text(vmi, "/status/evacuationNodeName").is_empty() {
        return EvictionPlan::Deny(format!("Evacuation in progress: {message}"));
    }
    let node = text(pod, "/spec/nodeName");
    if text(vmi, "/status/nodeName") != node {
        return EvictionPlan::Deny("Eviction request for target Pod".to_owned());
    }
    let mut operations = Operations::on(vmi).change("/status/evacuationNodeName", json!(node));
    if request.object["metadata"]["annotations"][REQUESTED_BY.0] == REQUESTED_BY.1 {
        let mut annotations = match &vmi["metadata"]["annotations"] {
            Value::Object(annotations) => annotations.clone(),
            _ => serde_json::Map::new(),
        };
        annotations.insert(EVICTION_SOURCE.to_owned(), json!("descheduler"));
        operations = operations.change("/metadata/annotations", annotations.into());
    }
    let dry_run = request.object.pointer("/deleteOptions/dryRun/0");
    EvictionPlan::Mark {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        patch: operations.patch(),
        is_dry: request.is_dry || dry_run.is_some_and(|part| part == "All"),
        message,
    }
}
