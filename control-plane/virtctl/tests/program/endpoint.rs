//! An API server that plays a part.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts, State};
use axum::response::{IntoResponse, Response};
use http::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// What was asked for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) path: String,
    /// Body; `null` when there is none.
    pub(crate) body: Value,
    pub(crate) authorization: String,
}

/// Says what is answered to a method and a path.
pub(crate) type Script = Arc<dyn Fn(&str, &str) -> (u16, Value) + Send + Sync>;

/// How a WebSocket ends after a line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Farewell {
    pub(crate) line: &'static str,
    pub(crate) reason: &'static str,
}

#[derive(Clone)]
struct Part {
    asked: Arc<Mutex<Vec<Asked>>>,
    script: Script,
    farewell: Option<Farewell>,
}

/// The server.
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    /// Certificate that vouches for it, in PEM; without one it does not speak TLS.
    pub(crate) authority: Option<String>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Endpoint {
    /// Starts a server without TLS.
    pub(crate) async fn start(
        script: impl Fn(&str, &str) -> (u16, Value) + Send + Sync + 'static,
    ) -> Self {
        Self::serve(Arc::new(script), None, false).await
    }

    /// Starts a server with TLS that prefers HTTP/2 where the client speaks it.
    pub(crate) async fn start_tls(
        script: impl Fn(&str, &str) -> (u16, Value) + Send + Sync + 'static,
    ) -> Self {
        Self::serve(Arc::new(script), None, true).await
    }

    /// Starts a server that closes WebSockets after a line.
    pub(crate) async fn start_parting(
        script: impl Fn(&str, &str) -> (u16, Value) + Send + Sync + 'static,
        farewell: Farewell,
    ) -> Self {
        Self::serve(Arc::new(script), Some(farewell), false).await
    }

    async fn serve(script: Script, farewell: Option<Farewell>, is_tls: bool) -> Self {
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let part = Part {
            asked: Arc::clone(&asked),
            script,
            farewell,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().fallback(answer).with_state(part);
        let tls = is_tls.then(tls);
        let authority = tls.as_ref().map(|(_, authority)| authority.clone());
        let acceptor = tls.map(|(acceptor, _)| acceptor);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let service = TowerToHyperService::new(router.clone());
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let http = hyper::server::conn::http1::Builder::new();
                    match acceptor {
                        Some(acceptor) => {
                            let Ok(stream) = acceptor.accept(stream).await else {
                                return;
                            };
                            let served = http.serve_connection(TokioIo::new(stream), service);
                            let _client_gone = served.with_upgrades().await;
                        }
                        None => {
                            let served = http.serve_connection(TokioIo::new(stream), service);
                            let _client_gone = served.with_upgrades().await;
                        }
                    }
                });
            }
        });
        Self {
            address,
            authority,
            asked,
        }
    }

    /// Returns what was asked for so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn tls() -> (TlsAcceptor, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, key).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    (TlsAcceptor::from(Arc::new(config)), authority.pem())
}

async fn answer(State(part): State<Part>, request: Request<Body>) -> Response {
    let (mut parts, body) = request.into_parts();
    let body = to_bytes(body, 1 << 20).await.unwrap();
    let path = parts.uri.to_string();
    let header = |name| {
        parts
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    part.asked.lock().unwrap().push(Asked {
        method: parts.method.to_string(),
        path: path.clone(),
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        authorization: header(header::AUTHORIZATION).unwrap_or_default().to_owned(),
    });
    let is_upgrade = parts.headers.contains_key(header::UPGRADE);
    let (code, answer) = (part.script)(parts.method.as_str(), &path);
    if is_upgrade && code == 200 {
        let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &())
            .await
            .unwrap();
        let upgrade = upgrade.protocols(["plain.kubevirt.io"]);
        return upgrade.on_upgrade(move |socket| guest(socket, part.farewell));
    }
    let code = StatusCode::from_u16(code).unwrap();
    if answer.is_null() {
        return code.into_response();
    }
    (code, axum::Json(answer)).into_response()
}

/// Plays a guest: greets, and says what it hears.
async fn guest(mut socket: WebSocket, farewell: Option<Farewell>) {
    let greeting = Message::Binary("login: ".into());
    if socket.send(greeting).await.is_err() {
        return;
    }
    let mut heard = Vec::new();
    while let Some(Ok(message)) = socket.recv().await {
        let Message::Binary(bytes) = message else {
            continue;
        };
        heard.extend_from_slice(&bytes);
        if socket.send(Message::Binary(bytes)).await.is_err() {
            return;
        }
        let Some(farewell) = farewell else {
            continue;
        };
        if String::from_utf8_lossy(&heard).contains(farewell.line) {
            let frame = axum::extract::ws::CloseFrame {
                code: 1000,
                reason: farewell.reason.into(),
            };
            let _gone = socket.send(Message::Close(Some(frame))).await;
            return;
        }
    }
}

/// Returns a refusal in an API server's form.
pub(crate) fn refusal(code: u16, reason: &str, message: &str) -> (u16, Value) {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    });
    (code, status)
}

/// Returns that there is no such object.
pub(crate) fn not_found(resource: &str, name: &str) -> (u16, Value) {
    let (code, mut status) = refusal(404, "NotFound", &format!("{resource} {name:?} not found"));
    status["details"] = json!({"name": name, "kind": resource});
    (code, status)
}
