//! Connections to consoles, displays and ports: WebSockets of the subprotocol `plain.kubevirt.io`, whose binary messages
//! are bytes of one stream.

use std::sync::Mutex;
use std::time::Duration;

use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use http::{HeaderMap, Request, StatusCode, header};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use kube::client::Body;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WebSocketError, Message};

use crate::cluster::{Cluster, user_agent};
use crate::failure::Refusal;

/// What servers of KubeVirt speak.
const SUBPROTOCOL: &str = "plain.kubevirt.io";
/// Bytes of a message that are taken.
const MESSAGE_LEN_MAX_BYTES: usize = 1 << 20;
/// Bytes of frames that wait to be sent.
const WAITING_LEN_BYTES: usize = 16 << 10;
/// Time for a connection to be made.
const OPENING: Duration = Duration::from_secs(35);
/// Time for the other side to take note of the end.
const FAREWELL: Duration = Duration::from_secs(1);
/// Time between two pings; load balancers cut connections that are idle for 30 s and more.
const PING: Duration = Duration::from_secs(10);
/// Time without a sign of life after which the other side is gone; pings are answered even by a silent guest.
const SILENCE: Duration = Duration::from_secs(65);
/// Messages that wait between a connection and a local file or socket, 8 KiB each.
pub(crate) const WAITING_MESSAGES: usize = 16;

/// A connection.
pub(crate) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Why a connection has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// There is nothing more to send, and nothing has come for a while.
    InputEnded,
    /// The user leaves.
    Left,
    /// Nobody takes what comes any more.
    OutputGone,
    /// The other side says goodbye; whether connecting again may help, and its words.
    Closed { may_return: bool, words: String },
    /// The other side is gone without a word.
    Broken(String),
}

/// How a connection is used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Use {
    /// Byte that the user leaves with; it is not sent.
    pub(crate) leave_with: Option<u8>,
    /// How long nothing may come after there is nothing more to send.
    pub(crate) linger: Duration,
}

/// Opens a connection to an action of an object.
///
/// # Errors
///
/// Fails when the server refuses, or does not speak the subprotocol.
pub(crate) async fn open(cluster: &Cluster, path: &str) -> Result<Socket, Refusal> {
    let late = |_| cluster.without_answer(format!("{} s have passed", OPENING.as_secs()));
    timeout(OPENING, upgrade(cluster, path))
        .await
        .map_err(late)?
}

async fn upgrade(cluster: &Cluster, path: &str) -> Result<Socket, Refusal> {
    tracing::info!(path, "connect");
    let key = generate_key();
    let request = Request::get(path)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, &key)
        .header(header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL)
        .header(header::USER_AGENT, user_agent())
        .body(Body::empty());
    let request = request.map_err(|error| cluster.without_answer(error.to_string()))?;
    let response = cluster.send(request).await?;
    let code = response.status();
    if code != StatusCode::SWITCHING_PROTOCOLS {
        let body = cluster.body(response).await?;
        return Err(cluster.refusal(code, &body));
    }
    check(response.headers(), &key).map_err(|cause| cluster.without_answer(cause.to_owned()))?;
    let upgraded = hyper::upgrade::on(response).await;
    let upgraded = upgraded.map_err(|error| cluster.without_answer(error.to_string()))?;
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_LEN_MAX_BYTES))
        .max_frame_size(Some(MESSAGE_LEN_MAX_BYTES))
        .write_buffer_size(0)
        .max_write_buffer_size(WAITING_LEN_BYTES.max(MESSAGE_LEN_MAX_BYTES));
    let io = TokioIo::new(upgraded);
    Ok(WebSocketStream::from_raw_socket(io, Role::Client, Some(config)).await)
}

/// Checks that a server has understood what it switches to (RFC 6455 §4.1).
fn check(headers: &HeaderMap, key: &str) -> Result<(), &'static str> {
    let value = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if value(header::SEC_WEBSOCKET_ACCEPT) != Some(&derive_accept_key(key.as_bytes())) {
        return Err("it switches to something that is no WebSocket: is there a proxy in between?");
    }
    if value(header::SEC_WEBSOCKET_PROTOCOL).is_some_and(|spoken| spoken != SUBPROTOCOL) {
        return Err("it does not speak plain.kubevirt.io: is this KubeVirt's virt-api?");
    }
    Ok(())
}

/// When something came last.
struct Hearing(Mutex<Instant>);

impl Hearing {
    fn note(&self) {
        *self.last() = Instant::now();
    }

    fn last(&self) -> std::sync::MutexGuard<'_, Instant> {
        self.0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Sends what comes from `input`, hands what is received to `output`, and keeps the connection alive, until it ends.
pub(crate) async fn relay(
    socket: Socket,
    input: &mut mpsc::Receiver<Vec<u8>>,
    output: &mpsc::Sender<Vec<u8>>,
    how: Use,
) -> End {
    let (mut sink, mut stream) = socket.split();
    let hearing = Hearing(Mutex::new(Instant::now()));
    let end = tokio::select! {
        end = send(&mut sink, input, how, &hearing) => end,
        end = receive(&mut stream, output, &hearing) => end,
    };
    let farewell = Message::Close(Some(CloseFrame {
        code: CloseCode::Normal,
        reason: "".into(),
    }));
    let _gone = timeout(FAREWELL, sink.send(farewell)).await;
    tracing::info!(?end, "connection has ended");
    end
}

async fn send(
    sink: &mut SplitSink<Socket, Message>,
    input: &mut mpsc::Receiver<Vec<u8>>,
    how: Use,
    hearing: &Hearing,
) -> End {
    let mut ping = interval_at(Instant::now() + PING, PING);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut has_ended = false;
    loop {
        let rest = how.linger.saturating_sub(hearing.last().elapsed());
        let message = tokio::select! {
            bytes = input.recv(), if !has_ended => match bytes {
                Some(bytes) => match before_leaving(&bytes, how.leave_with) {
                    Some(before) => {
                        let _gone = sink.send(Message::binary(before.to_vec())).await;
                        return End::Left;
                    }
                    None => Message::binary(bytes),
                },
                None => {
                    has_ended = true;
                    hearing.note();
                    continue;
                }
            },
            () = sleep(rest), if has_ended => {
                if hearing.last().elapsed() >= how.linger {
                    return End::InputEnded;
                }
                continue;
            }
            _ = ping.tick() => Message::Ping("".into()),
        };
        if let Err(error) = sink.send(message).await {
            // What the other side had to say may still be on its way.
            sleep(FAREWELL).await;
            return broken(&error);
        }
    }
}

/// Returns what is to be sent before the user leaves, when he does.
fn before_leaving(bytes: &[u8], leave_with: Option<u8>) -> Option<&[u8]> {
    let leave_with = leave_with?;
    let position = bytes.iter().position(|byte| *byte == leave_with)?;
    Some(&bytes[..position])
}

async fn receive(
    stream: &mut SplitStream<Socket>,
    output: &mpsc::Sender<Vec<u8>>,
    hearing: &Hearing,
) -> End {
    loop {
        let Ok(message) = timeout(SILENCE, stream.next()).await else {
            return End::Broken(format!("no sign of life for {} s", SILENCE.as_secs()));
        };
        let bytes = match message {
            Some(Ok(Message::Binary(bytes))) => Vec::from(bytes),
            Some(Ok(Message::Text(text))) => text.as_bytes().to_vec(),
            Some(Ok(Message::Close(frame))) => return closed(frame),
            Some(Ok(_)) => continue,
            Some(Err(error)) => return broken(&error),
            None => return End::Broken("the connection is cut".to_owned()),
        };
        hearing.note();
        if output.send(bytes).await.is_err() {
            return End::OutputGone;
        }
        hearing.note();
    }
}

fn closed(frame: Option<CloseFrame>) -> End {
    let Some(frame) = frame else {
        return End::Closed {
            may_return: false,
            words: String::new(),
        };
    };
    End::Closed {
        may_return: matches!(
            frame.code,
            CloseCode::Away | CloseCode::Restart | CloseCode::Again
        ),
        words: frame.reason.chars().filter(|c| !c.is_control()).collect(),
    }
}

fn broken(error: &WebSocketError) -> End {
    End::Broken(match error {
        WebSocketError::Protocol(_) | WebSocketError::ConnectionClosed => {
            "the connection is cut".to_owned()
        }
        error => error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::before_leaving;

    #[test]
    fn what_was_typed_before_leaving_is_sent() {
        let check = |typed: &'static [u8], sent| assert_eq!(before_leaving(typed, Some(29)), sent);
        check(b"ls\r", None);
        check(b"\x1d", Some(b""));
        check(b"ls\x1drm", Some(b"ls"));
        assert_eq!(before_leaving(b"\x1d", None), None);
    }
}
