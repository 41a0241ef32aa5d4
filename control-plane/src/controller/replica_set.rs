//! Replica sets (KubeVirt §6.5): as many instances as are wanted.

use std::sync::Arc;

use api::condition::{Condition, kind};
use api::replica_set::{DEFAULT_REPLICAS, condition};
use api::selector::{LabelRequirement, LabelSelector};
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::actions::Action;
use super::cache::uid;
use super::change::{is_deleted, set, text};
use super::conditions;
use super::events::Event;
use super::key::{Key, Kind};
use super::pod;
use super::time::rfc3339;

/// Instances that one decision makes or deletes; the next decision goes on.
const BURST: usize = 250;

/// What is known of a replica set.
#[derive(Clone, Debug)]
pub(crate) struct Observed<'a> {
    /// The replica set as the API server has it.
    pub(crate) raw: &'a Value,
    /// Its instances.
    pub(crate) instances: &'a [Arc<Value>],
    /// Why an instance could not be made.
    pub(crate) trouble: Option<&'a str>,
}

/// Decides what is to be done for a replica set.
pub(crate) fn plan(now: Timestamp, observed: &Observed<'_>) -> Vec<Action> {
    let Some(key) = Key::of(Kind::ReplicaSet, observed.raw) else {
        return Vec::new();
    };
    let (ended, here): (Vec<&Value>, Vec<&Value>) = observed
        .instances
        .iter()
        .map(AsRef::as_ref)
        .partition(|instance| is_final(instance));
    let active: Vec<&Value> = here.into_iter().filter(|vmi| !is_deleted(vmi)).collect();
    let mut actions: Vec<Action> = Vec::new();
    let next = status(now, observed, &active);
    actions.extend(Action::change(&key, Some("status"), observed.raw, &next));
    let is_paused = observed.raw.pointer("/spec/paused") == Some(&json!(true));
    if is_deleted(observed.raw) || is_paused {
        return actions;
    }
    for ended in ended.into_iter().take(BURST) {
        actions.extend(Action::delete(Kind::Instance, ended));
    }
    actions.extend(scale(now, &key, observed.raw, &active));
    actions
}

fn is_final(instance: &Value) -> bool {
    matches!(text(instance, "/status/phase"), "Succeeded" | "Failed")
}

fn is_ready(instance: &Value) -> bool {
    conditions::is_true(instance, kind::READY)
}

fn wanted(set: &Value) -> usize {
    let replicas = set.pointer("/spec/replicas").and_then(Value::as_i64);
    usize::try_from(replicas.unwrap_or(i64::from(DEFAULT_REPLICAS))).unwrap_or_default()
}

fn scale(now: Timestamp, key: &Key, set: &Value, active: &[&Value]) -> Vec<Action> {
    let wanted = wanted(set);
    if active.len() < wanted {
        let missing = (wanted - active.len()).min(BURST);
        return (0..missing)
            .flat_map(|n| create(now, key, set, n))
            .collect();
    }
    let mut surplus = active.to_vec();
    // Those that aren't ready go first, of them the youngest.
    surplus.sort_by_key(|instance| {
        (
            is_ready(instance),
            std::cmp::Reverse(made_at(instance).to_owned()),
        )
    });
    surplus
        .into_iter()
        .take((active.len() - wanted).min(BURST))
        .flat_map(|instance| {
            let name = text(instance, "/metadata/name");
            let text = format!(
                "Stopped the virtual machine by deleting the virtual machine instance {name}"
            );
            let told = Event::normal(key, uid(set), "SuccessfulDelete", text);
            Action::delete(Kind::Instance, instance)
                .into_iter()
                .chain([Action::Tell(told)])
        })
        .collect()
}

fn made_at(instance: &Value) -> &str {
    text(instance, "/metadata/creationTimestamp")
}

fn create(now: Timestamp, key: &Key, set: &Value, number: usize) -> [Action; 2] {
    let seed = format!("{} {} {number}", uid(set), now.as_nanosecond());
    let name = pod::with_suffix(&key.name, &Sha256::digest(seed.as_bytes()));
    let part = |pointer: &str| {
        let part = set.pointer(pointer).filter(|part| part.is_object());
        part.cloned().unwrap_or_else(|| json!({}))
    };
    let instance = json!({
        "apiVersion": Kind::Instance.api_version(),
        "kind": Kind::Instance.name(),
        "metadata": {
            "name": name,
            "namespace": key.namespace,
            "labels": part("/spec/template/metadata/labels"),
            "annotations": part("/spec/template/metadata/annotations"),
            "ownerReferences": [{
                "apiVersion": Kind::ReplicaSet.api_version(),
                "kind": Kind::ReplicaSet.name(),
                "name": key.name,
                "uid": uid(set),
                "controller": true,
                "blockOwnerDeletion": true,
            }],
        },
        "spec": part("/spec/template/spec"),
    });
    let text =
        format!("Started the virtual machine by creating the new virtual machine instance {name}");
    [
        Action::Create {
            key: key.sibling(Kind::Instance, &name),
            object: instance,
        },
        Action::Tell(Event::normal(key, uid(set), "SuccessfulCreate", text)),
    ]
}

fn status(now: Timestamp, observed: &Observed<'_>, active: &[&Value]) -> Value {
    let mut next = observed.raw.clone();
    let ready = active.iter().filter(|instance| is_ready(instance)).count();
    set(&mut next, &["status", "replicas"], active.len());
    set(&mut next, &["status", "readyReplicas"], ready);
    let selector = selector(observed.raw);
    set(&mut next, &["status", "labelSelector"], selector);
    let at = rfc3339(now);
    let is_paused = observed.raw.pointer("/spec/paused") == Some(&json!(true));
    let paused = is_paused.then(|| {
        Condition::new(condition::PAUSED, true, &at)
            .because(condition::REASON_PAUSED, "Controller got paused")
    });
    let failed = observed
        .trouble
        .filter(|_| active.len() < wanted(observed.raw));
    let failed = failed.map(|trouble| {
        Condition::new(condition::REPLICA_FAILURE, true, &at)
            .because(condition::REASON_FAILED_CREATE, trouble)
    });
    for (kind, condition) in [
        (condition::PAUSED, paused),
        (condition::REPLICA_FAILURE, failed),
    ] {
        match condition {
            Some(condition) => conditions::set(&mut next, condition),
            None => conditions::remove(&mut next, kind),
        }
    }
    next
}

/// Returns the selector as text, for autoscalers.
fn selector(set: &Value) -> String {
    let selector = set
        .pointer("/spec/selector")
        .map(LabelSelector::deserialize);
    let selector = selector.and_then(Result::ok).unwrap_or_default();
    let labels = selector
        .match_labels
        .iter()
        .map(|(label, value)| format!("{label}={value}"));
    let expressions = selector.match_expressions.iter().map(requirement);
    labels.chain(expressions).collect::<Vec<_>>().join(",")
}

fn requirement(requirement: &LabelRequirement) -> String {
    let (key, values) = (&requirement.key, requirement.values.join(","));
    match requirement.operator.as_str() {
        "In" => format!("{key} in ({values})"),
        "NotIn" => format!("{key} notin ({values})"),
        "DoesNotExist" => format!("!{key}"),
        _ => key.clone(),
    }
}

#[cfg(test)]
mod tests;
