//! TLS, HTTP/2, tokens and bounds at the socket.

use std::sync::Arc;
use std::time::Duration;

use apiserver::access::User;
use apiserver::tls::{Authority, Subject};
use apiserver::{ApiServer, Options, Security};
use axum::body::Body;
use http::{Request, StatusCode, Version};
use http_body_util::BodyExt as _;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::wire::{Client, MAPS, config_map, serve};

async fn secure() -> (ApiServer, std::net::SocketAddr, String, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::open(&directory.path().join("tls")).unwrap();
    let subject = Subject {
        name: "apiserver",
        hosts: &["localhost"],
        ..Subject::default()
    };
    let identity = authority.sign(&subject).unwrap();
    let config = Arc::new(authority.server(&identity).unwrap());
    let server =
        ApiServer::open(Options::new(&directory.path().join("state"), vec![7; 32])).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = server.clone();
    tokio::spawn(async move { served.serve(listener, Security::Tls(config)).await });
    (
        server,
        address,
        authority.certificate().to_owned(),
        directory,
    )
}

fn connector(authority: &str) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsConnector::from(Arc::new(config))
}

#[tokio::test]
async fn http_2_over_tls_knows_tokens_and_refuses_wrong_ones() {
    let (server, address, authority, _directory) = secure().await;
    let stream = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let stream = connector(&authority).connect(name, stream).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(b"h2".as_slice()));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(async move { drop(connection.await) });
    for (token, path, expected) in [
        (None, "/version", StatusCode::OK),
        (None, MAPS, StatusCode::FORBIDDEN),
        (Some("Bearer wrong"), MAPS, StatusCode::UNAUTHORIZED),
        (Some("Basic eDp5"), MAPS, StatusCode::UNAUTHORIZED),
    ] {
        let mut request = Request::get(format!("https://localhost{path}"));
        if let Some(token) = token {
            request = request.header("authorization", token);
        }
        let response = sender
            .send_request(request.body(Body::empty()).unwrap())
            .await
            .unwrap();
        assert_eq!(
            (response.status(), response.version()),
            (expected, Version::HTTP_2),
            "{path}"
        );
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap();
        assert!(expected == StatusCode::OK || body["kind"] == "Status");
    }
    server.stop().cancel();
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_before_it_is_read_to_its_end() {
    let directory = tempfile::tempdir().unwrap();
    let (_server, address) = serve(directory.path()).await;
    let mut client = Client::connect(address).await;
    let body = config_map("a", &"x".repeat(4 << 20));
    let (status, answer) = client.send("POST", MAPS, Some(&body)).await.unwrap();
    assert_eq!(
        (status, answer["reason"].as_str()),
        (StatusCode::PAYLOAD_TOO_LARGE, Some("RequestEntityTooLarge"))
    );
}

#[tokio::test]
async fn what_is_no_request_ends_the_connection() {
    let directory = tempfile::tempdir().unwrap();
    let (_server, address) = serve(directory.path()).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"\x00\x01nonsense\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    timeout(Duration::from_secs(20), stream.read_to_end(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"));
}

#[tokio::test]
async fn connections_end_with_the_server() {
    let directory = tempfile::tempdir().unwrap();
    let (server, address) = serve(directory.path()).await;
    let mut client = Client::connect(address).await;
    let path = format!("{MAPS}?watch=true");
    let request = Request::get(path)
        .header("host", "localhost")
        .body(Body::empty())
        .unwrap();
    let response = client.begin(request).await.unwrap();
    server.stop().cancel();
    let rest = timeout(Duration::from_secs(20), response.into_body().collect())
        .await
        .unwrap();
    assert!(rest.unwrap().to_bytes().is_empty());
}

#[tokio::test]
async fn whoever_acts_as_somebody_else_has_their_rights_alone() {
    let directory = tempfile::tempdir().unwrap();
    let (server, _) = serve(directory.path()).await;
    let ask = async |sender: User, act_as: &[(&str, &str)], path: &str| {
        let mut request = Request::get(path);
        for (name, value) in act_as {
            request = request.header(*name, *value);
        }
        let request = request.extension(sender).body(Body::empty()).unwrap();
        let response = server.call(request).await;
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    };
    let root = || User::master("root");
    let as_bob = [("Impersonate-User", "bob")];
    assert_eq!(ask(root(), &[], MAPS).await.0, StatusCode::OK);
    let (status, why) = ask(root(), &as_bob, MAPS).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(why.contains(r#"User \"bob\" cannot list"#), "{why}");
    let as_masters = [
        ("Impersonate-User", "bob"),
        ("Impersonate-Group", "system:masters"),
    ];
    assert_eq!(ask(root(), &as_masters, MAPS).await.0, StatusCode::OK);
    // Somebody without the right does not get anywhere by it.
    let bob = || User::authenticated("bob", Vec::new());
    let (status, why) = ask(bob(), &as_masters, MAPS).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(why.contains("cannot impersonate resource"), "{why}");
    let as_nobody = [("Impersonate-Group", "system:masters")];
    let (status, _) = ask(root(), &as_nobody, MAPS).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    server.stop().cancel();
}
