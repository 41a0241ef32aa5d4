//! Writing the status of an instance, and telling of its changes.

use api::Vmi;
use api::events::{message, reason};
use api::status::{Phase, VmiStatus};
use jiff::Timestamp;
use proto::domain::Domain;
use serde_json::Value;
use tracing::info;

use super::Controller;
use super::memory::Record;
use super::observe::{DomainSight, LauncherSight, Object, Sight};
use crate::cluster::{Event, WriteError};
use crate::key::VmiKey;
use crate::plan::Plan;
use crate::status::{Emulation, Facts, SyncState, end_of, next_status, patch::status_patch};

impl Controller {
    /// Writes the status if it is to change.
    pub(super) async fn publish(
        &self,
        key: &VmiKey,
        sight: &Sight,
        record: &Record,
        planned: &Plan,
    ) -> Result<(), WriteError> {
        let Object::Here(stored, vmi) = &sight.object else {
            return Ok(());
        };
        // What was done may have changed the machine.
        let latest = self.latest_domain(key, &sight.uid);
        let domain = latest.as_deref().or(match &sight.domain {
            DomainSight::Known(domain) => Some(domain.as_ref()),
            DomainSight::Unknown | DomainSight::Absent => None,
        });
        let emulation = self.emulation();
        let checksums = self.memory.checksums(&sight.uid);
        let facts = Facts {
            death: planned.death.as_ref(),
            sync: sync_state(sight, record, planned),
            checksums: &checksums,
            agent: record.agent.as_ref().and_then(|(_, info)| info.as_ref()),
            emulation: &emulation,
        };
        let next = next_status(Timestamp::now(), vmi, domain, &facts);
        if next == vmi.status {
            return Ok(());
        }
        let Some(patch) = status_patch(&stored.raw.tree(), &vmi.status, &next) else {
            return Ok(());
        };
        let written = match self.parts.instances.patch(key, patch).await {
            Err(WriteError::Gone(_)) => return Ok(()),
            answer => answer?,
        };
        self.take_over(key, written);
        self.tell_of_phase(key, vmi, &next, domain, planned);
        Ok(())
    }

    fn emulation(&self) -> Emulation {
        let mut emulation = self.parts.emulation.clone();
        emulation.is_requested |= self.parts.cluster.borrow().configuration.use_emulation();
        emulation
    }

    /// Takes over what the API server answered; what follows from it is decided in another turn.
    fn take_over(&self, key: &VmiKey, written: Value) {
        if self.is_ours(&written) && self.parts.store.put(written).is_some() {
            self.parts.queue.add(key);
        }
    }

    fn tell_of_phase(
        &self,
        key: &VmiKey,
        vmi: &Vmi,
        next: &VmiStatus,
        domain: Option<&Domain>,
        planned: &Plan,
    ) {
        if vmi.status.phase == next.phase {
            return;
        }
        info!(from = %vmi.status.phase, to = %next.phase, reason = next.reason, "the phase changed");
        let uid = &vmi.metadata.uid;
        let event = match next.phase {
            Phase::Running => Event::normal(key, uid, reason::STARTED, message::STARTED),
            Phase::Succeeded | Phase::Failed => {
                let text = end_of(vmi, domain, planned.death.as_ref()).unwrap_or_default();
                let mut event = Event::normal(key, uid, reason::STOPPED, &text);
                event.is_warning = next.phase == Phase::Failed;
                event
            }
            _ => return,
        };
        self.parts.recorder.record(event);
    }
}

fn sync_state<'a>(sight: &'a Sight, record: &'a Record, planned: &'a Plan) -> SyncState<'a> {
    if let Some(failure) = &record.past.failure {
        return SyncState::Failed(&failure.message);
    }
    if let Some(trouble) = &planned.trouble {
        return SyncState::Failed(trouble);
    }
    match &sight.launcher {
        LauncherSight::Attached(launcher)
            if record.past.is_synced(sight.digest, &launcher.pod_uid) =>
        {
            SyncState::Done
        }
        _ => SyncState::Untried,
    }
}
