//! Whole pods.

use std::time::Instant;

use serde_json::json;

use crate::node::{Node, container, pod};

fn condition<'a>(pod: &'a serde_json::Value, kind: &str) -> &'a str {
    let all = pod["status"]["conditions"].as_array().unwrap();
    let found = all.iter().find(|condition| condition["type"] == kind);
    found.map_or("", |found| found["status"].as_str().unwrap())
}

#[tokio::test]
async fn a_pod_runs_with_one_write_and_ends_with_another() {
    let Some(node) = Node::new() else { return };
    let began = Instant::now();
    node.memory.put_pod(pod("a", "echo $FROM_IMAGE; read line < /etc/hostname; echo $line; until [ -e /tmp/x ]; do sleep 0.05; done; exit 3"));
    let running = node.wait_for_phase("a", "Running").await;
    println!("runs after {:?}", began.elapsed());
    assert_eq!(node.memory.writes("a"), 1, "{running:#}");
    for kind in [
        "Ready",
        "ContainersReady",
        "Initialized",
        "PodScheduled",
        "PodReadyToStartContainers",
    ] {
        assert_eq!(condition(&running, kind), "True", "{kind}");
    }
    let status = &running["status"];
    assert_eq!(status["hostIP"], "192.0.2.1");
    assert_eq!(status["qosClass"], "BestEffort");
    let main = &status["containerStatuses"][0];
    assert_eq!(
        (&main["ready"], &main["started"], &main["imageID"]),
        (&json!(true), &json!(true), &json!("sha256:host"))
    );
    let handle = node.runner.container("default", "a", "main").unwrap();
    std::fs::write(format!("/proc/{}/root/tmp/x", handle.pid.unwrap()), "").unwrap();
    let ended = node.wait_for_phase("a", "Failed").await;
    assert_eq!(
        ended["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"],
        3
    );
    assert_eq!(condition(&ended, "Ready"), "False");
    assert_eq!(node.log("a", "main"), "yes\na\n");
    assert_eq!(node.memory.writes("a"), 2);
    node.memory.delete_pod("a", 5);
    node.wait_until_gone("a").await;
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn a_pod_that_is_deleted_has_its_grace() {
    let Some(node) = Node::new() else { return };
    let polite = "trap 'echo bye; exit 0' TERM; echo ready; while :; do sleep 0.05; done";
    node.memory.put_pod(pod("polite", polite));
    node.memory.put_pod(pod(
        "stubborn",
        "trap '' TERM; echo ready; while :; do sleep 0.05; done",
    ));
    for name in ["polite", "stubborn"] {
        node.wait_for(name, "ready", |_| node.log(name, "main").contains("ready"))
            .await;
    }
    let began = Instant::now();
    node.memory.delete_pod("polite", 20);
    node.wait_until_gone("polite").await;
    assert!(began.elapsed().as_secs() < 10, "{:?}", began.elapsed());
    let began = Instant::now();
    node.memory.delete_pod("stubborn", 2);
    node.wait_until_gone("stubborn").await;
    let took = began.elapsed().as_millis();
    assert!((1000..10_000).contains(&took), "{took} ms");
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn containers_are_restarted_after_growing_waits() {
    let Some(node) = Node::new() else { return };
    let mut wanted = pod("again", "echo run; exit 1");
    wanted["spec"]["restartPolicy"] = json!("Always");
    node.memory.put_pod(wanted);
    let looping = node.wait_for("again", "in a crash loop", |pod| {
        let main = &pod["status"]["containerStatuses"][0];
        main["restartCount"].as_u64() >= Some(2)
            && main["state"]["waiting"]["reason"] == "CrashLoopBackOff"
    });
    let pod = looping.await;
    assert_eq!(pod["status"]["phase"], "Running");
    assert_eq!(
        pod["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"],
        1
    );
    assert!(
        node.memory
            .warnings()
            .iter()
            .any(|text| text.starts_with("BackOff")),
        "{:?}",
        node.memory.warnings()
    );
}

#[tokio::test]
async fn init_containers_run_first_and_sidecars_beside() {
    let Some(node) = Node::new() else { return };
    let mut wanted = pod(
        "init",
        "cat /shared/init; until [ -e /shared/end ]; do sleep 0.05; done",
    );
    let mount = json!([{"name": "shared", "mountPath": "/shared"}]);
    let mut side = container(
        "side",
        "trap 'exit 0' TERM; echo side >> /shared/init; while :; do sleep 0.05; done",
    );
    side["restartPolicy"] = json!("Always");
    let inits = [
        side,
        container("first", "sleep 0.1; echo first >> /shared/init"),
    ];
    wanted["spec"]["initContainers"] = json!(inits);
    wanted["spec"]["volumes"] = json!([{"name": "shared", "emptyDir": {}}]);
    for group in ["containers", "initContainers"] {
        for container in wanted["spec"][group].as_array_mut().unwrap() {
            container["volumeMounts"] = mount.clone();
        }
    }
    node.memory.put_pod(wanted);
    node.wait_for_phase("init", "Running").await;
    node.wait_for("init", "past init", |_| {
        node.log("init", "main").lines().count() == 2
    })
    .await;
    let handle = node.runner.container("default", "init", "side").unwrap();
    std::fs::write(format!("/proc/{}/root/shared/end", handle.pid.unwrap()), "").unwrap();
    let ended = node.wait_for_phase("init", "Succeeded").await;
    let inits = &ended["status"]["initContainerStatuses"];
    assert_eq!(
        inits[1]["state"]["terminated"]["reason"], "Completed",
        "{inits:#}"
    );
    assert!(inits[0]["state"]["terminated"].is_object(), "{inits:#}");
}

#[tokio::test]
async fn a_pod_waits_for_what_it_needs_and_says_for_what() {
    let Some(node) = Node::new() else { return };
    let mut wanted = pod("waits", "cat /config/key");
    wanted["spec"]["volumes"] = json!([{"name": "config", "configMap": {"name": "later"}}]);
    wanted["spec"]["containers"][0]["volumeMounts"] =
        json!([{"name": "config", "mountPath": "/config"}]);
    node.memory.put_pod(wanted);
    let waiting = node
        .wait_for("waits", "waiting", |pod| {
            pod["status"]["containerStatuses"][0]["state"]["waiting"]["message"].is_string()
        })
        .await;
    let message = waiting["status"]["containerStatuses"][0]["state"]["waiting"]["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        message.contains("configmap \"later\" not found"),
        "{message}"
    );
    node.memory.put(
        "ConfigMap",
        json!({"metadata": {"name": "later"}, "data": {"key": "value\n"}}),
    );
    node.wait_for_phase("waits", "Succeeded").await;
    assert_eq!(node.log("waits", "main"), "value\n");
}

#[tokio::test]
async fn an_image_that_is_missing_is_named() {
    let Some(node) = Node::new() else { return };
    let mut wanted = pod("imageless", "true");
    wanted["spec"]["containers"][0]["image"] = json!("nothing");
    node.memory.put_pod(wanted);
    let reason = |pod: &serde_json::Value| {
        pod["status"]["containerStatuses"][0]["state"]["waiting"]["reason"].clone()
    };
    let waiting = node
        .wait_for("imageless", "waiting", |pod| {
            reason(pod) == "ErrImageNeverPull"
        })
        .await;
    assert_eq!(waiting["status"]["phase"], "Pending");
    node.memory.delete_pod("imageless", 30);
    node.wait_until_gone("imageless").await;
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn what_this_node_does_not_provide_is_refused() {
    let Some(node) = Node::new() else { return };
    let mut wanted = pod("shares", "true");
    wanted["spec"]["shareProcessNamespace"] = json!(true);
    node.memory.put_pod(wanted);
    let refused = node.wait_for_phase("shares", "Failed").await;
    assert!(
        refused["status"]["message"]
            .as_str()
            .unwrap()
            .contains("shareProcessNamespace")
    );
}

#[tokio::test]
async fn readiness_gates_hold_a_pod_back() {
    let Some(node) = Node::new() else { return };
    let mut wanted = pod("gated", "sleep 1000");
    wanted["spec"]["readinessGates"] =
        json!([{"conditionType": "kubevirt.io/virtual-machine-unpaused"}]);
    node.memory.put_pod(wanted);
    let running = node.wait_for_phase("gated", "Running").await;
    assert_eq!(
        (
            condition(&running, "Ready"),
            condition(&running, "ContainersReady")
        ),
        ("False", "True")
    );
    node.memory.change("gated", |pod| {
        let gate = json!({"type": "kubevirt.io/virtual-machine-unpaused", "status": "True"});
        pod["status"]["conditions"]
            .as_array_mut()
            .unwrap()
            .push(gate);
    });
    let ready = node
        .wait_for("gated", "ready", |pod| condition(pod, "Ready") == "True")
        .await;
    assert_eq!(
        condition(&ready, "kubevirt.io/virtual-machine-unpaused"),
        "True"
    );
    assert_eq!(node.memory.writes("gated"), 2);
}

#[tokio::test]
async fn hooks_run_after_the_start_and_before_the_end() {
    let Some(node) = Node::new() else { return };
    let script = "trap 'echo term; exit 0' TERM; until [ -e /tmp/started ]; do sleep 0.05; done; echo started; \
        while [ ! -e /tmp/stop ]; do sleep 0.05; done; echo stop; while :; do sleep 0.05; done";
    let mut wanted = pod("hooked", script);
    wanted["spec"]["containers"][0]["lifecycle"] = json!({
        "postStart": {"exec": {"command": ["touch", "/tmp/started"]}},
        "preStop": {"exec": {"command": ["sh", "-c", "touch /tmp/stop; sleep 0.3"]}},
    });
    node.memory.put_pod(wanted);
    node.wait_for("hooked", "started", |_| {
        node.log("hooked", "main").contains("started")
    })
    .await;
    let log = node
        .runner
        .container("default", "hooked", "main")
        .unwrap()
        .log_path;
    let copy = node.path("copy");
    std::fs::hard_link(log, &copy).unwrap();
    node.memory.delete_pod("hooked", 10);
    node.wait_until_gone("hooked").await;
    let text = std::fs::read_to_string(copy).unwrap();
    let words: Vec<_> = text
        .lines()
        .filter_map(|line| line.split(' ').nth(3))
        .collect();
    assert_eq!(words, ["started", "stop", "term"]);
}

#[tokio::test]
async fn a_pod_of_which_nothing_is_known_here_has_ended() {
    let Some(node) = Node::new() else { return };
    let mut wanted = pod("lost", "echo again");
    let running = json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}});
    wanted["status"] = json!({"phase": "Running", "containerStatuses": [
        {"name": "main", "image": "host", "imageID": "", "ready": true, "restartCount": 0, "state": running}]});
    node.memory.put_pod(wanted);
    let ended = node.wait_for_phase("lost", "Failed").await;
    let terminated = &ended["status"]["containerStatuses"][0]["state"]["terminated"];
    assert_eq!(terminated["exitCode"], 137, "{ended:#}");
    // A pod that others keep from going is not told of again and again.
    let writes = node.memory.writes("lost");
    node.memory.delete_pod("lost", 0);
    node.wait_until_gone("lost").await;
    assert!(node.memory.writes("lost") <= writes + 1);
}

#[tokio::test]
async fn names_that_are_paths_are_refused() {
    let Some(node) = Node::new() else { return };
    let mut wanted = pod("odd", "true");
    wanted["spec"]["containers"][0]["name"] = json!("../../../out");
    node.memory.put_pod(wanted);
    node.wait_for_phase("odd", "Failed").await;
    assert!(
        node.runner
            .container("default", "odd", "../../../out")
            .is_none()
    );
    node.memory.delete_pod("odd", 0);
    node.wait_until_gone("odd").await;
    assert_eq!(node.leftovers(), Vec::<String>::new());
}
