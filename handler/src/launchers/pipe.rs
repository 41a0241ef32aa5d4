//! The socket in a pod on which its launcher tells what happens (`domain-notify-pipe.sock`). The handler listens in
//! the pod itself, so it knows whose word it hears without believing it.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener as StdListener;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use api::paths::{NOTIFY_SOCKET_NAME, PUBLIC_VOLUME};
use futures::stream::{Stream, unfold};
use proto::notify::info::notify_info_server::NotifyInfoServer;
use proto::notify::v1::notify_server::NotifyServer;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Uid, chownat, openat, unlinkat};
use rustix::io::Errno;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::Connected;

use super::notify::{Info, Notifications};
use super::socket::emptydir_on_host;
use super::view::View;
use crate::config::HostPaths;
use crate::pod_files::{LAUNCHER_ID, emptydir, is_socket, open_beneath, short_path};

/// Connections of one pod at a time: a launcher needs one, and each may hold messages of 4 MiB.
const CONNECTIONS_MAX: usize = 4;
/// Calls of one connection at a time.
const STREAMS_MAX: u32 = 2;
/// Time for the words of a launcher that were sent before its process ended.
const LAST_WORDS: Duration = Duration::from_millis(500);
/// Wait after the host could give no connection.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);

/// Returns where the socket is on the host.
pub(super) fn path(paths: &HostPaths, pod_uid: &str) -> PathBuf {
    emptydir_on_host(paths, pod_uid, PUBLIC_VOLUME).join(NOTIFY_SOCKET_NAME)
}

/// Makes the socket, in the place of what is there.
pub(super) fn bind(paths: &HostPaths, pod_uid: &str) -> io::Result<StdListener> {
    let volume = emptydir(pod_uid, PUBLIC_VOLUME);
    let folder = open_beneath(&paths.pods_dir, &volume, OFlags::DIRECTORY)?;
    unlink(&folder)?;
    // Binding makes a new file and follows no link; the path is short whatever the volume's own is.
    let listener = StdListener::bind(short_path(&folder).join(NOTIFY_SOCKET_NAME))?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(&folder, NOTIFY_SOCKET_NAME, flags, Mode::empty())?;
    if !is_socket(&file)? {
        return Err(io::Error::other("the pod has replaced the socket"));
    }
    let owner = (Uid::from_raw(LAUNCHER_ID), Gid::from_raw(LAUNCHER_ID));
    match chownat(&file, "", Some(owner.0), Some(owner.1), AtFlags::EMPTY_PATH) {
        Err(Errno::PERM) => tracing::warn!("only root can give sockets to launchers"),
        chowned => chowned?,
    }
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Removes the socket.
pub(super) fn remove(paths: &HostPaths, pod_uid: &str) -> io::Result<()> {
    let volume = emptydir(pod_uid, PUBLIC_VOLUME);
    match open_beneath(&paths.pods_dir, &volume, OFlags::DIRECTORY) {
        Ok(folder) => unlink(&folder),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn unlink(folder: impl AsFd) -> io::Result<()> {
    match unlinkat(folder, NOTIFY_SOCKET_NAME, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Serves notifications of one launcher; stops when it is dropped.
#[derive(Debug)]
pub(super) struct Pipe {
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Pipe {
    /// Serves.
    pub(super) fn serve(listener: StdListener, view: Arc<View>) -> io::Result<Self> {
        let listener = UnixListener::from_std(listener)?;
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, view, stop.clone()));
        Ok(Self { stop, serving })
    }

    /// Lets calls end that are under way, for a short while.
    pub(super) async fn finish(mut self) {
        self.stop.cancel();
        drop(timeout(LAST_WORDS, &mut self.serving).await);
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        // Connections are tasks of their own, which end when their calls have.
        self.stop.cancel();
    }
}

async fn serve(listener: UnixListener, view: Arc<View>, stop: CancellationToken) {
    let key = view.launcher.key.clone();
    let served = Server::builder()
        .max_concurrent_streams(STREAMS_MAX)
        .add_service(NotifyServer::new(Notifications::new(view)))
        .add_service(NotifyInfoServer::new(Info))
        .serve_with_incoming_shutdown(connections(listener), stop.cancelled_owned())
        .await;
    if let Err(error) = served {
        tracing::error!(vmi = %key, %error, "notifications of a launcher are not served any more");
    }
}

/// Accepts connections, as many at a time as are allowed.
fn connections(listener: UnixListener) -> impl Stream<Item = io::Result<Connection>> {
    let free = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    unfold((listener, free), async |(listener, free)| {
        let place = Arc::clone(&free).acquire_owned().await.ok()?;
        let stream = loop {
            match listener.accept().await {
                Ok((stream, _)) => break stream,
                Err(_) => sleep(ACCEPT_RETRY).await,
            }
        };
        let connection = Connection {
            stream,
            _place: place,
        };
        Some((Ok(connection), (listener, free)))
    })
}

/// A connection and its place among those that are allowed.
#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    _place: OwnedSemaphorePermit,
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
