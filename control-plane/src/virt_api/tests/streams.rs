//! Streams between real sockets: a client, this side, and a node agent or a guest.

mod agent;

use std::net::SocketAddr;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use http::{HeaderValue, Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message};

use super::scripted::Cluster;
use super::{SUBRESOURCES, instance, machine};
use crate::virt_api::node::Identity;
use crate::virt_api::served;
use crate::virt_api::stream::Pulse;
use agent::Agent;

/// Time for anything here to happen.
const PATIENCE: Duration = Duration::from_secs(20);

type Client = WebSocketStream<TcpStream>;

/// Serves a cluster's subresources and returns the address.
async fn serve(cluster: &Cluster, agent: Option<&Agent>, pulse: Pulse) -> SocketAddr {
    let mut desk = match agent {
        Some(agent) => cluster.desk_with(agent.address()),
        None => cluster.desk(),
    };
    desk.pulse = pulse;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, served(desk, false)).await });
    address
}

/// Opens a WebSocket at a path below the namespace's subresources.
async fn connect(address: SocketAddr, path: &str) -> Result<Client, tungstenite::Error> {
    let url = format!("ws://{address}{SUBRESOURCES}/{path}");
    let mut request = url.into_client_request().unwrap();
    let protocol = HeaderValue::from_static("plain.kubevirt.io");
    request
        .headers_mut()
        .insert("Sec-WebSocket-Protocol", protocol);
    let stream = TcpStream::connect(address).await.unwrap();
    let (client, response) = tokio_tungstenite::client_async(request, stream).await?;
    assert_eq!(
        response.headers()["Sec-WebSocket-Protocol"],
        "plain.kubevirt.io"
    );
    Ok(client)
}

/// Returns the status code with which a WebSocket is refused.
async fn refusal(address: SocketAddr, path: &str) -> StatusCode {
    match connect(address, path).await {
        Err(tungstenite::Error::Http(response)) => response.status(),
        other => panic!("no refusal: {other:?}"),
    }
}

/// Returns the next bytes that come, the end as none.
async fn next(client: &mut Client) -> Option<Vec<u8>> {
    loop {
        let message = timeout(PATIENCE, client.next())
            .await
            .expect("nothing comes");
        match message {
            Some(Ok(Message::Binary(bytes))) => return Some(bytes.to_vec()),
            Some(Ok(Message::Text(text))) => return Some(text.as_bytes().to_vec()),
            Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
            Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
        }
    }
}

async fn send(client: &mut Client, bytes: &[u8]) {
    let message = Message::Binary(bytes.to_vec().into());
    client.send(message).await.unwrap();
}

fn reachable(address: &str) -> Value {
    let mut vmi = instance("Running");
    vmi["status"]["interfaces"] = json!([{"ipAddress": address}]);
    vmi
}

#[tokio::test]
async fn a_console_is_carried_both_ways_until_the_client_leaves() {
    let cluster = Cluster::default();
    cluster.put("virtualmachineinstances", instance("Running"));
    let agent = Agent::start().await;
    let address = serve(&cluster, Some(&agent), Pulse::default()).await;
    let mut client = connect(address, "virtualmachineinstances/vm/console")
        .await
        .unwrap();
    assert_eq!(next(&mut client).await.unwrap(), b"login: ");
    send(&mut client, b"root\n").await;
    assert_eq!(next(&mut client).await.unwrap(), b"root\n");
    let long = vec![7; 300 << 10];
    send(&mut client, &long).await;
    assert_eq!(next(&mut client).await.unwrap(), long);
    client.close(None).await.unwrap();
    timeout(PATIENCE, agent.left()).await.unwrap();
    assert_eq!(agent.clients(), ["kubevirt.io:system:client:virt-handler"]);
}

#[tokio::test]
async fn a_client_is_told_when_the_guest_closes_its_console() {
    let cluster = Cluster::default();
    cluster.put("virtualmachineinstances", instance("Running"));
    let agent = Agent::start().await;
    let address = serve(&cluster, Some(&agent), Pulse::default()).await;
    let mut client = connect(address, "virtualmachineinstances/vm/console")
        .await
        .unwrap();
    next(&mut client).await.unwrap();
    send(&mut client, b"exit").await;
    let closed = timeout(PATIENCE, client.next()).await.unwrap();
    let Some(Ok(Message::Close(Some(frame)))) = closed else {
        panic!("no goodbye: {closed:?}");
    };
    assert_eq!(frame.reason.as_str(), "the guest is done");
}

#[tokio::test]
async fn both_sides_of_an_idle_console_are_pinged() {
    let cluster = Cluster::default();
    cluster.put("virtualmachineinstances", instance("Running"));
    let agent = Agent::start().await;
    let pulse = Pulse {
        every: Duration::from_millis(20),
        unanswered_max: 100,
    };
    let address = serve(&cluster, Some(&agent), pulse).await;
    let mut client = connect(address, "virtualmachineinstances/vm/console")
        .await
        .unwrap();
    let pinged = async { while !matches!(client.next().await, Some(Ok(Message::Ping(_)))) {} };
    timeout(PATIENCE, pinged).await.unwrap();
    let agent_pinged = async {
        // What the client reads keeps its own side alive.
        tokio::select! {
            () = agent.pinged() => {}
            () = async { while client.next().await.is_some() {} } => panic!("closed"),
        }
    };
    timeout(PATIENCE, agent_pinged).await.unwrap();
}

#[tokio::test]
async fn a_client_that_answers_no_pings_is_given_up() {
    let cluster = Cluster::default();
    cluster.put("virtualmachineinstances", instance("Running"));
    let agent = Agent::start().await;
    let pulse = Pulse {
        every: Duration::from_millis(20),
        unanswered_max: 3,
    };
    let address = serve(&cluster, Some(&agent), pulse).await;
    let client = connect(address, "virtualmachineinstances/vm/console")
        .await
        .unwrap();
    // Nobody reads what comes, so nothing is answered.
    timeout(PATIENCE, agent.left()).await.unwrap();
    drop(client);
}

#[tokio::test]
async fn what_a_node_agent_refuses_is_told_in_its_words() {
    let cluster = Cluster::default();
    cluster.put("virtualmachineinstances", instance("Running"));
    let agent = Agent::start().await;
    let address = serve(&cluster, Some(&agent), Pulse::default()).await;
    let display = refusal(address, "virtualmachineinstances/vm/vnc").await;
    assert_eq!(display, StatusCode::NOT_IMPLEMENTED);
    let path = format!("{SUBRESOURCES}/virtualmachineinstances/vm/pause");
    let router = served(cluster.desk_with(agent.address()), false);
    let request = http::Request::put(path)
        .body(axum::body::Body::empty())
        .unwrap();
    let response = tower::ServiceExt::oneshot(router, request).await.unwrap();
    let (status, answer) = super::scripted::read(response).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(
        answer["message"],
        "Operation cannot be fulfilled on virtualmachineinstance.kubevirt.io \"vm\": VMI is already paused"
    );
    assert_eq!(answer["details"]["name"], "vm");
}

#[tokio::test]
async fn whether_a_machine_is_paused_is_for_its_node_to_say() {
    let cluster = Cluster::default();
    let agent = Agent::start().await;
    let router = served(cluster.desk_with(agent.address()), false);
    let paused = json!([{"type": "Paused", "status": "True"}]);
    for (action, conditions) in [("unpause", json!([])), ("softreboot", paused)] {
        let mut vmi = instance("Running");
        vmi["status"]["conditions"] = conditions;
        cluster.put("virtualmachineinstances", vmi);
        let path = format!("{SUBRESOURCES}/virtualmachineinstances/vm/{action}");
        let request = http::Request::put(path).body(axum::body::Body::empty());
        let answer = tower::ServiceExt::oneshot(router.clone(), request.unwrap()).await;
        assert_eq!(answer.unwrap().status(), StatusCode::OK, "{action}");
    }
}

#[tokio::test]
async fn requests_are_carried_out_by_the_node_agent() {
    let cluster = Cluster::default();
    let mut vmi = instance("Running");
    vmi["status"]["conditions"] = json!([{"type": "AgentConnected", "status": "True"}]);
    cluster.put("virtualmachineinstances", vmi);
    let agent = Agent::start().await;
    let router = served(cluster.desk_with(agent.address()), false);
    let ask = async |method: Method, action: &str, body: &str| {
        let path = format!("{SUBRESOURCES}/virtualmachineinstances/vm/{action}");
        let request = http::Request::builder().method(method).uri(path);
        let request = request
            .body(axum::body::Body::from(body.to_owned()))
            .unwrap();
        let response = tower::ServiceExt::oneshot(router.clone(), request)
            .await
            .unwrap();
        super::scripted::read(response).await
    };
    let freeze = r#"{"unfreezeTimeout":"5m0s"}"#;
    assert_eq!(ask(Method::PUT, "freeze", freeze).await.0, StatusCode::OK);
    assert_eq!(agent.bodies(), [freeze]);
    let (status, users) = ask(Method::GET, "userlist", "").await;
    assert_eq!((status, users["items"].is_array()), (StatusCode::OK, true));
    assert_eq!(
        ask(Method::PUT, "pause", r#"{"dryRun":["All"]}"#).await.0,
        StatusCode::OK
    );
    assert_eq!(agent.bodies().len(), 1, "a rehearsal asks nobody");
}

#[tokio::test]
async fn consoles_that_cannot_be_are_refused() {
    let cluster = Cluster::default();
    let address = serve(&cluster, None, Pulse::default()).await;
    let path = "virtualmachineinstances/vm/console";
    assert_eq!(refusal(address, path).await, StatusCode::NOT_FOUND);
    cluster.put("virtualmachineinstances", instance("Scheduled"));
    assert_eq!(refusal(address, path).await, StatusCode::BAD_REQUEST);
    cluster.put("virtualmachineinstances", instance("Failed"));
    assert_eq!(refusal(address, path).await, StatusCode::CONFLICT);
    let mut mute = instance("Running");
    mute["spec"]["domain"]["devices"]["autoattachSerialConsole"] = json!(false);
    cluster.put("virtualmachineinstances", mute);
    assert_eq!(refusal(address, path).await, StatusCode::BAD_REQUEST);
    cluster.put("virtualmachineinstances", instance("Running"));
    let (status, answer) = cluster
        .ask(Method::GET, &format!("{SUBRESOURCES}/{path}"), None)
        .await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(
        answer["message"]
            .as_str()
            .unwrap()
            .contains("needs a WebSocket"),
        "{answer}"
    );
}

#[tokio::test]
async fn an_agent_of_another_authority_or_name_is_not_believed() {
    let cluster = Cluster::default();
    cluster.put("virtualmachineinstances", instance("Running"));
    let agent = Agent::start().await;
    let other = Agent::start().await;
    let mut address = agent.address();
    address.identity = Identity::new(
        agent.client_certificate(),
        agent.client_key(),
        other.authority(),
    );
    let impostor = Agent::named("kubevirt.io:system:client:virt-handler").await;
    for address in [address, impostor.address()] {
        let router = served(cluster.desk_with(address), false);
        let path = format!("{SUBRESOURCES}/virtualmachineinstances/vm/pause");
        let request = http::Request::put(path)
            .body(axum::body::Body::empty())
            .unwrap();
        let response = tower::ServiceExt::oneshot(router, request).await.unwrap();
        let (status, answer) = super::scripted::read(response).await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{answer}");
    }
    assert!(agent.bodies().is_empty() && impostor.bodies().is_empty());
}

#[tokio::test]
async fn a_tcp_port_is_forwarded_from_machine_and_instance() {
    let guest = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = guest.local_addr().unwrap().port();
    let cluster = Cluster::default();
    cluster.put("virtualmachines", machine("Always"));
    cluster.put("virtualmachineinstances", reachable("127.0.0.1"));
    let address = serve(&cluster, None, Pulse::default()).await;
    for path in [
        format!("virtualmachineinstances/vm/portforward/{port}"),
        format!("virtualmachines/vm/portforward/{port}/tcp"),
    ] {
        let mut client = connect(address, &path).await.unwrap();
        let (mut served, _) = guest.accept().await.unwrap();
        send(&mut client, b"GET /").await;
        let mut read = [0; 5];
        served.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"GET /");
        let page = vec![1; 200 << 10];
        served.write_all(&page).await.unwrap();
        drop(served);
        let mut received = Vec::new();
        while let Some(bytes) = next(&mut client).await {
            received.extend(bytes);
        }
        assert_eq!(received, page);
    }
}

#[tokio::test]
async fn datagrams_are_forwarded_one_by_one() {
    let guest = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let port = guest.local_addr().unwrap().port();
    let cluster = Cluster::default();
    cluster.put("virtualmachineinstances", reachable("127.0.0.1"));
    let address = serve(&cluster, None, Pulse::default()).await;
    let path = format!("virtualmachineinstances/vm/portforward/{port}/udp");
    let mut client = connect(address, &path).await.unwrap();
    send(&mut client, b"one").await;
    send(&mut client, b"two").await;
    let mut datagram = [0; 100];
    let (len, from) = guest.recv_from(&mut datagram).await.unwrap();
    assert_eq!(&datagram[..len], b"one");
    let (len, _) = guest.recv_from(&mut datagram).await.unwrap();
    assert_eq!(&datagram[..len], b"two");
    guest.send_to(b"answer", from).await.unwrap();
    assert_eq!(next(&mut client).await.unwrap(), b"answer");
}

#[tokio::test]
async fn ports_that_cannot_be_reached_are_refused_with_the_reason() {
    let cluster = Cluster::default();
    cluster.put("virtualmachines", machine("Always"));
    cluster.put("virtualmachineinstances", instance("Running"));
    let address = serve(&cluster, None, Pulse::default()).await;
    let path = "virtualmachineinstances/vm/portforward/22";
    assert_eq!(refusal(address, path).await, StatusCode::BAD_REQUEST);
    // A port that was free a moment ago, and that nobody listens on.
    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    cluster.put("virtualmachineinstances", reachable("127.0.0.1"));
    let path = format!("virtualmachineinstances/vm/portforward/{}", closed.port());
    assert_eq!(
        refusal(address, &path).await,
        StatusCode::INTERNAL_SERVER_ERROR
    );
    for path in ["portforward/0", "portforward/ssh", "portforward/22/sctp"] {
        let path = format!("virtualmachineinstances/vm/{path}");
        assert_eq!(
            refusal(address, &path).await,
            StatusCode::BAD_REQUEST,
            "{path}"
        );
    }
    let mut stopped = machine("Halted");
    stopped["status"]["created"] = json!(false);
    cluster.put("virtualmachines", stopped);
    let path = "virtualmachines/vm/portforward/22";
    assert_eq!(refusal(address, path).await, StatusCode::CONFLICT);
}
