//! Puts the parts together: launchers, the API server, the controller, the servers, the signs of life.

mod servers;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use api::error_chain::chain;
use kube::Client;
use proto::node::NodeFacts;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::cleanup;
use crate::cli::Accel;
use crate::cluster::{
    self, ClusterConfiguration, ClusterError, InstanceApi, Recorder, watch_instances,
    watch_kubevirt,
};
use crate::config::{HostPaths, Patience};
use crate::controller::{self, Parts, Queue};
use crate::devices::{self, DeviceFlags, DeviceSetup};
use crate::heartbeat::Heart;
use crate::launchers::{Launchers, LaunchersError};
use crate::server::{ServerError, Servers};
use crate::status::Emulation;
use crate::store::VmiStore;

/// Reports of launchers that may wait for the controller.
const SEEN_MAX: usize = 256;
/// Time that the cluster's configuration is awaited before machines are started without it.
const CONFIGURATION: Duration = Duration::from_secs(5);

/// Time to the first look for what instances left, and between two looks.
const TIDY_FIRST: Duration = Duration::from_secs(30);
const TIDY: Duration = Duration::from_secs(300);

/// What the handler runs with.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name of this node.
    pub node: String,
    /// Address of this pod.
    pub pod_ip: Option<IpAddr>,
    /// Configuration of the API server's client.
    pub kubeconfig: Option<PathBuf>,
    /// Namespace of the installation.
    pub install_namespace: String,
    /// Address to listen on.
    pub listen: IpAddr,
    /// Port of metrics and health.
    pub metrics_port: u16,
    /// Port of consoles and lifecycle requests.
    pub console_port: u16,
    /// Port of machines' statistics.
    pub vmstats_port: u16,
    /// Requests for metrics that are served at once.
    pub metric_requests_max: usize,
    /// Certificate of the servers.
    pub certificate: PathBuf,
    /// Key of the servers.
    pub key: PathBuf,
    /// Certificates that clients must have theirs from.
    pub client_ca: Option<PathBuf>,
    /// Folders of the host.
    pub paths: HostPaths,
    /// How patient the handler is.
    pub patience: Patience,
    /// Time to end when asked to.
    pub graceful_shutdown: Duration,
    /// What runs the processors of machines.
    pub accel: Accel,
    /// Which devices the kubelet is offered.
    pub devices: DeviceFlags,
    /// What the machine monitor says about this node.
    pub facts: Option<NodeFacts>,
}

/// Why the handler cannot run.
#[derive(Debug, thiserror::Error)]
pub enum HandlerError {
    /// Signals cannot be caught.
    #[error("listen for signals")]
    Signals(#[source] std::io::Error),
    /// There is no API server to ask.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// Launchers cannot be looked after.
    #[error("look after launchers")]
    Launchers(#[source] LaunchersError),
    /// The servers have no ports.
    #[error(transparent)]
    Servers(#[from] ServerError),
}

/// Runs the handler until it is told to end by SIGTERM or SIGINT. Machines run on.
///
/// # Errors
///
/// Fails when it cannot start.
pub async fn run(options: Options) -> Result<(), HandlerError> {
    let stop = stop_on_signals()?;
    let servers = bind(&options).await?;
    let client = cluster::client(options.kubeconfig.as_ref()).await?;
    run_with(options, servers, client, stop).await
}

/// Takes the ports of the handler's servers; a port of 0 is any that is free.
///
/// # Errors
///
/// Fails when a port is taken.
pub async fn bind(options: &Options) -> Result<Servers, HandlerError> {
    install_cryptography();
    Ok(servers::bind(options).await?)
}

/// Runs the handler with servers and a client that are there, as a part of another process. Machines run on.
///
/// # Errors
///
/// Fails when it cannot start.
pub async fn run_with(
    options: Options,
    servers: Servers,
    client: Client,
    stop: CancellationToken,
) -> Result<(), HandlerError> {
    let (tell, seen) = mpsc::channel(SEEN_MAX);
    let launchers = Launchers::start(options.paths.clone(), options.patience, tell);
    let launchers = launchers.await.map_err(HandlerError::Launchers)?;
    let (store, queue) = (VmiStore::default(), Queue::default());
    let (tell_configuration, mut configuration) = watch::channel(ClusterConfiguration::default());
    let mut tasks = JoinSet::new();
    let of_node = options.node.clone();
    tasks.spawn(watch_instances(
        client.clone(),
        of_node,
        store.clone(),
        queue.clone(),
    ));
    tasks.spawn(watch_kubevirt(client.clone(), tell_configuration));
    let recorder = Recorder::start(client.clone(), options.node.clone());
    let (tell_devices, devices) = watch::channel(Arc::default());
    let told = servers::Told {
        launchers: launchers.clone(),
        instances: store.clone(),
        recorder: recorder.clone(),
        devices,
    };
    let serving = servers::serve(servers, options.clone(), client.clone(), told, stop.clone());
    let serving = tokio::spawn(serving);
    info!(
        node = options.node,
        version = env!("CARGO_PKG_VERSION"),
        "virt-handler starts"
    );
    let known = configuration.wait_for(|configuration| configuration.is_known);
    if timeout(CONFIGURATION, known).await.is_err() {
        warn!("the KubeVirt object is not to be had; going on with defaults");
    }
    let setup = DeviceSetup {
        node: options.node.clone(),
        client: client.clone(),
        paths: options.paths.clone(),
        flags: options.devices.clone(),
        facts: options.facts.clone(),
    };
    let plugins = devices::run(setup, configuration.clone(), tell_devices, stop.clone());
    let plugins = tokio::spawn(plugins);
    let heart = Heart::new(
        client.clone(),
        options.node.clone(),
        options.paths.clone(),
        options.facts.clone(),
    );
    let heart = tokio::spawn(heart.run(stop.clone()));
    tasks.spawn(tidy(
        options.paths.clone(),
        store.clone(),
        launchers.clone(),
    ));
    let parts = Parts {
        node: options.node.clone(),
        paths: options.paths.clone(),
        patience: options.patience,
        store,
        queue,
        launchers,
        instances: InstanceApi::new(client),
        recorder,
        cluster: configuration,
        emulation: emulation(&options),
        farewell: options.graceful_shutdown,
    };
    controller::run(parts, seen, stop).await;
    tasks.shutdown().await;
    let farewell = async { tokio::join!(heart, serving, plugins) };
    if timeout(options.graceful_shutdown, farewell).await.is_err() {
        warn!("connections or last words are left unfinished");
    }
    info!("virt-handler ends; machines run on");
    Ok(())
}

/// Removes what is left on the node of instances that are gone, now and then. Never returns.
async fn tidy(paths: HostPaths, store: VmiStore, launchers: Launchers) {
    let mut rounds = interval_at(Instant::now() + TIDY_FIRST, TIDY);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        rounds.tick().await;
        // Before the instances are known, everything would look left behind.
        if store.is_complete() {
            tidy_once(&paths, &store, &launchers).await;
        }
    }
}

async fn tidy_once(paths: &HostPaths, store: &VmiStore, launchers: &Launchers) {
    // What comes after this look is not seen, and so not taken for a leftover.
    let looked = paths.clone();
    let observed = spawn_blocking(move || cleanup::observe(&looked)).await;
    let Ok(observed) = observed else { return };
    let of_launchers = launchers.all().into_iter().map(|launcher| launcher.uid);
    let known: BTreeSet<String> = store.uids().into_iter().chain(of_launchers).collect();
    for leftover in cleanup::leftovers(&observed, &known) {
        let paths = paths.clone();
        let name = format!("{leftover:?}");
        match spawn_blocking(move || cleanup::remove(&paths, &leftover)).await {
            Ok(Ok(())) => info!(leftover = name, "removed what an instance left"),
            Ok(Err(error)) => {
                warn!(
                    leftover = name,
                    error = chain(&error),
                    "cannot remove what an instance left"
                );
            }
            Err(error) => warn!(leftover = name, %error, "cannot remove what an instance left"),
        }
    }
}

/// Returns a token that is cancelled by the first signal to end.
fn stop_on_signals() -> Result<CancellationToken, HandlerError> {
    let stop = CancellationToken::new();
    for kind in [SignalKind::terminate(), SignalKind::interrupt()] {
        let mut signals = signal(kind).map_err(HandlerError::Signals)?;
        let stop = stop.clone();
        tokio::spawn(async move {
            signals.recv().await;
            stop.cancel();
        });
    }
    Ok(stop)
}

/// Says which cryptography TLS uses; a second call in one process changes nothing.
fn install_cryptography() {
    let _already = rustls::crypto::ring::default_provider().install_default();
}

fn emulation(options: &Options) -> Emulation {
    Emulation {
        is_requested: options.accel == Accel::Soft,
        measured: options.facts.as_ref().and_then(measured),
    }
}

/// Returns why machines of the node are emulated, with the speed that was measured.
pub(crate) fn measured(facts: &NodeFacts) -> Option<String> {
    let reason = Some(facts.backend_reason.as_str()).filter(|reason| !reason.is_empty())?;
    Some(match facts.kvm_mips {
        Some(mips) if !reason.contains(&mips.to_string()) => {
            format!("{reason} (KVM ran {mips} million instructions a second)")
        }
        _ => reason.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use proto::node::NodeFacts;

    use super::measured;

    #[test]
    fn the_measured_speed_is_told_once() {
        let mut facts = NodeFacts::default();
        assert_eq!(measured(&facts), None);
        facts.backend_reason = "KVM has no SYSCALL".to_owned();
        facts.kvm_mips = Some(2);
        let told = measured(&facts).unwrap();
        assert_eq!(
            told,
            "KVM has no SYSCALL (KVM ran 2 million instructions a second)"
        );
        facts.backend_reason = "KVM ran only 2 million instructions a second".to_owned();
        assert_eq!(measured(&facts).unwrap(), facts.backend_reason);
    }
}
