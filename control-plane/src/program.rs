//! How a program of the control plane starts: its log, its signals, its client of the API server.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::{ParseError, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Time for a connection to the API server.
const CONNECT: Duration = Duration::from_secs(10);

/// Why a program does not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProgramError {
    /// The log filter is none.
    #[error("--log: {filter:?} is no filter: use a level such as info")]
    Log { filter: String, source: ParseError },
    /// There is no runtime, or there are no signals.
    #[error("start")]
    Start(#[source] io::Error),
    /// The configuration of the client is of no use.
    #[error("--kubeconfig: read {}", path.display())]
    Kubeconfig {
        path: PathBuf,
        source: Box<KubeconfigError>,
    },
    /// There is no cluster around.
    #[error(
        "find the API server: there is neither a service account nor a kubeconfig; give --kubeconfig"
    )]
    Nowhere(#[source] Box<InferConfigError>),
    /// The address of the API server is none.
    #[error("--master: {address:?} is no address")]
    Master {
        address: String,
        source: http::uri::InvalidUri,
    },
    /// There is no client.
    #[error("make the client of the API server")]
    Client(#[source] Box<kube::Error>),
}

/// Writes the log to standard error.
pub(crate) fn log_to_stderr(filter: &str) -> Result<(), ProgramError> {
    let parsed: Targets = filter.parse().map_err(|source| ProgramError::Log {
        filter: filter.to_owned(),
        source,
    })?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false);
    let _set_before = tracing_subscriber::registry()
        .with(lines)
        .with(parsed)
        .try_init();
    Ok(())
}

/// Returns a token that is cancelled by SIGTERM or SIGINT.
pub(crate) fn stop_on_signals() -> Result<CancellationToken, ProgramError> {
    let stop = CancellationToken::new();
    let mut term = signal(SignalKind::terminate()).map_err(ProgramError::Start)?;
    let mut int = signal(SignalKind::interrupt()).map_err(ProgramError::Start)?;
    let told = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        told.cancel();
    });
    Ok(stop)
}

/// Makes the client of the API server: of a file, of the pod's service account, or of what the user has.
pub(crate) async fn client(
    kubeconfig: Option<&Path>,
    master: Option<&str>,
) -> Result<Client, ProgramError> {
    let mut config = match kubeconfig {
        Some(path) => {
            let wrong = |source| ProgramError::Kubeconfig {
                path: path.to_owned(),
                source: Box::new(source),
            };
            let file = Kubeconfig::read_from(path).map_err(wrong)?;
            let options = KubeConfigOptions::default();
            Config::from_custom_kubeconfig(file, &options)
                .await
                .map_err(wrong)?
        }
        None => Config::infer()
            .await
            .map_err(|error| ProgramError::Nowhere(Box::new(error)))?,
    };
    if let Some(address) = master.filter(|address| !address.is_empty()) {
        let wrong = |source| ProgramError::Master {
            address: address.to_owned(),
            source,
        };
        config.cluster_url = address.parse().map_err(wrong)?;
    }
    config.connect_timeout = Some(CONNECT);
    Client::try_from(config).map_err(|error| ProgramError::Client(Box::new(error)))
}
