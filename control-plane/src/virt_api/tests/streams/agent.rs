//! A node agent that says what the test wants, with certificates of an authority of its own.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::response::Response;
use axum::routing::{get, put};
use http::StatusCode;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use serde_json::{Value, json};
use std::net::SocketAddr;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

use crate::virt_api::answer::json_response;
use crate::virt_api::node::{HandlerAddress, HandlerPlace, Identity, Pem, common_name};

const SERVER: &str = "kubevirt.io:system:node:virt-handler";
const CLIENT: &str = "kubevirt.io:system:client:virt-handler";

#[derive(Default)]
struct Seen {
    bodies: Mutex<Vec<String>>,
    clients: Mutex<Vec<String>>,
    left: Notify,
    pinged: Notify,
}

pub(super) struct Agent {
    socket: SocketAddr,
    seen: Arc<Seen>,
    authority: String,
    client: (String, String),
}

/// An authority and what it has signed, in PEM.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            issuer: Issuer::new(params, key),
            pem,
        }
    }

    /// Signs a certificate and returns it with its key.
    fn sign(&self, name: &str) -> (String, String) {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

impl Agent {
    pub(super) async fn start() -> Self {
        Self::named(SERVER).await
    }

    /// Starts an agent whose certificate has a common name.
    pub(super) async fn named(name: &str) -> Self {
        let authority = Authority::new();
        let acceptor = acceptor(&authority, name);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let agent = Self {
            socket: listener.local_addr().unwrap(),
            seen: Arc::default(),
            client: authority.sign(CLIENT),
            authority: authority.pem,
        };
        tokio::spawn(serve(listener, acceptor, Arc::clone(&agent.seen)));
        agent
    }

    pub(super) fn address(&self) -> HandlerAddress {
        HandlerAddress {
            place: HandlerPlace::Fixed(self.socket),
            identity: Identity::new(
                self.client_certificate(),
                self.client_key(),
                self.authority(),
            ),
        }
    }

    pub(super) fn client_certificate(&self) -> Pem {
        Pem::Text(self.client.0.as_str().into())
    }

    pub(super) fn client_key(&self) -> Pem {
        Pem::Text(self.client.1.as_str().into())
    }

    pub(super) fn authority(&self) -> Pem {
        Pem::Text(self.authority.as_str().into())
    }

    /// Returns the common names of clients that came.
    pub(super) fn clients(&self) -> Vec<String> {
        self.seen.clients.lock().unwrap().clone()
    }

    /// Returns the bodies of requests that change machines.
    pub(super) fn bodies(&self) -> Vec<String> {
        self.seen.bodies.lock().unwrap().clone()
    }

    /// Waits until a console is closed.
    pub(super) async fn left(&self) {
        self.seen.left.notified().await;
    }

    /// Waits until a console is pinged.
    pub(super) async fn pinged(&self) {
        self.seen.pinged.notified().await;
    }
}

fn acceptor(authority: &Authority, name: &str) -> TlsAcceptor {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap();
    roots.add(root).unwrap();
    let provider = Arc::new(ring::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider));
    let (certificate, key) = authority.sign(name);
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
            PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
        )
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

async fn serve(listener: TcpListener, acceptor: TlsAcceptor, seen: Arc<Seen>) {
    let base = "/v1/namespaces/ns/virtualmachineinstances/vm";
    let users = || async { json_response(StatusCode::OK, &json!({"items": []})) };
    let router = Router::new()
        .route(&format!("{base}/console"), get(console))
        .route(
            &format!("{base}/vnc"),
            get(|| async { refuse(501, "no display") }),
        )
        .route(
            &format!("{base}/pause"),
            put(|| async { refuse(409, "VMI is already paused") }),
        )
        .route(
            &format!("{base}/unpause"),
            put(|| async { StatusCode::ACCEPTED }),
        )
        .route(
            &format!("{base}/softreboot"),
            put(|| async { StatusCode::ACCEPTED }),
        )
        .route(&format!("{base}/freeze"), put(freeze))
        .route(&format!("{base}/userlist"), get(users))
        .with_state(Arc::clone(&seen));
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (acceptor, router, seen) = (acceptor.clone(), router.clone(), Arc::clone(&seen));
        tokio::spawn(async move {
            let Ok(stream) = acceptor.accept(stream).await else {
                return;
            };
            let chain = stream.get_ref().1.peer_certificates().unwrap();
            let name = common_name(&chain[0]).unwrap();
            seen.clients.lock().unwrap().push(name);
            let service = TowerToHyperService::new(router);
            let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            let _end = served.with_upgrades().await;
        });
    }
}

fn refuse(code: u16, message: &str) -> Response {
    let status: Value = json!({"kind": "Status", "message": message, "code": code});
    json_response(StatusCode::from_u16(code).unwrap(), &status)
}

async fn freeze(State(seen): State<Arc<Seen>>, body: Body) -> StatusCode {
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let body = String::from_utf8(body.to_vec()).unwrap();
    seen.bodies.lock().unwrap().push(body);
    StatusCode::ACCEPTED
}

async fn console(State(seen): State<Arc<Seen>>, upgrade: WebSocketUpgrade) -> Response {
    upgrade
        .protocols(["plain.kubevirt.io"])
        .on_upgrade(|socket| echo(socket, seen))
}

/// A guest that repeats what is typed, until it is told to exit.
async fn echo(mut socket: WebSocket, seen: Arc<Seen>) {
    let login = Message::Binary("login: ".into());
    socket.send(login).await.unwrap();
    while let Some(Ok(message)) = socket.recv().await {
        match message {
            Message::Binary(bytes) if bytes == "exit" => {
                let frame = CloseFrame {
                    code: 1000,
                    reason: "the guest is done".into(),
                };
                let _gone = socket.send(Message::Close(Some(frame))).await;
            }
            Message::Binary(bytes) => drop(socket.send(Message::Binary(bytes)).await),
            Message::Ping(_) => seen.pinged.notify_one(),
            _ => {}
        }
    }
    seen.left.notify_one();
}
