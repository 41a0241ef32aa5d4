//! `virtctl port-forward`: ports of this host, or standard input and output, that lead to ports of a guest.

mod udp;

use std::io;
use std::time::Duration;

use clap::Args;
use futures::future::{join, pending};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::Session;
use crate::argument::{ForwardedPort, Place, Protocol, Target};
use crate::cluster::Cluster;
use crate::failure::Failure;
use crate::report;
use crate::standard_streams::{self, Output};
use crate::stream::{self, End, Socket, Use, WAITING_MESSAGES};

/// Bytes that are read at once.
const CHUNK_LEN_BYTES: usize = 8 << 10;
/// Standard input and output: programs close both at once.
const STDIO: Use = Use {
    leave_with: None,
    linger: Duration::from_secs(2),
};
/// A connection, of which one side may have nothing more to say and still listen.
pub(super) const TCP: Use = Use {
    leave_with: None,
    linger: Duration::from_secs(30),
};

/// Forward local ports to a virtual machine or an instance.
///
/// The target is TYPE/NAME[/NAMESPACE], TYPE being vm or vmi. Traffic goes through the API server: for much of it, use
/// a service.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  # Forward the local port 8080 to the same port of an instance:
  virtctl port-forward vmi/myvmi 8080

  # Forward the local port 8080 to port 80 of a virtual machine in another namespace:
  virtctl port-forward vm/myvm/mynamespace 8080:80

  # Forward a UDP port:
  virtctl port-forward vm/myvm udp/5353:53

  # Let ssh connect by itself:
  ssh -o ProxyCommand='virtctl port-forward --stdio vm/myvm 22' user@myvm")]
pub(crate) struct PortForward {
    /// Virtual machine or instance, TYPE/NAME[/NAMESPACE]
    #[arg(value_name = "TARGET", value_parser = Target::parse)]
    target: Target,
    /// Ports, [tcp/|udp/]LOCAL[:REMOTE]
    #[arg(value_name = "PORT", required = true, value_parser = ForwardedPort::parse)]
    ports: Vec<ForwardedPort>,
    /// Connect standard input and output instead of a local port
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true", hide_default_value = true, value_name = "BOOL")]
    stdio: bool,
    /// Address to open the local ports on
    #[arg(long, default_value = "127.0.0.1")]
    address: String,
}

/// A port of a guest.
#[derive(Clone)]
struct Remote {
    cluster: Cluster,
    /// What to tell the user.
    name: String,
    path: String,
}

impl Remote {
    fn new(cluster: &Cluster, place: &Place, port: ForwardedPort) -> Self {
        let protocol = port.protocol.name();
        let action = format!("portforward/{}/{protocol}", port.remote);
        Self {
            cluster: cluster.clone(),
            name: format!("{}/{}/{}", place.kind.short(), place.name, place.namespace),
            path: cluster.action(place.kind, &place.name, &action),
        }
    }

    async fn open(&self) -> Result<Socket, Failure> {
        let socket = stream::open(&self.cluster, &self.path).await;
        socket.map_err(|refusal| refusal.of(format!("can't access {}:", self.name)))
    }
}

impl PortForward {
    /// Forwards until the user has enough of it.
    pub(super) async fn run(&self, session: &Session) -> Result<(), Failure> {
        let mut cluster = session.cluster().await?;
        let flag = session.connection.namespace.as_deref();
        let place = self.target.place(flag, &cluster.namespace);
        cluster.namespace.clone_from(&place.namespace);
        let remotes = self
            .ports
            .iter()
            .map(|port| (*port, Remote::new(&cluster, &place, *port)));
        if !self.stdio {
            return self.forward(remotes.collect()).await;
        }
        match (remotes.clone().next(), self.ports.len()) {
            (Some((_, remote)), 1) => forward_stdio(&remote).await,
            _ => Err(Failure::Argument(
                "only one port supported when forwarding to stdout".to_owned(),
            )),
        }
    }

    /// Opens all ports, and serves them.
    async fn forward(&self, remotes: Vec<(ForwardedPort, Remote)>) -> Result<(), Failure> {
        let mut servers = JoinSet::new();
        for (port, remote) in remotes {
            let at = format!("{}:{}", self.address, port.local);
            let failed = |source| listen_failure(&at, source);
            let to_bind = (self.address.as_str(), port.local);
            let address = match port.protocol {
                Protocol::Tcp => {
                    let listener = TcpListener::bind(to_bind).await.map_err(failed)?;
                    let address = listener.local_addr().map_err(failed)?;
                    servers.spawn(serve_tcp(listener, remote.clone()));
                    address
                }
                Protocol::Udp => {
                    let socket = UdpSocket::bind(to_bind).await.map_err(failed)?;
                    let address = socket.local_addr().map_err(failed)?;
                    servers.spawn(udp::serve(socket, remote.clone()));
                    address
                }
            };
            let protocol = port.protocol.name();
            report::line(&format!(
                "Forwarding {protocol} {address} to port {} of {}",
                port.remote, remote.name
            ))?;
        }
        match servers.join_next().await {
            Some(Ok(error)) => Err(listen_failure(&self.address, error)),
            _ => Ok(()),
        }
    }
}

/// Says that a local port cannot be used.
pub(super) fn listen_failure(at: &str, source: io::Error) -> Failure {
    Failure::Local {
        attempt: format!("listen on {at}"),
        source,
    }
}

async fn forward_stdio(remote: &Remote) -> Result<(), Failure> {
    let socket = remote.open().await?;
    let mut input = standard_streams::input()?;
    let output = Output::open()?;
    let end = stream::relay(socket, &mut input, output.sender(), STDIO).await;
    output.close().await;
    match complaint(&end) {
        Some(words) => Err(Failure::Disconnected(format!("{}: {words}", remote.name))),
        None => Ok(()),
    }
}

/// Returns what a user must know about the end of a connection.
fn complaint(end: &End) -> Option<&str> {
    match end {
        End::Broken(words) => Some(words),
        End::InputEnded | End::Left | End::OutputGone | End::Closed { .. } => None,
    }
}

async fn serve_tcp(listener: TcpListener, remote: Remote) -> io::Error {
    loop {
        let (connection, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) if is_of_connection(&error) => continue,
            Err(error) => return error,
        };
        tracing::info!(%peer, to = remote.name, "connection");
        let remote = remote.clone();
        tokio::spawn(async move {
            match remote.open().await {
                Ok(socket) => {
                    let end = carry(socket, connection, TCP).await;
                    if let Some(words) = complaint(&end) {
                        report::problem(&format!(
                            "connection of {peer} to {}: {words}",
                            remote.name
                        ));
                    }
                }
                Err(failure) => report::problem(&failure.to_string()),
            }
        });
    }
}

/// Whether an error is about a connection that has gone before it was accepted, and not about the listener.
fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionReset | Interrupted
    )
}

/// Carries bytes between a connection of this host and one to a guest, until one of them ends.
pub(super) async fn carry(socket: Socket, local: TcpStream, how: Use) -> End {
    let (mut from_local, mut to_local) = local.into_split();
    let (local_sender, mut input) = mpsc::channel(WAITING_MESSAGES);
    let (output, mut remote_receiver) = mpsc::channel::<Vec<u8>>(WAITING_MESSAGES);
    let read = async move {
        let mut chunk = vec![0; CHUNK_LEN_BYTES];
        while let Ok(len @ 1..) = from_local.read(&mut chunk).await {
            if local_sender.send(chunk[..len].to_vec()).await.is_err() {
                break;
            }
        }
        drop(local_sender);
        pending::<()>().await;
    };
    let write = async move {
        while let Some(bytes) = remote_receiver.recv().await {
            if to_local.write_all(&bytes).await.is_err() {
                break;
            }
        }
        let _gone = to_local.shutdown().await;
    };
    let relay = async move {
        let end = stream::relay(socket, &mut input, &output, how).await;
        drop(output);
        end
    };
    tokio::select! {
        (end, ()) = join(relay, write) => end,
        () = read => End::InputEnded,
    }
}
