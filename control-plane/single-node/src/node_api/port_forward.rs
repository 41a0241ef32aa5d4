//! `kubectl port-forward`: connections to ports of a pod, each with a stream for its data and one for its error.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream as StdTcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use apiserver::failure::Failure;
use axum::body::Body;
use http::Response;
use http::request::Parts;
use nix::sched::{CloneFlags, setns};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::JoinSet;

use super::spdy::{self, Stream, Writer};
use super::streams::STREAM_TYPE;
use super::web_socket;

/// What the streams are for.
const PURPOSE: &str = "portforward.k8s.io";
/// Streams without their other half.
const HALVES_MAX: usize = 64;
/// Time for a connection inside of the pod.
const CONNECT: Duration = Duration::from_secs(10);
/// Bytes that are read at once.
const CHUNK_LEN_BYTES: usize = 32 << 10;

/// Forwards connections for a client that brings SPDY, as it is or in a WebSocket. `network` holds the pod's network
/// namespace, `None` for the host's.
pub(super) async fn answer(
    parts: Parts,
    network: Option<PathBuf>,
    place: OwnedSemaphorePermit,
) -> Result<Response<Body>, Failure> {
    let network = Arc::new(network);
    let run = |opened| async move {
        forward_all(opened, network).await;
        drop(place);
    };
    if super::wants_upgrade(&parts, "websocket") {
        return web_socket::accept_tunnel(parts, |connection| spdy::serve(connection, run)).await;
    }
    spdy::accept(parts, &[PURPOSE], |connection| spdy::serve(connection, run))
}

async fn forward_all(mut opened: mpsc::Receiver<Stream>, network: Arc<Option<PathBuf>>) {
    let mut halves: HashMap<String, Stream> = HashMap::new();
    // Ends with the client.
    let mut connections = JoinSet::new();
    while let Some(stream) = opened.recv().await {
        while connections.try_join_next().is_some() {}
        let id = stream.header("requestid").unwrap_or_default().to_owned();
        let Some(other) = halves.remove(&id) else {
            if halves.len() < HALVES_MAX {
                halves.insert(id, stream);
            } else {
                stream.writer.reset().await;
            }
            continue;
        };
        if let Some(pair) = Pair::of(stream, other) {
            connections.spawn(pair.forward(Arc::clone(&network)));
        }
    }
}

/// The streams of a connection.
struct Pair {
    data: Stream,
    error: Stream,
    port: Option<u16>,
}

impl Pair {
    fn of(one: Stream, other: Stream) -> Option<Self> {
        let is = |stream: &Stream, kind: &str| stream.header(STREAM_TYPE) == Some(kind);
        let (data, error) = if is(&one, "data") {
            (one, other)
        } else {
            (other, one)
        };
        let is_pair = is(&data, "data") && is(&error, "error");
        let port = data
            .header("port")
            .and_then(|it| it.parse().ok())
            .filter(|it| *it != 0);
        is_pair.then_some(Self { data, error, port })
    }

    async fn forward(self, network: Arc<Option<PathBuf>>) {
        let Self { data, error, port } = self;
        let connected = match port {
            Some(port) => connect(Arc::clone(&network), port).await,
            None => Err(io::Error::other("the port is no number from 1 to 65535")),
        };
        match connected {
            Ok(connection) => {
                let (reader, writer) = connection.into_split();
                tokio::join!(
                    into_pod(data.input, writer),
                    out_of_pod(reader, data.writer)
                );
            }
            Err(failure) => {
                let port = port.map_or_else(String::new, |port| format!(" {port}"));
                let text = format!("cannot reach port{port} of the pod: {failure}");
                error.writer.write(text.as_bytes()).await;
                data.writer.end().await;
            }
        }
        error.writer.end().await;
    }
}

async fn into_pod(mut input: mpsc::Receiver<axum::body::Bytes>, mut writer: OwnedWriteHalf) {
    while let Some(bytes) = input.recv().await {
        if writer.write_all(&bytes).await.is_err() {
            // What the client still sends has no reader.
            return;
        }
    }
    let _gone = writer.shutdown().await;
}

async fn out_of_pod(mut reader: OwnedReadHalf, writer: Writer) {
    let mut chunk = vec![0; CHUNK_LEN_BYTES];
    while let Ok(len @ 1..) = reader.read(&mut chunk).await {
        if !writer.write(&chunk[..len]).await {
            return;
        }
    }
    writer.end().await;
}

/// Connects to a port of the loopback interface of a network namespace.
async fn connect(network: Arc<Option<PathBuf>>, port: u16) -> io::Result<TcpStream> {
    let (done, connected) = oneshot::channel();
    // Namespaces belong to threads, so one that ends afterwards makes the socket; the socket stays in its namespace.
    let thread = std::thread::Builder::new().name("port-forward".to_owned());
    thread.spawn(move || {
        let connected = connect_inside(network.as_deref(), port);
        let _client_is_gone = done.send(connected);
    })?;
    let connected = connected.await.map_err(io::Error::other)??;
    connected.set_nonblocking(true)?;
    TcpStream::from_std(connected)
}

fn connect_inside(network: Option<&Path>, port: u16) -> io::Result<StdTcpStream> {
    if let Some(path) = network {
        setns(File::open(path)?, CloneFlags::CLONE_NEWNET)?;
    }
    let first = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let second = SocketAddr::from((Ipv6Addr::LOCALHOST, port));
    StdTcpStream::connect_timeout(&first, CONNECT).or_else(|error| {
        // The first reason is the one that says more.
        StdTcpStream::connect_timeout(&second, CONNECT).map_err(|_| error)
    })
}
