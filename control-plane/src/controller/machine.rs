//! Virtual machines (KubeVirt §6.4): whether an instance should run, and what the status says.
//!
//! ```text
//!   strategy, requests, back-off ─▶ start: revision, instance     (claims of data volume templates first)
//!                                 ─▶ stop: delete the instance     (which is then made anew where the strategy says so)
//!                                 ─▶ nothing
//!   and in any case: the status
//! ```

mod printable;
mod requests;
mod start;
mod status;
mod storage;
mod strategy;
mod update;

use std::sync::Arc;

use api::labels;
use jiff::Timestamp;
use serde_json::Value;

use super::actions::Action;
use super::cache::uid;
use super::change::{add_finalizer, has_finalizer, is_deleted, remove_finalizers, set, text};
use super::configuration::Config;
use super::events::Event;
use super::key::{Key, Kind};
use super::pod::Claims;
pub(crate) use start::revision_name;
pub(crate) use storage::claim_names;
use strategy::Decision;

/// What is known of a virtual machine.
#[derive(Clone, Debug)]
pub(crate) struct Observed<'a> {
    /// The virtual machine as the API server has it.
    pub(crate) raw: &'a Value,
    /// The instance of its name, whoever made it.
    pub(crate) instance: Option<&'a Value>,
    /// Claims of its namespace that it names.
    pub(crate) claims: &'a Claims,
    /// The specification that the instance was made from, where it isn't the present one.
    pub(crate) started_from: Option<Arc<Value>>,
    /// Whether the cluster makes data volumes.
    pub(crate) has_importer: bool,
    /// Why an instance could not be made.
    pub(crate) trouble: Option<&'a str>,
}

/// Decides what is to be done for a virtual machine.
pub(crate) fn plan(now: Timestamp, observed: &Observed<'_>, config: &Config) -> Vec<Action> {
    let Some(key) = Key::of(Kind::Machine, observed.raw) else {
        return Vec::new();
    };
    let case = Case {
        now,
        key,
        raw: observed.raw,
        instance: observed.instance.filter(|vmi| belongs(vmi, observed.raw)),
        observed,
        config,
    };
    if is_deleted(observed.raw) {
        return case.deleted();
    }
    if let Some(prepare) = case.prepare() {
        // What follows is decided from the virtual machine as it is then: its generation has changed.
        return vec![prepare];
    }
    case.alive()
}

/// Whether a virtual machine made an instance.
pub(crate) fn belongs(instance: &Value, machine: &Value) -> bool {
    let references = instance.pointer("/metadata/ownerReferences");
    let references = references.and_then(Value::as_array).into_iter().flatten();
    let mut controllers = references.filter(|owner| owner["controller"] == true);
    controllers.any(|owner| text(owner, "/uid") == uid(machine))
}

/// One decision.
struct Case<'a> {
    now: Timestamp,
    key: Key,
    raw: &'a Value,
    /// The instance, if it is its own.
    instance: Option<&'a Value>,
    observed: &'a Observed<'a>,
    config: &'a Config,
}

impl Case<'_> {
    fn tell(&self, reason: &'static str, text: String) -> Action {
        Action::Tell(Event::normal(&self.key, uid(self.raw), reason, text))
    }

    /// The finalizer by which the instance goes first, and the system UUID that all instances are to have.
    fn prepare(&self) -> Option<Action> {
        let mut next = self.raw.clone();
        add_finalizer(&mut next, labels::VM_FINALIZER);
        let path = ["spec", "template", "spec", "domain", "firmware", "uuid"];
        if text(self.raw, "/spec/template/spec/domain/firmware/uuid").is_empty() {
            set(
                &mut next,
                &path,
                start::system_uuid(self.raw, self.instance),
            );
        }
        Action::change(&self.key, None, self.raw, &next)
    }

    fn deleted(&self) -> Vec<Action> {
        let mut actions: Vec<Action> = Vec::new();
        // `kubectl delete --cascade=orphan` leaves the instance.
        let leaves_instance = has_finalizer(self.raw, "orphan");
        match self.instance.filter(|_| !leaves_instance) {
            Some(instance) => {
                actions.extend(self.delete_instance(instance));
                actions.extend(self.write_status(&Decision::Stay));
            }
            None => {
                let mut next = self.raw.clone();
                remove_finalizers(&mut next, &[labels::VM_FINALIZER]);
                actions.extend(Action::change(&self.key, None, self.raw, &next));
            }
        }
        actions
    }

    fn delete_instance(&self, instance: &Value) -> Vec<Action> {
        let name = &self.key.name;
        let text =
            format!("Stopped the virtual machine by deleting the virtual machine instance {name}");
        let Some(delete) = Action::delete(Kind::Instance, instance) else {
            return Vec::new();
        };
        let mut actions = vec![delete, self.tell("SuccessfulDelete", text)];
        if let Some(revision) = revision_name(self.raw, instance) {
            actions.push(Action::Delete {
                key: self.key.sibling(Kind::Revision, &revision),
                uid: String::new(),
                grace_seconds: None,
            });
        }
        actions
    }

    fn alive(&self) -> Vec<Action> {
        let decision = strategy::decide(self);
        let made = match &decision {
            Decision::Start { is_paused } => self.start(*is_paused),
            _ => Vec::new(),
        };
        let mut actions: Vec<Action> = Vec::new();
        // Where an instance is made at once, the status follows from it a moment later. Otherwise it comes first: what
        // fails must not keep it from being told.
        if made.is_empty() || self.observed.trouble.is_some() {
            actions.extend(self.write_status(&decision));
        }
        actions.extend(storage::provide(self));
        actions.extend(made);
        match &decision {
            Decision::Run => actions.extend(self.run_always()),
            Decision::Wait(at) => actions.push(Action::LookAgain(*at)),
            Decision::Stop(instance) => actions.extend(self.delete_instance(instance)),
            Decision::Stay | Decision::Start { .. } => {}
        }
        actions
    }

    /// A halted machine that is to start paused runs from now on.
    fn run_always(&self) -> Option<Action> {
        let mut next = self.raw.clone();
        if self.raw.pointer("/spec/running").is_some() {
            set(&mut next, &["spec", "running"], true);
        } else {
            set(&mut next, &["spec", "runStrategy"], "Always");
        }
        Action::change(&self.key, None, self.raw, &next)
    }

    fn start(&self, is_paused: bool) -> Vec<Action> {
        if self.obstacle().is_some() || storage::waiting(self).is_some() {
            return Vec::new();
        }
        let name = &self.key.name;
        let text = format!(
            "Started the virtual machine by creating the new virtual machine instance {name}"
        );
        let revision = start::revision(&self.key, self.raw);
        let instance = start::instance(&self.key, self.raw, is_paused);
        vec![revision, instance, self.tell("SuccessfulCreate", text)]
    }

    /// Why no instance can be made until a person has done something.
    fn obstacle(&self) -> Option<(&'static str, String)> {
        if let Some(other) = self.observed.instance.filter(|_| self.instance.is_none()) {
            let text = format!(
                "cannot start: there is an instance {} that this virtual machine did not make; delete it, or rename one",
                text(other, "/metadata/name"),
            );
            return Some((api::vm::condition::REASON_FAILED_CREATE, text));
        }
        let instancetype = text(self.raw, "/spec/instancetype/name");
        if !instancetype.is_empty() {
            let text = format!(
                "spec.instancetype: {instancetype:?} cannot be used, this version has no instance types; write processors \
                 and memory into spec.template.spec.domain and remove spec.instancetype"
            );
            return Some(("InstancetypeNotSupported", text));
        }
        let waiting = storage::waiting(self).filter(|waiting| waiting.is_stuck)?;
        Some(("DataVolumeNotSupported", waiting.text))
    }

    fn write_status(&self, decision: &Decision<'_>) -> Option<Action> {
        let next = status::next(self, decision);
        Action::change(&self.key, Some("status"), self.raw, &next)
    }
}

#[cfg(test)]
mod tests;
