//! The node's devices: what the kubelet is offered, and what is told of it.
//!
//! ```text
//!   flags, node facts ──┐
//!                       ├─ wanted ─▶ device_plugins ── Report ─┬─▶ metrics
//!   KubeVirt object ────┘                                      ├─▶ log, report file ─▶ `virt-handler devices`
//!                                                              └─▶ condition of the node
//! ```
//!
//! What is wanted follows the `KubeVirt` object while the handler runs. Nothing here makes the node unschedulable: a
//! kubelet that restarts gets its plugins again, and machines that run keep their devices.

mod complaints;
mod condition;
mod show;
mod table;
#[cfg(test)]
mod tests;
mod wanted;

use std::sync::Arc;

use device_plugins::plugins::{self, Setup};
use device_plugins::report::Report;
use device_plugins::source::Host;
use kube::Client;
use proto::node::NodeFacts;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

pub use self::condition::CONDITION;
pub use self::show::{Format, ShowError, show};
pub use self::wanted::{DeviceFlags, MAX_DEVICES_MAX, wanted};
use crate::cluster::ClusterConfiguration;
use crate::config::HostPaths;
use crate::pod_files::LAUNCHER_ID;
use complaints::Complaints;

/// What the node's devices are offered with.
pub struct DeviceSetup {
    /// Name of this node.
    pub node: String,
    /// Access to the node's status.
    pub client: Client,
    /// Folders of the host.
    pub paths: HostPaths,
    /// What the command line asks for.
    pub flags: DeviceFlags,
    /// What the machine monitor says about the node.
    pub facts: Option<NodeFacts>,
}

/// Offers the node's devices to the kubelet until stopped, and tells how that goes.
pub async fn run(
    setup: DeviceSetup,
    configuration: watch::Receiver<ClusterConfiguration>,
    report: watch::Sender<Arc<Report>>,
    stop: CancellationToken,
) {
    let known = Arc::clone(&configuration.borrow().configuration);
    let (ask, asked) = watch::channel(wanted(&known, &setup.flags, setup.facts.as_ref()));
    let telling = tell(report.subscribe());
    let node = condition::tell(setup.client.clone(), setup.node.clone(), report.subscribe());
    let following = follow(setup.flags, setup.facts, configuration, ask);
    let offering = plugins::run(plan(&setup.paths), asked, report, stop.clone());
    tokio::join!(
        Box::pin(offering),
        stop.run_until_cancelled(following),
        stop.run_until_cancelled(telling),
        stop.run_until_cancelled(Box::pin(node)),
    );
}

fn plan(paths: &HostPaths) -> Setup {
    Setup {
        host: Host {
            sys_dir: paths.sys_dir.clone(),
            dev_dir: paths.dev_dir.clone(),
            plugin_dir: paths.kubelet_dir.join("device-plugins"),
            pods_dir: paths.pods_dir.clone(),
            private_dir: paths.private_dir.clone(),
        },
        launcher_id: LAUNCHER_ID,
    }
}

/// Asks for what the `KubeVirt` object permits, whenever that changes.
async fn follow(
    flags: DeviceFlags,
    facts: Option<NodeFacts>,
    mut configuration: watch::Receiver<ClusterConfiguration>,
    ask: watch::Sender<device_plugins::wanted::Wanted>,
) {
    while configuration.changed().await.is_ok() {
        let known = Arc::clone(&configuration.borrow_and_update().configuration);
        let news = wanted(&known, &flags, facts.as_ref());
        ask.send_if_modified(|asked| {
            let is_news = *asked != news;
            *asked = news;
            is_news
        });
    }
}

/// Logs which devices cannot be given. What is left out or makes no sense is logged where that is found out.
async fn tell(mut report: watch::Receiver<Arc<Report>>) {
    let mut complaints = Complaints::default();
    while report.changed().await.is_ok() {
        let now = Arc::clone(&report.borrow_and_update());
        complaints.tell(&now);
    }
}
