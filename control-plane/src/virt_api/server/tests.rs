use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::routing::get;
use http::{HeaderMap, Request};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;

use super::{FrontProxy, Server, TlsFiles};

const PATIENCE: Duration = Duration::from_secs(30);

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
        let issuer = Issuer::new(params, key);
        Self { issuer, pem }
    }

    fn sign(&self, name: &str) -> (String, String) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }
}

fn write(folder: &Path, (certificate, key): &(String, String)) -> TlsFiles {
    let files = TlsFiles {
        certificate: folder.join("tls.crt"),
        key: folder.join("tls.key"),
    };
    std::fs::write(&files.certificate, certificate).unwrap();
    std::fs::write(&files.key, key).unwrap();
    files
}

fn client(authority: &Authority, identity: Option<&(String, String)>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let root = CertificateDer::from_pem_slice(authority.pem.as_bytes()).unwrap();
    roots.add(root).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    Arc::new(match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    })
}

/// Asks who the server believes the client to be; `None` when there is no connection.
async fn who(address: SocketAddr, config: Arc<ClientConfig>) -> Option<String> {
    let stream = TcpStream::connect(address).await.ok()?;
    let name = ServerName::try_from("localhost").unwrap();
    let stream = TlsConnector::from(config)
        .connect(name, stream)
        .await
        .ok()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    let request = Request::get("/who")
        .header("X-Remote-User", "jane")
        .header("X-Remote-Extra-Scope", "all")
        .body(Body::empty())
        .unwrap();
    let response = sender.send_request(request).await.ok()?;
    let body = to_bytes(Body::new(response.into_body()), 1024).await.ok()?;
    Some(String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test]
async fn only_the_front_proxy_says_who_somebody_is() {
    let folder = tempfile::tempdir().unwrap();
    let (server, proxies) = (Authority::new(), Authority::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let proxy_file = folder.path().join("proxy.crt");
    std::fs::write(&proxy_file, &proxies.pem).unwrap();
    let serving = Server {
        listener,
        files: write(folder.path(), &server.sign("virt-api")),
        front_proxy: FrontProxy::File(proxy_file),
    };
    let told = async |headers: HeaderMap| {
        let names = headers.keys().map(http::HeaderName::as_str);
        let mut names: Vec<_> = names.filter(|name| name.starts_with("x-")).collect();
        names.sort_unstable();
        names.join(",")
    };
    let stop = CancellationToken::new();
    let served = tokio::spawn(serving.serve(Router::new().route("/who", get(told)), stop.clone()));
    // The first look at the files may take a moment.
    let first = async {
        loop {
            if let Some(answer) = who(address, client(&server, None)).await {
                break answer;
            }
            sleep(Duration::from_millis(5)).await;
        }
    };
    assert_eq!(timeout(PATIENCE, first).await.unwrap(), "");
    let proxy = proxies.sign("front-proxy-client");
    let answer = who(address, client(&server, Some(&proxy))).await;
    assert_eq!(answer.unwrap(), "x-remote-extra-scope,x-remote-user");
    let stranger = Authority::new().sign("front-proxy-client");
    assert_eq!(who(address, client(&server, Some(&stranger))).await, None);
    stop.cancel();
    timeout(PATIENCE, served).await.unwrap().unwrap();
}
