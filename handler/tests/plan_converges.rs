//! Whatever happens to an instance and its machine, deciding and acting over and over comes to an end: the machine is
//! as the instance wants it, or it is gone and cleaned up after.

#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "an integration test is a test module as a whole"
)]

use std::collections::BTreeMap;
use std::time::Duration;

use api::Vmi;
use api::status::Phase;
use handler::config::Patience;
use handler::plan::{
    Action, Desired, DomainView, Instance, LauncherView, Machine, Observed, Outcome, Past, Plan,
    plan,
};
use handler::status::{Emulation, Facts, SyncState, next_status};
use jiff::Timestamp;
use proptest::prelude::*;
use proto::domain::{Domain, GracePeriod, LifeCycle, Present, StateChangeReason};

const UID: &str = "uid-1";
const POD: &str = "pod-1";
/// Decisions that may be needed until nothing more is to be done; a guest that never powers off and launchers that
/// fail take the most.
const TURNS_MAX: usize = 600;

/// What happens from outside.
#[derive(Clone, Copy, Debug)]
enum Event {
    DeleteInstance,
    RemoveInstance,
    LoseLauncher,
    GuestPowersOff,
    GuestPanics,
    DiskFails,
    UserPauses,
    SpecChanges,
    PodEnds,
    HandlerRestarts,
    TimePasses(u16),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(Event::DeleteInstance),
        Just(Event::RemoveInstance),
        Just(Event::LoseLauncher),
        Just(Event::GuestPowersOff),
        Just(Event::GuestPanics),
        Just(Event::DiskFails),
        Just(Event::UserPauses),
        Just(Event::SpecChanges),
        Just(Event::PodEnds),
        Just(Event::HandlerRestarts),
        (1..500_u16).prop_map(Event::TimePasses),
    ]
}

/// How the node behaves.
#[derive(Clone, Debug)]
struct Nature {
    /// Seconds until the launcher's socket is there.
    launcher_after: u16,
    /// Decisions that container disks take.
    disks_after: u8,
    /// Calls that fail before one succeeds.
    failures: u8,
    /// Presses of the power button until the guest obeys; `None` when it never does.
    obeys_after: Option<u8>,
    has_acpi: bool,
    grace_seconds: u8,
}

fn nature() -> impl Strategy<Value = Nature> {
    (
        0..250_u16,
        0..80_u8,
        0..6_u8,
        proptest::option::of(1..4_u8),
        any::<bool>(),
        0..60_u8,
    )
        .prop_map(
            |(launcher_after, disks_after, failures, obeys_after, has_acpi, grace_seconds)| {
                Nature {
                    launcher_after,
                    disks_after,
                    failures,
                    obeys_after,
                    has_acpi,
                    grace_seconds,
                }
            },
        )
}

struct World {
    now: Timestamp,
    start: Timestamp,
    nature: Nature,
    vmi: Option<Vmi>,
    domain: Option<Domain>,
    lost: bool,
    is_attached: bool,
    was_cleaned_up: bool,
    synced: Option<u64>,
    digest: u64,
    past: Past,
}

impl World {
    fn new(nature: Nature) -> Self {
        let start = Timestamp::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let mut vmi = Vmi::default();
        UID.clone_into(&mut vmi.metadata.uid);
        vmi.status.phase = Phase::Scheduled;
        vmi.spec.termination_grace_period_seconds = Some(nature.grace_seconds.into());
        Self {
            now: start,
            start,
            nature,
            vmi: Some(vmi),
            domain: None,
            lost: false,
            is_attached: false,
            was_cleaned_up: false,
            synced: None,
            digest: 1,
            past: Past::default(),
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::DeleteInstance => {
                if let Some(vmi) = &mut self.vmi {
                    vmi.metadata.deletion_timestamp = Some(self.now.to_string());
                }
            }
            Event::RemoveInstance => self.vmi = None,
            Event::LoseLauncher => self.lost |= self.is_attached,
            Event::GuestPowersOff => self.end(LifeCycle::Shutoff, StateChangeReason::Shutdown),
            Event::GuestPanics => self.end(LifeCycle::Crashed, StateChangeReason::Panicked),
            Event::DiskFails => self.pause(StateChangeReason::IoError),
            Event::UserPauses => self.pause(StateChangeReason::User),
            Event::SpecChanges => self.digest += 1,
            Event::PodEnds => {
                if let Some(domain) = &mut self.domain {
                    let grace = domain.spec.metadata.kubevirt.grace_period.as_mut();
                    grace.unwrap().marked_for_graceful_shutdown = Some(true);
                }
            }
            Event::HandlerRestarts => self.past = Past::default(),
            Event::TimePasses(seconds) => self.now += Duration::from_secs(seconds.into()),
        }
    }

    fn is_alive(&self) -> bool {
        let domain = self.domain.as_ref();
        !self.lost && domain.is_some_and(|domain| Machine::of(domain) == Machine::Alive)
    }

    fn pause(&mut self, why: StateChangeReason) {
        if self.is_alive() {
            let domain = self.domain.as_mut().unwrap();
            (domain.status.status, domain.status.reason) = (LifeCycle::Paused, why);
        }
    }

    fn end(&mut self, state: LifeCycle, why: StateChangeReason) {
        if self.is_alive() {
            let domain = self.domain.as_mut().unwrap();
            (domain.status.status, domain.status.reason) = (state, why);
            domain.meta.deletion_timestamp = Some(self.now.to_string());
        }
    }

    fn launcher(&mut self) -> LauncherView<'static> {
        if self.was_cleaned_up {
            return LauncherView::None;
        }
        if self.lost {
            return LauncherView::Lost("killed");
        }
        let is_wanted = self
            .vmi
            .as_ref()
            .is_some_and(|vmi| matches!(vmi.status.phase, Phase::Scheduled | Phase::Running));
        let is_there =
            self.now >= self.start + Duration::from_secs(self.nature.launcher_after.into());
        self.is_attached |= is_wanted && is_there;
        match (self.is_attached, is_wanted) {
            (true, _) => LauncherView::Attached {
                uid: UID,
                pod_uid: POD,
            },
            (false, true) => LauncherView::NotYet,
            (false, false) => LauncherView::None,
        }
    }

    /// Decides, acts, and writes the status; returns whether anything was done, and when to look again.
    fn turn(&mut self) -> (bool, Option<Timestamp>) {
        let launcher = self.launcher();
        let domain = self.domain.clone();
        let view = match (&domain, launcher) {
            (Some(domain), _) => DomainView::Known(domain),
            (None, LauncherView::Attached { .. }) => DomainView::Absent,
            (None, _) => DomainView::Unknown,
        };
        let vmi = self.vmi.clone();
        self.past.follow(UID);
        self.past.observe(self.now, launcher, view, vmi.as_ref());
        let planned = plan(
            self.now,
            &Observed {
                launcher,
                domain: view,
                past: &self.past,
            },
            &Desired {
                instance: vmi.as_ref().map_or(Instance::Gone, Instance::Here),
                digest: self.digest,
                patience: Patience::default(),
            },
        );
        for action in &planned.actions {
            let outcome = self.act(action);
            let digest = self.digest;
            self.past.record(self.now, action, &outcome, digest, POD);
            if outcome != Outcome::Done && *action != Action::DeleteDomain {
                break;
            }
        }
        let is_news = self.publish(&planned);
        (is_news || !planned.actions.is_empty(), planned.requeue_at)
    }

    fn act(&mut self, action: &Action) -> Outcome {
        if let Action::CleanUp { uid } = action {
            assert_eq!(uid, UID);
            assert!(!self.is_alive(), "cleaned up under a machine that runs");
            self.was_cleaned_up = true;
            self.is_attached = false;
            self.domain = None;
            return Outcome::Done;
        }
        assert!(
            self.is_attached && !self.lost,
            "{action:?} without a launcher"
        );
        if *action == Action::MountDisks && self.nature.disks_after > 0 {
            self.nature.disks_after -= 1;
            return Outcome::Waiting("a disk".to_owned());
        }
        if self.nature.failures > 0 {
            self.nature.failures -= 1;
            return Outcome::Failed("not now".to_owned());
        }
        match action {
            Action::Sync => self.sync(),
            Action::Shutdown { .. } => self.press(),
            Action::Kill => self.end(LifeCycle::Shutoff, StateChangeReason::Destroyed),
            Action::DeleteDomain => self.domain = None,
            Action::MountDisks | Action::GiveOwnership | Action::CleanUp { .. } => {}
        }
        Outcome::Done
    }

    fn sync(&mut self) {
        let vmi = self.vmi.as_ref().expect("only an instance can be synced");
        assert!(!vmi.status.phase.is_final());
        self.synced = Some(self.digest);
        let domain = self.domain.get_or_insert_with(|| {
            let mut domain = Domain::new("default", "vm", UID);
            domain.status.status = LifeCycle::Running;
            domain.spec.features.acpi = self.nature.has_acpi.then_some(Present {});
            domain.spec.metadata.kubevirt.grace_period = Some(GracePeriod {
                deletion_grace_period_seconds: self.nature.grace_seconds.into(),
                ..GracePeriod::default()
            });
            domain
        });
        if domain.status.reason == StateChangeReason::IoError {
            domain.status.status = LifeCycle::Running;
            domain.status.reason = StateChangeReason::Unknown;
        }
    }

    fn press(&mut self) {
        if let Some(left) = &mut self.nature.obeys_after {
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.end(LifeCycle::Shutoff, StateChangeReason::Shutdown);
            }
        }
    }

    fn publish(&mut self, planned: &Plan) -> bool {
        let Some(vmi) = &mut self.vmi else {
            return false;
        };
        let failure = self.past.failure.as_ref();
        let facts = Facts {
            death: planned.death.as_ref(),
            sync: failure.map_or(SyncState::Done, |failure| {
                SyncState::Failed(&failure.message)
            }),
            checksums: &BTreeMap::new(),
            agent: None,
            emulation: &Emulation::default(),
        };
        let next = next_status(self.now, vmi, self.domain.as_ref(), &facts);
        let is_news = next != vmi.status;
        vmi.status = next;
        is_news
    }

    /// Takes turns until nothing more is to be done.
    fn settle(&mut self) {
        for _ in 0..TURNS_MAX {
            let (is_news, next) = self.turn();
            let soon = self.now + Duration::from_secs(200);
            match next {
                _ if is_news && next.is_none() => {}
                None => return,
                // Nothing but the regular look is left.
                Some(at) if !is_news && at > soon => return,
                Some(at) => {
                    assert!(
                        is_news || at > self.now,
                        "a turn that does nothing and repeats"
                    );
                    self.now = at.max(self.now);
                }
            }
        }
        panic!("not settled after {TURNS_MAX} turns: {:?}", self.past);
    }

    fn check(&self) {
        let Some(vmi) = &self.vmi else {
            assert!(!self.is_alive(), "a machine without an instance");
            assert!(self.was_cleaned_up || !self.is_attached);
            return;
        };
        match vmi.status.phase {
            Phase::Running => {
                assert!(self.is_alive());
                assert_eq!(self.synced, Some(self.digest));
                assert_eq!(vmi.metadata.deletion_timestamp, None);
            }
            Phase::Scheduled => assert!(vmi.metadata.deletion_timestamp.is_some()),
            phase => assert!(phase.is_final() && self.was_cleaned_up && !self.is_alive()),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn deciding_and_acting_comes_to_an_end(
        nature in nature(),
        events in proptest::collection::vec((0..6_usize, event()), 0..8),
    ) {
        let mut world = World::new(nature);
        for (turns, event) in events {
            for _ in 0..turns {
                let (_, next) = world.turn();
                world.now = next.unwrap_or(world.now).max(world.now);
            }
            world.happen(event);
        }
        world.settle();
        world.check();
    }

    #[test]
    fn an_undisturbed_instance_runs(mut nature in nature()) {
        nature.launcher_after %= 150;
        let mut world = World::new(nature);
        world.settle();
        world.check();
        prop_assert_eq!(world.vmi.unwrap().status.phase, Phase::Running);
    }
}
