//! What is asked when.

use std::time::{Duration, Instant};

use crate::agent::report::{AgentCommand, AgentReport, FreezeStatus, Intervals};
use crate::agent::schedule::{Question, Schedule};

fn report(fs_freeze: FreezeStatus) -> AgentReport {
    let commands = Question::ALL.iter().map(|question| AgentCommand {
        name: question.command().to_owned(),
        enabled: true,
    });
    AgentReport {
        supported_commands: commands.collect(),
        fs_freeze: Some(fs_freeze),
        ..AgentReport::default()
    }
}

/// Lets time pass and returns when the guest was woken, and for how many questions.
fn wakes(report: &AgentReport, seconds: u64) -> Vec<(u64, usize)> {
    let start = Instant::now();
    let end = start + Duration::from_secs(seconds);
    let mut schedule = Schedule::new(Intervals::default(), start);
    let mut wakes = Vec::new();
    while let Some(now) = schedule.next(report).filter(|at| *at < end) {
        let mut asked = 0;
        while schedule.take(now, asked > 0, report).is_some() {
            asked += 1;
        }
        wakes.push(((now - start).as_secs(), asked));
    }
    wakes
}

#[test]
fn an_idle_guest_is_woken_every_ten_seconds_for_everything_that_is_due() {
    let wakes = wakes(&report(FreezeStatus::Thawed), 601);
    assert_eq!(wakes.len(), 61);
    assert_eq!(wakes[0], (0, 10), "everything at first");
    assert_eq!(wakes[1], (10, 2), "users and the freeze status");
    assert_eq!(wakes[12], (120, 8));
    assert_eq!(wakes[30], (300, 4), "version and file systems too");
    assert_eq!(wakes[60], (600, 10));
}

#[test]
fn a_frozen_guest_is_asked_only_whether_it_still_is() {
    let wakes = wakes(&report(FreezeStatus::Frozen), 21);
    assert_eq!(wakes, [(0, 1), (5, 1), (10, 1), (15, 1), (20, 1)]);
}

#[test]
fn nothing_but_its_version_is_asked_of_an_unknown_agent() {
    assert_eq!(
        wakes(&AgentReport::default(), 601),
        [(0, 1), (300, 1), (600, 1)]
    );
}

#[test]
fn questions_that_could_not_be_asked_for_long_are_asked_once() {
    let start = Instant::now();
    let report = report(FreezeStatus::Thawed);
    let mut schedule = Schedule::new(Intervals::default(), start);
    let later = start + Duration::from_secs(3601);
    let asked = std::iter::from_fn(|| schedule.take(later, true, &report)).count();
    assert_eq!(asked, 10);
    assert!(schedule.next(&report) > Some(later));
}

#[test]
fn what_somebody_wishes_is_asked_with_the_users_until_the_wish_is_old() {
    let start = Instant::now();
    let report = report(FreezeStatus::Thawed);
    let mut schedule = Schedule::new(Intervals::default(), start);
    let mut asked = |wished_at: u64, until: u64| {
        let wished_at = start + Duration::from_secs(wished_at);
        schedule.wish(Question::CpuStats, wished_at);
        let end = start + Duration::from_secs(until);
        let mut times = Vec::new();
        while let Some(due) = schedule.next(&report).filter(|at| *at < end) {
            let now = due.max(wished_at);
            let taken = std::iter::from_fn(|| schedule.take(now, true, &report));
            if taken.collect::<Vec<_>>().contains(&Question::CpuStats) {
                times.push((now - start).as_secs());
            }
        }
        times
    };
    let times = asked(0, 400);
    assert_eq!((times.len(), times.last()), (31, Some(&300)));
    assert_eq!(asked(400, 402), [400]);
}

#[test]
fn after_a_restart_everything_is_due_but_what_was_asked_in_vain() {
    let start = Instant::now();
    let report = report(FreezeStatus::Thawed);
    let mut schedule = Schedule::new(Intervals::default(), start);
    while schedule.take(start, true, &report).is_some() {}
    let later = start + Duration::from_secs(1);
    schedule.restart(later, Some(Question::Filesystems));
    let asked: Vec<_> = std::iter::from_fn(|| schedule.take(later, true, &report)).collect();
    assert_eq!(asked, Question::ALL[..9]);
}
