use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::{Value, json};

use super::{Place, oom_score_adj, qos_class, status};
use crate::pods::observed::{Finished, Observed, Probed, Refusal, Setback};
use crate::pods::options::Timing;
use crate::sandbox::process::ProcessId;
use crate::sandbox::record::{Ended, Started};

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).unwrap()
}

fn pod(spec: &Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "p", "uid": "u"}, "spec": spec})).unwrap()
}

fn begin(observed: &mut Observed, name: &str) {
    let process = ProcessId {
        pid: 1,
        start_ticks: 1,
        boot_id: String::new(),
    };
    let started = Started {
        process: process.clone(),
        keeper: process,
        at: at(1),
    };
    let probed = Probed {
        has_started: true,
        is_ready: true,
        is_unhealthy: false,
    };
    observed
        .runs_mut(name)
        .begin(started, "sha256:x".to_owned(), probed);
}

fn end(observed: &mut Observed, name: &str, ended: Ended) {
    let finished = Finished {
        started_at: Some(at(1)),
        ended,
        message: Some("last words".to_owned()),
    };
    observed
        .runs_mut(name)
        .end(finished, std::time::Duration::from_secs(600));
}

fn code(code: i32) -> Ended {
    Ended {
        code,
        signal: None,
        at: at(2),
        is_out_of_memory: false,
        failure: None,
    }
}

fn told(pod: &Pod, observed: &Observed) -> PodStatus {
    let place = Place {
        host_ip: Some("192.0.2.1"),
        timing: &Timing::default(),
    };
    status(pod, observed, at(2), place)
}

fn reason(status: &PodStatus, at: usize) -> String {
    let state = status.container_statuses.as_ref().unwrap()[at]
        .state
        .clone()
        .unwrap();
    let waiting = state.waiting.and_then(|waiting| waiting.reason);
    waiting
        .or_else(|| state.terminated.and_then(|ended| ended.reason))
        .unwrap_or_default()
}

fn condition(status: &PodStatus, kind: &str) -> String {
    let all = status.conditions.as_ref().unwrap();
    all.iter()
        .find(|condition| condition.type_ == kind)
        .unwrap()
        .status
        .clone()
}

#[test]
fn phases_follow_the_containers() {
    let spec = |policy: &str| {
        pod(&json!({"restartPolicy": policy, "containers": [{"name": "a"}, {"name": "b"}]}))
    };
    let mut observed = Observed {
        is_prepared: true,
        ..Observed::new(at(0))
    };
    let phase = |policy: &str, observed: &Observed| told(&spec(policy), observed).phase.unwrap();
    assert_eq!(phase("Never", &observed), "Pending");
    begin(&mut observed, "a");
    assert_eq!(phase("Never", &observed), "Running");
    begin(&mut observed, "b");
    end(&mut observed, "a", code(0));
    assert_eq!(phase("Never", &observed), "Running");
    let mut failed = observed.clone();
    end(&mut observed, "b", code(0));
    end(&mut failed, "b", code(1));
    assert_eq!(
        (
            phase("Never", &observed).as_str(),
            phase("Never", &failed).as_str()
        ),
        ("Succeeded", "Failed")
    );
    assert_eq!(
        (
            phase("OnFailure", &observed).as_str(),
            phase("OnFailure", &failed).as_str()
        ),
        ("Succeeded", "Running")
    );
    assert_eq!(
        (
            phase("Always", &observed).as_str(),
            phase("Always", &failed).as_str()
        ),
        ("Running", "Running")
    );
}

#[test]
fn ends_are_named() {
    let pod = pod(&json!({"restartPolicy": "Never", "containers": [{"name": "a"}]}));
    let killed = Ended {
        is_out_of_memory: true,
        ..code(137)
    };
    let unstarted = Ended::failed(at(2), "no such program".to_owned());
    for (ended, expected) in [
        (code(0), "Completed"),
        (code(3), "Error"),
        (killed, "OOMKilled"),
        (unstarted, "StartError"),
    ] {
        let mut observed = Observed::new(at(0));
        begin(&mut observed, "a");
        end(&mut observed, "a", ended);
        assert_eq!(reason(&told(&pod, &observed), 0), expected);
    }
}

#[test]
fn waiting_containers_say_for_what() {
    let pod = pod(
        &json!({"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}),
    );
    let mut observed = Observed {
        is_prepared: true,
        ..Observed::new(at(0))
    };
    assert_eq!(reason(&told(&pod, &observed), 0), "PodInitializing");
    begin(&mut observed, "i");
    end(&mut observed, "i", code(0));
    assert_eq!(reason(&told(&pod, &observed), 0), "ContainerCreating");
    let setback = Setback {
        reason: "ErrImagePull".to_owned(),
        message: "no".to_owned(),
        until: at(9),
        count: 1,
    };
    observed.runs_mut("a").setback = Some(setback);
    let status = told(&pod, &observed);
    assert_eq!(
        (reason(&status, 0).as_str(), reason(&status, 1).as_str()),
        ("ErrImagePull", "ContainerCreating")
    );
}

#[test]
fn conditions_keep_their_times_until_they_change() {
    let mut pod =
        pod(&json!({"containers": [{"name": "a"}], "readinessGates": [{"conditionType": "x/y"}]}));
    pod.status = Some(
        serde_json::from_value(json!({"conditions": [
        {"type": "Initialized", "status": "True", "lastTransitionTime": "1970-01-01T00:00:01Z"},
        {"type": "Ready", "status": "True", "lastTransitionTime": "1970-01-01T00:00:01Z"},
        {"type": "x/y", "status": "False"}]}))
        .unwrap(),
    );
    let mut observed = Observed {
        is_prepared: true,
        ..Observed::new(at(0))
    };
    begin(&mut observed, "a");
    let status = told(&pod, &observed);
    let since = |kind: &str| {
        let all = status.conditions.as_ref().unwrap();
        all.iter()
            .find(|condition| condition.type_ == kind)
            .unwrap()
            .last_transition_time
            .as_ref()
            .unwrap()
            .0
    };
    assert_eq!(
        (since("Initialized").as_second(), since("Ready")),
        (1, at(2))
    );
    assert_eq!(
        (
            condition(&status, "Ready").as_str(),
            condition(&status, "ContainersReady").as_str()
        ),
        ("False", "True")
    );
    assert!(
        status
            .conditions
            .as_ref()
            .unwrap()
            .iter()
            .all(|condition| condition.type_ != "x/y")
    );
}

#[test]
fn refused_pods_have_failed() {
    let pod = pod(&json!({"containers": [{"name": "a"}]}));
    let refused = Some(Refusal {
        reason: "UnexpectedAdmissionError".to_owned(),
        message: "no such device".to_owned(),
    });
    let status = told(
        &pod,
        &Observed {
            refused,
            ..Observed::new(at(0))
        },
    );
    assert_eq!(
        (status.phase.as_deref(), status.reason.as_deref()),
        (Some("Failed"), Some("UnexpectedAdmissionError"))
    );
}

#[test]
fn restarts_are_counted_with_the_end_before() {
    let pod = pod(&json!({"restartPolicy": "Always", "containers": [{"name": "a"}]}));
    let mut observed = Observed {
        is_prepared: true,
        ..Observed::new(at(0))
    };
    begin(&mut observed, "a");
    end(&mut observed, "a", code(5));
    begin(&mut observed, "a");
    let status = told(&pod, &observed).container_statuses.unwrap().remove(0);
    assert_eq!((status.restart_count, status.ready), (1, true));
    let last = status.last_state.unwrap().terminated.unwrap();
    assert_eq!(
        (last.exit_code, last.message.as_deref()),
        (5, Some("last words"))
    );
    assert_eq!(
        (last.container_id.as_deref(), status.container_id.as_deref()),
        (Some("ferrovirt://u/a/0"), Some("ferrovirt://u/a/1"))
    );
}

#[test]
fn classes_tell_who_is_killed_first() {
    let class = |resources: Value| {
        qos_class(
            pod(&json!({"containers": [{"name": "a", "resources": resources}]}))
                .spec
                .as_ref()
                .unwrap(),
        )
    };
    assert_eq!(class(json!({})), "BestEffort");
    assert_eq!(
        class(json!({"limits": {"cpu": "1", "memory": "1Gi"}})),
        "Guaranteed"
    );
    assert_eq!(
        class(json!({"requests": {"cpu": "1"}, "limits": {"memory": "1Gi"}})),
        "Burstable"
    );
    assert_eq!(oom_score_adj("Guaranteed", 0, 1), -997);
    assert_eq!(oom_score_adj("BestEffort", 0, 1), 1000);
    assert_eq!(oom_score_adj("Burstable", 1 << 30, 4 << 30), 750);
    assert_eq!(oom_score_adj("Burstable", 8 << 30, 4 << 30), 3);
}
