//! The phase that a domain puts its instance in (KubeVirt §2.5).
//!
//! ```text
//!   Scheduled ─ runs, or is paused ─▶ Running ─ powered off, saved ─▶ Succeeded
//!       │                               │
//!       └─ crashed, killed, launcher lost ──────────────────────────▶ Failed
//! ```

use api::Vmi;
use api::status::Phase;
use proto::domain::{Domain, LifeCycle, StateChangeReason};

use super::ended;
use crate::plan::{Death, Machine, grace};

/// Returns the phase and, of one that the machine failed into, the reason in one word.
pub(super) fn next(
    vmi: &Vmi,
    domain: Option<&Domain>,
    death: Option<&Death>,
) -> (Phase, Option<&'static str>) {
    let phase = vmi.status.phase;
    if !matches!(phase, Phase::Scheduled | Phase::Running) {
        return (phase, None);
    }
    if let Some(death) = death {
        return (Phase::Failed, Some(death.reason()));
    }
    let Some(domain) = domain else {
        return (phase, None);
    };
    match (Machine::of(domain), &domain.status.reason) {
        (Machine::Alive, StateChangeReason::PostcopyFailed)
            if domain.status.status == LifeCycle::Paused =>
        {
            (Phase::Failed, Some(ended::POSTCOPY_FAILED))
        }
        (Machine::Alive, _) if domain.status.status != LifeCycle::ShuttingDown => {
            (Phase::Running, None)
        }
        (Machine::Ended, why) => end(phase, vmi, domain, why),
        _ => (phase, None),
    }
}

fn end(
    phase: Phase,
    vmi: &Vmi,
    domain: &Domain,
    why: &StateChangeReason,
) -> (Phase, Option<&'static str>) {
    match why {
        StateChangeReason::Shutdown
        | StateChangeReason::Saved
        | StateChangeReason::FromSnapshot => (Phase::Succeeded, None),
        StateChangeReason::Panicked => (Phase::Failed, Some(ended::PANICKED)),
        StateChangeReason::Failed => (Phase::Failed, Some(ended::NOT_STARTED)),
        // Where the guest could have powered off and had the time to, a kill is a failure.
        StateChangeReason::Destroyed if could_power_off(vmi, domain) => {
            (Phase::Failed, Some(ended::KILLED))
        }
        StateChangeReason::Destroyed => (Phase::Succeeded, None),
        StateChangeReason::Migrated => (phase, None),
        _ => (Phase::Failed, Some(ended::CRASHED)),
    }
}

fn could_power_off(vmi: &Vmi, domain: &Domain) -> bool {
    domain.spec.features.acpi.is_some() && !grace(domain, Some(vmi)).is_zero()
}
