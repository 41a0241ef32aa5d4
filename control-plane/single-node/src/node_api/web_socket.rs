//! WebSockets of `kubectl`: `v5.channel.k8s.io`, `v4.channel.k8s.io`, and SPDY in a WebSocket.
//!
//! Each message begins with a channel: 0 standard input, 1 output, 2 errors, 3 how it ended (a `Status`), 4 the size of the
//! terminal; in version 5, 255 and a channel says that the channel has ended.

use std::future::Future;
use std::time::Duration;

use apiserver::failure::Failure;
use axum::body::{Body, Bytes};
use axum::extract::FromRequestParts;
use axum::extract::ws::{CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code};
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use http::Response;
use http::request::Parts;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, timeout};

use super::session::{self, Client, Input, Output, Session};

/// Subprotocols for programs, the best first.
const CHANNELS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
/// Subprotocol with SPDY in it.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";
/// Bytes of a message that are taken.
const MESSAGE_MAX_BYTES: usize = 1 << 20;
/// Bytes of the tunnel that wait on either side, and that are sent at once.
const TUNNEL_LEN_BYTES: usize = 64 << 10;
/// Time between two pings: a write that fails tells that the client is gone.
const PING: Duration = Duration::from_secs(15);
/// Time for the client to close after we have.
const FAREWELL: Duration = Duration::from_secs(5);

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const STATUS: u8 = 3;
const RESIZE: u8 = 4;
const END: u8 = 255;

/// Accepts a WebSocket with channels and runs a session on it.
pub(super) async fn accept<F, R>(parts: Parts, run: F) -> Result<Response<Body>, Failure>
where
    F: FnOnce(Session) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let upgrade = upgrade(parts, &CHANNELS).await?;
    Ok(upgrade.on_upgrade(|socket| async move {
        let (session, client) = session::pair();
        tokio::join!(run(session), carry(socket, client));
    }))
}

/// Accepts a WebSocket with SPDY in it, and hands the connection to a function.
pub(super) async fn accept_tunnel<F, R>(parts: Parts, run: F) -> Result<Response<Body>, Failure>
where
    F: FnOnce(DuplexStream) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    let upgrade = upgrade(parts, &[TUNNEL]).await?;
    Ok(upgrade.on_upgrade(|socket| async move {
        let (ours, theirs) = tokio::io::duplex(TUNNEL_LEN_BYTES);
        tokio::join!(run(ours), tunnel(socket, theirs));
    }))
}

async fn upgrade(
    mut parts: Parts,
    protocols: &[&'static str],
) -> Result<WebSocketUpgrade, Failure> {
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &()).await;
    let upgrade = upgrade.map_err(|rejection| {
        Failure::bad_request(format!("this needs a WebSocket: {}", rejection.body_text()))
    })?;
    let upgrade = upgrade
        .protocols(protocols.iter().copied())
        .max_message_size(MESSAGE_MAX_BYTES)
        .max_frame_size(MESSAGE_MAX_BYTES);
    if upgrade.selected_protocol().is_none() {
        let known = protocols.join(", ");
        let message = format!("Sec-WebSocket-Protocol must be one of: {known}");
        return Err(Failure::bad_request(message));
    }
    Ok(upgrade)
}

async fn carry(socket: WebSocket, client: Client) {
    let (sink, stream) = socket.split();
    let Client { inputs, outputs } = client;
    last_words(read(stream, inputs), write(sink, outputs)).await;
}

/// Reads and writes until the client has closed. After we have, it is given time to: a connection that is cut with
/// something unread takes what was written last with it.
async fn last_words(reading: impl Future<Output = ()>, writing: impl Future<Output = ()>) {
    let mut reading = std::pin::pin!(reading);
    tokio::select! {
        () = &mut reading => {}
        () = writing => {
            let _in_time = timeout(FAREWELL, reading).await;
        }
    }
}

/// Hands on what the client sends, until it closes.
async fn read(mut stream: SplitStream<WebSocket>, inputs: mpsc::Sender<Input>) {
    while let Some(Ok(message)) = stream.next().await {
        let input = match message {
            Message::Binary(bytes) => input(&bytes),
            Message::Close(_) => return,
            Message::Text(_) | Message::Ping(_) | Message::Pong(_) => None,
        };
        if let Some(input) = input {
            // A program that has ended reads no more; how it ended is still to be sent.
            let _ended = inputs.send(input).await;
        }
    }
}

fn input(message: &Bytes) -> Option<Input> {
    match *message.first()? {
        STDIN if message.len() > 1 => Some(Input::Stdin(message.slice(1..))),
        RESIZE => session::size(&message[1..]),
        END if message.get(1) == Some(&STDIN) => Some(Input::StdinEnd),
        _ => None,
    }
}

/// Sends what the program writes, and how it ended.
async fn write(mut sink: SplitSink<WebSocket, Message>, mut outputs: mpsc::Receiver<Output>) {
    let mut pings = tokio::time::interval(PING);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let output = tokio::select! {
            output = outputs.recv() => output,
            _ = pings.tick() => {
                if sink.send(Message::Ping(Bytes::new())).await.is_err() {
                    return;
                }
                continue;
            }
        };
        let (channel, bytes) = match output {
            Some(Output::Stdout(bytes)) => (STDOUT, bytes),
            Some(Output::Stderr(bytes)) => (STDERR, bytes),
            Some(Output::End(status)) => (STATUS, status.to_string().into()),
            None => break,
        };
        let message = [&[channel], &bytes[..]].concat();
        if sink.send(Message::Binary(message.into())).await.is_err() || channel == STATUS {
            break;
        }
    }
    let _gone = sink.send(goodbye()).await;
}

/// Ends a WebSocket as clients expect when all was said.
fn goodbye() -> Message {
    Message::Close(Some(CloseFrame {
        code: close_code::NORMAL,
        reason: Utf8Bytes::default(),
    }))
}

/// Carries the bytes of a connection in the messages of a WebSocket.
async fn tunnel(socket: WebSocket, connection: DuplexStream) {
    let (sink, stream) = socket.split();
    let (reader, writer) = tokio::io::split(connection);
    last_words(into_connection(stream, writer), into_messages(reader, sink)).await;
}

async fn into_connection(mut stream: SplitStream<WebSocket>, mut writer: WriteHalf<DuplexStream>) {
    while let Some(Ok(message)) = stream.next().await {
        let written = match message {
            Message::Binary(bytes) => writer.write_all(&bytes).await,
            Message::Close(_) => return,
            Message::Text(_) | Message::Ping(_) | Message::Pong(_) => Ok(()),
        };
        // Nobody takes it any more once the connection has ended; the client will close.
        let _ended = written;
    }
}

async fn into_messages(
    mut reader: ReadHalf<DuplexStream>,
    mut sink: SplitSink<WebSocket, Message>,
) {
    let mut chunk = vec![0; TUNNEL_LEN_BYTES];
    while let Ok(len @ 1..) = reader.read(&mut chunk).await {
        let message = Message::Binary(Bytes::copy_from_slice(&chunk[..len]));
        if sink.send(message).await.is_err() {
            return;
        }
    }
    let _gone = sink.send(goodbye()).await;
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;

    use super::{Input, input};

    #[test]
    fn channels_are_told_apart() {
        let check = |message: &'static [u8], wanted| {
            assert_eq!(input(&Bytes::from_static(message)), wanted);
        };
        check(b"\0abc", Some(Input::Stdin(Bytes::from_static(b"abc"))));
        check(b"\0", None);
        check(b"\xff\0", Some(Input::StdinEnd));
        check(b"\xff\x01", None);
        check(
            b"\x04{\"Width\":80,\"Height\":24}",
            Some(Input::Resize(80, 24)),
        );
        check(b"\x04{\"Width\":-1}", None);
        check(b"\x01abc", None);
        check(b"", None);
    }
}
