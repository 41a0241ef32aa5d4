//! Between the WebSocket of a client and what it wants to reach, subprotocol `plain.kubevirt.io`.
//!
//! Neither side waits in memory: a side that is slow holds the other one back. Pings keep connections open where idle
//! ones are cut, and end those whose other side is gone.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocketUpgrade, close_code};
use futures::{Sink, SinkExt, Stream, StreamExt};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tracing::debug;

use super::answer::Refusal;

/// What clients of KubeVirt ask for.
pub(crate) const SUBPROTOCOL: &str = "plain.kubevirt.io";
/// Bytes of a message that are taken.
pub(crate) const MESSAGE_LEN_MAX_BYTES: usize = 1 << 20;
/// Bytes of frames that wait to be sent.
pub(crate) const WAITING_LEN_BYTES: usize = 16 << 10;
/// Code of the end of a stream that its client did not ask for (RFC 6455 §7.4.2, private use). Clients of KubeVirt leave
/// without a word on 1000, as if their user had; of any other code they show the reason.
const CUT_OFF: u16 = 4000;
/// Time for a side to take note of the end.
const FAREWELL: Duration = Duration::from_secs(2);

/// How often the other side is asked whether it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pulse {
    /// Time between two pings.
    pub(crate) every: Duration,
    /// Pings in a row without a sign of life after which it is gone.
    pub(crate) unanswered_max: u32,
}

impl Default for Pulse {
    /// Load balancers cut connections that are idle for 30 s and more.
    fn default() -> Self {
        Self {
            every: Duration::from_secs(10),
            unanswered_max: 6,
        }
    }
}

/// Whether a side is there.
#[derive(Debug, Default)]
pub(crate) struct Life {
    unanswered: AtomicU32,
    /// Whether nothing can be heard because what was said is not taken.
    is_held: AtomicBool,
}

impl Life {
    /// Notes a sign of life.
    pub(crate) fn hear(&self) {
        self.unanswered.store(0, Ordering::Relaxed);
    }

    /// Notes whether what the side says is being waited with.
    pub(crate) fn hold(&self, is_held: bool) {
        self.is_held.store(is_held, Ordering::Relaxed);
    }

    /// Counts a ping; whether the side is still believed to be there.
    pub(crate) fn ping(&self, pulse: Pulse) -> bool {
        if self.is_held.load(Ordering::Relaxed) {
            return true;
        }
        self.unanswered.fetch_add(1, Ordering::Relaxed) < pulse.unanswered_max
    }
}

/// Why a connection ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// A side has said goodbye, with its words.
    Closed(Option<CloseFrame>),
    /// A side has left, or what it sends makes no sense.
    Broken,
    /// A side does not answer.
    Silent,
}

impl End {
    /// Returns an end that comes from the side that a client wants to reach, so that the client takes it for none of its own.
    fn unasked(self) -> Self {
        let (code, reason) = match self {
            Self::Closed(None) => (CUT_OFF, "the other side has closed".into()),
            Self::Closed(Some(frame)) if frame.code == close_code::NORMAL => {
                (CUT_OFF, frame.reason)
            }
            other => return other,
        };
        Self::Closed(Some(CloseFrame { code, reason }))
    }

    /// Returns what the other side is told.
    pub(crate) fn frame(self) -> CloseFrame {
        let (code, reason) = match self {
            Self::Closed(Some(frame)) => return frame,
            Self::Closed(None) => (close_code::NORMAL, "the other side has closed"),
            Self::Broken => (CUT_OFF, "the other side is gone"),
            Self::Silent => (close_code::AWAY, "pings are not answered"),
        };
        CloseFrame {
            code,
            reason: reason.into(),
        }
    }
}

/// Prepares the switch of a client's connection to a WebSocket.
pub(crate) fn upgrade(
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<WebSocketUpgrade, Refusal> {
    let upgrade = upgrade.map_err(|rejection| {
        debug!(why = rejection.body_text(), "no WebSocket is asked for");
        Refusal::bad_request(format!(
            "this needs a WebSocket over HTTP/1.1 (subprotocol {SUBPROTOCOL}): use virtctl"
        ))
    })?;
    Ok(upgrade
        .protocols([SUBPROTOCOL])
        .max_message_size(MESSAGE_LEN_MAX_BYTES)
        .max_frame_size(MESSAGE_LEN_MAX_BYTES)
        .write_buffer_size(WAITING_LEN_BYTES))
}

/// Relays messages between a client and what it wants to reach, until a side ends or is silent.
pub(crate) async fn relay<A, B, EA, EB>(client: A, goal: B, pulse: Pulse) -> End
where
    A: Stream<Item = Result<Message, EA>> + Sink<Message>,
    B: Stream<Item = Result<Message, EB>> + Sink<Message>,
{
    let (mut to_a, mut from_a) = client.split();
    let (mut to_b, mut from_b) = goal.split();
    let (life_a, life_b) = (Life::default(), Life::default());
    let end = tokio::select! {
        end = carry((&mut from_a, &life_a), (&mut to_b, &life_b), pulse) => end,
        end = carry((&mut from_b, &life_b), (&mut to_a, &life_a), pulse) => end.unasked(),
    };
    let close = || Message::Close(Some(end.clone().frame()));
    let farewell = async {
        let _ends = futures::join!(to_a.send(close()), to_b.send(close()));
        // Who does not read to the end may lose the last words of this side.
        let rest_a = async { while let Some(Ok(_)) = from_a.next().await {} };
        let rest_b = async { while let Some(Ok(_)) = from_b.next().await {} };
        futures::join!(rest_a, rest_b);
    };
    let _too_slow = timeout(FAREWELL, farewell).await;
    end
}

/// Carries messages from one side to the other, and asks the other whether it is there.
async fn carry<F, T, E>(
    (from, from_life): (&mut F, &Life),
    (to, to_life): (&mut T, &Life),
    pulse: Pulse,
) -> End
where
    F: Stream<Item = Result<Message, E>> + Unpin,
    T: Sink<Message> + Unpin,
{
    let mut ticks = interval_at(Instant::now() + pulse.every, pulse.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let message = tokio::select! {
            message = from.next() => {
                from_life.hear();
                match message {
                    // Each connection answers its pings by itself.
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                    Some(Ok(Message::Close(frame))) => return End::Closed(frame),
                    Some(Ok(message)) => message,
                    Some(Err(_)) | None => return End::Broken,
                }
            }
            _ = ticks.tick() => {
                if !to_life.ping(pulse) {
                    return End::Silent;
                }
                Message::Ping(Bytes::new())
            }
        };
        from_life.hold(true);
        let sent = to.send(message).await;
        from_life.hold(false);
        if sent.is_err() {
            return End::Broken;
        }
    }
}

#[cfg(test)]
mod tests;
