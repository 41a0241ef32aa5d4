//! virt-controller: what becomes of instances, virtual machines and replica sets.
//!
//! ```text
//!   API server ─ watches ─▶ cache ─▶ queue of keys ─▶ plan(now, observed, config) ─▶ actions ─▶ API server
//! ```
//!
//! Every decision is a pure `plan`. Nothing is polled: a key is looked at when something that concerns it changes, at a
//! time that a plan asked for, or again after a failure. Changes go out as JSON patches that hold for the version that
//! they were made from. Several controllers may run; only the one that holds the lease acts.

mod actions;
mod api_server;
mod cache;
mod change;
pub mod cli;
mod conditions;
mod configuration;
mod election;
mod evacuation;
mod events;
#[cfg(test)]
mod fake;
mod instance;
mod key;
mod machine;
mod migration;
mod node;
mod pod;
mod queue;
mod replica_set;
mod serve;
mod time;
mod watch;
mod work;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use kube::Client;
use tokio::sync::watch::channel;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::info;

use api_server::ApiServer;
use cache::Cache;
use election::Candidate;
use events::Recorder;
use queue::Queue;
use work::Work;

/// Keys that are worked on at once. Work is waiting for the API server.
const WORKERS: usize = 8;

/// Image of launchers unless the options say; a single node has it built in.
pub const LAUNCHER_IMAGE: &str = "registry.example/ferrovirt/virt-launcher:latest";

/// Annotation of a virtual machine, or of the `KubeVirt` object for all of them, that says `"true"` when a change of the
/// template that needs a restart is to cause it.
pub const RESTART_ON_UPDATE: &str = "ferrovirt.io/restart-on-update";

/// What the controllers run with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Namespace of the installation, which holds the `KubeVirt` object and the lease.
    pub namespace: String,
    /// Name of this process among controllers.
    pub identity: String,
    /// Whether to act only while holding the lease.
    pub leader_election: bool,
    /// Image of launchers.
    pub launcher_image: String,
    /// Arguments of launchers after those that upstream's controller gives.
    pub launcher_arguments: Vec<String>,
}

/// Why the controllers end.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// A part of them died.
    #[error("run the controllers: a task ended before its time")]
    Task(#[source] Option<JoinError>),
    /// Somebody else may act now.
    #[error("keep the lease: it could not be renewed in time; start again to wait for it")]
    Lease,
}

/// Runs the controllers until they are told to stop.
///
/// # Errors
///
/// Fails when they cannot go on; what they did so far is at the API server, and another run continues from there.
pub async fn run(
    client: Client,
    options: Options,
    stop: CancellationToken,
) -> Result<(), ControllerError> {
    let server = ApiServer::new(client.clone());
    let (cache, queue) = (Cache::default(), Queue::default());
    let recorder = Recorder::start(server.clone(), options.identity.clone());
    let (listed, mut is_listed) = channel(0);
    let mut tasks = JoinSet::new();
    for kind in watch::KINDS {
        let (cache, queue, listed) = (cache.clone(), queue.clone(), listed.clone());
        tasks.spawn(watch::follow(client.clone(), kind, cache, queue, listed));
    }
    drop(listed);
    let mut candidate = options
        .leader_election
        .then(|| Candidate::new(server.clone(), &options.namespace, &options.identity));
    let work = Arc::new(Work::new(options, server, cache, queue, recorder));
    let start = async {
        let known = is_listed.wait_for(|count| *count == watch::KINDS.len());
        let _last = known.await.is_ok();
        serve::IS_READY.store(true, Ordering::Relaxed);
        if let Some(candidate) = &mut candidate {
            Box::pin(candidate.win()).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => return Ok(()),
        () = start => {}
    }
    info!("the controllers know the cluster and start");
    for _ in 0..WORKERS {
        tasks.spawn(work.clone().run());
    }
    let Some(candidate) = candidate else {
        return until(stop, tasks).await;
    };
    let is_over = stop.child_token();
    let kept = tokio::spawn(candidate.keep(is_over.clone()));
    tokio::pin!(kept);
    tokio::select! {
        ended = until(stop, tasks) => {
            is_over.cancel();
            let _released = kept.await;
            ended
        }
        _ = &mut kept => Err(ControllerError::Lease),
    }
}

/// Lets the workers work until told to stop.
async fn until(stop: CancellationToken, mut tasks: JoinSet<()>) -> Result<(), ControllerError> {
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        ended = tasks.join_next() => Err(ControllerError::Task(ended.and_then(Result::err))),
    }
}
