//! Serial consoles.

use std::os::unix::fs::symlink;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use handler::server::Pulse;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::client::connect;
use crate::site::{Site, machine, path};

type Client = WebSocketStream<TlsStream<TcpStream>>;

/// All waits of these tests end long before.
const SOON: Duration = Duration::from_secs(20);

/// Opens a console as virtctl does, through virt-api.
async fn open(site: &Site, name: &str) -> Client {
    let stream = connect(site.ports.console, &site.authority, Some(&site.virt_api)).await;
    let uri = format!("wss://node.test{}", path(name, "console"));
    let mut request = uri.into_client_request().unwrap();
    let plain = "plain.kubevirt.io".parse().unwrap();
    request
        .headers_mut()
        .insert("Sec-WebSocket-Protocol", plain);
    let (client, response) = client_async(request, stream.unwrap()).await.unwrap();
    assert_eq!(
        response.headers()["sec-websocket-protocol"],
        "plain.kubevirt.io"
    );
    client
}

async fn accept(console: &UnixListener) -> UnixStream {
    timeout(SOON, console.accept()).await.unwrap().unwrap().0
}

async fn next(client: &mut Client) -> Option<Message> {
    timeout(SOON, client.next()).await.unwrap()?.ok()
}

/// Returns the reason of the close frame that comes next, pings left aside.
async fn close_reason(client: &mut Client) -> String {
    loop {
        match next(client).await {
            Some(Message::Close(Some(frame))) => return frame.reason.to_string(),
            Some(Message::Ping(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Waits until nobody, or somebody, sits at a console.
async fn occupied(site: &Site, count: usize) {
    let wait = async {
        while site.consoles.active().len() != count {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, wait).await.unwrap();
}

#[tokio::test]
async fn bytes_go_both_ways() {
    let mut site = Site::new().await;
    site.launch("vm", machine("vm", "Running")).await;
    let console = site.console("vm");
    let mut client = open(&site, "vm").await;
    let mut guest = accept(&console).await;
    occupied(&site, 1).await;
    guest.write_all(b"login: \xff\0").await.unwrap();
    assert_eq!(
        next(&mut client).await,
        Some(Message::binary(&b"login: \xff\0"[..]))
    );
    client.send(Message::binary(&b"ro"[..])).await.unwrap();
    client.send(Message::text("ot\n")).await.unwrap();
    let mut typed = [0; 5];
    guest.read_exact(&mut typed).await.unwrap();
    assert_eq!(&typed, b"root\n");
    client
        .send(Message::Ping("are you there".into()))
        .await
        .unwrap();
    assert_eq!(
        next(&mut client).await,
        Some(Message::Pong("are you there".into()))
    );
    // What was sent before leaving arrives.
    client.send(Message::binary(&b"exit\n"[..])).await.unwrap();
    client.close(None).await.unwrap();
    let mut rest = Vec::new();
    timeout(SOON, guest.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(rest, b"exit\n");
    occupied(&site, 0).await;
}

#[tokio::test]
async fn whoever_comes_later_takes_over() {
    let mut site = Site::new().await;
    site.launch("vm", machine("vm", "Running")).await;
    let console = site.console("vm");
    let mut first = open(&site, "vm").await;
    let mut first_guest = accept(&console).await;
    let mut second = open(&site, "vm").await;
    let mut guest = accept(&console).await;
    let reason = close_reason(&mut first).await;
    assert!(reason.contains("taken over"), "{reason}");
    assert_eq!(first_guest.read(&mut [0; 1]).await.unwrap(), 0);
    guest.write_all(b"hello").await.unwrap();
    assert_eq!(
        next(&mut second).await,
        Some(Message::binary(&b"hello"[..]))
    );
    occupied(&site, 1).await;
}

#[tokio::test]
async fn a_console_of_another_machine_is_left_alone() {
    let mut site = Site::new().await;
    site.launch("a", machine("a", "Running")).await;
    site.launch("b", machine("b", "Running")).await;
    let (console_a, console_b) = (site.console("a"), site.console("b"));
    let mut first = open(&site, "a").await;
    let mut guest = accept(&console_a).await;
    let _second = open(&site, "b").await;
    let _other_guest = accept(&console_b).await;
    guest.write_all(b"a").await.unwrap();
    assert_eq!(next(&mut first).await, Some(Message::binary(&b"a"[..])));
    occupied(&site, 2).await;
}

#[tokio::test]
async fn idle_consoles_are_pinged_and_stay() {
    let pulse = Pulse {
        every: Duration::from_millis(30),
        unanswered_max: 2,
    };
    let mut site = Site::with(pulse, 3).await;
    site.launch("vm", machine("vm", "Running")).await;
    let console = site.console("vm");
    let mut client = open(&site, "vm").await;
    let mut guest = accept(&console).await;
    for _ in 0..10 {
        assert!(matches!(next(&mut client).await, Some(Message::Ping(_))));
    }
    guest.write_all(b"still here").await.unwrap();
    let shown = loop {
        match next(&mut client).await {
            Some(Message::Ping(_)) => {}
            other => break other,
        }
    };
    assert_eq!(shown, Some(Message::binary(&b"still here"[..])));
}

#[tokio::test]
async fn who_answers_no_pings_is_gone() {
    let pulse = Pulse {
        every: Duration::from_millis(30),
        unanswered_max: 2,
    };
    let mut site = Site::with(pulse, 3).await;
    site.launch("vm", machine("vm", "Running")).await;
    let console = site.console("vm");
    // Pongs are sent when messages are read, which nobody does here.
    let _client = open(&site, "vm").await;
    let mut guest = accept(&console).await;
    assert_eq!(
        timeout(SOON, guest.read(&mut [0; 1]))
            .await
            .unwrap()
            .unwrap(),
        0
    );
    occupied(&site, 0).await;
}

#[tokio::test]
async fn the_end_of_the_machine_is_told() {
    let mut site = Site::new().await;
    site.launch("vm", machine("vm", "Running")).await;
    let console = site.console("vm");
    let mut client = open(&site, "vm").await;
    let mut guest = accept(&console).await;
    guest.write_all(b"reboot: Power down\n").await.unwrap();
    drop(guest);
    assert!(matches!(next(&mut client).await, Some(Message::Binary(_))));
    assert!(close_reason(&mut client).await.contains("closed"));
}

#[tokio::test]
async fn the_end_of_the_node_agent_is_told() {
    let mut site = Site::new().await;
    site.launch("vm", machine("vm", "Running")).await;
    let console = site.console("vm");
    let mut client = open(&site, "vm").await;
    let _guest = accept(&console).await;
    site.stop.cancel();
    assert!(close_reason(&mut client).await.contains("connect again"));
    timeout(SOON, site.serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_flood_waits_for_a_slow_client_and_arrives_whole() {
    const FLOOD: usize = 32 << 20;
    let mut site = Site::new().await;
    site.launch("vm", machine("vm", "Running")).await;
    let console = site.console("vm");
    let mut client = open(&site, "vm").await;
    let mut guest = accept(&console).await;
    let mut flooding = tokio::spawn(async move {
        guest.write_all(&vec![b'x'; FLOOD]).await.unwrap();
        guest
    });
    // As long as nobody reads, it does not end.
    assert!(
        timeout(Duration::from_millis(300), &mut flooding)
            .await
            .is_err()
    );
    let mut shown = 0;
    while shown < FLOOD {
        match next(&mut client).await {
            Some(Message::Binary(bytes)) => shown += bytes.len(),
            Some(Message::Ping(_)) => {}
            other => panic!("{other:?}"),
        }
    }
    timeout(SOON, flooding).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_that_floods_a_deaf_guest_is_held_back_and_not_taken_for_dead() {
    let pulse = Pulse {
        every: Duration::from_millis(20),
        unanswered_max: 2,
    };
    let mut site = Site::with(pulse, 3).await;
    site.launch("vm", machine("vm", "Running")).await;
    let console = site.console("vm");
    let (mut sink, mut stream) = open(&site, "vm").await.split();
    let mut guest = accept(&console).await;
    let reading = tokio::spawn(async move { while let Some(Ok(_)) = stream.next().await {} });
    let mut flooding = tokio::spawn(async move {
        for _ in 0..512 {
            sink.send(Message::binary(vec![b'y'; 32 << 10]))
                .await
                .unwrap();
        }
        drop(sink);
    });
    assert!(
        timeout(Duration::from_millis(300), &mut flooding)
            .await
            .is_err()
    );
    let mut typed = vec![0; 512 * (32 << 10)];
    timeout(SOON, guest.read_exact(&mut typed))
        .await
        .unwrap()
        .unwrap();
    timeout(SOON, flooding).await.unwrap().unwrap();
    reading.abort();
}

#[tokio::test]
async fn a_message_too_long_closes_the_console() {
    let mut site = Site::new().await;
    site.launch("vm", machine("vm", "Running")).await;
    let console = site.console("vm");
    let mut client = open(&site, "vm").await;
    let mut guest = accept(&console).await;
    let _sent = client.send(Message::binary(vec![0; 1 << 20])).await;
    let mut typed = Vec::new();
    timeout(SOON, guest.read_to_end(&mut typed))
        .await
        .unwrap()
        .unwrap();
    assert!(typed.is_empty());
    occupied(&site, 0).await;
}

#[tokio::test]
async fn links_in_the_pod_lead_nowhere() {
    let mut site = Site::new().await;
    site.launch("vm", machine("vm", "Running")).await;
    let elsewhere = site.dir.path().join("elsewhere");
    let _listener = UnixListener::bind(&elsewhere).unwrap();
    let folder = site.volume("vm", "private").join("u-vm");
    symlink(&elsewhere, folder.join("virt-serial0")).unwrap();
    refused(&site, "a link is in the way").await;
    std::fs::remove_dir_all(&folder).unwrap();
    symlink(site.dir.path(), &folder).unwrap();
    refused(&site, "a link is in the way").await;
    std::fs::remove_file(&folder).unwrap();
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("virt-serial0"), b"").unwrap();
    refused(&site, "no socket").await;
    occupied(&site, 0).await;
}

/// Checks that the console cannot be opened, and why.
async fn refused(site: &Site, part: &str) {
    let stream = connect(site.ports.console, &site.authority, Some(&site.virt_api)).await;
    let uri = format!("wss://node.test{}", path("vm", "console"));
    let refused = client_async(uri, stream.unwrap()).await.unwrap_err();
    let tokio_tungstenite::tungstenite::Error::Http(response) = refused else {
        panic!("{refused}");
    };
    assert_eq!(response.status(), 503);
    let body = String::from_utf8(response.into_body().unwrap_or_default()).unwrap();
    assert!(body.contains(part), "{body}");
}
