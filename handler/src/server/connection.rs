//! Connections: who may come in, how many, and how long they may take to say what they want.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::{debug, warn};

use super::answer::Refusal;
use super::common_name::common_name;
use super::tls::TlsKeeper;

/// Time for the handshake, and for the head of a request.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time for connections to end when the server does.
const FAREWELL: Duration = Duration::from_secs(2);
/// Time until connections are taken again when the host has no more to give.
const EXHAUSTED: Duration = Duration::from_millis(100);
/// Bytes of a request's head that are read.
const HEAD_LEN_MAX_BYTES: usize = 16 << 10;

/// Who is served.
#[derive(Clone, Copy, Debug)]
pub(super) enum Clients {
    /// Anyone.
    Anyone,
    /// Who has a certificate of the authority with one of these common names.
    Named(&'static [&'static str]),
}

/// Where connections come in.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) listener: TcpListener,
    pub(super) tls: TlsKeeper,
    pub(super) clients: Clients,
    pub(super) connections_max: usize,
}

impl Door {
    /// Serves whoever comes until told to stop, and then gives them a moment to leave.
    pub(super) async fn serve(self, router: Router, stop: CancellationToken) {
        let room = Arc::new(Semaphore::new(self.connections_max));
        let tasks = TaskTracker::new();
        let taken = CancellationToken::new();
        loop {
            let Some(accepted) = stop.run_until_cancelled(self.listener.accept()).await else {
                break;
            };
            let stream = match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!(%error, "cannot take a connection");
                    sleep(EXHAUSTED).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&room).try_acquire_owned() else {
                debug!(max = self.connections_max, "connection dropped: too many");
                continue;
            };
            let (clients, config, router) = (self.clients, self.config(), router.clone());
            let taken = taken.clone();
            tasks.spawn(async move {
                let serving = serve(stream, config, clients, router);
                taken.run_until_cancelled(serving).await;
                drop(place);
            });
        }
        tasks.close();
        if timeout(FAREWELL, tasks.wait()).await.is_err() {
            taken.cancel();
        }
    }

    fn config(&self) -> Option<Arc<ServerConfig>> {
        match self.clients {
            Clients::Anyone => self.tls.open(),
            Clients::Named(_) => self.tls.closed(),
        }
    }
}

async fn serve(
    stream: TcpStream,
    config: Option<Arc<ServerConfig>>,
    clients: Clients,
    router: Router,
) {
    let Some(config) = config else {
        debug!("connection dropped: there are no certificates yet");
        return;
    };
    match timeout(PATIENCE, shake_hands(stream, config)).await {
        Ok(Ok(stream)) => converse(stream, clients, router).await,
        Ok(Err(error)) => debug!(%error, "connection refused in the handshake"),
        Err(_) => debug!("connection dropped: no handshake in time"),
    }
}

async fn shake_hands(
    stream: TcpStream,
    config: Arc<ServerConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    stream.set_nodelay(true)?;
    TlsAcceptor::from(config).accept(stream).await
}

/// Serves the requests of one connection.
async fn converse(stream: TlsStream<TcpStream>, clients: Clients, router: Router) {
    let is_welcome = is_welcome(&stream, clients);
    let service = service_fn(move |request: Request<Incoming>| {
        let router = router.clone();
        async move {
            if !is_welcome {
                let message = "the client's certificate is not one that this server trusts";
                return Ok(Refusal::new(StatusCode::UNAUTHORIZED, message).into_response());
            }
            router.oneshot(request.map(Body::new)).await
        }
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

fn is_welcome(stream: &TlsStream<TcpStream>, clients: Clients) -> bool {
    let Clients::Named(names) = clients else {
        return true;
    };
    let chain = stream.get_ref().1.peer_certificates();
    let name = chain.and_then(|chain| common_name(chain.first()?));
    let is_welcome = name.is_some_and(|name| names.contains(&name));
    if !is_welcome {
        warn!(
            name,
            "client refused: its certificate is for something else"
        );
    }
    is_welcome
}
