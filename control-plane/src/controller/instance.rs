//! Instances (KubeVirt §2.5): from their creation until their pod runs, and again from the end of their machine.
//!
//! ```text
//!   "" ─▶ Pending ── pod made ──▶ Scheduling ── pod runs ──▶ Scheduled ──▶ Running      (node agent)
//!            │                        │                          │            │
//!            └ deleted                └ pod ended, or went       └────────────┴ pod gone, node dead
//!                 ▼                        ▼                                  ▼
//!              Failed ◀───────────────── Failed ◀────────────────────────── Failed
//! ```
//!
//! A final instance that is being deleted goes once its pods have gone. Where a pod runs at once, the phases up to
//! `Scheduled` are written together.

mod claims;
mod pods;
mod status;

use std::sync::Arc;
use std::time::Duration;

use api::status::Phase;
use api::{Vmi, condition, labels};
use jiff::Timestamp;
use serde_json::Value;

use super::actions::Action;
use super::change::{self, add_finalizer, is_deleted, remove_finalizers};
use super::configuration::Config;
use super::events::Event;
use super::key::{Key, Kind};
use super::pod::{self, Attachments, Claims};
use claims::Waiting;
pub(crate) use claims::names as claim_names;
pub(crate) use pods::{PodView, has_live};

/// How long a new pod may take to run before its instance is said to be scheduling: most take less, and one write
/// then does for three. Counted from the pod's time of creation, which has no fractions of a second.
const AT_ONCE: Duration = Duration::from_millis(1700);
/// How long the node agent has to tell how a machine ended whose pod has gone, or has ended and is still there.
const LAST_WORD: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(60));

/// Wait before definitions of networks are looked for again: they aren't watched.
const DEFINITIONS: Duration = Duration::from_secs(10);

/// How long a pod may take to become ready once its readiness gate is open.
const SETTLING: Duration = Duration::from_secs(2);

/// What becomes of pods, in a word.
pub(crate) mod reason {
    /// It could not be made.
    pub(crate) const FAILED_CREATE: &str = "FailedCreate";
    /// The pod went while the machine should have run.
    pub(crate) const POD_GONE: &str = "PodGone";
    /// The pod ended before the node agent took over.
    pub(crate) const POD_ENDED: &str = "PodEnded";
}

/// What is known of an instance.
#[derive(Clone, Debug)]
pub(crate) struct Observed<'a> {
    /// The instance as the API server has it.
    pub(crate) raw: &'a Value,
    /// The instance.
    pub(crate) vmi: &'a Vmi,
    /// Its pods.
    pub(crate) pods: &'a [Arc<Value>],
    /// Claims of its namespace that it names.
    pub(crate) claims: &'a Claims,
    /// Definitions of networks that it names, as far as they matter.
    pub(crate) attachments: &'a Attachments,
    /// Whether its node gives no signs of life.
    pub(crate) node_is_dead: bool,
    /// What the controller remembers of it.
    pub(crate) past: &'a Past,
}

/// What the controller remembers of an instance; nothing is lost with it but some patience.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Past {
    /// Why its pod could not be made.
    pub(crate) trouble: Option<String>,
    /// Since when it has no pod that hasn't ended.
    pub(crate) podless_since: Option<Timestamp>,
}

/// Decides what is to be done for an instance.
pub(crate) fn plan(now: Timestamp, observed: &Observed<'_>, config: &Config) -> Vec<Action> {
    let Some(key) = Key::of(Kind::Instance, observed.raw) else {
        return Vec::new();
    };
    let pods: Vec<PodView<'_>> = observed.pods.iter().map(|pod| PodView(pod)).collect();
    let case = Case {
        now,
        key,
        observed,
        config,
        current: pods::current(&pods),
        pods,
    };
    let phase = observed.vmi.status.phase;
    if phase.is_final() {
        return case.ended();
    }
    if is_deleted(observed.raw) {
        return case.deleted();
    }
    match phase {
        Phase::Unset | Phase::Pending | Phase::Scheduling => case.before_hand_over(),
        Phase::Scheduled | Phase::Running => case.handed_over(),
        _ => Vec::new(),
    }
}

/// One decision.
struct Case<'a> {
    now: Timestamp,
    key: Key,
    observed: &'a Observed<'a>,
    config: &'a Config,
    pods: Vec<PodView<'a>>,
    /// The pod that runs, or is to run, the machine.
    current: Option<PodView<'a>>,
}

impl Case<'_> {
    fn uid(&self) -> &str {
        &self.observed.vmi.metadata.uid
    }

    fn phase(&self) -> Phase {
        self.observed.vmi.status.phase
    }

    /// The machine's life is over: nothing is left to do until somebody deletes the instance.
    fn ended(&self) -> Vec<Action> {
        if !is_deleted(self.observed.raw) {
            // Not every node agent says so with the phase.
            let is_ready = self.observed.vmi.status.is_true(condition::kind::READY);
            let write = is_ready.then(|| self.write(|next| self.mirror(next)));
            return write.flatten().into_iter().collect();
        }
        let mut actions = self.delete_pods();
        if self.pods.is_empty() {
            actions.extend(self.write(release));
        }
        actions
    }

    fn deleted(&self) -> Vec<Action> {
        let mut actions = self.delete_pods();
        let is_handed_over = matches!(self.phase(), Phase::Scheduled | Phase::Running);
        if !self.pods.is_empty() {
            actions.extend(self.write(|next| self.mirror(next)));
        } else if is_handed_over && !self.has_had_last_word() {
            actions.push(Action::LookAgain(self.last_word_at()));
        } else {
            actions.extend(self.write(|next| {
                status::enter(next, Phase::Failed, self.now);
                release(next);
            }));
        }
        actions
    }

    fn delete_pods(&self) -> Vec<Action> {
        let mut actions = Vec::new();
        for pod in &self.pods {
            if let Some(delete) = Action::delete(Kind::Pod, pod.0) {
                let text = format!("Deleted virtual machine pod {}", pod.name());
                actions.push(delete);
                actions.push(self.tell("SuccessfulDelete", text));
            }
        }
        actions
    }

    fn tell(&self, reason: &'static str, text: String) -> Action {
        Action::Tell(Event::normal(&self.key, self.uid(), reason, text))
    }

    fn warn(&self, reason: &'static str, text: String) -> Action {
        Action::Tell(Event::warning(&self.key, self.uid(), reason, text))
    }

    fn write(&self, change: impl FnOnce(&mut Value)) -> Option<Action> {
        let mut next = self.observed.raw.clone();
        change(&mut next);
        Action::change(&self.key, None, self.observed.raw, &next)
    }

    fn before_hand_over(&self) -> Vec<Action> {
        let Some(pod) = &self.current else {
            return match self.phase() {
                Phase::Scheduling => self.fail(reason::POD_GONE),
                _ => self.without_pod(),
            };
        };
        if pod.is_ended() || pod.is_going() {
            return self.fail(reason::POD_ENDED);
        }
        let mut actions: Vec<Action> = self.unpause_gate(pod).into_iter().collect();
        actions.extend(self.with_pod(pod));
        actions
    }

    fn with_pod(&self, pod: &PodView<'_>) -> Option<Action> {
        if pod.runs() {
            return self.hand_over(pod);
        }
        let decided_at = pod.created_at().map(|at| at + AT_ONCE);
        if self.phase() != Phase::Scheduling
            && let Some(at) = decided_at.filter(|at| *at > self.now)
            && pod.trouble().is_none()
        {
            return Some(Action::LookAgain(at));
        }
        self.write(|next| {
            self.prepare(next);
            status::enter(next, Phase::Scheduling, self.now);
            self.mirror(next);
        })
    }

    fn without_pod(&self) -> Vec<Action> {
        let vmi = self.observed.vmi;
        if let Some(text) = pod::unpermitted(vmi, self.config) {
            return self.refuse(&text);
        }
        if let Some(waiting) = claims::waiting(vmi, self.observed.claims) {
            return self.wait(&waiting);
        }
        if let Some(text) = pod::missing_network(vmi, self.observed.attachments) {
            let mut actions = self.refuse(&text);
            actions.push(Action::LookAgain(self.now + DEFINITIONS));
            return actions;
        }
        let mut actions: Vec<Action> = Vec::new();
        if let Some(trouble) = &self.observed.past.trouble {
            actions.extend(self.write(|next| {
                self.prepare(next);
                status::not_synchronized(next, reason::FAILED_CREATE, trouble, self.now);
            }));
        }
        let name = pod::name(vmi);
        actions.push(self.create_pod());
        let text = format!("Created virtual machine pod {name}");
        actions.push(self.tell("SuccessfulCreate", text));
        actions
    }

    fn create_pod(&self) -> Action {
        let vmi = api::default_vmi(self.observed.vmi);
        let Observed {
            raw,
            claims,
            attachments,
            ..
        } = self.observed;
        let pod = pod::render(&vmi, raw, claims, attachments, self.config);
        Action::Create {
            key: self.key.sibling(Kind::Pod, &pod::name(&vmi)),
            object: pod,
        }
    }

    fn wait(&self, waiting: &Waiting) -> Vec<Action> {
        let mut actions: Vec<Action> = Vec::new();
        actions.extend(self.write(|next| {
            self.prepare(next);
            status::waiting(next, waiting, self.now);
        }));
        if !actions.is_empty() && waiting.is_missing() {
            actions.push(self.warn(waiting.reason(), waiting.to_string()));
        }
        actions
    }

    /// Says why there can be no pod, once.
    fn refuse(&self, text: &str) -> Vec<Action> {
        let mut actions: Vec<Action> = Vec::new();
        actions.extend(self.write(|next| {
            self.prepare(next);
            status::not_synchronized(next, reason::FAILED_CREATE, text, self.now);
            status::without_pod(next, self.now);
        }));
        if !actions.is_empty() {
            actions.push(self.warn(reason::FAILED_CREATE, text.to_owned()));
        }
        actions
    }

    fn hand_over(&self, pod: &PodView<'_>) -> Option<Action> {
        let vmi = api::default_vmi(self.observed.vmi);
        self.write(|next| {
            self.prepare(next);
            if self.phase() != Phase::Scheduling {
                status::enter(
                    next,
                    Phase::Scheduling,
                    pod.created_at().unwrap_or(self.now),
                );
            }
            status::hand_over(next, &vmi, pod, self.observed.claims, self.config, self.now);
            self.mirror(next);
        })
    }

    /// What an instance has from the mutating webhook, where there is one.
    fn prepare(&self, next: &mut Value) {
        if self.phase() == Phase::Unset {
            let made = &self.observed.vmi.metadata.creation_timestamp;
            let made = made.as_deref().and_then(super::time::parse);
            status::enter(next, Phase::Pending, made.unwrap_or(self.now));
            if self.observed.vmi.status.runtime_user.is_none() {
                change::set(next, &["status", "runtimeUser"], 107);
            }
        }
        add_finalizer(next, labels::VMI_FINALIZER);
    }

    fn fail(&self, why: &str) -> Vec<Action> {
        let write = self.write(|next| {
            self.prepare(next);
            status::enter(next, Phase::Failed, self.now);
            change::set(next, &["status", "reason"], why);
            self.mirror(next);
        });
        write.into_iter().collect()
    }

    fn handed_over(&self) -> Vec<Action> {
        let is_lost = |pod: &PodView<'_>| pod.is_ended() || pod.is_going();
        if self.observed.node_is_dead && self.current.as_ref().is_none_or(is_lost) {
            return self.fail(condition::reason::NODE_UNRESPONSIVE);
        }
        let live = self.current.as_ref().filter(|pod| !pod.is_ended());
        if live.is_none() && self.has_had_last_word() {
            return self.fail(reason::POD_GONE);
        }
        let mut actions: Vec<Action> = Vec::new();
        match live {
            Some(pod) => actions.extend(self.unpause_gate(pod)),
            None => actions.push(Action::LookAgain(self.last_word_at())),
        }
        if let Some(at) = live.and_then(|pod| self.settles_at(pod)) {
            actions.push(Action::LookAgain(at));
        } else if self.current.is_some() {
            actions.extend(self.write(|next| self.mirror(next)));
        }
        actions
    }

    /// A pod becomes ready a moment after its readiness gate has opened: what it says until then is soon outdated.
    fn settles_at(&self, pod: &PodView<'_>) -> Option<Timestamp> {
        let told = self.observed.vmi.status.condition(condition::kind::READY)?;
        let is_new = told.reason == condition::reason::GUEST_NOT_RUNNING;
        if self.phase() != Phase::Running || !is_new || pod.is_ready() || pod.is_going() {
            return None;
        }
        let at = pod.gate_opened_at().unwrap_or(self.now) + SETTLING;
        (at > self.now).then_some(at)
    }

    fn last_word_at(&self) -> Timestamp {
        let patience = if self.pods.is_empty() {
            LAST_WORD.0
        } else {
            LAST_WORD.1
        };
        self.observed.past.podless_since.unwrap_or(self.now) + patience
    }

    fn has_had_last_word(&self) -> bool {
        self.last_word_at() <= self.now
    }

    /// The readiness gate of the pod says that the guest is not paused. It opens as soon as there is a pod, so that the pod
    /// is ready with the first word of its node.
    fn unpause_gate(&self, pod: &PodView<'_>) -> Option<Action> {
        if pod.is_ended() || pod.is_going() {
            return None;
        }
        let is_paused = self.observed.vmi.status.is_true(condition::kind::PAUSED);
        let next = pod.with_gate(!is_paused, self.now)?;
        let key = Key::of(Kind::Pod, pod.0)?;
        Action::change(&key, Some("status"), pod.0, &next)
    }

    /// What the instance's status says of its pods.
    fn mirror(&self, next: &mut Value) {
        let was = self.phase();
        status::mirror(next, was, self.current.as_ref(), &self.pods, self.now);
    }
}

/// Lets a final instance go.
fn release(next: &mut Value) {
    remove_finalizers(next, &[labels::VMI_FINALIZER, labels::VMI_FINALIZER_OLD]);
}

#[cfg(test)]
mod tests;
