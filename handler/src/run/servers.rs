//! The servers of this process: their ports, their certificates, whom they believe.

use std::sync::Arc;

use device_plugins::report::Report;
use kube::Client;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Options;
use crate::cluster::Recorder;
use crate::launchers::Launchers;
use crate::server::{
    Authority, Consoles, Ports, ServerError, ServerSetup, Servers, TlsFiles, TlsKeeper,
    watch_authority,
};
use crate::store::VmiStore;

/// Takes the ports.
pub(super) async fn bind(options: &Options) -> Result<Servers, ServerError> {
    let ports = Ports {
        console: options.console_port,
        metrics: options.metrics_port,
        stats: options.vmstats_port,
    };
    let servers = Servers::bind(options.listen, ports).await?;
    if let Ok(ports) = servers.ports() {
        tracing::info!(
            address = %options.listen,
            console = ports.console,
            metrics = ports.metrics,
            stats = ports.stats,
            "servers listen"
        );
    }
    Ok(servers)
}

/// What the servers tell of.
pub(super) struct Told {
    pub(super) launchers: Launchers,
    pub(super) instances: VmiStore,
    pub(super) recorder: Recorder,
    pub(super) devices: watch::Receiver<Arc<Report>>,
}

/// Serves until told to stop.
pub(super) async fn serve(
    servers: Servers,
    options: Options,
    client: Client,
    told: Told,
    stop: CancellationToken,
) {
    let files = TlsFiles {
        certificate: options.certificate,
        key: options.key,
    };
    let authority = match options.client_ca {
        Some(file) => Authority::File(file),
        None => {
            let (tell, authority) = watch::channel(None);
            let watching = watch_authority(client, options.install_namespace, tell);
            let stop = stop.clone();
            tokio::spawn(async move { stop.run_until_cancelled(watching).await });
            Authority::Told(authority)
        }
    };
    let setup = ServerSetup {
        node: options.node,
        launchers: told.launchers,
        instances: told.instances,
        consoles: Consoles::default(),
        recorder: told.recorder,
        tls: TlsKeeper::start(files, authority, TlsKeeper::LOOK, stop.clone()).await,
        devices: told.devices,
        metric_requests_max: options.metric_requests_max,
    };
    servers.serve(setup, stop).await;
}
