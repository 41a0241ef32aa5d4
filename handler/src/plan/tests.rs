//! Each row of KubeVirt's decisions.

use std::time::Duration;

use api::Vmi;
use api::status::Phase;
use jiff::Timestamp;
use proto::domain::{Domain, GracePeriod, LifeCycle, Present, StateChangeReason};

use super::{
    Action, Death, Desired, DomainView, Instance, LauncherView, Machine, Observed, Outcome, Past,
    Plan, plan,
};
use crate::config::Patience;

const ATTACHED: LauncherView<'_> = LauncherView::Attached {
    uid: "uid-1",
    pod_uid: "pod-1",
};
const WISH: u64 = 7;

fn at(seconds: u64) -> Timestamp {
    Timestamp::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + seconds)
}

fn vmi(phase: Phase) -> Vmi {
    let mut vmi = Vmi::default();
    "vm".clone_into(&mut vmi.metadata.name);
    "uid-1".clone_into(&mut vmi.metadata.uid);
    vmi.status.phase = phase;
    vmi
}

fn deleted(phase: Phase) -> Vmi {
    let mut vmi = vmi(phase);
    vmi.metadata.deletion_timestamp = Some("2026-01-02T03:04:05Z".to_owned());
    vmi
}

fn domain(status: LifeCycle, reason: StateChangeReason) -> Domain {
    let mut domain = Domain::new("default", "vm", "uid-1");
    domain.status.status = status;
    domain.status.reason = reason;
    domain.spec.features.acpi = Some(Present {});
    domain.spec.metadata.kubevirt.grace_period = Some(GracePeriod {
        deletion_grace_period_seconds: 30,
        ..GracePeriod::default()
    });
    domain
}

fn running() -> Domain {
    domain(LifeCycle::Running, StateChangeReason::Unknown)
}

fn ended() -> Domain {
    let mut domain = domain(LifeCycle::Shutoff, StateChangeReason::Shutdown);
    domain.meta.deletion_timestamp = Some("2026-01-02T03:04:05Z".to_owned());
    domain
}

fn past() -> Past {
    let mut past = Past::default();
    past.follow("uid-1");
    past
}

/// A past in which the launcher took the wish at the time 0.
fn synced() -> Past {
    let mut past = past();
    for action in [Action::MountDisks, Action::GiveOwnership, Action::Sync] {
        past.record(at(0), &action, &Outcome::Done, WISH, "pod-1");
    }
    past
}

fn decide(
    now: Timestamp,
    instance: Instance<'_>,
    launcher: LauncherView<'_>,
    domain: DomainView<'_>,
    past: &Past,
) -> Plan {
    plan(
        now,
        &Observed {
            launcher,
            domain,
            past,
        },
        &Desired {
            instance,
            digest: WISH,
            patience: Patience::default(),
        },
    )
}

fn clean_up() -> Action {
    Action::CleanUp {
        uid: "uid-1".to_owned(),
    }
}

const FIRST: Action = Action::Shutdown { is_first: true };

#[test]
fn every_combination_has_its_actions() {
    let (scheduled, up) = (vmi(Phase::Scheduled), vmi(Phase::Running));
    let (deleted_scheduled, deleted_up) = (deleted(Phase::Scheduled), deleted(Phase::Running));
    let (failed, succeeded) = (vmi(Phase::Failed), vmi(Phase::Succeeded));
    let (pending, waiting) = (vmi(Phase::Pending), vmi(Phase::WaitingForSync));
    let (runs, ended) = (running(), ended());
    let unknown = domain(LifeCycle::Unknown, StateChangeReason::Unknown);
    let odd = domain(
        LifeCycle::Other("Odd".to_owned()),
        StateChangeReason::Unknown,
    );
    let defined = domain(LifeCycle::Shutoff, StateChangeReason::Unknown);
    let paused = domain(LifeCycle::Paused, StateChangeReason::User);
    let mut marked = running();
    let grace = marked.spec.metadata.kubevirt.grace_period.as_mut().unwrap();
    grace.marked_for_graceful_shutdown = Some(true);
    let mut without_acpi = running();
    without_acpi.spec.features.acpi = None;
    let mut hurried = deleted(Phase::Running);
    hurried.spec.termination_grace_period_seconds = Some(0);
    let other = LauncherView::Attached {
        uid: "uid-0",
        pod_uid: "pod-0",
    };
    let start = [Action::MountDisks, Action::GiveOwnership, Action::Sync];
    let end = [Action::DeleteDomain, clean_up()];
    let here = Instance::Here;
    let known = DomainView::Known;
    let absent = DomainView::Absent;
    let rows: [(
        &str,
        Instance<'_>,
        LauncherView<'_>,
        DomainView<'_>,
        &[Action],
    ); 35] = [
        (
            "scheduled, no machine",
            here(&scheduled),
            ATTACHED,
            absent,
            &start,
        ),
        (
            "scheduled, defined",
            here(&scheduled),
            ATTACHED,
            known(&defined),
            &start,
        ),
        (
            "scheduled, runs",
            here(&scheduled),
            ATTACHED,
            known(&runs),
            &[Action::Sync],
        ),
        (
            "running, not synced by us",
            here(&up),
            ATTACHED,
            known(&runs),
            &[Action::Sync],
        ),
        (
            "running, paused by its user",
            here(&up),
            ATTACHED,
            known(&paused),
            &[Action::Sync],
        ),
        ("running, ended", here(&up), ATTACHED, known(&ended), &[]),
        (
            "running, state unknown",
            here(&up),
            ATTACHED,
            known(&unknown),
            &[],
        ),
        ("running, state odd", here(&up), ATTACHED, known(&odd), &[]),
        (
            "running, defined anew",
            here(&up),
            ATTACHED,
            known(&defined),
            &[],
        ),
        (
            "machine not told of",
            here(&up),
            ATTACHED,
            DomainView::Unknown,
            &[],
        ),
        (
            "no launcher yet",
            here(&scheduled),
            LauncherView::NotYet,
            DomainView::Unknown,
            &[],
        ),
        (
            "several launchers",
            here(&scheduled),
            LauncherView::Trouble("two"),
            absent,
            &[],
        ),
        (
            "launcher lost",
            here(&up),
            LauncherView::Lost("killed"),
            known(&runs),
            &[],
        ),
        (
            "marked by the launcher",
            here(&up),
            ATTACHED,
            known(&marked),
            &[FIRST],
        ),
        (
            "deleted, runs",
            here(&deleted_up),
            ATTACHED,
            known(&runs),
            &[FIRST],
        ),
        (
            "deleted, paused",
            here(&deleted_up),
            ATTACHED,
            known(&paused),
            &[FIRST],
        ),
        (
            "deleted, no ACPI",
            here(&deleted_up),
            ATTACHED,
            known(&without_acpi),
            &[Action::Kill],
        ),
        (
            "deleted, no grace",
            here(&hurried),
            ATTACHED,
            known(&runs),
            &[Action::Kill],
        ),
        (
            "deleted, state unknown",
            here(&deleted_up),
            ATTACHED,
            known(&unknown),
            &[],
        ),
        (
            "deleted, ended",
            here(&deleted_up),
            ATTACHED,
            known(&ended),
            &[],
        ),
        (
            "deleted before the start",
            here(&deleted_scheduled),
            ATTACHED,
            absent,
            &[],
        ),
        (
            "failed, runs",
            here(&failed),
            ATTACHED,
            known(&runs),
            &[Action::Kill],
        ),
        (
            "failed, ended",
            here(&failed),
            ATTACHED,
            known(&ended),
            &end,
        ),
        (
            "failed, state unknown",
            here(&failed),
            ATTACHED,
            known(&unknown),
            &[],
        ),
        (
            "failed, no machine",
            here(&failed),
            ATTACHED,
            absent,
            &[clean_up()],
        ),
        (
            "failed, lost",
            here(&failed),
            LauncherView::Lost("x"),
            known(&runs),
            &[clean_up()],
        ),
        (
            "succeeded, no launcher",
            here(&succeeded),
            LauncherView::None,
            absent,
            &[clean_up()],
        ),
        (
            "gone, runs",
            Instance::Gone,
            ATTACHED,
            known(&runs),
            &[FIRST],
        ),
        ("gone, ended", Instance::Gone, ATTACHED, known(&ended), &end),
        (
            "gone, no machine",
            Instance::Gone,
            ATTACHED,
            absent,
            &[clean_up()],
        ),
        (
            "gone, lost",
            Instance::Gone,
            LauncherView::Lost("x"),
            known(&runs),
            &[clean_up()],
        ),
        (
            "another of the name",
            here(&scheduled),
            other,
            known(&runs),
            &[FIRST],
        ),
        (
            "elsewhere",
            Instance::Elsewhere,
            ATTACHED,
            known(&runs),
            &[],
        ),
        (
            "not to be asked",
            Instance::Unsure,
            ATTACHED,
            known(&runs),
            &[],
        ),
        ("not ours yet", here(&pending), ATTACHED, absent, &[]),
    ];
    for (name, instance, launcher, domain, expected) in rows {
        let planned = decide(at(1), instance, launcher, domain, &past());
        assert_eq!(planned.actions, expected, "{name}");
    }
    let planned = decide(at(1), here(&waiting), ATTACHED, absent, &past());
    assert_eq!(planned, Plan::default());
}

#[test]
fn states_come_down_to_four() {
    use Machine::{Alive, Ended, None, Unknown};
    for (state, has_ended, expected) in [
        (LifeCycle::NoState, false, None),
        (LifeCycle::NoState, true, Ended),
        (LifeCycle::Running, false, Alive),
        (LifeCycle::Blocked, false, Alive),
        (LifeCycle::Paused, false, Alive),
        (LifeCycle::ShuttingDown, false, Alive),
        (LifeCycle::PmSuspended, false, Alive),
        (LifeCycle::Shutoff, false, None),
        (LifeCycle::Shutoff, true, Ended),
        (LifeCycle::Crashed, false, Ended),
        (LifeCycle::Unknown, false, Unknown),
        (LifeCycle::Other("Odd".to_owned()), true, Unknown),
    ] {
        let mut domain = domain(state, StateChangeReason::Unknown);
        domain.meta.deletion_timestamp = has_ended.then(|| "2026-01-02T03:04:05Z".to_owned());
        assert_eq!(Machine::of(&domain), expected, "{:?}", domain.status);
    }
    let killed = domain(LifeCycle::Shutoff, StateChangeReason::Destroyed);
    assert_eq!(Machine::of(&killed), Ended);
}

#[test]
fn a_wish_goes_to_the_launcher_once_until_it_changes_or_the_time_is_over() {
    let (up, runs) = (vmi(Phase::Running), running());
    let decide = |now, past: &Past| {
        decide(
            now,
            Instance::Here(&up),
            ATTACHED,
            DomainView::Known(&runs),
            past,
        )
    };
    let past = synced();
    let quiet = decide(at(10), &past);
    assert!(quiet.actions.is_empty());
    let due = quiet.requeue_at.unwrap();
    assert!(due >= at(300) && due <= at(375), "{due}");
    assert_eq!(decide(due, &past).actions, [Action::Sync]);

    let mut changed = past.clone();
    changed.record(at(11), &Action::Sync, &Outcome::Done, WISH + 1, "pod-1");
    assert_eq!(decide(at(12), &changed).actions, [Action::Sync]);

    let moved = LauncherView::Attached {
        uid: "uid-1",
        pod_uid: "pod-2",
    };
    let observed = DomainView::Known(&runs);
    let planned = super::tests::decide(at(12), Instance::Here(&up), moved, observed, &past);
    assert_eq!(planned.actions, [Action::Sync]);
}

#[test]
fn a_launcher_that_took_the_wish_has_time_to_tell_of_its_machine() {
    let scheduled = vmi(Phase::Scheduled);
    let past = synced();
    let here = Instance::Here(&scheduled);
    let planned = decide(at(2), here, ATTACHED, DomainView::Absent, &past);
    assert_eq!(planned, Plan::at(at(5)));
    let planned = decide(at(5), here, ATTACHED, DomainView::Absent, &past);
    assert_eq!(planned.actions, [Action::Sync]);
}

#[test]
fn failures_are_repeated_ever_more_rarely_until_the_wish_changes() {
    let scheduled = vmi(Phase::Scheduled);
    let here = Instance::Here(&scheduled);
    let mut past = past();
    let mut now = at(0);
    let mut waits = Vec::new();
    for _ in 0..12 {
        let failed = Outcome::Failed("no such bus".to_owned());
        past.record(now, &Action::Sync, &failed, WISH, "pod-1");
        let planned = decide(now, here, ATTACHED, DomainView::Absent, &past);
        assert!(planned.actions.is_empty());
        let next = planned.requeue_at.unwrap();
        waits.push(next.as_second() - now.as_second());
        now = next;
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 180, 180, 180, 180]);
    assert_eq!(past.failure.as_ref().unwrap().message, "no such bus");
    let desired = Desired {
        instance: here,
        digest: WISH + 1,
        patience: Patience::default(),
    };
    let observed = Observed {
        launcher: ATTACHED,
        domain: DomainView::Absent,
        past: &past,
    };
    assert_eq!(
        plan(now, &observed, &desired).actions.last(),
        Some(&Action::Sync)
    );
}

#[test]
fn container_disks_are_awaited_for_a_minute() {
    let scheduled = vmi(Phase::Scheduled);
    let mut past = past();
    let waiting = Outcome::Waiting("container disk root".to_owned());
    for second in 0..60 {
        let here = Instance::Here(&scheduled);
        let planned = decide(at(second), here, ATTACHED, DomainView::Absent, &past);
        assert_eq!(planned.actions[0], Action::MountDisks, "after {second} s");
        past.record(at(second), &Action::MountDisks, &waiting, WISH, "pod-1");
        assert_eq!(past.failure, None);
    }
    past.record(at(60), &Action::MountDisks, &waiting, WISH, "pod-1");
    let message = past.failure.clone().unwrap().message;
    assert_eq!(message, "container disk root isn't there after 60 s");
    past.record(at(61), &Action::MountDisks, &Outcome::Done, WISH, "pod-1");
    past.record(at(61), &Action::Sync, &Outcome::Done, WISH, "pod-1");
    assert_eq!(past.failure, None);
}

#[test]
fn a_machine_stopped_by_an_io_error_is_tried_again_ever_more_rarely() {
    let up = vmi(Phase::Running);
    let stopped = domain(LifeCycle::Paused, StateChangeReason::IoError);
    let view = DomainView::Known(&stopped);
    let mut past = synced();
    past.observe(at(100), ATTACHED, view, Some(&up));
    let mut now = at(100);
    let mut waits = Vec::new();
    for _ in 0..7 {
        let planned = decide(now, Instance::Here(&up), ATTACHED, view, &past);
        assert!(planned.actions.is_empty(), "{planned:?}");
        let next = planned.requeue_at.unwrap();
        waits.push(next.as_second() - now.as_second());
        now = next;
        let planned = decide(now, Instance::Here(&up), ATTACHED, view, &past);
        assert_eq!(planned.actions, [Action::Sync]);
        past.observe(now, ATTACHED, view, Some(&up));
        past.record(now, &Action::Sync, &Outcome::Done, WISH, "pod-1");
    }
    assert_eq!(waits, [10, 20, 40, 80, 160, 180, 180]);
    let runs = running();
    past.observe(now, ATTACHED, DomainView::Known(&runs), Some(&up));
    let planned = decide(
        now,
        Instance::Here(&up),
        ATTACHED,
        DomainView::Known(&runs),
        &past,
    );
    assert!(planned.actions.is_empty());
}

#[test]
fn the_power_button_is_pressed_until_the_grace_is_over_and_then_the_plug_is_pulled() {
    let mut vmi = deleted(Phase::Running);
    vmi.spec.termination_grace_period_seconds = Some(12);
    let runs = running();
    let mut past = synced();
    let mut log = Vec::new();
    let mut now = at(0);
    while log.len() < 5 {
        let view = DomainView::Known(&runs);
        let planned = decide(now, Instance::Here(&vmi), ATTACHED, view, &past);
        for action in &planned.actions {
            past.record(now, action, &Outcome::Done, WISH, "pod-1");
            log.push((now.as_second() - at(0).as_second(), action.clone()));
        }
        now = planned.requeue_at.unwrap();
    }
    let again = Action::Shutdown { is_first: false };
    assert_eq!(
        log,
        [
            (0, FIRST),
            (5, again.clone()),
            (10, again),
            (12, Action::Kill),
            (17, Action::Kill),
        ]
    );
}

#[test]
fn a_button_that_was_pressed_before_a_restart_counts() {
    let vmi = deleted(Phase::Running);
    let mut runs = running();
    let grace = runs.spec.metadata.kubevirt.grace_period.as_mut().unwrap();
    grace.deletion_timestamp = Some(at(0).to_string());
    let view = DomainView::Known(&runs);
    let planned = decide(at(29), Instance::Here(&vmi), ATTACHED, view, &past());
    assert_eq!(planned.actions, [FIRST]);
    assert_eq!(planned.requeue_at, Some(at(30)));
    let planned = decide(at(30), Instance::Here(&vmi), ATTACHED, view, &past());
    assert_eq!(planned.actions, [Action::Kill]);
    let mut forged = runs.clone();
    let grace = forged.spec.metadata.kubevirt.grace_period.as_mut().unwrap();
    grace.deletion_timestamp = Some(at(9999).to_string());
    let view = DomainView::Known(&forged);
    let planned = decide(at(30), Instance::Here(&vmi), ATTACHED, view, &past());
    assert_eq!(planned.actions, [FIRST]);
}

#[test]
fn a_launcher_is_looked_for_often_at_first() {
    let vmi = vmi(Phase::Scheduled);
    let mut past = past();
    past.observe(at(0), LauncherView::NotYet, DomainView::Unknown, Some(&vmi));
    for (waited, wait) in [(0, 20), (400, 100), (10_000, 1000)] {
        let now = at(0) + Duration::from_millis(waited);
        let here = Instance::Here(&vmi);
        let planned = decide(now, here, LauncherView::NotYet, DomainView::Unknown, &past);
        let expected = now + Duration::from_millis(wait);
        assert_eq!(planned.requeue_at, Some(expected), "after {waited} ms");
    }
}

#[test]
fn an_instance_without_a_launcher_fails_when_patience_ends() {
    for (phase, patience) in [(Phase::Scheduled, 180), (Phase::Running, 30)] {
        let vmi = vmi(phase);
        let here = Instance::Here(&vmi);
        for launcher in [LauncherView::NotYet, LauncherView::Trouble("silent")] {
            let mut past = past();
            past.observe(at(0), launcher, DomainView::Unknown, Some(&vmi));
            past.observe(at(9), launcher, DomainView::Unknown, Some(&vmi));
            let planned = decide(at(patience - 1), here, launcher, DomainView::Unknown, &past);
            assert_eq!(planned.death, None);
            assert_eq!(planned.requeue_at, Some(at(patience)));
            let planned = decide(at(patience), here, launcher, DomainView::Unknown, &past);
            let patience = Duration::from_secs(patience);
            assert_eq!(planned.death, Some(Death::LauncherNotStarted(patience)));
            past.observe(at(20), ATTACHED, DomainView::Absent, Some(&vmi));
            assert_eq!(past.waiting_since, None);
        }
    }
}

#[test]
fn a_lost_launcher_and_a_lost_machine_are_the_end() {
    let (scheduled, up, runs) = (vmi(Phase::Scheduled), vmi(Phase::Running), running());
    let lost = LauncherView::Lost("its process was killed");
    for (vmi, view) in [
        (&scheduled, DomainView::Unknown),
        (&scheduled, DomainView::Absent),
        (&up, DomainView::Known(&runs)),
        (&up, DomainView::Unknown),
    ] {
        let planned = decide(at(1), Instance::Here(vmi), lost, view, &past());
        let death = Death::LauncherLost("its process was killed".to_owned());
        assert_eq!(planned.death, Some(death));
    }
    // A machine that told how it ended has no use for its launcher any more.
    let ended = ended();
    let planned = decide(
        at(1),
        Instance::Here(&up),
        lost,
        DomainView::Known(&ended),
        &past(),
    );
    assert_eq!(planned, Plan::default());
    let planned = decide(
        at(1),
        Instance::Here(&up),
        ATTACHED,
        DomainView::Absent,
        &past(),
    );
    assert_eq!(planned.death, Some(Death::DomainVanished));
}

#[test]
fn what_is_cleaned_up_stays_so() {
    let failed = vmi(Phase::Failed);
    let here = Instance::Here(&failed);
    let mut past = past();
    past.record(at(0), &clean_up(), &Outcome::Done, 0, "");
    let planned = decide(at(1), here, LauncherView::None, DomainView::Unknown, &past);
    assert_eq!(planned, Plan::default());
    past.follow("uid-2");
    assert_eq!(past.cleaned_up, None);
}

#[test]
fn a_launcher_that_cannot_delete_its_machine_any_more_is_left_alone() {
    let (failed, ended) = (vmi(Phase::Failed), ended());
    let mut past = past();
    let gone = Outcome::Failed("connection refused".to_owned());
    past.record(at(0), &Action::DeleteDomain, &gone, 0, "pod-1");
    let view = DomainView::Known(&ended);
    let planned = decide(at(1), Instance::Here(&failed), ATTACHED, view, &past);
    assert_eq!(planned.actions, [clean_up()]);
}
