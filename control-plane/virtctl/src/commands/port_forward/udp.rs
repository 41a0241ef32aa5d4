//! UDP ports: a connection to the guest for each sender.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval};

use super::Remote;
use crate::report;
use crate::stream::{self, Use, WAITING_MESSAGES};

/// Bytes of a datagram; there are no longer ones.
const DATAGRAM_LEN_MAX_BYTES: usize = 64 << 10;
/// Time without datagrams after which a sender is forgotten.
const IDLE: Duration = Duration::from_secs(120);
/// Senders at a time; each has a connection to the API server.
const SENDERS_MAX: usize = 256;
/// Answers may still come to the last datagram of a sender.
const UDP: Use = Use {
    leave_with: None,
    linger: Duration::from_secs(5),
};

/// Somebody who sends datagrams.
struct Sender {
    datagrams: mpsc::Sender<Vec<u8>>,
    last: Instant,
}

/// Forwards datagrams, and answers to them; returns when the socket fails.
pub(super) async fn serve(socket: UdpSocket, remote: Remote) -> io::Error {
    let socket = Arc::new(socket);
    let mut senders: BTreeMap<SocketAddr, Sender> = BTreeMap::new();
    let mut datagram = vec![0; DATAGRAM_LEN_MAX_BYTES];
    let mut look = interval(IDLE / 4);
    loop {
        let (len, peer) = tokio::select! {
            received = socket.recv_from(&mut datagram) => match received {
                Ok(received) => received,
                // An answer to somebody who has left comes back this way.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(error) => return error,
            },
            _ = look.tick() => {
                senders.retain(|_, sender| sender.last.elapsed() < IDLE && !sender.datagrams.is_closed());
                continue;
            }
        };
        if senders
            .get(&peer)
            .is_none_or(|sender| sender.datagrams.is_closed())
        {
            if senders.len() >= SENDERS_MAX {
                tracing::info!(%peer, "too many senders: a datagram is dropped");
                continue;
            }
            senders.insert(peer, meet(&socket, peer, &remote));
        }
        if let Some(sender) = senders.get_mut(&peer) {
            sender.last = Instant::now();
            // Datagrams get lost where they come too fast.
            let _lost = sender.datagrams.try_send(datagram[..len].to_vec());
        }
    }
}

/// Makes a connection for a sender.
fn meet(socket: &Arc<UdpSocket>, peer: SocketAddr, remote: &Remote) -> Sender {
    let (datagrams, mut input) = mpsc::channel(WAITING_MESSAGES);
    let (output, mut answers) = mpsc::channel::<Vec<u8>>(WAITING_MESSAGES);
    let back = Arc::clone(socket);
    tokio::spawn(async move {
        while let Some(answer) = answers.recv().await {
            let _lost = back.send_to(&answer, peer).await;
        }
    });
    let remote = remote.clone();
    tokio::spawn(async move {
        match remote.open().await {
            Ok(socket) => {
                stream::relay(socket, &mut input, &output, UDP).await;
            }
            Err(failure) => report::problem(&failure.to_string()),
        }
    });
    Sender {
        datagrams,
        last: Instant::now(),
    }
}
