//! Carrying out what was planned.

use api::error_chain::chain;
use api::events::{message, reason};
use jiff::Timestamp;
use tracing::{info, warn};

use super::Controller;
use super::memory::Record;
use super::observe::{DomainSight, Object, Sight};
use crate::cluster::Event;
use crate::key::VmiKey;
use crate::launchers::CommandError;
use crate::plan::{Action, Machine, Outcome, Plan};

impl Controller {
    /// Carries out the steps, each only when the one before it succeeded; returns whether all did.
    pub(super) async fn act(
        &self,
        key: &VmiKey,
        sight: &Sight,
        record: &mut Record,
        planned: &Plan,
    ) -> bool {
        let pod_uid = sight.attached().map(|launcher| launcher.pod_uid.clone());
        let pod_uid = pod_uid.unwrap_or_default();
        for action in &planned.actions {
            let outcome = self.carry_out(key, sight, action).await;
            let past = &mut record.past;
            past.record(Timestamp::now(), action, &outcome, sight.digest, &pod_uid);
            self.tell(key, sight, record, action, &outcome);
            let is_best_effort = *action == Action::DeleteDomain;
            if outcome != Outcome::Done && !is_best_effort {
                return false;
            }
        }
        true
    }

    async fn carry_out(&self, key: &VmiKey, sight: &Sight, action: &Action) -> Outcome {
        if let Action::CleanUp { uid } = action {
            return self.clean_up(key, uid).await;
        }
        let Some(launcher) = sight.attached() else {
            return Outcome::Failed("there is no launcher to ask".to_owned());
        };
        let json = || sight.json(key);
        let asked = match action {
            Action::MountDisks => return self.mount_disks(sight, launcher).await,
            Action::GiveOwnership => return self.give_ownership(sight, launcher).await,
            Action::Sync => {
                let options = self.parts.cluster.borrow().options();
                launcher.sync(json(), options).await
            }
            Action::Shutdown { .. } => launcher.shutdown(json()).await,
            Action::Kill => launcher.kill(json()).await,
            Action::DeleteDomain => launcher.delete(json()).await,
            Action::CleanUp { .. } => Ok(()),
        };
        asked.map_or_else(|error| Outcome::Failed(text(&error)), |()| Outcome::Done)
    }

    /// Tells the user and the log what was done.
    fn tell(
        &self,
        key: &VmiKey,
        sight: &Sight,
        record: &mut Record,
        action: &Action,
        outcome: &Outcome,
    ) {
        let normal = |reason, text| {
            self.parts
                .recorder
                .record(Event::normal(key, &sight.uid, reason, text));
        };
        match (action, outcome) {
            (Action::Sync, Outcome::Done) => self.tell_of_definition(key, sight, record),
            (Action::Shutdown { is_first: true }, Outcome::Done) => {
                info!("asked the guest to shut down");
                normal(reason::SHUTTING_DOWN, message::GRACEFUL_SHUTDOWN);
            }
            (Action::Kill, Outcome::Done) => {
                info!("pulled the plug");
                normal(reason::DELETED, message::STOPPING);
            }
            (Action::DeleteDomain, Outcome::Done) => {
                normal(reason::DELETED, message::SIGNALED_DELETION);
            }
            (Action::CleanUp { .. }, Outcome::Done) => info!("cleaned up"),
            (_, Outcome::Failed(why)) => {
                warn!(?action, error = why, "a step failed");
                self.tell_of_failure(key, sight, record, action);
            }
            (_, Outcome::Done | Outcome::Waiting(_)) => {}
        }
    }

    fn tell_of_definition(&self, key: &VmiKey, sight: &Sight, record: &mut Record) {
        let was_alive = match &sight.domain {
            DomainSight::Known(domain) => Machine::of(domain) == Machine::Alive,
            DomainSight::Unknown | DomainSight::Absent => false,
        };
        if was_alive || record.defined.as_ref() == Some(&sight.uid) {
            return;
        }
        record.defined = Some(sight.uid.clone());
        info!("the machine is defined");
        // Of one that starts at once its users are told that in a moment: two events would be two writes of the API.
        let starts_paused = matches!(&sight.object, Object::Here(_, vmi) if vmi.starts_paused());
        if !starts_paused {
            return;
        }
        let event = Event::normal(key, &sight.uid, reason::CREATED, message::DEFINED);
        self.parts.recorder.record(event);
    }

    fn tell_of_failure(&self, key: &VmiKey, sight: &Sight, record: &Record, action: &Action) {
        let is_sync = matches!(
            action,
            Action::MountDisks | Action::GiveOwnership | Action::Sync
        );
        if let Some(failure) = record.past.failure.as_ref().filter(|_| is_sync) {
            let event = Event::warning(key, &sight.uid, reason::SYNC_FAILED, &failure.message);
            self.parts.recorder.record(event);
        }
    }
}

/// Returns what a launcher's answer says to the user.
fn text(error: &CommandError) -> String {
    match error {
        CommandError::Refused { message, .. } => message.clone(),
        CommandError::Unreachable { .. }
        | CommandError::TimedOut { .. }
        | CommandError::Unimplemented { .. }
        | CommandError::BadAnswer { .. } => chain(error),
    }
}
