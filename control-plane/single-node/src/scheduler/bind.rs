//! Binds pods as they come.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{Amounts, Fit, add, fit, is_finished, path, requests};
use apiserver::objects::{Objects, Projection, Refused};
use apiserver::ticks::Ticks;

/// The scheduler that pods name when they mean this one.
const NAME: &str = "default-scheduler";

/// Binds pods to the node until it is told to stop.
pub async fn run(objects: Objects, mut ticks: Ticks, node: String, stop: CancellationToken) {
    ticks.follow(&["pods", "nodes"]);
    let mut known = Projection::new("pods");
    let mut told = BTreeMap::new();
    loop {
        let pods = objects.project(&mut known, seen);
        let here = objects
            .list("nodes")
            .into_iter()
            .find(|it| it["metadata"]["name"] == node.as_str());
        if let Some(here) = here {
            place_all(&objects, &pods, &here, &mut told).await;
        }
        if stop.run_until_cancelled(ticks.next()).await.is_none() {
            return;
        }
    }
}

async fn place_all(
    objects: &Objects,
    pods: &[Arc<Seen>],
    node: &Value,
    told: &mut BTreeMap<String, String>,
) {
    let mut taken = Amounts::new();
    let mut waiting = Vec::new();
    for pod in pods {
        match pod.as_ref() {
            Seen::Takes(amounts) => add(&mut taken, amounts),
            Seen::Waits(pod) => waiting.push(pod),
        }
    }
    told.retain(|uid, _| {
        waiting
            .iter()
            .any(|it| it["metadata"]["uid"] == uid.as_str())
    });
    for pod in waiting {
        let done = match fit(pod, node, &taken) {
            Fit::Fits => {
                add(&mut taken, &requests(pod));
                bind(objects, pod, node).await
            }
            Fit::Unschedulable(why) => tell(objects, pod, why, told).await,
        };
        if let Err(error) = done {
            warn!(pod = %pod["metadata"]["name"], %error, "cannot place a pod; will try again with the next change");
        }
    }
}

/// What counts of a pod.
enum Seen {
    /// What it takes of the node; nothing once it has ended.
    Takes(Amounts),
    /// It is to be placed.
    Waits(Value),
}

fn seen(pod: Value) -> Seen {
    if is_waiting(&pod) {
        return Seen::Waits(pod);
    }
    let is_running = pod["spec"]["nodeName"].is_string() && !is_finished(&pod);
    Seen::Takes(if is_running {
        requests(&pod)
    } else {
        Amounts::new()
    })
}

fn is_waiting(pod: &Value) -> bool {
    let scheduler = pod["spec"]["schedulerName"].as_str().unwrap_or(NAME);
    pod["spec"]["nodeName"].is_null()
        && scheduler == NAME
        && pod["metadata"]["deletionTimestamp"].is_null()
        && pod["spec"]["schedulingGates"]
            .as_array()
            .is_none_or(Vec::is_empty)
        && !is_finished(pod)
}

async fn bind(objects: &Objects, pod: &Value, node: &Value) -> Result<(), Refused> {
    let metadata = &pod["metadata"];
    let binding = json!({
        "apiVersion": "v1", "kind": "Binding",
        "metadata": {"name": metadata["name"], "namespace": metadata["namespace"], "uid": metadata["uid"]},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node["metadata"]["name"]},
    });
    match objects
        .create(&format!("{}/binding", path(pod)), &binding)
        .await
    {
        // Deleted or bound meanwhile.
        Err(refused) if matches!(refused.code, 404 | 409) => {
            debug!(pod = %metadata["name"], %refused, "a pod went away before it was bound");
            Ok(())
        }
        bound => bound.map(|_| ()),
    }
}

async fn tell(
    objects: &Objects,
    pod: &Value,
    why: String,
    told: &mut BTreeMap<String, String>,
) -> Result<(), Refused> {
    let uid = pod["metadata"]["uid"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    if told.get(&uid) == Some(&why) {
        return Ok(());
    }
    let now = jiff::Timestamp::now()
        .strftime("%Y-%m-%dT%H:%M:%SZ")
        .to_string();
    let kept = pod["status"]["conditions"].as_array().into_iter().flatten();
    let mut conditions: Vec<Value> = kept
        .filter(|it| it["type"] != "PodScheduled")
        .cloned()
        .collect();
    conditions.push(json!({
        "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why, "lastTransitionTime": now,
    }));
    let status = json!({"status": {"phase": "Pending", "conditions": conditions}});
    objects
        .merge(&format!("{}/status", path(pod)), &status)
        .await?;
    told.insert(uid, why);
    Ok(())
}
