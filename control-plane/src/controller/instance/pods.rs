//! Pods of launchers, as far as their instances are concerned.

use std::sync::Arc;

use api::{components, labels};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::controller::change::{entry, is_deleted, text};
use crate::controller::time::{parse, rfc3339};

/// Reasons for which a container waits that nobody but a person can end.
const STUCK: [&str; 7] = [
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "ErrImageNeverPull",
    "CreateContainerConfigError",
    "CreateContainerError",
    "RunContainerError",
];

/// A pod.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PodView<'a>(pub(crate) &'a Value);

/// Why a pod doesn't get on, for programs and for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// In one word.
    pub(crate) reason: String,
    /// For people.
    pub(crate) message: String,
}

/// Returns the pod that runs, or is to run, the machine: no target of a migration, the youngest that isn't ending, else
/// the youngest.
pub(super) fn current<'a>(pods: &[PodView<'a>]) -> Option<PodView<'a>> {
    let sources = pods.iter().filter(|pod| !pod.is_migration_target());
    sources
        .max_by_key(|pod| (!pod.is_ended() && !pod.is_going(), pod.created_at()))
        .copied()
}

/// Whether one of an instance's pods hasn't ended.
pub(crate) fn has_live(pods: &[Arc<Value>]) -> bool {
    pods.iter().any(|pod| !PodView(pod).is_ended())
}

impl<'a> PodView<'a> {
    pub(crate) fn name(&self) -> &'a str {
        text(self.0, "/metadata/name")
    }

    pub(crate) fn uid(&self) -> &'a str {
        text(self.0, "/metadata/uid")
    }

    pub(crate) fn node(&self) -> &'a str {
        text(self.0, "/spec/nodeName")
    }

    pub(crate) fn created_at(&self) -> Option<Timestamp> {
        parse(text(self.0, "/metadata/creationTimestamp"))
    }

    pub(crate) fn is_migration_target(&self) -> bool {
        let labels = self.0.pointer("/metadata/labels");
        labels.is_some_and(|labels| labels.get(labels::MIGRATION_JOB_UID).is_some())
    }

    /// Whether all its containers have ended.
    pub(crate) fn is_ended(&self) -> bool {
        matches!(text(self.0, "/status/phase"), "Succeeded" | "Failed")
    }

    /// Whether it is being deleted.
    pub(crate) fn is_going(&self) -> bool {
        is_deleted(self.0)
    }

    /// Whether the launcher runs, and all the others of its containers are ready. The launcher itself is ready only
    /// when its guest is.
    pub(crate) fn runs(&self) -> bool {
        let containers = self.containers("containerStatuses");
        let mut has_compute = false;
        for container in containers {
            if container["name"] == components::COMPUTE_CONTAINER {
                has_compute = true;
                if container.pointer("/state/running").is_none() {
                    return false;
                }
            } else if container["ready"] != true {
                return false;
            }
        }
        has_compute && text(self.0, "/status/phase") == "Running" && !self.node().is_empty()
    }

    /// Why it doesn't get on.
    pub(crate) fn trouble(&self) -> Option<Trouble> {
        let lists = ["initContainerStatuses", "containerStatuses"];
        let containers = lists.into_iter().flat_map(|list| self.containers(list));
        containers
            .filter_map(|container| {
                let waiting = container.pointer("/state/waiting")?;
                let reason = text(waiting, "/reason");
                STUCK.contains(&reason).then(|| Trouble {
                    reason: reason.to_owned(),
                    message: text(waiting, "/message").to_owned(),
                })
            })
            .next()
            .or_else(|| self.unschedulable())
    }

    fn unschedulable(&self) -> Option<Trouble> {
        let condition = self.condition("PodScheduled")?;
        (condition["status"] == "False").then(|| Trouble {
            reason: text(condition, "/reason").to_owned(),
            message: text(condition, "/message").to_owned(),
        })
    }

    /// Returns one of its conditions.
    pub(crate) fn condition(&self, kind: &str) -> Option<&'a Value> {
        let conditions = self.0.pointer("/status/conditions")?.as_array()?;
        conditions
            .iter()
            .find(|condition| condition["type"] == kind)
    }

    fn containers(&self, list: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
        let status = self.0.get("status").and_then(|status| status.get(list));
        status.and_then(Value::as_array).into_iter().flatten()
    }

    /// Returns the image of the launcher.
    pub(crate) fn launcher_image(&self) -> &'a str {
        let containers = self.0.pointer("/spec/containers").and_then(Value::as_array);
        let mut containers = containers.into_iter().flatten();
        let compute =
            containers.find(|container| container["name"] == components::COMPUTE_CONTAINER);
        compute.map_or("", |compute| text(compute, "/image"))
    }

    /// Whether it can serve.
    pub(super) fn is_ready(&self) -> bool {
        self.condition("Ready")
            .is_some_and(|ready| ready["status"] == "True")
    }

    /// Returns when the readiness gate was last set.
    pub(super) fn gate_opened_at(&self) -> Option<Timestamp> {
        let gate = self.condition(labels::UNPAUSED_READINESS_GATE)?;
        parse(text(gate, "/lastTransitionTime"))
    }

    /// Returns the pod with its readiness gate set; `None` when it says so already.
    pub(super) fn with_gate(&self, unpaused: bool, now: Timestamp) -> Option<Value> {
        let status = if unpaused { "True" } else { "False" };
        let known = self.condition(labels::UNPAUSED_READINESS_GATE);
        if known.is_some_and(|known| known["status"] == status) {
            return None;
        }
        let (reason, message) = if unpaused {
            ("NotPaused", "the virtual machine is not paused")
        } else {
            ("Paused", "the virtual machine is paused")
        };
        let gate = json!({
            "type": labels::UNPAUSED_READINESS_GATE,
            "status": status,
            "reason": reason,
            "message": message,
            "lastProbeTime": rfc3339(now),
            "lastTransitionTime": rfc3339(now),
        });
        let mut next = self.0.clone();
        let conditions = entry(&mut next, &["status", "conditions"]);
        match conditions.as_array_mut() {
            Some(conditions) => {
                let same = |known: &&mut Value| known["type"] == gate["type"];
                match conditions.iter_mut().find(same) {
                    Some(known) => *known = gate,
                    None => conditions.push(gate),
                }
            }
            None => *conditions = Value::Array(vec![gate]),
        }
        Some(next)
    }
}
