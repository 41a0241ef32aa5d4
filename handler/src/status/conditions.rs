//! The conditions of an instance that its node agent looks after (KubeVirt §2.6).

use api::Vmi;
use api::condition::{self, Condition, kind, message, reason};
use api::status::VmiStatus;
use proto::domain::{Domain, DomainSpec, LifeCycle, StateChangeReason};

use super::text::{MESSAGE_CHARS_MAX, bounded};
use super::{Facts, SyncState, emulation_reason, is_alive, migratable};

/// What the condition `SoftwareEmulation` says when nothing was measured.
const EMULATION_UNEXPLAINED: &str = "the machine's processors are emulated in software";

/// Sets the conditions, leaving alone those that others look after, and what goes with them.
pub(super) fn set_all(
    status: &mut VmiStatus,
    vmi: &Vmi,
    domain: Option<&Domain>,
    facts: &Facts<'_>,
    now: &str,
) {
    let all = &mut status.conditions;
    synchronized(all, facts, now);
    let Some(domain) = domain else { return };
    if !is_alive(Some(domain)) {
        return;
    }
    let connected = domain
        .agent_connected()
        .then(|| Condition::new(kind::AGENT_CONNECTED, true, now));
    put(all, kind::AGENT_CONNECTED, connected);
    agent_version(all, vmi, domain, facts, now);
    put(all, kind::PAUSED, paused(domain, now));
    put(all, kind::SOFTWARE_EMULATION, emulated(domain, facts, now));
    put(
        all,
        kind::ACCESS_CREDENTIALS_SYNCHRONIZED,
        credentials(domain, now),
    );
    for condition in migratable::conditions(vmi, now) {
        condition::set(all, condition);
    }
    migratable::method(vmi).clone_into(&mut status.migration_method);
}

/// Says that an instance is ready whose guest begins to run, where that was all that was missing; the control plane would
/// say so with a write of its own. Whether a guest is ready that has a probe, or is paused, others know.
pub(super) fn runs(all: &mut Vec<Condition>, vmi: &Vmi, now: &str) {
    let is = |kind: &str| all.iter().find(|known| known.kind == kind);
    let waits = is(kind::READY).is_some_and(|ready| ready.reason == reason::GUEST_NOT_RUNNING);
    let is_paused = is(kind::PAUSED).is_some_and(Condition::is_true);
    if waits && !is_paused && vmi.spec.readiness_probe.is_none() {
        condition::set(all, Condition::new(kind::READY, true, now));
    }
}

/// Says that an instance whose guest has ended is no longer ready, so that nobody is sent to it until the control plane
/// sees its pod go.
pub(super) fn ends(all: &mut Vec<Condition>, now: &str) {
    if all
        .iter()
        .any(|known| known.kind == kind::READY && known.is_true())
    {
        let ready = Condition::new(kind::READY, false, now);
        let ready = ready.because(reason::GUEST_NOT_RUNNING, message::GUEST_NOT_RUNNING);
        condition::set(all, ready);
    }
}

fn put(all: &mut Vec<Condition>, kind: &str, condition: Option<Condition>) {
    match condition {
        Some(condition) => condition::set(all, condition),
        None => condition::remove(all, kind),
    }
}

fn synchronized(all: &mut Vec<Condition>, facts: &Facts<'_>, now: &str) {
    let death = facts.death.map(ToString::to_string);
    let failed = match (&death, facts.sync) {
        (Some(death), _) => death.as_str(),
        (None, SyncState::Failed(why)) => why,
        (None, SyncState::Done) => return condition::remove(all, kind::SYNCHRONIZED),
        (None, SyncState::Untried) => return,
    };
    let failed = bounded(failed, MESSAGE_CHARS_MAX);
    let condition = Condition::new(kind::SYNCHRONIZED, false, now);
    condition::set(all, condition.because(reason::SYNCHRONIZING_FAILED, failed));
}

fn agent_version(
    all: &mut Vec<Condition>,
    vmi: &Vmi,
    domain: &Domain,
    facts: &Facts<'_>,
    now: &str,
) {
    if !domain.agent_connected() {
        return condition::remove(all, kind::AGENT_VERSION_NOT_SUPPORTED);
    }
    // An agent that was not asked yet is neither fit nor unfit.
    let Some(agent) = facts.agent else { return };
    let shortcoming = agent.shortcoming(&vmi.spec.access_credentials);
    let unfit = shortcoming.map(|shortcoming| {
        let why = shortcoming.to_string();
        Condition::new(kind::AGENT_VERSION_NOT_SUPPORTED, true, now).because(&why, "")
    });
    put(all, kind::AGENT_VERSION_NOT_SUPPORTED, unfit);
}

fn paused(domain: &Domain, now: &str) -> Option<Condition> {
    if domain.status.status != LifeCycle::Paused {
        return None;
    }
    let (why, text) = match domain.status.reason {
        StateChangeReason::User => (reason::PAUSED_BY_USER, message::PAUSED_BY_USER),
        StateChangeReason::IoError => (reason::PAUSED_IO_ERROR, message::PAUSED_IO_ERROR),
        StateChangeReason::Migration => (
            reason::PAUSED_BY_MIGRATION_MONITOR,
            message::PAUSED_BY_MIGRATION_MONITOR,
        ),
        _ => return None,
    };
    Some(Condition::new(kind::PAUSED, true, now).because(why, text))
}

fn emulated(domain: &Domain, facts: &Facts<'_>, now: &str) -> Option<Condition> {
    (domain.spec.type_ == DomainSpec::SOFTWARE).then(|| {
        let measured = facts.emulation.measured.as_deref();
        let text = bounded(measured.unwrap_or(EMULATION_UNEXPLAINED), MESSAGE_CHARS_MAX);
        Condition::new(kind::SOFTWARE_EMULATION, true, now)
            .because(emulation_reason(facts.emulation), text)
    })
}

fn credentials(domain: &Domain, now: &str) -> Option<Condition> {
    let told = domain.spec.metadata.kubevirt.access_credential.as_ref()?;
    let condition = Condition::new(kind::ACCESS_CREDENTIALS_SYNCHRONIZED, told.succeeded, now);
    Some(condition.because("", bounded(&told.message, MESSAGE_CHARS_MAX)))
}
