//! Between a WebSocket and the console of a machine.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_util::sync::CancellationToken;
use tracing::info;

use super::seats::{Pulse, Seat};

/// Bytes of the guest's output in one frame.
const CHUNK_LEN: usize = 8 << 10;
/// Time for a client to take note of the end.
const FAREWELL: Duration = Duration::from_secs(2);

/// Why a console is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// Somebody else has taken the place.
    TakenOver,
    /// This process ends.
    Stopped,
    /// The machine has no console any more.
    GuestGone,
    /// The client has left, or what it sends makes no sense.
    ClientGone,
    /// The client does not answer.
    ClientSilent,
}

impl End {
    fn frame(self) -> CloseFrame {
        let (code, reason) = match self {
            Self::TakenOver => (
                close_code::NORMAL,
                "another client has taken over the console",
            ),
            Self::Stopped => (close_code::AWAY, "the node agent stops; connect again"),
            Self::GuestGone => (close_code::NORMAL, "the machine's console is closed"),
            Self::ClientGone => (close_code::NORMAL, "until the next time"),
            Self::ClientSilent => (close_code::AWAY, "pings are not answered"),
        };
        CloseFrame {
            code,
            reason: reason.into(),
        }
    }
}

/// What tells whether the client is there.
#[derive(Debug, Default)]
struct Life {
    unanswered: AtomicU32,
    /// Whether nothing can be heard because the guest takes no more input.
    is_held: AtomicBool,
}

/// Relays until either side ends, somebody else takes the seat, or this process is told to stop.
pub(super) async fn relay(
    socket: WebSocket,
    guest: UnixStream,
    seat: Seat,
    stop: CancellationToken,
) {
    info!(vmi = %seat.key(), "console is opened");
    let (mut sink, mut stream) = socket.split();
    let (from_guest, to_guest) = guest.into_split();
    let life = Life::default();
    let end = tokio::select! {
        biased;
        () = seat.taken_over() => End::TakenOver,
        () = stop.cancelled() => End::Stopped,
        end = show(from_guest, &mut sink, &life, seat.pulse()) => end,
        end = type_in(&mut stream, to_guest, &life) => end,
    };
    info!(vmi = %seat.key(), ?end, "console is closed");
    drop(seat);
    // Who does not read to the end may lose the last words of this side.
    let farewell = async {
        if sink.send(Message::Close(Some(end.frame()))).await.is_ok() {
            while let Some(Ok(_)) = stream.next().await {}
        }
    };
    let _too_slow = timeout(FAREWELL, farewell).await;
}

/// Shows the client what the guest prints, and asks it whether it is there.
async fn show(
    mut from_guest: OwnedReadHalf,
    sink: &mut SplitSink<WebSocket, Message>,
    life: &Life,
    pulse: Pulse,
) -> End {
    let mut ticks = interval_at(Instant::now() + pulse.every, pulse.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut chunk = vec![0; CHUNK_LEN];
    loop {
        let message = tokio::select! {
            read = from_guest.read(&mut chunk) => match read {
                Ok(0) | Err(_) => return End::GuestGone,
                Ok(len) => Message::Binary(Bytes::copy_from_slice(&chunk[..len])),
            },
            _ = ticks.tick() => {
                if life.unanswered.load(Ordering::Relaxed) >= pulse.unanswered_max {
                    return End::ClientSilent;
                }
                if !life.is_held.load(Ordering::Relaxed) {
                    life.unanswered.fetch_add(1, Ordering::Relaxed);
                }
                Message::Ping(Bytes::new())
            }
        };
        if sink.send(message).await.is_err() {
            return End::ClientGone;
        }
    }
}

/// Types into the guest what the client sends. A guest that takes no input any more may still have something to say.
async fn type_in(
    stream: &mut SplitStream<WebSocket>,
    mut to_guest: OwnedWriteHalf,
    life: &Life,
) -> End {
    let mut is_taken = true;
    while let Some(Ok(message)) = stream.next().await {
        life.unanswered.store(0, Ordering::Relaxed);
        let input = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => text.into(),
            Message::Ping(_) | Message::Pong(_) => continue,
            Message::Close(_) => break,
        };
        if is_taken {
            life.is_held.store(true, Ordering::Relaxed);
            is_taken = to_guest.write_all(&input).await.is_ok();
            life.is_held.store(false, Ordering::Relaxed);
            life.unanswered.store(0, Ordering::Relaxed);
        }
    }
    End::ClientGone
}
