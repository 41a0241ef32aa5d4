//! Evictions of launchers' pods: a machine that can move is marked to leave its node instead, which the controller
//! sees, and the eviction is told to try again (KubeVirt, "evictionStrategy").

use std::collections::BTreeMap;

use api::Vmi;
use api::admission::eviction::{
    EvictedPod, Eviction, REQUESTED_BY, SOURCE_DESCHEDULER, plan as plan_launcher, plan_volumes,
};
use api::labels::EVICTION_SOURCE;
use serde::Deserialize;
use serde_json::{Value, json};

use super::ClusterConfig;
use super::answer::Answer;
use super::request::Request;
use crate::virt_api::objects::text;
use crate::virt_api::patches::Operations;

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
    let labels = Names::of(pod);
    let evicted = labels.pod(pod);
    if evicted.holds_volumes() {
        let owner = facts.owner.as_ref().map(|owner| (Names::of(owner), owner));
        let launcher = owner.as_ref().map(|(names, owner)| names.pod(owner));
        let instance = launcher.as_ref().and_then(EvictedPod::instance);
        return of(plan_volumes(instance.filter(|_| facts.instance.is_some())));
    }
    let Some(name) = evicted.instance() else {
        return EvictionPlan::Allow;
    };
    let Some(found) = &facts.instance else {
        let namespace = request.namespace;
        let message = format!("there is no VirtualMachineInstance {namespace}/{name}: try again");
        return EvictionPlan::Deny(message);
    };
    let Ok(vmi) = Vmi::deserialize(found) else {
        return EvictionPlan::Deny(format!("VirtualMachineInstance {name} cannot be read"));
    };
    let requested_by = &request.object["metadata"]["annotations"][REQUESTED_BY];
    let requested_by = requested_by.as_str().unwrap_or_default();
    match plan_launcher(&evicted, &vmi, &cluster.configuration, requested_by) {
        Eviction::Marked {
            node,
            by_descheduler,
            ..
        } => mark(request, found, &node, by_descheduler),
        plan => of(plan),
    }
}

fn of(plan: Eviction) -> EvictionPlan {
    match plan {
        Eviction::Allowed => EvictionPlan::Allow,
        Eviction::Refused { message } | Eviction::Marked { message, .. } => {
            EvictionPlan::Deny(message)
        }
    }
}

/// Labels and annotations of a pod.
struct Names {
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

impl Names {
    fn of(pod: &Value) -> Self {
        let map = |field: &str| BTreeMap::deserialize(&pod["metadata"][field]).unwrap_or_default();
        Self {
            labels: map("labels"),
            annotations: map("annotations"),
        }
    }

    fn pod<'p>(&'p self, pod: &'p Value) -> EvictedPod<'p> {
        EvictedPod {
            labels: &self.labels,
            annotations: &self.annotations,
            phase: text(pod, "/status/phase"),
            node: text(pod, "/spec/nodeName"),
        }
    }
}

/// Marks an instance to leave a node.
fn mark(request: &Request<'_>, vmi: &Value, node: &str, by_descheduler: bool) -> EvictionPlan {
    let (namespace, name) = (
        text(vmi, "/metadata/namespace"),
        text(vmi, "/metadata/name"),
    );
    let mut operations = Operations::on(vmi).change("/status/evacuationNodeName", json!(node));
    if by_descheduler {
        let mut annotations = match &vmi["metadata"]["annotations"] {
            Value::Object(annotations) => annotations.clone(),
            _ => serde_json::Map::new(),
        };
        annotations.insert(EVICTION_SOURCE.to_owned(), json!(SOURCE_DESCHEDULER));
        operations = operations.change("/metadata/annotations", annotations.into());
    }
    let dry_run = request.object.pointer("/deleteOptions/dryRun/0");
    EvictionPlan::Mark {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        patch: operations.patch(),
        is_dry: request.is_dry || dry_run.is_some_and(|part| part == "All"),
        // The descheduler knows by these words that the pod goes later.
        message: format!("Eviction triggered evacuation of VMI \"{namespace}/{name}\""),
    }
}
