//! The condition of the node that says whether its device plugins work, and which devices are missing.

use std::sync::Arc;
use std::time::Duration;

use api::error_chain::chain;
use device_plugins::report::Report;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::complaints::{Subject, complaints, refusal};
use super::table::plain;

/// Type of the node's condition about device plugins.
pub const CONDITION: &str = "ferrovirt.io/DevicePlugins";

/// Time after a change in which others may follow, so that all are told at once.
const SETTLE: Duration = Duration::from_millis(500);
/// Time until a patch that failed is tried again.
const RETRY: Duration = Duration::from_secs(10);
/// Longest message, bytes.
const MESSAGE_LEN_MAX_BYTES: usize = 2048;

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    /// Whether the plugins do what they can. That a device is not there, or not ready to be given, is none of their faults:
    /// most nodes lack most of what a cluster permits.
    pub(super) is_well: bool,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

/// Returns what a report says about the node. Pure.
pub(super) fn condition(report: &Report) -> Told {
    let refused = report
        .resources
        .iter()
        .filter_map(|it| Some(format!("{}: {}", it.resource, refusal(it)?)));
    let refused: Vec<String> = refused.collect();
    let (optional, missing): (Vec<_>, Vec<_>) = complaints(report)
        .into_iter()
        .partition(|(subject, _)| subject.is_optional());
    let reason = if !report.problems.is_empty() {
        "WrongRequest"
    } else if !refused.is_empty() {
        "NotRegistered"
    } else if !missing.is_empty() {
        "DevicesLeftOut"
    } else {
        "AllOffered"
    };
    let problems = report.problems.iter().cloned();
    let devices = missing.into_iter().chain(optional).map(sentence);
    let parts: Vec<String> = problems.chain(refused).chain(devices).collect();
    Told {
        is_well: matches!(reason, "AllOffered" | "DevicesLeftOut"),
        reason,
        message: message(&parts),
    }
}

fn sentence((subject, reason): (Subject, String)) -> String {
    format!("{} {}: {reason}", subject.resource, subject.device)
}

/// Joins what is to be told as far as it fits, and says how much does not.
fn message(parts: &[String]) -> String {
    if parts.is_empty() {
        return "every device that was asked for is offered".to_owned();
    }
    let mut text = String::new();
    for (at, part) in parts.iter().enumerate() {
        let part = plain(part);
        let separator = if at == 0 { "" } else { "; " };
        if text.len() + separator.len() + part.len() > MESSAGE_LEN_MAX_BYTES {
            let rest = parts.len() - at;
            return format!("{text}{separator}and {rest} more: see `virt-handler devices`");
        }
        text.push_str(separator);
        text.push_str(&part);
    }
    text
}

/// Returns the change of the node's status that tells it, or nothing where the node says so already. Pure.
pub(super) fn patch(node: &Value, told: &Told, now: Timestamp) -> Option<Value> {
    let now = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let status = if told.is_well { "True" } else { "False" };
    let conditions = node["status"]["conditions"].as_array();
    let known = conditions
        .into_iter()
        .flatten()
        .find(|it| it["type"] == CONDITION);
    let known = known.unwrap_or(&Value::Null);
    let is_same_status = known["status"] == status;
    if is_same_status && known["reason"] == told.reason && known["message"] == told.message {
        return None;
    }
    let since = known["lastTransitionTime"].as_str();
    let since = since.filter(|_| is_same_status).unwrap_or(&now);
    Some(json!({"status": {"conditions": [{
        "type": CONDITION,
        "status": status,
        "reason": told.reason,
        "message": told.message,
        "lastHeartbeatTime": now,
        "lastTransitionTime": since,
    }]}}))
}

/// Tells the node's status what reports say, when that changes. Ends with the reports.
pub(super) async fn tell(client: Client, node: String, mut report: watch::Receiver<Arc<Report>>) {
    let nodes: Api<Node> = Api::all(client);
    let mut last: Option<Told> = None;
    let mut complaint = String::new();
    while report.changed().await.is_ok() {
        sleep(SETTLE).await;
        loop {
            let told = condition(&report.borrow_and_update());
            if last.as_ref() == Some(&told) {
                break;
            }
            match write(&nodes, &node, &told).await {
                Ok(()) => {
                    last = Some(told);
                    complaint.clear();
                    break;
                }
                Err(error) => {
                    complain(&mut complaint, &error);
                    if is_final(&error) {
                        break;
                    }
                    sleep(RETRY).await;
                }
            }
        }
    }
}

async fn write(nodes: &Api<Node>, name: &str, told: &Told) -> Result<(), kube::Error> {
    let node = nodes.get(name).await?;
    let node = json!({"status": {"conditions": node.status.and_then(|it| it.conditions)}});
    let Some(change) = patch(&node, told, Timestamp::now()) else {
        return Ok(());
    };
    let parameters = PatchParams::default();
    nodes
        .patch_status(name, &parameters, &Patch::Strategic(change))
        .await?;
    Ok(())
}

/// Whether asking again is of no use.
fn is_final(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if matches!(status.code, 401 | 403 | 404))
}

/// Tells of an error once, however often it is repeated.
fn complain(last: &mut String, error: &kube::Error) {
    let text = chain(error);
    if *last == text {
        debug!(
            error = text,
            "still cannot tell the node's status of devices"
        );
        return;
    }
    let cure = match error {
        kube::Error::Api(status) if status.code == 403 => {
            "let the node agent's role patch nodes/status"
        }
        _ => "it is tried again",
    };
    warn!(
        error = text,
        cure, "cannot tell the node's status which devices are offered"
    );
    *last = text;
}
