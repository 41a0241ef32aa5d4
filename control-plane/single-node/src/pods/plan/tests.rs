use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::{Action, Plan, after, plan};
use crate::pods::observed::{Finished, Observed, Probed, Stopping};
use crate::pods::options::Timing;
use crate::sandbox::process::ProcessId;
use crate::sandbox::record::{Ended, Started};

const RESET: Duration = Duration::from_secs(600);

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

fn pod(spec: &Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p", "uid": "u"}, "spec": spec})).unwrap()
}

fn simple(policy: &str) -> Pod {
    pod(&json!({"restartPolicy": policy, "containers": [{"name": "a"}, {"name": "b"}]}))
}

fn deleted(pod: &Pod, second: i64, grace: i64) -> Pod {
    let mut pod = pod.clone();
    pod.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
        at(second),
    ));
    pod.metadata.deletion_grace_period_seconds = Some(grace);
    pod
}

fn prepared() -> Observed {
    Observed {
        is_prepared: true,
        ..Observed::new(at(0))
    }
}

fn begin(observed: &mut Observed, name: &str, second: i64) {
    let process = ProcessId {
        pid: 1,
        start_ticks: 1,
        boot_id: String::new(),
    };
    let started = Started {
        process: process.clone(),
        keeper: process,
        at: at(second),
    };
    let probed = Probed {
        has_started: true,
        is_ready: true,
        is_unhealthy: false,
    };
    observed
        .runs_mut(name)
        .begin(started, String::new(), probed);
}

fn end(observed: &mut Observed, name: &str, second: i64, code: i32) {
    let started_at = observed.runs(name).started().map(|started| started.at);
    let ended = Ended {
        code,
        signal: None,
        at: at(second),
        is_out_of_memory: false,
        failure: None,
    };
    observed.runs_mut(name).end(
        Finished {
            started_at,
            ended,
            message: None,
        },
        RESET,
    );
}

fn planned(pod: &Pod, observed: &Observed, second: i64) -> Plan {
    plan(pod, observed, at(second), &Timing::default())
}

fn start(name: &str) -> Action {
    Action::Start {
        container: name.to_owned(),
    }
}

fn stopped(plan: &Plan) -> Vec<&str> {
    plan.actions
        .iter()
        .filter_map(|action| match action {
            Action::Stop { container, .. } => Some(container.as_str()),
            _ => None,
        })
        .collect()
}

#[test]
fn volumes_come_before_containers() {
    let pod = simple("Never");
    assert_eq!(
        planned(&pod, &Observed::new(at(0)), 0).actions,
        [Action::Prepare]
    );
    assert_eq!(
        planned(&pod, &prepared(), 0).actions,
        [start("a"), start("b")]
    );
}

#[test]
fn init_containers_run_one_by_one() {
    let pod = pod(&json!({
        "restartPolicy": "Never", "containers": [{"name": "a"}],
        "initContainers": [{"name": "i"}, {"name": "s", "restartPolicy": "Always"}, {"name": "j"}],
    }));
    let mut observed = prepared();
    for name in ["i", "s", "j"] {
        assert_eq!(planned(&pod, &observed, 0).actions, [start(name)], "{name}");
        begin(&mut observed, name, 0);
        if name == "s" {
            continue;
        }
        assert_eq!(planned(&pod, &observed, 0).actions, [], "{name}");
        end(&mut observed, name, 1, 0);
    }
    assert_eq!(planned(&pod, &observed, 1).actions, [start("a")]);
}

#[test]
fn a_sidecar_that_has_not_started_holds_the_others_back() {
    let pod = pod(&json!({
        "restartPolicy": "Never", "containers": [{"name": "a"}],
        "initContainers": [{"name": "s", "restartPolicy": "Always"}],
    }));
    let mut observed = prepared();
    begin(&mut observed, "s", 0);
    observed.runs_mut("s").probed.has_started = false;
    assert_eq!(planned(&pod, &observed, 0).actions, []);
    observed.runs_mut("s").probed.has_started = true;
    assert_eq!(planned(&pod, &observed, 0).actions, [start("a")]);
}

#[test]
fn a_failed_init_container_ends_a_pod_that_never_restarts() {
    let spec = |policy: &str| json!({"restartPolicy": policy, "containers": [{"name": "a"}], "initContainers": [{"name": "i"}]});
    let mut observed = prepared();
    begin(&mut observed, "i", 0);
    end(&mut observed, "i", 1, 1);
    assert_eq!(
        planned(&pod(&spec("Never")), &observed, 2).actions,
        [Action::Release]
    );
    assert_eq!(
        planned(&pod(&spec("OnFailure")), &observed, 2).actions,
        [start("i")]
    );
    assert_eq!(
        planned(&pod(&spec("Always")), &observed, 2).actions,
        [start("i")]
    );
}

#[test]
fn restarts_follow_the_policy() {
    for (policy, code, restarts) in [
        ("Always", 0, true),
        ("Always", 1, true),
        ("OnFailure", 0, false),
        ("OnFailure", 1, true),
        ("Never", 0, false),
        ("Never", 1, false),
    ] {
        let mut observed = prepared();
        begin(&mut observed, "b", 0);
        begin(&mut observed, "a", 0);
        end(&mut observed, "a", 1, code);
        let expected = if restarts {
            vec![start("a")]
        } else {
            Vec::new()
        };
        assert_eq!(
            planned(&simple(policy), &observed, 1).actions,
            expected,
            "{policy} {code}"
        );
    }
}

#[test]
fn waits_between_restarts_double_up_to_a_bound() {
    let pod = simple("Always");
    let mut observed = prepared();
    begin(&mut observed, "b", 0);
    let mut waits = Vec::new();
    for _ in 0..8 {
        begin(&mut observed, "a", 0);
        end(&mut observed, "a", 1, 1);
        let wait = planned(&pod, &observed, 1)
            .wake
            .map_or(0, |wake| wake.as_second() - at(1).as_second());
        waits.push(wait);
        let early = planned(&pod, &observed, wait);
        assert!(wait == 0 || early.actions.is_empty(), "{early:?}");
        assert_eq!(planned(&pod, &observed, 1 + wait).actions, [start("a")]);
    }
    assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
    begin(&mut observed, "a", 0);
    end(&mut observed, "a", 700, 1);
    assert_eq!(
        planned(&pod, &observed, 700).actions,
        [start("a")],
        "a long run starts over"
    );
}

#[test]
fn what_failed_to_start_is_tried_again_later() {
    let mut observed = Observed::new(at(0));
    let setback = crate::pods::observed::Setback {
        reason: "x".to_owned(),
        message: String::new(),
        until: at(5),
        count: 1,
    };
    observed.unprepared = Some(setback);
    let early = planned(&simple("Never"), &observed, 4);
    assert_eq!((early.actions, early.wake), (Vec::new(), Some(at(5))));
    assert_eq!(
        planned(&simple("Never"), &observed, 5).actions,
        [Action::Prepare]
    );
}

#[test]
fn a_deleted_pod_is_stopped_killed_released_and_gone() {
    let going = deleted(&simple("Always"), 30, 30);
    let mut observed = prepared();
    begin(&mut observed, "a", 0);
    let plan = planned(&going, &observed, 0);
    assert_eq!(stopped(&plan), ["a"]);
    assert!(matches!(&plan.actions[..], [Action::Stop { kill_at, .. }] if *kill_at == at(30)));
    observed.runs_mut("a").stopping = Some(Stopping {
        kill_at: at(30),
        is_killed: false,
    });
    let waiting = planned(&going, &observed, 29);
    assert_eq!((waiting.actions, waiting.wake), (Vec::new(), Some(at(30))));
    assert_eq!(
        planned(&going, &observed, 30).actions,
        [Action::Kill {
            container: "a".to_owned()
        }]
    );
    observed.runs_mut("a").stopping = Some(Stopping {
        kill_at: at(30),
        is_killed: true,
    });
    assert_eq!(planned(&going, &observed, 31), Plan::default());
    end(&mut observed, "a", 31, 137);
    assert_eq!(planned(&going, &observed, 31).actions, [Action::Release]);
    observed.is_released = true;
    assert_eq!(planned(&going, &observed, 31).actions, [Action::Delete]);
    observed.is_deleted = true;
    assert_eq!(planned(&going, &observed, 31), Plan::default());
}

#[test]
fn grace_can_be_shortened_and_is_none_when_forced() {
    let mut observed = prepared();
    begin(&mut observed, "a", 0);
    let forced = deleted(&simple("Never"), 0, 0);
    assert_eq!(
        planned(&forced, &observed, 0).actions,
        [Action::Kill {
            container: "a".to_owned()
        }]
    );
    observed.runs_mut("a").stopping = Some(Stopping {
        kill_at: at(300),
        is_killed: false,
    });
    let sooner = deleted(&simple("Never"), 10, 10);
    assert_eq!(planned(&sooner, &observed, 5).wake, Some(at(10)));
    assert_eq!(
        planned(&forced, &observed, 5).actions,
        [Action::Kill {
            container: "a".to_owned()
        }]
    );
}

#[test]
fn sidecars_end_after_the_others_in_reverse_order() {
    let spec = json!({
        "restartPolicy": "Never", "terminationGracePeriodSeconds": 9, "containers": [{"name": "a"}],
        "initContainers": [{"name": "s", "restartPolicy": "Always"}, {"name": "t", "restartPolicy": "Always"}],
    });
    let mut observed = prepared();
    for name in ["s", "t", "a"] {
        begin(&mut observed, name, 0);
    }
    let going = deleted(&pod(&spec), 9, 9);
    assert_eq!(stopped(&planned(&going, &observed, 0)), ["a"]);
    end(&mut observed, "a", 1, 0);
    assert_eq!(stopped(&planned(&pod(&spec), &observed, 1)), ["t"]);
    assert_eq!(stopped(&planned(&going, &observed, 1)), ["t"]);
    end(&mut observed, "t", 2, 0);
    assert_eq!(stopped(&planned(&pod(&spec), &observed, 2)), ["s"]);
    end(&mut observed, "s", 3, 0);
    assert_eq!(
        planned(&pod(&spec), &observed, 3).actions,
        [Action::Release]
    );
}

#[test]
fn an_unhealthy_container_is_stopped_and_comes_back() {
    let pod = simple("Always");
    let mut observed = prepared();
    begin(&mut observed, "a", 0);
    begin(&mut observed, "b", 0);
    observed.runs_mut("a").probed.is_unhealthy = true;
    assert_eq!(stopped(&planned(&pod, &observed, 5)), ["a"]);
    observed.runs_mut("a").stopping = Some(Stopping {
        kill_at: at(35),
        is_killed: false,
    });
    assert_eq!(planned(&pod, &observed, 5).actions, []);
    end(&mut observed, "a", 6, 143);
    assert_eq!(planned(&pod, &observed, 6).actions, [start("a")]);
}

#[test]
fn a_pod_past_its_deadline_fails() {
    let pod = pod(&json!({"containers": [{"name": "a"}], "activeDeadlineSeconds": 10}));
    let mut observed = prepared();
    begin(&mut observed, "a", 0);
    assert_eq!(
        planned(&pod, &observed, 9).wake,
        Some(after(at(0), Duration::from_secs(10)))
    );
    assert!(
        matches!(&planned(&pod, &observed, 10).actions[..], [Action::Refuse(refusal)] if refusal.reason == "DeadlineExceeded")
    );
}

#[test]
fn what_the_api_has_as_ended_does_not_start_again() {
    let mut over = simple("Always");
    over.status = Some(serde_json::from_value(json!({"phase": "Failed"})).unwrap());
    assert_eq!(
        planned(&over, &Observed::new(at(0)), 0).actions,
        [Action::Release]
    );
    let released = Observed {
        is_released: true,
        ..Observed::new(at(0))
    };
    assert_eq!(planned(&over, &released, 0), Plan::default());
    assert_eq!(
        planned(&deleted(&over, 0, 0), &released, 0).actions,
        [Action::Delete]
    );
}
