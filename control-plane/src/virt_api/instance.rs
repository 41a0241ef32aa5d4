//! Requests about running instances that their node agent carries out: lifecycle, guest, console.

mod check;

use std::sync::atomic::{AtomicI64, Ordering};

use api::error_chain::chain;
use api::options::{FreezeUnfreezeTimeout, MAX_OPTIONS_LEN, PauseOptions, UnpauseOptions};
use axum::body::{Body, to_bytes};
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{RawQuery, State};
use axum::response::Response;
use axum::routing::{get, put};
use futures::{Sink, SinkExt, Stream, StreamExt};
use http::{Request, StatusCode, Uri, header};
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tracing::info;

use super::answer::Refusal;
use super::objects::{Kind, text};
use super::request::{Desk, Named, Route, bytes};
use super::stream::{self, MESSAGE_LEN_MAX_BYTES, SUBPROTOCOL, WAITING_LEN_BYTES, relay};
use check::Check;

/// Bytes of a node agent's answer that are passed on: lists of file systems, a screenshot.
const ANSWER_LEN_MAX_BYTES: usize = 16 << 20;

/// Consoles and displays that are open.
static STREAMS: AtomicI64 = AtomicI64::new(0);

/// Returns the number of consoles and displays that are open.
pub(super) fn open_streams() -> i64 {
    STREAMS.load(Ordering::Relaxed)
}

/// Returns who answers which action.
pub(super) fn routes() -> Vec<Route> {
    let change = |action: &'static str, check: Check| {
        put(
            move |State(desk): State<Desk>, named: Named, body: Body| async move {
                change(&desk, &named, action, check, body).await
            },
        )
    };
    let ask = |action: &'static str, check: Check| {
        get(
            move |State(desk): State<Desk>, named: Named, RawQuery(query): RawQuery| async move {
                ask(&desk, &named, action, check, query.as_deref()).await
            },
        )
    };
    let open = |action: &'static str, check: Check| {
        get(
            move |State(desk): State<Desk>,
                  named: Named,
                  RawQuery(query): RawQuery,
                  socket: Result<WebSocketUpgrade, WebSocketUpgradeRejection>| async move {
                open(desk, named, action, check, query.as_deref(), socket).await
            },
        )
    };
    vec![
        ("pause", change("pause", check::pause)),
        ("unpause", change("unpause", check::unpause)),
        ("freeze", change("freeze", check::freeze)),
        ("unfreeze", change("unfreeze", check::unfreeze)),
        ("reset", change("reset", check::reset)),
        ("softreboot", change("softreboot", check::soft_reboot)),
        ("guestosinfo", ask("guestosinfo", check::agent)),
        ("userlist", ask("userlist", check::agent)),
        ("filesystemlist", ask("filesystemlist", check::agent)),
        ("vnc/screenshot", ask("vnc/screenshot", check::display)),
        ("console", open("console", check::console)),
        ("vnc", open("vnc", check::display)),
    ]
}

/// Has a node agent change a machine.
async fn change(
    desk: &Desk,
    named: &Named,
    action: &'static str,
    check: Check,
    body: Body,
) -> Result<StatusCode, Refusal> {
    let body = bytes(body, MAX_OPTIONS_LEN).await?;
    let is_dry = is_rehearsal(action, &body)?;
    if action == "unpause" {
        check_snapshot(desk, named).await?;
    }
    let vmi = desk.objects.get(&named.object(Kind::Instance)).await?;
    check(&vmi)?;
    let node = check::node(&vmi)?;
    if is_dry {
        return check::rehearse(&vmi, action).map(|()| StatusCode::OK);
    }
    let request = Request::put(path(named, action, None)?)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body));
    let request = request.map_err(|error| Refusal::bad_request(error.to_string()))?;
    let response = desk.nodes.send(node, request).await?;
    if response.status().is_success() {
        info!(
            namespace = named.namespace,
            name = named.name,
            action,
            "machine is changed"
        );
        return Ok(StatusCode::OK);
    }
    Err(refusal(named, response).await)
}

/// Reads whether a body only asks if it would be carried out, and refuses one that makes no sense.
fn is_rehearsal(action: &str, body: &[u8]) -> Result<bool, Refusal> {
    use api::options::{parse, parse_with_dry_run};
    Ok(match action {
        "pause" => parse_with_dry_run::<PauseOptions>(body)?.1,
        "unpause" => parse_with_dry_run::<UnpauseOptions>(body)?.1,
        "freeze" => {
            parse::<FreezeUnfreezeTimeout>(body)?;
            false
        }
        _ => false,
    })
}

/// Refuses to unpause a machine of which a snapshot is being taken.
async fn check_snapshot(desk: &Desk, named: &Named) -> Result<(), Refusal> {
    let vm = desk.objects.find(&named.object(Kind::Machine)).await?;
    match vm {
        Some(vm) if !text(&vm, "/status/snapshotInProgress").is_empty() => {
            let why = "VM snapshot is in progress";
            Err(Refusal::conflict(Kind::Machine, &named.name, why))
        }
        _ => Ok(()),
    }
}

/// Asks a node agent about a guest.
async fn ask(
    desk: &Desk,
    named: &Named,
    action: &'static str,
    check: Check,
    query: Option<&str>,
) -> Result<Response, Refusal> {
    let vmi = desk.objects.get(&named.object(Kind::Instance)).await?;
    check(&vmi)?;
    let request = Request::get(path(named, action, query)?).body(Body::empty());
    let request = request.map_err(|error| Refusal::bad_request(error.to_string()))?;
    let response = desk.nodes.send(check::node(&vmi)?, request).await?;
    if !response.status().is_success() {
        return Err(refusal(named, response).await);
    }
    let content = response.headers().get(header::CONTENT_TYPE).cloned();
    let read = to_bytes(Body::new(response.into_body()), ANSWER_LEN_MAX_BYTES).await;
    let read = read.map_err(|error| {
        let message = format!("the node agent's answer broke off: {}", chain(&error));
        Refusal::new(StatusCode::BAD_GATEWAY, message)
    })?;
    let mut response = Response::new(Body::from(read));
    if let Some(content) = content {
        response.headers_mut().insert(header::CONTENT_TYPE, content);
    }
    Ok(response)
}

/// Connects a client with a console or a display.
async fn open(
    desk: Desk,
    named: Named,
    action: &'static str,
    check: Check,
    query: Option<&str>,
    socket: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Refusal> {
    let vmi = desk.objects.get(&named.object(Kind::Instance)).await?;
    check(&vmi)?;
    let socket = stream::upgrade(socket)?;
    let request = Request::get(path(&named, action, query)?)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(
            header::SEC_WEBSOCKET_KEY,
            tungstenite::handshake::client::generate_key(),
        )
        .header(header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL)
        .body(Body::empty());
    let request = request.map_err(|error| Refusal::bad_request(error.to_string()))?;
    let response = desk.nodes.send(check::node(&vmi)?, request).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(refusal(&named, response).await);
    }
    let upgraded = hyper::upgrade::on(response).await.map_err(|error| {
        let message = format!(
            "the node agent does not switch protocols: {}",
            chain(&error)
        );
        Refusal::new(StatusCode::BAD_GATEWAY, message)
    })?;
    let guest = node_socket(upgraded).await;
    Ok(socket.on_upgrade(move |client: WebSocket| async move {
        let (namespace, name) = (&named.namespace, &named.name);
        info!(namespace, name, action, "stream is opened");
        STREAMS.fetch_add(1, Ordering::Relaxed);
        let end = relay(client, guest, desk.pulse).await;
        STREAMS.fetch_sub(1, Ordering::Relaxed);
        info!(namespace, name, action, ?end, "stream is closed");
    }))
}

/// Makes a WebSocket of a connection to a node agent, with messages as those of clients.
async fn node_socket(
    upgraded: Upgraded,
) -> impl Stream<Item = Result<Message, tungstenite::Error>>
+ Sink<Message, Error = tungstenite::Error>
+ Send
+ 'static {
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_LEN_MAX_BYTES))
        .max_frame_size(Some(MESSAGE_LEN_MAX_BYTES))
        .write_buffer_size(WAITING_LEN_BYTES);
    let io = TokioIo::new(upgraded);
    let socket = WebSocketStream::from_raw_socket(io, Role::Client, Some(config)).await;
    socket
        .map(|message| message.map(from_node))
        .with(|message| futures::future::ready(Ok(to_node(message))))
}

fn from_node(message: tungstenite::Message) -> Message {
    match message {
        tungstenite::Message::Text(text) => Message::Text(text.as_str().into()),
        tungstenite::Message::Binary(bytes) => Message::Binary(bytes),
        tungstenite::Message::Ping(bytes) => Message::Ping(bytes),
        tungstenite::Message::Pong(bytes) => Message::Pong(bytes),
        tungstenite::Message::Close(frame) => {
            Message::Close(frame.map(|frame| axum::extract::ws::CloseFrame {
                code: frame.code.into(),
                reason: frame.reason.as_str().into(),
            }))
        }
        tungstenite::Message::Frame(frame) => Message::Binary(frame.into_payload()),
    }
}

fn to_node(message: Message) -> tungstenite::Message {
    match message {
        Message::Text(text) => tungstenite::Message::Text(text.as_str().into()),
        Message::Binary(bytes) => tungstenite::Message::Binary(bytes),
        Message::Ping(bytes) => tungstenite::Message::Ping(bytes),
        Message::Pong(bytes) => tungstenite::Message::Pong(bytes),
        Message::Close(frame) => {
            tungstenite::Message::Close(frame.map(|frame| tungstenite::protocol::CloseFrame {
                code: frame.code.into(),
                reason: frame.reason.as_str().into(),
            }))
        }
    }
}

/// Returns the path of an action at a node agent.
fn path(named: &Named, action: &str, query: Option<&str>) -> Result<Uri, Refusal> {
    let (namespace, name) = (&named.namespace, &named.name);
    let base = format!("/v1/namespaces/{namespace}/virtualmachineinstances/{name}/{action}");
    let path = match query {
        Some(query) => format!("{base}?{query}"),
        None => base,
    };
    let wrong = |_| Refusal::bad_request("the request's path or query makes no address");
    path.parse().map_err(wrong)
}

/// Passes on why a node agent refuses.
async fn refusal(named: &Named, response: http::Response<Incoming>) -> Refusal {
    let code = response.status();
    let read = to_bytes(Body::new(response.into_body()), MAX_OPTIONS_LEN).await;
    let body: Value = serde_json::from_slice(&read.unwrap_or_default()).unwrap_or_default();
    let message = match text(&body, "/message") {
        "" => format!("the node agent answers {code}"),
        message => message.to_owned(),
    };
    if code == StatusCode::CONFLICT {
        return Refusal::conflict(Kind::Instance, &named.name, &message);
    }
    // What this side shows the agent is no affair of the client's, who must not be told to log in.
    let code = match code {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => StatusCode::BAD_GATEWAY,
        code if code.is_client_error() || code.is_server_error() => code,
        _ => StatusCode::BAD_GATEWAY,
    };
    Refusal::new(code, message)
}
