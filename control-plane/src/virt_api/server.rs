//! Where the cluster's API server comes in: TLS with a certificate that is read anew when its files change.
//!
//! Anybody may connect, webhooks are asked without a certificate. Who somebody is, though, is believed of the front
//! proxy alone: of a client with a certificate of the front proxy's authority. The headers of all others are dropped.

mod tls;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use http::{HeaderMap, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use kube::Client;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::{debug, warn};

use super::node::common_name;
use tls::Settings;

/// Connections at once; each console holds one.
const CONNECTIONS_MAX: usize = 4096;
/// Time for the handshake, and for the head of a request.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time for connections to end when the server does.
const FAREWELL: Duration = Duration::from_secs(2);
/// Time until connections are taken again when the host has no more to give.
const EXHAUSTED: Duration = Duration::from_millis(100);
/// Bytes of a request's head that are read: users may have many groups.
const HEAD_LEN_MAX_BYTES: usize = 64 << 10;

/// Files of the server's certificate.
#[derive(Clone, Debug)]
pub(super) struct TlsFiles {
    /// Certificate and those between it and its authority.
    pub(super) certificate: PathBuf,
    /// Its key.
    pub(super) key: PathBuf,
}

/// Where the certificates of the front proxy's authority are.
#[derive(Clone)]
pub(super) enum FrontProxy {
    /// In a file; any name will do.
    File(PathBuf),
    /// In the config map `extension-apiserver-authentication` of the cluster.
    Published(Client),
}

/// A port that is listened on, and what it takes to serve there.
pub(super) struct Server {
    pub(super) listener: TcpListener,
    pub(super) files: TlsFiles,
    pub(super) front_proxy: FrontProxy,
}

impl Server {
    /// Serves whoever comes until told to stop, and then gives them a moment to leave.
    pub(super) async fn serve(self, router: Router, stop: CancellationToken) {
        let settings = tls::keep(self.files, self.front_proxy, stop.clone());
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let (tasks, taken) = (TaskTracker::new(), CancellationToken::new());
        while let Some(accepted) = stop.run_until_cancelled(self.listener.accept()).await {
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!(%error, "cannot take a connection");
                    sleep(EXHAUSTED).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
                debug!(max = CONNECTIONS_MAX, "connection dropped: too many");
                continue;
            };
            let (settings, router, taken) = (settings.clone(), router.clone(), taken.clone());
            tasks.spawn(async move {
                taken
                    .run_until_cancelled(converse(stream, settings, router))
                    .await;
                drop(place);
            });
        }
        tasks.close();
        if timeout(FAREWELL, tasks.wait()).await.is_err() {
            taken.cancel();
        }
    }
}

/// Serves the requests of one connection.
async fn converse(
    stream: TcpStream,
    settings: watch::Receiver<Option<Arc<Settings>>>,
    router: Router,
) {
    let Some(settings) = settings.borrow().clone() else {
        debug!("connection dropped: there are no certificates yet");
        return;
    };
    let shaken = timeout(PATIENCE, shake_hands(stream, Arc::clone(&settings.tls))).await;
    let stream = match shaken {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return debug!(%error, "connection refused in the handshake"),
        Err(_) => return debug!("connection dropped: no handshake in time"),
    };
    let is_front_proxy = is_front_proxy(&stream, &settings);
    let service = service_fn(move |mut request: Request<Incoming>| {
        if !is_front_proxy {
            forget_user(request.headers_mut());
        }
        router.clone().oneshot(request.map(Body::new))
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(HEAD_LEN_MAX_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    if let Err(error) = serving.await {
        debug!(%error, "connection ended");
    }
}

async fn shake_hands(
    stream: TcpStream,
    config: Arc<ServerConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    stream.set_nodelay(true)?;
    TlsAcceptor::from(config).accept(stream).await
}

/// Whether the client is the front proxy: it has shown a certificate of that authority, with a name that is allowed.
fn is_front_proxy(stream: &TlsStream<TcpStream>, settings: &Settings) -> bool {
    let chain = stream.get_ref().1.peer_certificates();
    let Some(certificate) = chain.and_then(|chain| chain.first()) else {
        return false;
    };
    let name = common_name(certificate).unwrap_or_default();
    let is_allowed = settings.allowed_names.is_empty() || settings.allowed_names.contains(&name);
    if !is_allowed {
        warn!(
            name,
            "client is not the front proxy: its certificate is for something else"
        );
    }
    is_allowed
}

/// Removes what only the front proxy may say.
fn forget_user(headers: &mut HeaderMap) {
    let told: Vec<_> = headers
        .keys()
        .filter(|name| name.as_str().starts_with("x-remote-"))
        .cloned()
        .collect();
    for name in told {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests;
