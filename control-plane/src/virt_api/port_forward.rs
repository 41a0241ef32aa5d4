//! Ports of a guest, forwarded through a WebSocket: this side unpacks the frames and speaks TCP or UDP to the
//! instance's address itself.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::get;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use http::StatusCode;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tracing::{debug, info};

use super::answer::Refusal;
use super::objects::{Kind, condition, text};
use super::request::{Desk, Named, Route};
use super::stream::{self, End, Life, Pulse};

/// Time for a guest to take a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// Bytes of one frame to the client; the largest datagram fits.
const CHUNK_LEN: usize = 64 << 10;
/// Time for the client to take note of the end.
const FAREWELL: Duration = Duration::from_secs(2);

/// Ports that are forwarded.
static TUNNELS: AtomicI64 = AtomicI64::new(0);

/// Returns the number of ports that are forwarded.
pub(super) fn open_tunnels() -> i64 {
    TUNNELS.load(Ordering::Relaxed)
}

/// Returns who answers which action of machines.
pub(super) fn machine_routes() -> Vec<Route> {
    vec![
        ("portforward/{port}", get(machine)),
        ("portforward/{port}/{protocol}", get(machine)),
    ]
}

/// Returns who answers which action of instances.
pub(super) fn instance_routes() -> Vec<Route> {
    vec![
        ("portforward/{port}", get(instance)),
        ("portforward/{port}/{protocol}", get(instance)),
    ]
}

/// What of a guest is to be reached, as the path has it.
#[derive(Clone, Debug, Deserialize)]
struct Wish {
    #[serde(flatten)]
    named: Named,
    port: String,
    protocol: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// A connection to a guest.
enum Guest {
    Tcp(TcpStream),
    Udp(UdpSocket),
}

type Socket = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

async fn instance(
    State(desk): State<Desk>,
    Path(wish): Path<Wish>,
    socket: Socket,
) -> Result<Response, Refusal> {
    let vmi = desk.objects.get(&wish.named.object(Kind::Instance)).await?;
    forward(&desk, &wish, &vmi, socket).await
}

async fn machine(
    State(desk): State<Desk>,
    Path(wish): Path<Wish>,
    socket: Socket,
) -> Result<Response, Refusal> {
    let vmi = desk.instance_of_machine(&wish.named).await?;
    forward(&desk, &wish, &vmi, socket).await
}

async fn forward(
    desk: &Desk,
    wish: &Wish,
    vmi: &Value,
    socket: Socket,
) -> Result<Response, Refusal> {
    if condition(vmi, "Paused") == Some("True") {
        let name = &wish.named.name;
        return Err(Refusal::conflict(Kind::Instance, name, "VMI is paused"));
    }
    let (port, protocol) = (port(&wish.port)?, protocol(wish.protocol.as_deref())?);
    let address = SocketAddr::new(address(vmi, desk.reaches_loopback)?, port);
    let socket = stream::upgrade(socket)?;
    let guest = dial(protocol, address).await.map_err(|error| {
        let message = format!("dialing VM: {} {address}: {error}", protocol.name());
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, message)
    })?;
    let (named, pulse) = (wish.named.clone(), desk.pulse);
    Ok(socket.on_upgrade(move |client| async move {
        let (namespace, name) = (&named.namespace, &named.name);
        info!(namespace, name, ?protocol, %address, "port is forwarded");
        TUNNELS.fetch_add(1, Ordering::Relaxed);
        let end = tunnel(client, guest, pulse).await;
        TUNNELS.fetch_sub(1, Ordering::Relaxed);
        debug!(namespace, name, %address, ?end, "port is forwarded no more");
    }))
}

fn port(text: &str) -> Result<u16, Refusal> {
    let port = text.parse().ok().filter(|port| *port > 0);
    port.ok_or_else(|| Refusal::bad_request(format!("{text:?} is no port: use 1 to 65535")))
}

fn protocol(text: Option<&str>) -> Result<Protocol, Refusal> {
    match text {
        None | Some("tcp") => Ok(Protocol::Tcp),
        Some("udp") => Ok(Protocol::Udp),
        Some(other) => {
            let message = format!("{other:?} is no protocol of port forwarding: use tcp or udp");
            Err(Refusal::bad_request(message))
        }
    }
}

/// Returns the address of an instance. Guests report addresses themselves: those that mean this host are none.
fn address(vmi: &Value, reaches_loopback: bool) -> Result<IpAddr, Refusal> {
    let interfaces = vmi.pointer("/status/interfaces").and_then(Value::as_array);
    let interfaces = interfaces.map(Vec::as_slice).unwrap_or_default();
    if interfaces.is_empty() {
        return Err(Refusal::bad_request(
            "no network interfaces are present: status.interfaces of the instance shows none, as its node gives \
             the guest no network or does not run it yet; the serial console reaches it without one",
        ));
    }
    let addresses = interfaces.iter().map(|one| text(one, "/ipAddress"));
    let mut addresses = addresses.filter_map(|text| text.parse::<IpAddr>().ok());
    let is_guest = |ip: &IpAddr| {
        !ip.is_unspecified() && !ip.is_multicast() && (reaches_loopback || !ip.is_loopback())
    };
    addresses.find(is_guest).ok_or_else(|| {
        Refusal::bad_request(
            "the instance has no IP address yet: wait until status.interfaces shows one, \
             or see in its console whether the guest has brought its network up",
        )
    })
}

async fn dial(protocol: Protocol, address: SocketAddr) -> io::Result<Guest> {
    match protocol {
        Protocol::Tcp => {
            let stream = timeout(CONNECT, TcpStream::connect(address)).await;
            let stream = stream.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            stream.set_nodelay(true)?;
            Ok(Guest::Tcp(stream))
        }
        Protocol::Udp => {
            let any: SocketAddr = if address.is_ipv4() {
                ([0, 0, 0, 0], 0).into()
            } else {
                ([0_u16; 8], 0).into()
            };
            let socket = UdpSocket::bind(any).await?;
            socket.connect(address).await?;
            Ok(Guest::Udp(socket))
        }
    }
}

/// Copies both ways until the client leaves or is silent, or the guest has nothing more to say.
async fn tunnel(client: WebSocket, guest: Guest, pulse: Pulse) -> End {
    let (mut sink, mut stream) = client.split();
    let life = Life::default();
    let end = match guest {
        Guest::Tcp(guest) => {
            let (from_guest, to_guest) = guest.into_split();
            tokio::select! {
                end = show(Source::Tcp(from_guest), &mut sink, &life, pulse) => end,
                end = send_tcp(&mut stream, to_guest, &life) => end,
            }
        }
        Guest::Udp(guest) => tokio::select! {
            end = show(Source::Udp(&guest), &mut sink, &life, pulse) => end,
            end = send_udp(&mut stream, &guest, &life) => end,
        },
    };
    let farewell = async {
        let close = Message::Close(Some(end.clone().frame()));
        if sink.send(close).await.is_ok() {
            while let Some(Ok(_)) = stream.next().await {}
        }
    };
    let _too_slow = timeout(FAREWELL, farewell).await;
    end
}

/// What a guest sends.
enum Source<'g> {
    Tcp(tokio::net::tcp::OwnedReadHalf),
    Udp(&'g UdpSocket),
}

impl Source<'_> {
    /// Reads what has come; `None` at the end.
    async fn read(&mut self, chunk: &mut [u8]) -> Option<Bytes> {
        let len = match self {
            Self::Tcp(stream) => stream.read(chunk).await.ok().filter(|len| *len > 0)?,
            // An answer that nobody listens is one to a datagram, not the end of all.
            Self::Udp(socket) => loop {
                match socket.recv(chunk).await {
                    Ok(len) => break len,
                    Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                    Err(_) => return None,
                }
            },
        };
        Some(Bytes::copy_from_slice(&chunk[..len]))
    }
}

/// Sends the client what the guest sends, and asks it whether it is there.
async fn show(
    mut source: Source<'_>,
    sink: &mut SplitSink<WebSocket, Message>,
    life: &Life,
    pulse: Pulse,
) -> End {
    let mut ticks = interval_at(Instant::now() + pulse.every, pulse.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut chunk = vec![0; CHUNK_LEN];
    loop {
        let message = tokio::select! {
            read = source.read(&mut chunk) => match read {
                Some(bytes) => Message::Binary(bytes),
                None => return End::Closed(None),
            },
            _ = ticks.tick() => {
                if !life.ping(pulse) {
                    return End::Silent;
                }
                Message::Ping(Bytes::new())
            }
        };
        if sink.send(message).await.is_err() {
            return End::Broken;
        }
    }
}

/// Returns the next that a client sends to the guest; the end when it sends no more.
async fn next(stream: &mut SplitStream<WebSocket>, life: &Life) -> Result<Bytes, End> {
    loop {
        let message = stream.next().await;
        life.hear();
        match message {
            Some(Ok(Message::Binary(bytes))) => return Ok(bytes),
            Some(Ok(Message::Text(text))) => return Ok(text.into()),
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Close(frame))) => return Err(End::Closed(frame)),
            Some(Err(_)) | None => return Err(End::Broken),
        }
    }
}

async fn send_tcp(
    stream: &mut SplitStream<WebSocket>,
    mut to_guest: tokio::net::tcp::OwnedWriteHalf,
    life: &Life,
) -> End {
    let mut is_taken = true;
    loop {
        let bytes = match next(stream, life).await {
            Ok(bytes) => bytes,
            Err(end) => return end,
        };
        if is_taken {
            life.hold(true);
            // A guest that takes no more may still have something to say.
            is_taken = to_guest.write_all(&bytes).await.is_ok();
            life.hold(false);
        }
    }
}

async fn send_udp(stream: &mut SplitStream<WebSocket>, to_guest: &UdpSocket, life: &Life) -> End {
    loop {
        match next(stream, life).await {
            // A datagram may get lost.
            Ok(bytes) => drop(to_guest.send(&bytes).await),
            Err(end) => return end,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Protocol, address, port, protocol};

    fn vmi(addresses: &[&str]) -> Value {
        let interfaces: Vec<_> = addresses
            .iter()
            .map(|ip| json!({"ipAddress": ip}))
            .collect();
        json!({"status": {"interfaces": interfaces}})
    }

    #[test]
    fn the_first_address_that_is_the_guests_is_dialled() {
        let guest = address(
            &vmi(&["", "127.0.0.1", "0.0.0.0", "10.0.2.2", "10.0.2.3"]),
            false,
        );
        assert_eq!(guest, Ok([10, 0, 2, 2].into()));
        assert!(address(&vmi(&["fd00::7"]), false).unwrap().is_ipv6());
    }

    #[test]
    fn an_instance_without_an_address_is_said_to_have_none() {
        let none = address(&vmi(&[]), false).unwrap_err();
        let message = none.message();
        assert!(message.starts_with("no network interfaces are present: "));
        let later = address(&vmi(&["", "::1", "ff02::1"]), false).unwrap_err();
        assert!(later.message().contains("no IP address yet"), "{later:?}");
        assert_eq!(later.code(), 400);
    }

    #[test]
    fn ports_and_protocols_that_are_none_are_refused() {
        assert_eq!(port("22"), Ok(22));
        for wrong in ["0", "65536", "ssh", "-1", ""] {
            assert_eq!(port(wrong).unwrap_err().code(), 400, "{wrong}");
        }
        assert_eq!(protocol(None), Ok(Protocol::Tcp));
        assert_eq!(protocol(Some("udp")), Ok(Protocol::Udp));
        assert_eq!(protocol(Some("sctp")).unwrap_err().code(), 400);
    }
}
