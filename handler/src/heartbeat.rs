//! Signs of life of this node: its labels, its heartbeat, and whether machines may be placed here.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use api::labels;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use proto::node::{FACTS_LEN_MAX, NodeFacts};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use crate::config::HostPaths;
use crate::node_labels::{self, BACKEND_REASON, HostFacts};

/// Time between two heartbeats; each takes up to [`JITTER`] times as long again, so that nodes do not beat together.
const PERIOD: Duration = Duration::from_secs(60);
/// Share of [`PERIOD`] that chance may add.
const JITTER: f64 = 1.2;
/// Time until a heartbeat that failed is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// Time that the last words may take.
const FAREWELL: Duration = Duration::from_secs(5);
/// Longest annotation value that is written, bytes.
const REASON_LEN_MAX: usize = 1024;

/// Why the facts about a node are not to be had.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// The file cannot be read.
    #[error("read the node's facts from {path}: let `virt-launcher --node-facts` write them there")]
    Read {
        /// The file.
        path: String,
        /// The host's answer.
        source: std::io::Error,
    },
    /// The file holds something else.
    #[error("read the node's facts from {path}: not what `virt-launcher --node-facts` writes")]
    Format {
        /// The file.
        path: String,
        /// What is wrong.
        source: serde_json::Error,
    },
}

/// Reads what the machine monitor says about the node.
///
/// # Errors
///
/// Fails when the file cannot be read or holds something else.
pub fn read_facts(path: &Path) -> Result<NodeFacts, FactsError> {
    let name = || path.display().to_string();
    let mut text = String::new();
    let read =
        fs::File::open(path).and_then(|file| file.take(FACTS_LEN_MAX).read_to_string(&mut text));
    read.map_err(|source| FactsError::Read {
        path: name(),
        source,
    })?;
    serde_json::from_str(&text).map_err(|source| FactsError::Format {
        path: name(),
        source,
    })
}

/// Reads what the host says about itself; what it does not say is taken as absent.
#[must_use]
pub fn host_facts(paths: &HostPaths) -> HostFacts {
    let read = |path: std::path::PathBuf| fs::read_to_string(path).unwrap_or_default();
    let cpu_manager = read(paths.kubelet_dir.join("cpu_manager_state"));
    let policy = serde_json::from_str::<Value>(&cpu_manager).unwrap_or_default();
    HostFacts {
        sets_cpus_aside: policy["policyName"] == "static",
        is_realtime: read(paths.proc_dir.join("sys/kernel/sched_rt_runtime_us")).trim() == "-1",
        shares_pages: read(paths.sys_dir.join("kernel/mm/ksm/run")).trim() == "1",
    }
}

/// Returns the change of a node's metadata that a heartbeat makes: what is true now is set, what is ours and no longer
/// true is removed. A node that asks to be skipped keeps its labels of abilities as they are.
#[must_use]
pub fn beat(
    node: &Value,
    facts: Option<&NodeFacts>,
    host: HostFacts,
    is_schedulable: bool,
    now: Timestamp,
) -> Value {
    let mut set = Map::new();
    let annotations = &node["metadata"]["annotations"];
    let is_skipped = annotations[labels::SKIP_NODE].as_str() == Some("true");
    if let Some(facts) = facts.filter(|_| !is_skipped) {
        let wanted = node_labels::labels(facts, host);
        let present = node["metadata"]["labels"].as_object();
        let stale = present.into_iter().flatten().map(|(name, _)| name);
        for name in stale.filter(|name| node_labels::is_ours(name)) {
            set.insert(name.clone(), Value::Null);
        }
        set.extend(wanted.into_iter().map(|(name, value)| (name, json!(value))));
    }
    set.insert(
        labels::SCHEDULABLE.to_owned(),
        json!(is_schedulable.to_string()),
    );
    let reason = facts.map(|facts| shortened(&facts.backend_reason));
    json!({"metadata": {
        "labels": set,
        "annotations": {
            labels::HEARTBEAT: now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            BACKEND_REASON: reason,
        },
    }})
}

fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(REASON_LEN_MAX)]
}

/// What a heart needs.
pub struct Heart {
    /// The node.
    pub node: String,
    /// Access to nodes.
    pub nodes: Api<Node>,
    /// Folders of the host.
    pub paths: HostPaths,
    /// What the machine monitor says about the node.
    pub facts: Option<NodeFacts>,
}

impl Heart {
    /// Returns access for a node of this name.
    #[must_use]
    pub fn new(
        client: kube::Client,
        node: String,
        paths: HostPaths,
        facts: Option<NodeFacts>,
    ) -> Self {
        Self {
            node,
            nodes: Api::all(client),
            paths,
            facts,
        }
    }

    /// Beats until it is stopped, and then says that no machines are to be placed here.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            let pause = match self.beat_once(true).await {
                Ok(()) => until_next(),
                Err(error) => {
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "no heartbeat: the API server refused it"
                    );
                    RETRY + until_next() / 20
                }
            };
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(pause) => {}
            }
        }
        let farewell = tokio::time::timeout(FAREWELL, self.beat_once(false)).await;
        if !matches!(farewell, Ok(Ok(()))) {
            tracing::warn!("the node could not be marked as not schedulable");
        }
    }

    async fn beat_once(&self, is_schedulable: bool) -> Result<(), kube::Error> {
        let node = self.nodes.get_metadata(&self.node).await?;
        let node = json!({"metadata": node.metadata});
        let host = host_facts(&self.paths);
        let change = beat(
            &node,
            self.facts.as_ref(),
            host,
            is_schedulable,
            Timestamp::now(),
        );
        let parameters = PatchParams::default();
        self.nodes
            .patch_metadata(&self.node, &parameters, &Patch::Merge(change))
            .await?;
        Ok(())
    }
}

/// Returns the time until the next heartbeat.
fn until_next() -> Duration {
    // A host without entropy beats on the minute.
    let chance = getrandom::u32().map_or(0.0, |chance| f64::from(chance) / f64::from(u32::MAX));
    PERIOD.mul_f64(1.0 + JITTER * chance)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;
    use proto::node::NodeFacts;
    use serde_json::{Value, json};

    use super::{HostFacts, beat, host_facts, read_facts, until_next};
    use crate::config::HostPaths;

    const HOST: HostFacts = HostFacts {
        sets_cpus_aside: false,
        is_realtime: false,
        shares_pages: false,
    };

    fn facts() -> NodeFacts {
        NodeFacts {
            backend: "soft".to_owned(),
            backend_reason: "KVM is too slow".to_owned(),
            host_model: "ferrovirt-v2".to_owned(),
            ..NodeFacts::default()
        }
    }

    fn beaten(node: &Value, facts: Option<&NodeFacts>) -> Value {
        beat(node, facts, HOST, true, Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn a_heartbeat_says_when_and_that_the_node_is_schedulable() {
        let change = beaten(&json!({}), None);
        let metadata = &change["metadata"];
        assert_eq!(metadata["labels"]["kubevirt.io/schedulable"], "true");
        assert_eq!(
            metadata["annotations"]["kubevirt.io/heartbeat"],
            "1970-01-01T00:00:00Z"
        );
        let change = beat(&json!({}), None, HOST, false, Timestamp::UNIX_EPOCH);
        assert_eq!(
            change["metadata"]["labels"]["kubevirt.io/schedulable"],
            "false"
        );
    }

    #[test]
    fn labels_that_are_no_longer_true_go_and_others_stay() {
        let node = json!({"metadata": {"labels": {
            "cpu-model.node.kubevirt.io/gone": "true",
            "host-model-cpu.node.kubevirt.io/ferrovirt-v2": "true",
            "kubernetes.io/hostname": "n",
        }}});
        let change = beaten(&node, Some(&facts()));
        let labels = change["metadata"]["labels"].as_object().unwrap();
        assert_eq!(labels["cpu-model.node.kubevirt.io/gone"], Value::Null);
        assert_eq!(
            labels["host-model-cpu.node.kubevirt.io/ferrovirt-v2"],
            "true"
        );
        assert!(!labels.contains_key("kubernetes.io/hostname"));
        assert_eq!(
            change["metadata"]["annotations"]["ferrovirt.io/cpu-backend-reason"],
            "KVM is too slow"
        );
    }

    #[test]
    fn a_node_that_asks_for_it_keeps_its_labels() {
        let node = json!({"metadata": {
            "labels": {"cpu-model.node.kubevirt.io/gone": "true"},
            "annotations": {"node-labeller.kubevirt.io/skip-node": "true"},
        }});
        let change = beaten(&node, Some(&facts()));
        let labels = change["metadata"]["labels"].as_object().unwrap();
        assert_eq!(labels.len(), 1, "{labels:?}");
    }

    #[test]
    fn the_host_is_asked_in_its_files() {
        let host = tempfile::tempdir().unwrap();
        let at = |path: &str| host.path().join(path);
        for (path, text) in [
            ("kubelet/cpu_manager_state", r#"{"policyName":"static"}"#),
            ("proc/sys/kernel/sched_rt_runtime_us", "-1\n"),
            ("sys/kernel/mm/ksm/run", "1\n"),
        ] {
            std::fs::create_dir_all(at(path).parent().unwrap()).unwrap();
            std::fs::write(at(path), text).unwrap();
        }
        let paths = HostPaths {
            kubelet_dir: at("kubelet"),
            proc_dir: at("proc"),
            sys_dir: at("sys"),
            ..HostPaths::default()
        };
        let all = HostFacts {
            sets_cpus_aside: true,
            is_realtime: true,
            shares_pages: true,
        };
        assert_eq!(host_facts(&paths), all);
        let nowhere = HostPaths {
            kubelet_dir: at("x"),
            proc_dir: at("x"),
            sys_dir: at("x"),
            ..HostPaths::default()
        };
        assert_eq!(host_facts(&nowhere), HOST);
    }

    #[test]
    fn facts_that_cannot_be_read_name_their_file_and_the_cure() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("facts.json");
        let error = read_facts(&path).unwrap_err().to_string();
        assert!(
            error.contains("facts.json") && error.contains("--node-facts"),
            "{error}"
        );
        std::fs::write(&path, "[").unwrap();
        assert!(read_facts(&path).is_err());
        std::fs::write(&path, r#"{"backend":"kvm"}"#).unwrap();
        assert_eq!(read_facts(&path).unwrap().backend, "kvm");
    }

    #[test]
    fn hearts_beat_every_one_to_two_minutes() {
        for _ in 0..100 {
            let pause = until_next();
            assert!((Duration::from_secs(60)..=Duration::from_secs(132)).contains(&pause));
        }
    }
}
