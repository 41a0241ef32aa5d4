//! Connections to a plugin. They come from whichever socket it has at the moment.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::sleep;
use tonic::transport::server::Connected;

/// Connections at a time: the kubelet needs one, and for a while a second when it asks anew.
const CONNECTIONS_MAX: usize = 8;
/// Wait after the host could give no connection.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);

/// A connection and its place among those that are allowed.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    _place: OwnedSemaphorePermit,
}

/// Where connections are put that were accepted.
#[derive(Clone, Debug)]
pub(super) struct Acceptor {
    connections: mpsc::Sender<Connection>,
    free: Arc<Semaphore>,
}

impl Acceptor {
    /// Makes one, and what it accepts comes out of.
    pub(super) fn new() -> (Self, mpsc::Receiver<Connection>) {
        let (connections, accepted) = mpsc::channel(1);
        let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        (Self { connections, free }, accepted)
    }

    /// Accepts at a socket until nobody takes connections any more, as many at a time as are allowed.
    pub(super) async fn accept(self, listener: UnixListener) {
        while let Ok(place) = Arc::clone(&self.free).acquire_owned().await {
            let stream = accept(&listener).await;
            let connection = Connection {
                stream,
                _place: place,
            };
            if self.connections.send(connection).await.is_err() {
                return;
            }
        }
    }
}

async fn accept(listener: &UnixListener) -> UnixStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return stream,
            Err(_) => sleep(ACCEPT_RETRY).await,
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) -> Self::ConnectInfo {}
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
