//! The servers of a node agent: consoles and lifecycle requests, metrics and health, machines' counters.
//!
//! All speak TLS with the same certificate, which is read anew when its files change. Who asks for consoles or for
//! counters shows a certificate of the cluster's authority.

pub(crate) mod answer;
mod authority;
mod common_name;
mod connection;
mod console;
mod lifecycle;
mod requests;
mod tls;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use api::components::common_name::HANDLER_CLIENT;
use axum::Router;
use device_plugins::report::Report;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::authority::watch as watch_authority;
pub use self::console::{Consoles, Pulse};
pub use self::tls::{Authority, TlsError, TlsFiles, TlsKeeper};
use crate::cluster::Recorder;
use crate::launchers::Launchers;
use crate::metrics::{self, MetricsSetup};
use crate::store::VmiStore;
use connection::{Clients, Door};

/// Common names in certificates of those who may read machines' counters.
const STATS_CLIENTS: &[&str] = &["kubevirt.io:system:client:monitoring", HANDLER_CLIENT];
/// Connections for consoles and lifecycle requests at once: every machine of a large node, twice.
const CONSOLE_CONNECTIONS_MAX: usize = 512;
/// Connections for metrics, health and counters at once.
const METRIC_CONNECTIONS_MAX: usize = 32;

/// Why there are no servers.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// A port is not to be had.
    #[error("listen on {address}: free the port or name another")]
    Listen {
        /// Address and port.
        address: SocketAddr,
        /// The host's answer.
        source: io::Error,
    },
}

/// Ports of the servers; 0 takes any that is free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Of consoles and lifecycle requests.
    pub console: u16,
    /// Of metrics and health.
    pub metrics: u16,
    /// Of machines' counters.
    pub stats: u16,
}

/// What the servers work with.
#[derive(Clone, Debug)]
pub struct ServerSetup {
    /// Name of this node.
    pub node: String,
    /// The launchers.
    pub launchers: Launchers,
    /// The instances of this node.
    pub instances: VmiStore,
    /// Who sits at a console.
    pub consoles: Consoles,
    /// Where events are written.
    pub recorder: Recorder,
    /// Certificates.
    pub tls: TlsKeeper,
    /// What device plugins offer.
    pub devices: watch::Receiver<Arc<Report>>,
    /// Requests for metrics that are served at once.
    pub metric_requests_max: usize,
}

/// Ports that are listened on.
#[derive(Debug)]
pub struct Servers {
    console: TcpListener,
    metrics: TcpListener,
    stats: TcpListener,
}

impl Servers {
    /// Listens.
    ///
    /// # Errors
    ///
    /// Fails when a port is taken.
    pub async fn bind(address: IpAddr, ports: Ports) -> Result<Self, ServerError> {
        Ok(Self {
            console: listen(address, ports.console).await?,
            metrics: listen(address, ports.metrics).await?,
            stats: listen(address, ports.stats).await?,
        })
    }

    /// Returns the ports.
    ///
    /// # Errors
    ///
    /// Fails when the host does not know them.
    pub fn ports(&self) -> io::Result<Ports> {
        Ok(Ports {
            console: self.console.local_addr()?.port(),
            metrics: self.metrics.local_addr()?.port(),
            stats: self.stats.local_addr()?.port(),
        })
    }

    /// Serves until told to stop; consoles are told so.
    pub async fn serve(self, setup: ServerSetup, stop: CancellationToken) {
        let metrics = MetricsSetup {
            node: setup.node.clone(),
            launchers: setup.launchers.clone(),
            instances: setup.instances.clone(),
            consoles: setup.consoles.clone(),
            devices: setup.devices.clone(),
            requests_max: setup.metric_requests_max,
        };
        let (metrics, stats) = metrics::routers(metrics);
        let tls = setup.tls.clone();
        let console = requests::router(setup, stop.clone());
        let door = |listener, clients, connections_max| Door {
            listener,
            tls: tls.clone(),
            clients,
            connections_max,
        };
        let console_clients = Clients::Named(&[HANDLER_CLIENT]);
        let doors: [(Door, Router); 3] = [
            (
                door(self.console, console_clients, CONSOLE_CONNECTIONS_MAX),
                console,
            ),
            (
                door(self.metrics, Clients::Anyone, METRIC_CONNECTIONS_MAX),
                metrics,
            ),
            (
                door(
                    self.stats,
                    Clients::Named(STATS_CLIENTS),
                    METRIC_CONNECTIONS_MAX,
                ),
                stats,
            ),
        ];
        let mut serving = JoinSet::new();
        for (door, router) in doors {
            serving.spawn(door.serve(router, stop.clone()));
        }
        while serving.join_next().await.is_some() {}
    }
}

async fn listen(address: IpAddr, port: u16) -> Result<TcpListener, ServerError> {
    let address = SocketAddr::new(address, port);
    let listener = TcpListener::bind(address).await;
    listener.map_err(|source| ServerError::Listen { address, source })
}
