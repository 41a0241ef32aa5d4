//! Telling the API: the status, when it differs from what was told, and events.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Event, EventSource, ObjectReference, Pod, PodCondition, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde_json::{Value, json};

use super::Worker;
use crate::pods::cluster::ClusterError;
use crate::pods::options::EventLevel;
use crate::pods::plan::after;
use crate::pods::status::{Place, status};

/// Most bytes of an event's message (Kubernetes cuts longer ones).
const MESSAGE_LEN_MAX_BYTES: usize = 1024;
/// Most different events that are remembered in order not to repeat them.
const EVENTS_MAX: usize = 64;

impl Worker {
    /// Tells the status where it has changed, and returns when to try again if that failed.
    pub(super) async fn tell(&mut self) -> Option<Timestamp> {
        if self.is_gone {
            return None;
        }
        let options = &self.site.options;
        let place = Place {
            host_ip: options.host_ip.as_deref(),
            timing: &options.timing,
        };
        let status = status(&self.as_told(), &self.observed, Timestamp::now(), place);
        if self.told.as_ref() == Some(&status)
            || (self.told.is_none() && is_told(&self.pod, &status))
        {
            self.told = Some(status);
            return None;
        }
        let patch = json!({"metadata": {"uid": self.uid()}, "status": status});
        match self
            .site
            .cluster
            .patch_status(&self.namespace(), &self.name(), patch)
            .await
        {
            Ok(_) => self.told = Some(status),
            // That the pod is gone is heard on another way.
            Err(ClusterError::Gone { .. }) => {}
            Err(error @ ClusterError::Failed { .. }) => {
                tracing::warn!(pod = self.name(), %error, "cannot tell the pod's status; trying again");
                return Some(after(Timestamp::now(), self.site.options.timing.retry));
            }
        }
        None
    }

    /// The pod with what was told last, of which the API's own word may come later.
    fn as_told(&self) -> Pod {
        let mut pod = Pod::clone(&self.pod);
        if let Some(told) = &self.told {
            let status = pod.status.get_or_insert_default();
            let theirs = status.conditions.take().unwrap_or_default();
            let ours = told.conditions.clone().unwrap_or_default();
            let is_ours =
                |condition: &PodCondition| ours.iter().any(|own| own.type_ == condition.type_);
            let others: Vec<_> = theirs
                .into_iter()
                .filter(|condition| !is_ours(condition))
                .collect();
            status.conditions = Some(others.into_iter().chain(ours.iter().cloned()).collect());
            status.start_time.clone_from(&told.start_time);
        }
        pod
    }

    /// Writes a warning.
    pub(super) fn warn(&mut self, reason: &str, message: &str, container: Option<&str>) {
        tracing::warn!(
            pod = self.name(),
            container,
            reason,
            message,
            "pod has trouble"
        );
        self.event("Warning", reason, message, container);
    }

    /// Writes what is as it should be, where such events are wanted.
    pub(super) fn normal(&mut self, reason: &str, message: &str, container: &str) {
        if self.site.options.events == EventLevel::All {
            self.event("Normal", reason, message, Some(container));
        }
    }

    fn event(&mut self, kind: &str, reason: &str, message: &str, container: Option<&str>) {
        let about = format!("{reason}/{}", container.unwrap_or_default());
        if kind == "Warning" && self.events.get(&about).is_some_and(|last| last == message) {
            return;
        }
        if self.events.len() < EVENTS_MAX {
            self.events.insert(about, message.to_owned());
        }
        if self.is_gone {
            return;
        }
        let event = self.event_object(kind, reason, message, container);
        let written = self.site.cluster.record(&self.namespace(), event);
        tokio::spawn(async move {
            if let Err(error) = written.await {
                tracing::debug!(%error, "event is lost");
            }
        });
    }

    fn event_object(
        &self,
        kind: &str,
        reason: &str,
        message: &str,
        container: Option<&str>,
    ) -> Event {
        let now = Timestamp::now();
        let [namespace, name] = [self.namespace(), self.name()];
        let field = container.map(|container| format!("spec.containers{{{container}}}"));
        let mut end = message.len().min(MESSAGE_LEN_MAX_BYTES);
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        Event {
            count: Some(1),
            first_timestamp: Some(Time(now)),
            last_timestamp: Some(Time(now)),
            involved_object: ObjectReference {
                api_version: Some("v1".to_owned()),
                field_path: field,
                kind: Some("Pod".to_owned()),
                name: Some(name.clone()),
                namespace: Some(namespace.clone()),
                resource_version: None,
                uid: Some(self.uid()),
            },
            message: Some(message[..end].to_owned()),
            metadata: ObjectMeta {
                name: Some(format!("{name}.{:x}", now.as_nanosecond())),
                namespace: Some(namespace),
                ..ObjectMeta::default()
            },
            reason: Some(reason.to_owned()),
            reporting_component: Some("kubelet".to_owned()),
            reporting_instance: Some(self.site.options.node.clone()),
            source: Some(EventSource {
                component: Some("kubelet".to_owned()),
                host: Some(self.site.options.node.clone()),
            }),
            type_: Some(kind.to_owned()),
            ..Event::default()
        }
    }
}

/// Whether the API has the status already.
fn is_told(pod: &Pod, status: &PodStatus) -> bool {
    let [has, wanted] = [pod.status.as_ref(), Some(status)]
        .map(|status| serde_json::to_value(status).unwrap_or_default());
    let conditions = wanted["conditions"].as_array().cloned().unwrap_or_default();
    let has_condition = |condition: &Value| {
        has["conditions"]
            .as_array()
            .is_some_and(|all| all.contains(condition))
    };
    let fields = wanted
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| *name != "conditions");
    let has_fields = fields
        .into_iter()
        .all(|(name, value)| has.get(name) == Some(value));
    has_fields && conditions.iter().all(has_condition)
}
