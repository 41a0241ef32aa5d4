//! The node as the API server knows it: what it has, that it is well.

use std::collections::BTreeMap;
use std::time::Duration;

use apiserver::objects::{Objects, Refused};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::pods::devices::{Counts, is_device};

/// Time between signs of life: the lease of the kubelet's.
const BEAT: Duration = Duration::from_secs(10);
/// Seconds after which nobody believes the last sign of life.
const LEASE_SECONDS: u32 = 40;
/// Pods that the node takes.
const PODS_MAX: u32 = 1000;

/// What the machine is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// Name of the node.
    pub name: String,
    /// Processors.
    pub cpus: usize,
    /// Memory in KiB.
    pub memory_kib: u64,
    /// Storage of the state folder's file system in KiB.
    pub storage_kib: u64,
    /// `6.12.0`.
    pub kernel: String,
    /// `Debian GNU/Linux 13`.
    pub system: String,
    /// `/etc/machine-id`.
    pub machine_id: String,
    /// Boot that this is.
    pub boot_id: String,
}

impl Machine {
    /// Looks at this machine; what cannot be seen is left empty. Blocks.
    #[must_use]
    pub fn look(name: &str, state: &std::path::Path) -> Self {
        let text = |path: &str| {
            std::fs::read_to_string(path)
                .unwrap_or_default()
                .trim()
                .to_owned()
        };
        let memory = text("/proc/meminfo").lines().find_map(|line| {
            line.strip_prefix("MemTotal:")?
                .trim()
                .strip_suffix(" kB")?
                .parse()
                .ok()
        });
        let release = text("/etc/os-release").lines().find_map(|line| {
            Some(
                line.strip_prefix("PRETTY_NAME=")?
                    .trim_matches('"')
                    .to_owned(),
            )
        });
        let storage = rustix::fs::statvfs(state).map_or(0, |it| it.f_blocks * it.f_frsize / 1024);
        Self {
            name: name.to_owned(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_kib: memory.unwrap_or(0),
            storage_kib: storage,
            kernel: text("/proc/sys/kernel/osrelease"),
            system: release.unwrap_or_else(|| "Linux".to_owned()),
            machine_id: text("/etc/machine-id"),
            boot_id: text("/proc/sys/kernel/random/boot_id"),
        }
    }
}

/// Returns the node object, without its status.
#[must_use]
pub fn object(machine: &Machine) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": machine.name, "labels": {
            "kubernetes.io/hostname": machine.name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
            "beta.kubernetes.io/os": "linux",
            "beta.kubernetes.io/arch": "amd64",
            "node-role.kubernetes.io/control-plane": "",
        }},
        "spec": {"providerID": format!("ferrovirt://{}", machine.name)},
    })
}

/// Returns the status of the node; `changed` is since when it is ready.
#[must_use]
pub fn status(machine: &Machine, address: &str, changed: &str, now: &str) -> Value {
    let amounts = json!({
        "cpu": machine.cpus.to_string(),
        "memory": format!("{}Ki", machine.memory_kib),
        "ephemeral-storage": format!("{}Ki", machine.storage_kib),
        "pods": PODS_MAX.to_string(),
        "hugepages-2Mi": "0",
        "hugepages-1Gi": "0",
    });
    let condition = |kind: &str, is: bool, reason: &str, message: &str| {
        json!({
            "type": kind, "status": if is { "True" } else { "False" }, "reason": reason, "message": message,
            "lastHeartbeatTime": now, "lastTransitionTime": changed,
        })
    };
    json!({"status": {
        "capacity": amounts,
        "allocatable": amounts,
        "addresses": [
            {"type": "InternalIP", "address": address},
            {"type": "Hostname", "address": machine.name},
        ],
        "conditions": [
            condition("MemoryPressure", false, "KubeletHasSufficientMemory", "memory is sufficient"),
            condition("DiskPressure", false, "KubeletHasNoDiskPressure", "storage is sufficient"),
            condition("PIDPressure", false, "KubeletHasSufficientPID", "process numbers are sufficient"),
            condition("Ready", true, "KubeletReady", "ferrovirt takes pods"),
        ],
        "nodeInfo": {
            "machineID": machine.machine_id,
            "systemUUID": machine.machine_id,
            "bootID": machine.boot_id,
            "kernelVersion": machine.kernel,
            "osImage": machine.system,
            "containerRuntimeVersion": concat!("ferrovirt://", env!("CARGO_PKG_VERSION")),
            "kubeletVersion": concat!("v1.33.0+ferrovirt-", env!("CARGO_PKG_VERSION")),
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": "amd64",
        },
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
    }})
}

/// Writes the node and its status.
///
/// # Errors
///
/// What the API server says.
pub async fn register(objects: &Objects, machine: &Machine, address: &str) -> Result<(), Refused> {
    let path = format!("/api/v1/nodes/{}", machine.name);
    let before = objects.apply(&path, &object(machine)).await?;
    let now = now();
    let mut status = status(machine, address, &now, &now);
    withdraw(&before, &mut status);
    objects.merge(&format!("{path}/status"), &status).await?;
    Ok(())
}

/// Lets a merge patch remove what plugins offered in an earlier life: nothing is placed on it until they are back.
fn withdraw(node: &Value, patch: &mut Value) {
    for list in ["capacity", "allocatable"] {
        let known = node["status"][list].as_object().into_iter().flatten();
        for (name, _) in known.filter(|(name, _)| is_device(name)) {
            patch["status"][list][name.as_str()] = Value::Null;
        }
    }
}

/// Renews the node's lease until it is told to stop.
pub async fn beat(objects: Objects, name: String, stop: CancellationToken) {
    let mut beats = interval(BEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while stop.run_until_cancelled(beats.tick()).await.is_some() {
        let lease = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": name, "namespace": "kube-node-lease"},
            "spec": {
                "holderIdentity": name,
                "leaseDurationSeconds": LEASE_SECONDS,
                "renewTime": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string(),
            },
        });
        let path = format!("/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/{name}");
        if let Err(error) = objects.apply(&path, &lease).await {
            warn!(%error, "cannot renew the lease of the node");
        }
    }
}

/// Tells the node's status what device plugins offer, until it is told to stop.
pub async fn offer(
    objects: Objects,
    name: String,
    mut counts: watch::Receiver<BTreeMap<String, Counts>>,
    stop: CancellationToken,
) {
    while let Some(Ok(())) = stop.run_until_cancelled(counts.changed()).await {
        let offered = counts.borrow_and_update().clone();
        let amounts = |of: fn(&Counts) -> u64| -> Value {
            let each = offered
                .iter()
                .map(|(name, it)| (name.clone(), of(it).to_string().into()));
            Value::Object(each.collect())
        };
        let status = json!({"status": {
            "capacity": amounts(|it| it.capacity),
            "allocatable": amounts(|it| it.allocatable),
        }});
        if let Err(error) = objects
            .merge(&format!("/api/v1/nodes/{name}/status"), &status)
            .await
        {
            warn!(%error, "cannot tell the node's status what device plugins offer");
        }
    }
}

fn now() -> String {
    jiff::Timestamp::now()
        .strftime("%Y-%m-%dT%H:%M:%SZ")
        .to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::withdraw;

    #[test]
    fn what_plugins_offered_in_an_earlier_life_is_withdrawn() {
        let amounts = json!({"cpu": "2", "hugepages-2Mi": "0", "kubevirt.io/dongle": "3"});
        let node = json!({"status": {"capacity": amounts, "allocatable": amounts}});
        let mut patch = json!({"status": {"capacity": {"cpu": "4"}, "allocatable": {"cpu": "4"}}});
        withdraw(&node, &mut patch);
        let withdrawn = json!({"cpu": "4", "kubevirt.io/dongle": Value::Null});
        assert_eq!(patch["status"]["capacity"], withdrawn);
        assert_eq!(patch["status"]["allocatable"], withdrawn);
    }
}
