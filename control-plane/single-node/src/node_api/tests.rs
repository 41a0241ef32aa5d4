//! The service as clients see it: over HTTP, with the WebSockets and SPDY streams that they bring.

mod place;
mod spdy_client;

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;

use self::place::{Place, socket};
use self::spdy_client::Client;

/// Longest that anything takes.
const PATIENCE: Duration = Duration::from_secs(20);

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it takes too long")
}

#[tokio::test]
async fn logs_are_shown_and_followed_to_the_end_of_the_container() {
    let place = Place::start().await;
    place.write_log(&["one", "two", "three"]);
    let text = in_time(place.get("/containerLogs/ns/pod/c?tailLines=2")).await;
    assert_eq!(text, (StatusCode::OK, "two\nthree\n".to_owned()));
    let follow = place.get("/containerLogs/ns/pod/c?follow=true&tailLines=1");
    let change = async {
        place.write_log(&["four"]);
        place.rotate_log();
        place.write_log(&["five"]);
        place.end_container();
    };
    let ((_, text), ()) = in_time(async { tokio::join!(follow, change) }).await;
    // The first request may come after the first change.
    assert!(
        text.ends_with("four\nfive\n") || text == "five\n",
        "{text:?}"
    );
}

#[tokio::test]
async fn what_cannot_be_shown_is_told() {
    let place = Place::start().await;
    for (path, status, why) in [
        ("/containerLogs/ns/pod/other", 404, "other"),
        (
            "/containerLogs/ns/pod/c?previous=true",
            400,
            "previous terminated container",
        ),
        ("/containerLogs/ns/pod/c?tailLines=x", 400, "tailLines"),
        ("/containerLogs/ns/pod/waiting", 400, "waiting to start"),
        (
            "/exec/ns/pod/waiting?command=ls&output=1",
            400,
            "does not run",
        ),
        ("/exec/ns/pod/c?command=ls&output=1", 400, "WebSocket"),
        ("/attach/ns/pod/c?input=1&output=1", 400, "kubectl exec"),
        ("/portForward/ns/unknown", 404, "not on this node"),
        ("/run/ns/pod/c", 404, "no path"),
    ] {
        let (found, text) = in_time(place.get(path)).await;
        let body: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (found.as_u16(), &body["kind"]),
            (status, &json!("Status")),
            "{path}"
        );
        assert!(
            body["message"].as_str().unwrap().contains(why),
            "{path}: {text}"
        );
    }
}

/// Reads the channels of a WebSocket to its end: output, errors, status.
async fn channels(socket: &mut place::Socket) -> (String, String, Value) {
    let mut texts = [const { Vec::new() }; 4];
    while let Some(message) = in_time(socket.next()).await {
        let message = message.unwrap();
        if let Message::Close(frame) = &message {
            assert_eq!(frame.as_ref().unwrap().code, 1000.into());
        }
        if let Message::Binary(bytes) = message {
            texts[usize::from(bytes[0])].extend_from_slice(&bytes[1..]);
        }
    }
    let [_, output, errors, status] = texts;
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        text(output),
        text(errors),
        serde_json::from_slice(&status).unwrap(),
    )
}

#[tokio::test]
async fn programs_run_over_web_sockets() {
    let place = Place::with_programs().await;
    for protocol in ["v5.channel.k8s.io", "v4.channel.k8s.io"] {
        let script = "read+x%3B+echo+%24x%3B+echo+oops+%3E%262%3B+exit+3";
        let path = format!(
            "/exec/ns/pod/c?command=sh&command=-c&command={script}&input=1&output=1&error=1"
        );
        let mut socket = in_time(socket(&place, &path, protocol)).await.unwrap();
        socket
            .send(Message::Binary(b"\0hello ".to_vec().into()))
            .await
            .unwrap();
        socket
            .send(Message::Binary(b"\0you\n".to_vec().into()))
            .await
            .unwrap();
        let (output, errors, status) = channels(&mut socket).await;
        assert_eq!(
            (output.as_str(), errors.as_str()),
            ("hello you\n", "oops\n")
        );
        assert_eq!(status["reason"], "NonZeroExitCode");
        assert_eq!(
            status["details"]["causes"][0],
            json!({"reason": "ExitCode", "message": "3"})
        );
    }
}

#[tokio::test]
async fn a_program_reads_to_the_end_of_its_input() {
    let place = Place::with_programs().await;
    let path = "/exec/ns/pod/c?command=cat&stdin=true&stdout=true";
    let mut socket = in_time(socket(&place, path, "v5.channel.k8s.io"))
        .await
        .unwrap();
    let piece = [b"\0".to_vec(), b"x".repeat(100_000)].concat();
    let sending = async {
        for _ in 0..20 {
            socket
                .send(Message::Binary(piece.clone().into()))
                .await
                .unwrap();
        }
        socket
            .send(Message::Binary(b"\xff\0".to_vec().into()))
            .await
            .unwrap();
    };
    in_time(sending).await;
    let (output, _, status) = channels(&mut socket).await;
    assert_eq!(
        (output.len(), &status["status"]),
        (2_000_000, &json!("Success"))
    );
}

#[tokio::test]
async fn terminals_have_the_size_that_the_client_tells() {
    let place = Place::with_programs().await;
    let path =
        "/exec/ns/pod/c?command=sh&command=-c&command=read+x%3B+stty+size&input=1&output=1&tty=1";
    let mut socket = in_time(socket(&place, path, "v5.channel.k8s.io"))
        .await
        .unwrap();
    let size = b"\x04{\"Width\":132,\"Height\":43}\n".to_vec();
    socket.send(Message::Binary(size.into())).await.unwrap();
    socket
        .send(Message::Binary(b"\0\n".to_vec().into()))
        .await
        .unwrap();
    let (output, _, status) = channels(&mut socket).await;
    assert!(output.contains("43 132"), "{output:?}");
    assert_eq!(status["status"], "Success");
}

/// Looks until so many programs run.
async fn until_programs(count: usize) {
    while Place::programs() != count {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_program_ends_when_its_client_goes_away() {
    let place = Place::with_programs().await;
    let path =
        "/exec/ns/pod/c?command=sh&command=-c&command=echo+%24%24%3B+exec+sleep+1001&output=1";
    let mut socket = in_time(socket(&place, path, "v5.channel.k8s.io"))
        .await
        .unwrap();
    in_time(socket.next()).await.unwrap().unwrap();
    in_time(until_programs(1)).await;
    drop(socket);
    in_time(until_programs(0)).await;
}

#[tokio::test]
async fn programs_run_over_spdy() {
    let place = Place::with_programs().await;
    let path = "/exec/ns/pod/c?command=cat&input=1&output=1&error=1";
    let mut client = in_time(Client::upgrade(&place, path, "v4.channel.k8s.io")).await;
    let error = client.open(&[("streamType", "error")]).await;
    let stdin = client.open(&[("streamType", "stdin")]).await;
    let stdout = client.open(&[("streamType", "stdout")]).await;
    client.open(&[("streamType", "stderr")]).await;
    client.send(stdin, b"through SPDY", true).await;
    assert_eq!(in_time(client.read(stdout)).await, b"through SPDY");
    let status: Value = serde_json::from_slice(&in_time(client.read(error)).await).unwrap();
    assert_eq!(status["status"], "Success");
}

#[tokio::test]
async fn attaching_shows_what_comes() {
    let place = Place::start().await;
    place.write_log(&["before"]);
    let mut socket = in_time(socket(
        &place,
        "/attach/ns/pod/c?output=1&error=1",
        "v5.channel.k8s.io",
    ))
    .await
    .unwrap();
    place.write_log(&["after"]);
    place.end_container();
    let (output, errors, status) = channels(&mut socket).await;
    // What came before the request was read, too, is not shown.
    assert!(output == "after\n" || output.is_empty(), "{output:?}");
    assert_eq!(
        (errors.as_str(), &status["status"]),
        ("", &json!("Success"))
    );
}

/// Answers each connection with what it sends, in upper case, once it has sent all.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let mut sent = Vec::new();
            connection.read_to_end(&mut sent).await.unwrap();
            sent.make_ascii_uppercase();
            connection.write_all(&sent).await.unwrap();
        }
    });
    port
}

async fn forward(client: &mut Client, port: u16) {
    let text = port.to_string();
    for (round, len) in [5, 300_000].into_iter().enumerate() {
        let id = round.to_string();
        let headers = |kind: &'static str| {
            [
                ("streamType", kind),
                ("port", text.as_str()),
                ("requestID", id.as_str()),
            ]
        };
        let error = client.open(&headers("error")).await;
        client.send(error, b"", true).await;
        let data = client.open(&headers("data")).await;
        client.send(data, &b"x".repeat(len), true).await;
        assert_eq!(in_time(client.read(data)).await, b"X".repeat(len));
        assert_eq!(in_time(client.read(error)).await, b"");
    }
    let refused = [("streamType", "error"), ("port", "1"), ("requestID", "9")];
    let error = client.open(&refused).await;
    let data = client
        .open(&[("streamType", "data"), ("port", "1"), ("requestID", "9")])
        .await;
    let told = String::from_utf8(in_time(client.read(error)).await).unwrap();
    assert!(told.contains("cannot reach port 1 of the pod"), "{told}");
    assert_eq!(in_time(client.read(data)).await, b"");
    in_time(client.ping()).await;
}

#[tokio::test]
async fn ports_are_forwarded_over_spdy() {
    let place = Place::start().await;
    let port = echo().await;
    let mut client = in_time(Client::upgrade(
        &place,
        "/portForward/ns/pod",
        "portforward.k8s.io",
    ))
    .await;
    forward(&mut client, port).await;
}

#[tokio::test]
async fn ports_are_forwarded_over_web_sockets() {
    let place = Place::start().await;
    let port = echo().await;
    let socket = socket(&place, "/portForward/ns/pod", "SPDY/3.1+portforward.k8s.io")
        .await
        .unwrap();
    let mut client = Client::tunnel(socket);
    forward(&mut client, port).await;
}

#[tokio::test]
async fn ports_of_a_pod_are_those_of_its_network() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: network namespaces need root");
        return;
    }
    let place = Place::start().await;
    let port = echo().await;
    // The same port of the host's network is not there in the pod's.
    let network = place.isolate();
    let mut client = in_time(Client::upgrade(
        &place,
        "/portForward/ns/pod",
        "portforward.k8s.io",
    ))
    .await;
    let text = port.to_string();
    let headers = |kind: &'static str| {
        [
            ("streamType", kind),
            ("port", text.as_str()),
            ("requestID", "0"),
        ]
    };
    let error = client.open(&headers("error")).await;
    client.open(&headers("data")).await;
    let told = String::from_utf8(in_time(client.read(error)).await).unwrap();
    assert!(told.contains("cannot reach"), "{told}");
    drop(network);
}
