//! Connections: TLS, HTTP/1.1 and HTTP/2, and bounds of both.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::Request;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::ApiServer;
use crate::access::{User, user_of_certificate};
use crate::answer;

/// Connections at one time: hundreds of launchers and clients, below the usual limit of open files.
const CONNECTIONS_MAX: usize = 768;
/// Requests of one HTTP/2 connection at one time: a controller watches dozens of resources through one.
const STREAMS_MAX: u32 = 256;
/// Time for a TLS handshake, and for the head of a request.
const HANDSHAKE: Duration = Duration::from_secs(10);
const HEAD: Duration = Duration::from_secs(30);
/// Time after which a silent HTTP/2 connection is asked whether it is there, and time to answer.
const PING_EVERY: Duration = Duration::from_secs(30);
const PING_ANSWER: Duration = Duration::from_secs(20);
/// Bytes of the head of an HTTP/1.1 request, and of its buffers.
const BUFFER_MAX_BYTES: usize = 64 << 10;
/// Pause after the system refused a connection, usually for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// Who is on the other side of a listener.
#[derive(Clone, Debug)]
pub enum Security {
    /// TLS; clients prove who they are by certificate or token.
    Tls(Arc<ServerConfig>),
    /// Plain HTTP, where everybody is this user; for tests and sockets that nobody else reaches.
    Plain(User),
}

impl ApiServer {
    /// Serves connections until the server's stop token is cancelled.
    ///
    /// # Errors
    ///
    /// None today: refused connections are logged and waited out.
    pub async fn serve(&self, listener: TcpListener, security: Security) -> io::Result<()> {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        while let Some(place) = self.until_stop(place(&places)).await {
            let accepted = match self.until_stop(listener.accept()).await {
                None => break,
                Some(Ok((stream, _))) => stream,
                Some(Err(error)) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let (server, security) = (self.clone(), security.clone());
            tokio::spawn(async move {
                Box::pin(server.connection(accepted, security)).await;
                drop(place);
            });
        }
        Ok(())
    }

    async fn until_stop<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            () = self.stop().cancelled() => None,
            output = future => Some(output),
        }
    }

    async fn connection(&self, stream: TcpStream, security: Security) {
        // Small answers must not wait for acknowledgements of earlier ones.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        match security {
            Security::Plain(user) => self.http(stream, Some(user)).await,
            Security::Tls(config) => {
                match timeout(HANDSHAKE, TlsAcceptor::from(config).accept(stream)).await {
                    Ok(Ok(stream)) => {
                        let certificates = stream.get_ref().1.peer_certificates();
                        let user = certificates
                            .and_then(<[_]>::first)
                            .map(|it| user_of_certificate(it));
                        match user.transpose() {
                            Ok(user) => self.http(stream, user).await,
                            Err(error) => tracing::info!(%error, "refused a client certificate"),
                        }
                    }
                    Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                    Err(_) => tracing::debug!("a TLS handshake took too long"),
                }
            }
        }
    }

    async fn http<S>(&self, stream: S, user: Option<User>)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_buf_size(BUFFER_MAX_BYTES);
        builder
            .http2()
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS_MAX)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_ANSWER);
        let service = service_fn(|request: Request<Incoming>| {
            let (server, user) = (self.clone(), user.clone());
            async move { Ok::<_, Infallible>(server.identified(request.map(Body::new), user).await) }
        });
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.stop().cancelled() => {
                connection.as_mut().graceful_shutdown();
                match timeout(HANDSHAKE, connection).await {
                    Ok(ended) => ended,
                    Err(_) => return,
                }
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, "a connection ended");
        }
    }

    /// Answers a request of a client that its connection identifies, or else its token.
    async fn identified(
        &self,
        mut request: Request<Body>,
        user: Option<User>,
    ) -> http::Response<Body> {
        let user = match user {
            Some(user) => user,
            None => match self.authenticate(&request) {
                Ok(user) => user,
                Err(failure) => return answer::failure(&failure),
            },
        };
        request.extensions_mut().insert(user);
        self.call(request).await
    }
}

async fn place(places: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    let place = Arc::clone(places).acquire_owned().await;
    place.expect("nobody closes the semaphore")
}
