use serde_json::{Value, json};

use super::{asked, cluster};
use crate::admission::{ClusterConfig, EvictionPlan, path, plan_eviction, review};

fn pod() -> Value {
    json!({
        "metadata": {
            "name": "virt-launcher-vmi-x", "namespace": "ns",
            "labels": {"kubevirt.io": "virt-launcher"},
            "annotations": {"kubevirt.io/domain": "vmi"},
        },
        "spec": {"nodeName": "node"},
        "status": {"phase": "Running"},
    })
}

fn instance(strategy: &str, migratable: &str) -> Value {
    json!({
        "metadata": {"name": "vmi", "namespace": "ns", "resourceVersion": "5"},
        "spec": {"evictionStrategy": strategy},
        "status": {
            "nodeName": "node",
            "conditions": [{"type": "LiveMigratable", "status": migratable}],
        },
    })
}

fn facts(pod: Value, instance: Option<Value>) -> ClusterConfig {
    let mut cluster = cluster();
    cluster.facts.pod = Some(pod);
    cluster.facts.instance = instance;
    cluster
}

fn eviction() -> Value {
    let object = json!({"metadata": {"name": "virt-launcher-vmi-x"}});
    asked("CREATE", "system:node-drainer", &object, &Value::Null)
}

/// Allowed, denied or marked.
fn outcome(cluster: &ClusterConfig) -> &'static str {
    let plan = plan_eviction(&eviction(), cluster);
    let answer = review(path::EVICTION_VALIDATE, &eviction(), cluster);
    let response = &answer["response"];
    match plan {
        EvictionPlan::Allow => {
            assert_eq!(response["allowed"], true);
            "allowed"
        }
        EvictionPlan::Deny(message) => {
            assert_eq!(response["status"]["code"], 429);
            assert_eq!(response["status"]["message"], message);
            "denied"
        }
        EvictionPlan::Mark { message, .. } => {
            assert_eq!(response["status"]["code"], 429);
            assert_eq!(response["status"]["message"], message);
            "marked"
        }
    }
}

#[test]
fn a_strategy_decides_what_becomes_of_an_eviction() {
    for (strategy, migratable, expected) in [
        ("None", "True", "allowed"),
        ("", "True", "allowed"),
        ("LiveMigrate", "True", "marked"),
        ("LiveMigrate", "False", "denied"),
        ("LiveMigrateIfPossible", "True", "marked"),
        ("LiveMigrateIfPossible", "False", "allowed"),
        ("External", "False", "marked"),
    ] {
        let cluster = facts(pod(), Some(instance(strategy, migratable)));
        assert_eq!(outcome(&cluster), expected, "{strategy} {migratable}");
    }
    let mut silent = instance("", "True");
    silent["spec"] = json!({});
    let mut cluster = facts(pod(), Some(silent));
    cluster.configuration.eviction_strategy = Some("LiveMigrate".to_owned());
    assert_eq!(outcome(&cluster), "marked");
}

#[test]
fn a_mark_names_the_node_and_is_made_on_what_was_read() {
    let vmi = instance("LiveMigrate", "True");
    let cluster = facts(pod(), Some(vmi.clone()));
    let mut eviction = eviction();
    eviction["request"]["object"]["metadata"]["annotations"] =
        json!({"requested-by": "sigs.k8s.io/descheduler"});
    eviction["request"]["object"]["deleteOptions"] = json!({"dryRun": ["All"]});
    let EvictionPlan::Mark {
        name,
        patch,
        is_dry,
        message,
        ..
    } = plan_eviction(&eviction, &cluster)
    else {
        panic!("no mark");
    };
    let mut marked = vmi.clone();
    json_patch::patch(&mut marked, &patch).unwrap();
    assert_eq!((name.as_str(), is_dry), ("vmi", true));
    assert_eq!(marked["status"]["evacuationNodeName"], "node");
    assert_eq!(
        marked["metadata"]["annotations"]["kubevirt.io/eviction-source"],
        "descheduler"
    );
    assert_eq!(message, "Eviction triggered evacuation of VMI \"ns/vmi\"");
    let mut changed = vmi;
    changed["metadata"]["resourceVersion"] = json!("6");
    assert!(json_patch::patch(&mut changed, &patch).is_err());
}

#[test]
fn an_instance_is_marked_once_and_only_from_where_it_runs() {
    let mut vmi = instance("LiveMigrate", "True");
    vmi["status"]["evacuationNodeName"] = json!("node");
    assert_eq!(outcome(&facts(pod(), Some(vmi.clone()))), "denied");
    vmi["status"] = json!({"nodeName": "other", "conditions": vmi["status"]["conditions"]});
    assert_eq!(outcome(&facts(pod(), Some(vmi))), "denied");
}

#[test]
fn pods_without_a_machine_go() {
    let mut over = pod();
    over["status"]["phase"] = json!("Succeeded");
    let mut other = pod();
    other["metadata"]["labels"] = json!({"app": "web"});
    let mut nameless = pod();
    nameless["metadata"]["annotations"] = json!({});
    for pod in [over, other, nameless] {
        assert_eq!(outcome(&facts(pod, None)), "allowed");
    }
    assert_eq!(outcome(&cluster()), "allowed");
    assert_eq!(
        outcome(&facts(pod(), None)),
        "denied",
        "nobody knows the instance"
    );
}

#[test]
fn pods_of_plugged_volumes_stay_with_their_machine() {
    let plugged = json!({
        "metadata": {
            "name": "hp-volume-x", "namespace": "ns",
            "labels": {"kubevirt.io": "hotplug-disk"},
        },
    });
    let mut cluster = facts(plugged, Some(instance("None", "True")));
    cluster.facts.owner = Some(pod());
    assert_eq!(outcome(&cluster), "denied");
    cluster.facts.owner.as_mut().unwrap()["status"]["phase"] = json!("Failed");
    assert_eq!(outcome(&cluster), "allowed");
}
