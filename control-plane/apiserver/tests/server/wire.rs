//! A server on loopback, and a client of one connection to it.

use std::net::SocketAddr;
use std::path::Path;

use apiserver::access::User;
use apiserver::{ApiServer, Options, Security};
use axum::body::Body;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

/// Opens a server, gives it the namespace `default`, and serves everybody as an administrator on loopback.
pub(crate) async fn serve(directory: &Path) -> (ApiServer, SocketAddr) {
    let server = ApiServer::open(Options::new(directory, vec![7; 32])).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = server.clone();
    let security = Security::Plain(User::master("tests"));
    tokio::spawn(async move { served.serve(listener, security).await });
    let mut client = Client::connect(address).await;
    let body = json!({"metadata": {"name": "default"}});
    let (status, answer) = client
        .send("POST", "/api/v1/namespaces", Some(&body))
        .await
        .unwrap();
    let is_there = status == StatusCode::CREATED || status == StatusCode::CONFLICT;
    assert!(is_there, "{answer}");
    (server, address)
}

/// One HTTP/1.1 connection.
pub(crate) struct Client {
    sender: SendRequest<Body>,
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        // It ends with the server, which crashes in some tests.
        tokio::spawn(async move { drop(connection.await) });
        Self { sender }
    }

    /// Sends a request and returns the answer when its head is there; nothing when the server is gone.
    pub(crate) async fn begin(&mut self, request: Request<Body>) -> Option<Response<Incoming>> {
        self.sender.ready().await.ok()?;
        self.sender.send_request(request).await.ok()
    }

    /// Sends a request and reads the answer; nothing when the server is gone.
    pub(crate) async fn send(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Option<(StatusCode, Value)> {
        let media = match method {
            "PATCH" => "application/merge-patch+json",
            _ => "application/json",
        };
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "localhost");
        let body = body.map_or_else(Body::empty, |it| Body::from(it.to_string()));
        let request = request.header("content-type", media).body(body).unwrap();
        let response = self.begin(request).await?;
        let status = response.status();
        let bytes = response.into_body().collect().await.ok()?.to_bytes();
        Some((
            status,
            serde_json::from_slice(&bytes).unwrap_or(Value::Null),
        ))
    }
}

pub(crate) fn config_map(name: &str, text: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"text": text}})
}

pub(crate) const MAPS: &str = "/api/v1/namespaces/default/configmaps";
