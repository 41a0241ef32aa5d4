use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::scripted::Cluster;
use super::{SUBRESOURCES, instance, machine};

async fn put(cluster: &Cluster, path: &str, body: Option<Value>) -> (StatusCode, Value) {
    cluster
        .ask(Method::PUT, &format!("{SUBRESOURCES}/{path}"), body)
        .await
}

#[tokio::test]
async fn a_halted_machine_is_started_by_its_specification() {
    let cluster = Cluster::default();
    cluster.put("virtualmachines", machine("Halted"));
    let (status, _) = put(&cluster, "virtualmachines/vm/start", None).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    assert_eq!(
        cluster.get("virtualmachines", "vm")["spec"]["runStrategy"],
        "Always"
    );
    let (status, answer) = put(&cluster, "virtualmachines/vm/start", None).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(
        answer["message"],
        "Operation cannot be fulfilled on virtualmachine.kubevirt.io \"vm\": Always does not support manual start requests"
    );
}

#[tokio::test]
async fn a_machine_of_the_old_field_is_started_and_stopped_by_it() {
    let cluster = Cluster::default();
    let mut vm = machine("");
    vm["spec"] = json!({"running": false, "template": {}});
    cluster.put("virtualmachines", vm);
    put(&cluster, "virtualmachines/vm/start", None).await;
    assert_eq!(
        cluster.get("virtualmachines", "vm")["spec"]["running"],
        true
    );
    put(&cluster, "virtualmachines/vm/stop", None).await;
    assert_eq!(
        cluster.get("virtualmachines", "vm")["spec"]["running"],
        false
    );
    assert!(cluster.get("virtualmachines", "vm")["spec"]["runStrategy"].is_null());
}

#[tokio::test]
async fn a_machine_that_runs_is_not_started() {
    let cluster = Cluster::default();
    cluster.put("virtualmachines", machine("Manual"));
    cluster.put("virtualmachineinstances", instance("Running"));
    let (status, answer) = put(&cluster, "virtualmachines/vm/start", None).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(answer["reason"], "Conflict");
    assert!(
        answer["message"]
            .as_str()
            .unwrap()
            .ends_with(": VM is already running")
    );
}

#[tokio::test]
async fn a_restart_is_a_stop_and_a_start() {
    let cluster = Cluster::default();
    cluster.put("virtualmachines", machine("Always"));
    cluster.put("virtualmachineinstances", instance("Running"));
    let (status, _) = put(&cluster, "virtualmachines/vm/restart", None).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let vm = cluster.get("virtualmachines", "vm");
    let wanted = json!([{"action": "Stop", "uid": "vmi-uid"}, {"action": "Start"}]);
    assert_eq!(vm["status"]["stateChangeRequests"], wanted);
    let (method, path, _) = &cluster.writes()[0];
    assert_eq!(method, Method::PATCH);
    assert!(path.contains("/virtualmachines/vm/status?"), "{path}");
    let (status, answer) = put(&cluster, "virtualmachines/vm/restart", None).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(
        answer["message"]
            .as_str()
            .unwrap()
            .ends_with("stop/start already underway")
    );
}

#[tokio::test]
async fn a_forced_restart_that_fails_leaves_the_grace_period_as_it_was() {
    let cluster = Cluster::default();
    let mut vmi = instance("Running");
    vmi["spec"]["terminationGracePeriodSeconds"] = json!(180);
    cluster.put("virtualmachines", machine("Always"));
    cluster.put("virtualmachineinstances", vmi);
    cluster.refuse("/status", 403);
    let body = json!({"gracePeriodSeconds": 0});
    let (status, _) = put(&cluster, "virtualmachines/vm/restart", Some(body)).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let writes = cluster.writes();
    assert_eq!(writes[0].2[1]["value"], 1);
    let vmi = cluster.get("virtualmachineinstances", "vm");
    assert_eq!(vmi["spec"]["terminationGracePeriodSeconds"], 180);
}

#[tokio::test]
async fn a_change_is_made_anew_when_somebody_else_writes_in_between() {
    let cluster = Cluster::default();
    cluster.put("virtualmachines", machine("Manual"));
    cluster.surprise(|vm| vm["metadata"]["resourceVersion"] = json!("9"));
    let (status, _) = put(&cluster, "virtualmachines/vm/start", None).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let vm = cluster.get("virtualmachines", "vm");
    assert_eq!(
        vm["status"]["stateChangeRequests"],
        json!([{"action": "Start"}])
    );
    assert_eq!(cluster.writes().len(), 2);
}

#[tokio::test]
async fn a_machine_that_keeps_changing_is_a_conflict() {
    let cluster = Cluster::default();
    cluster.put("virtualmachines", machine("Manual"));
    for _ in 0..8 {
        cluster.surprise(|vm| {
            let version = vm["metadata"]["resourceVersion"].as_str().unwrap();
            vm["metadata"]["resourceVersion"] = json!(format!("{version}1"));
        });
    }
    let (status, answer) = put(&cluster, "virtualmachines/vm/start", None).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(
        answer["message"]
            .as_str()
            .unwrap()
            .contains("keeps changing"),
        "{answer}"
    );
}

#[tokio::test]
async fn rehearsals_are_passed_on() {
    let cluster = Cluster::default();
    cluster.put("virtualmachines", machine("Halted"));
    let body = json!({"dryRun": ["All"]});
    let (status, _) = put(&cluster, "virtualmachines/vm/start", Some(body)).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    assert!(cluster.writes()[0].1.ends_with("&dryRun=All"));
    let body = json!({"dryRun": ["Some"]});
    let (status, answer) = put(&cluster, "virtualmachines/vm/start", Some(body)).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(answer["details"]["causes"][0]["field"], "dryRun[0]");
}

#[tokio::test]
async fn a_migration_is_wished_for_by_an_object() {
    let cluster = Cluster::default();
    cluster.put("virtualmachines", machine("Always"));
    cluster.put("virtualmachineinstances", instance("Running"));
    let body = json!({"addedNodeSelector": {"zone": "a"}});
    let (status, _) = put(&cluster, "virtualmachines/vm/migrate", Some(body)).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let (method, path, migration) = cluster.writes().remove(0);
    assert_eq!(method, Method::POST);
    assert!(path.contains("/namespaces/ns/virtualmachineinstancemigrations?"));
    assert_eq!(
        migration["spec"],
        json!({"vmiName": "vm", "addedNodeSelector": {"zone": "a"}})
    );
    cluster.put("virtualmachineinstances", instance("Scheduled"));
    let (status, _) = put(&cluster, "virtualmachines/vm/migrate", None).await;
    assert_eq!(status, StatusCode::CONFLICT);
}

#[tokio::test]
async fn an_evacuation_is_given_up_for_the_node_that_is_meant() {
    let cluster = Cluster::default();
    let mut vmi = instance("Running");
    vmi["status"]["evacuationNodeName"] = json!("node");
    cluster.put("virtualmachineinstances", vmi);
    let path = "virtualmachineinstances/vm/evacuate/cancel";
    let wrong = json!({"evacuationNodeName": "other"});
    let (status, _) = put(&cluster, path, Some(wrong)).await;
    assert_eq!(status, StatusCode::CONFLICT);
    let (status, _) = put(&cluster, path, Some(json!({"evacuationNodeName": "node"}))).await;
    assert_eq!(status, StatusCode::OK);
    let vmi = cluster.get("virtualmachineinstances", "vm");
    assert!(vmi["status"]["evacuationNodeName"].is_null());
    let (status, _) = put(&cluster, path, None).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn states_that_do_not_fit_are_conflicts_before_any_node_is_asked() {
    let cluster = Cluster::default();
    let mut vmi = instance("Running");
    vmi["status"]["conditions"] = json!([{"type": "Paused", "status": "True"}]);
    cluster.put("virtualmachineinstances", vmi);
    let rehearsal = Some(json!({"dryRun": ["All"]}));
    let path = "virtualmachineinstances/vm/pause";
    let (status, answer) = put(&cluster, path, rehearsal.clone()).await;
    assert_eq!(status, StatusCode::CONFLICT);
    let message = answer["message"].as_str().unwrap();
    assert!(message.ends_with("VMI is already paused"), "{answer}");
    let path = "virtualmachineinstances/vm/unpause";
    assert_eq!(
        put(&cluster, path, rehearsal.clone()).await.0,
        StatusCode::OK
    );
    cluster.put("virtualmachineinstances", instance("Running"));
    let (status, answer) = put(&cluster, path, rehearsal).await;
    assert_eq!(status, StatusCode::CONFLICT);
    let message = answer["message"].as_str().unwrap();
    assert!(message.ends_with("VMI is not paused"), "{answer}");
    cluster.put("virtualmachineinstances", instance("Scheduled"));
    for action in [
        "pause",
        "unpause",
        "freeze",
        "unfreeze",
        "reset",
        "softreboot",
    ] {
        let path = format!("virtualmachineinstances/vm/{action}");
        let (status, answer) = put(&cluster, &path, None).await;
        assert_eq!(status, StatusCode::CONFLICT, "{action}: {answer}");
    }
    cluster.put("virtualmachineinstances", instance("Running"));
    for action in ["guestosinfo", "userlist", "filesystemlist"] {
        let path = format!("{SUBRESOURCES}/virtualmachineinstances/vm/{action}");
        let (status, answer) = cluster.ask(Method::GET, &path, None).await;
        assert_eq!(status, StatusCode::CONFLICT, "{action}: {answer}");
    }
}

#[tokio::test]
async fn a_node_agent_that_is_not_there_is_named() {
    let cluster = Cluster::default();
    cluster.put("virtualmachineinstances", instance("Running"));
    let (status, answer) = put(&cluster, "virtualmachineinstances/vm/pause", None).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    let message = answer["message"].as_str().unwrap();
    assert!(
        message.contains("the agent of node \"node\" at 127.0.0.1:1"),
        "{message}"
    );
}
