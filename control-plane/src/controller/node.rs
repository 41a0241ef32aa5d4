//! Nodes (KubeVirt §2.7): one whose agent gives no signs of life gets no more instances.

use std::sync::Arc;
use std::time::Duration;

use api::labels;
use jiff::Timestamp;
use serde_json::Value;

use super::actions::Action;
use super::change::{set, text};
use super::key::{Key, Kind};
use super::time::parse;

/// Age of the last sign of life beyond which a node counts as dead.
const PATIENCE: Duration = Duration::from_secs(300);

/// What is known of a node.
#[derive(Clone, Debug)]
pub(crate) struct Observed<'a> {
    /// The node's name.
    pub(crate) name: &'a str,
    /// The node as the API server has it; `None` when it has none.
    pub(crate) raw: Option<&'a Value>,
    /// Instances that are on it by their status.
    pub(crate) instances: &'a [Arc<Value>],
}

/// Decides what is to be done for a node.
pub(crate) fn plan(now: Timestamp, observed: &Observed<'_>) -> Vec<Action> {
    let mut actions: Vec<Action> = Vec::new();
    if is_dead(observed.raw, now) {
        if let Some(raw) = observed.raw {
            actions.extend(close(observed.name, raw));
        }
        actions.extend(wake(observed.instances));
    } else if let Some(raw) = observed.raw {
        if let Some(last) = last_sign(raw) {
            actions.push(Action::LookAgain(last + PATIENCE));
        }
        let is_drained = raw
            .pointer("/spec/taints")
            .and_then(Value::as_array)
            .is_some_and(|taints| !taints.is_empty());
        if is_drained {
            actions.extend(wake(observed.instances));
        }
    }
    actions
}

/// Whether a node is gone, or gives no signs of life. One that never gave any isn't ours to judge.
pub(crate) fn is_dead(node: Option<&Value>, now: Timestamp) -> bool {
    let Some(node) = node else { return true };
    last_sign(node).is_some_and(|last| last + PATIENCE <= now)
}

fn last_sign(node: &Value) -> Option<Timestamp> {
    let annotations = node.pointer("/metadata/annotations")?;
    parse(annotations.get(labels::HEARTBEAT)?.as_str()?)
}

fn close(name: &str, raw: &Value) -> Option<Action> {
    let known = raw.pointer("/metadata/labels");
    let known = known.and_then(|known| known.get(labels::SCHEDULABLE));
    if known.is_none_or(|known| known == "false") {
        return None;
    }
    let mut next = raw.clone();
    set(
        &mut next,
        &["metadata", "labels", labels::SCHEDULABLE],
        "false",
    );
    Action::change(&Key::new(Kind::Node, "", name), None, raw, &next)
}

/// Instances are looked at by themselves.
fn wake(instances: &[Arc<Value>]) -> impl Iterator<Item = Action> {
    let live = instances
        .iter()
        .filter(|vmi| !matches!(text(vmi, "/status/phase"), "Succeeded" | "Failed"));
    live.filter_map(|vmi| Key::of(Kind::Instance, vmi))
        .map(Action::LookAt)
}

#[cfg(test)]
mod tests;
