//! Puts pods onto this node, which is the only one: a pod fits, or says why it does not.

mod affinity;
pub mod bind;

use std::collections::BTreeMap;

use api::Quantity;
use serde_json::Value;

/// Resources by name: CPU in thousandths, memory and storage in bytes, others in pieces.
pub type Amounts = BTreeMap<String, u64>;

/// Whether pods fit the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It runs here.
    Fits,
    /// It does not, for these reasons in the scheduler's words.
    Unschedulable(String),
}

/// Decides whether a pod fits a node on which these amounts are taken. Pure.
#[must_use]
pub fn fit(pod: &Value, node: &Value, taken: &Amounts) -> Fit {
    let mut reasons = Vec::new();
    if node["spec"]["unschedulable"] == true && !tolerates_unschedulable(pod) {
        reasons.push("1 node(s) were unschedulable".to_owned());
    }
    if !affinity::selects(pod, node) {
        reasons.push("1 node(s) didn't match Pod's node affinity/selector".to_owned());
    }
    if let Some(taint) = affinity::untolerated(pod, node) {
        reasons.push(format!("1 node(s) had untolerated taint {taint}"));
    }
    let free = allocatable(node);
    for (name, wanted) in requests(pod) {
        let is_taken = taken.get(&name).copied().unwrap_or(0);
        let offered = free.get(&name).copied().unwrap_or(0);
        if wanted > offered.saturating_sub(is_taken) {
            let detail = lack(&name, wanted, offered);
            reasons.push(format!("1 Insufficient {name}{detail}"));
        }
    }
    if reasons.is_empty() {
        return Fit::Fits;
    }
    Fit::Unschedulable(format!("0/1 nodes are available: {}.", reasons.join(", ")))
}

/// Says of a device why there is none left.
fn lack(name: &str, wanted: u64, offered: u64) -> String {
    let is_device = name.contains('/');
    match offered {
        _ if !is_device => String::new(),
        0 => " (the node offers none)".to_owned(),
        offered if offered < wanted => format!(" (the node offers {offered}, {wanted} are wanted)"),
        _ => " (others have them)".to_owned(),
    }
}

fn tolerates_unschedulable(pod: &Value) -> bool {
    let taint =
        serde_json::json!({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"});
    affinity::tolerates(pod, &taint)
}

/// Returns what a pod takes of a node: the sum of its containers or what its greatest init container takes, whichever is
/// more, its overhead, and a place.
#[must_use]
pub fn requests(pod: &Value) -> Amounts {
    let spec = &pod["spec"];
    let mut sum = Amounts::new();
    for container in spec["containers"].as_array().into_iter().flatten() {
        add(&mut sum, &of_container(container));
    }
    let mut most = Amounts::new();
    for container in spec["initContainers"].as_array().into_iter().flatten() {
        let wanted = of_container(container);
        if container["restartPolicy"] == "Always" {
            add(&mut sum, &wanted);
        } else {
            for (name, amount) in wanted {
                let known = most.entry(name).or_default();
                *known = amount.max(*known);
            }
        }
    }
    for (name, amount) in most {
        let known = sum.entry(name).or_default();
        *known = amount.max(*known);
    }
    add(&mut sum, &amounts(&spec["overhead"]));
    add(&mut sum, &Amounts::from([("pods".to_owned(), 1)]));
    sum
}

/// Adds amounts to others.
pub fn add(sum: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        let known = sum.entry(name.clone()).or_default();
        *known = known.saturating_add(*amount);
    }
}

fn of_container(container: &Value) -> Amounts {
    let resources = &container["resources"];
    let mut wanted = amounts(&resources["limits"]);
    wanted.extend(amounts(&resources["requests"]));
    wanted
}

fn allocatable(node: &Value) -> Amounts {
    amounts(&node["status"]["allocatable"])
}

fn amounts(list: &Value) -> Amounts {
    let pairs = list.as_object().into_iter().flatten();
    let read = pairs.filter_map(|(name, value)| Some((name.clone(), amount(name, value)?)));
    read.collect()
}

/// Reads an amount; CPU in thousandths, rounded up.
fn amount(name: &str, value: &Value) -> Option<u64> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    if name != "cpu" {
        return text.parse::<Quantity>().ok()?.units();
    }
    match text.strip_suffix('m') {
        Some(thousandths) => thousandths.parse().ok(),
        None => {
            let cores: f64 = text.parse().ok()?;
            Some(thousandths(cores))
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to what a u64 holds exactly; nobody has 2^40 cores"
)]
fn thousandths(cores: f64) -> u64 {
    (cores * 1000.0).ceil().clamp(0.0, 1e15) as u64
}

/// Returns the path of a pod at the API server.
#[must_use]
pub fn path(pod: &Value) -> String {
    let text = |name: &str| {
        pod["metadata"][name]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    };
    format!(
        "/api/v1/namespaces/{}/pods/{}",
        text("namespace"),
        text("name")
    )
}

/// Whether a pod takes nothing of its node any more.
#[must_use]
pub fn is_finished(pod: &Value) -> bool {
    matches!(
        pod["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed")
    )
}

#[cfg(test)]
mod tests;
