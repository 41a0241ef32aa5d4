//! The settings of TLS as the files and the cluster have them now.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use api::error_chain::chain;
use kube::Client;
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{FrontProxy, TlsFiles};
use crate::virt_api::objects::{Kind, ObjectName, Objects, text};

/// Time between two looks: the kubelet changes files a minute after the secret.
const LOOK: Duration = Duration::from_secs(10);
/// Longest file of certificates that is taken, bytes; a bundle of hundreds.
const FILE_LEN_MAX: usize = 1 << 20;
/// Where clusters publish whom their API servers trust.
const PUBLISHED: (&str, &str) = ("kube-system", "extension-apiserver-authentication");

/// What connections are served with.
pub(super) struct Settings {
    pub(super) tls: Arc<ServerConfig>,
    /// Common names of the front proxy; any when empty.
    pub(super) allowed_names: Vec<String>,
}

/// Why certificates are of no use.
#[derive(Debug, thiserror::Error)]
enum TlsError {
    /// A file cannot be read.
    #[error("read {path}")]
    Read {
        path: String,
        source: std::io::Error,
    },
    /// A file is longer than any certificate.
    #[error("read {path}: longer than {FILE_LEN_MAX} bytes")]
    TooLong { path: String },
    /// What was read is no certificate or key.
    #[error("read {what}: it holds no PEM")]
    Pem {
        what: &'static str,
        source: rustls::pki_types::pem::Error,
    },
    /// Certificate and key don't go together, or are of a kind that is not known.
    #[error("use the certificate and its key")]
    Pair(#[source] rustls::Error),
    /// Clients' certificates cannot be checked.
    #[error("check clients by the front proxy's authority")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
}

/// What settings are made from.
#[derive(Clone, Default, PartialEq, Eq)]
struct Material {
    certificate: Vec<u8>,
    key: Vec<u8>,
    /// The front proxy's authority; empty as long as nobody knows it.
    authority: Vec<u8>,
    allowed_names: Vec<String>,
}

/// Returns the settings, and keeps them as files and cluster have them until told to stop; `None` as long as there is
/// no certificate.
pub(super) fn keep(
    files: TlsFiles,
    front_proxy: FrontProxy,
    stop: CancellationToken,
) -> watch::Receiver<Option<Arc<Settings>>> {
    let (tell, told) = watch::channel(None);
    let mut keeping = Keeping {
        files,
        front_proxy,
        tell,
        used: Material::default(),
        trouble: None,
    };
    tokio::spawn(async move { stop.run_until_cancelled(keeping.keep()).await });
    told
}

struct Keeping {
    files: TlsFiles,
    front_proxy: FrontProxy,
    tell: watch::Sender<Option<Arc<Settings>>>,
    used: Material,
    /// What was complained about last.
    trouble: Option<String>,
}

impl Keeping {
    async fn keep(&mut self) {
        let mut ticks = interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let trouble = match self.look().await {
                Ok(trouble) => trouble,
                Err(error) => Some(chain(&error)),
            };
            if let Some(error) = trouble.as_ref().filter(|_| trouble != self.trouble) {
                warn!(error, "certificates are lacking");
            }
            self.trouble = trouble;
        }
    }

    /// Takes over what changed, unless it is of no use. Returns what is lacking nevertheless.
    async fn look(&mut self) -> Result<Option<String>, TlsError> {
        let mut material = Material {
            certificate: read(&self.files.certificate).await?,
            key: read(&self.files.key).await?,
            ..Material::default()
        };
        let (known, trouble) = match self.authority().await? {
            Ok(known) => (known, None),
            Err(why) => {
                let before = (self.used.authority.clone(), self.used.allowed_names.clone());
                (before, Some(why))
            }
        };
        (material.authority, material.allowed_names) = known;
        if material == self.used {
            return Ok(trouble);
        }
        let settings = settings(&material)?;
        let knows_front_proxy = !material.authority.is_empty();
        info!(knows_front_proxy, "certificates are read");
        self.tell.send_replace(Some(Arc::new(settings)));
        self.used = material;
        Ok(trouble)
    }

    /// Reads the front proxy's authority and names, or why the cluster does not tell them.
    async fn authority(&self) -> Result<Result<FrontProxyNames, String>, TlsError> {
        match &self.front_proxy {
            FrontProxy::File(path) => Ok(Ok((read(path).await?, Vec::new()))),
            FrontProxy::Published(client) => Ok(published(client.clone()).await),
        }
    }
}

/// Certificates of the front proxy's authority in PEM, and the common names that it may have.
type FrontProxyNames = (Vec<u8>, Vec<String>);

async fn published(client: Client) -> Result<FrontProxyNames, String> {
    let (namespace, name) = PUBLISHED;
    let map = ObjectName::new(Kind::ConfigMap, namespace, name);
    let map = Objects::new(client).get(&map).await.map_err(|refusal| {
        let why = refusal.message();
        format!("the front proxy's authority is not known, nobody is believed who they are: {why}")
    })?;
    let names = text(&map, "/data/requestheader-allowed-names");
    let authority = text(&map, "/data/requestheader-client-ca-file");
    let names = serde_json::from_str(names).unwrap_or_default();
    Ok((authority.as_bytes().to_vec(), names))
}

async fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let shown = path.display().to_string();
    match tokio::fs::read(path).await {
        Err(source) => Err(TlsError::Read {
            path: shown,
            source,
        }),
        Ok(bytes) if bytes.len() > FILE_LEN_MAX => Err(TlsError::TooLong { path: shown }),
        Ok(bytes) => Ok(bytes),
    }
}

fn settings(material: &Material) -> Result<Settings, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Pair)?;
    let mut roots = RootCertStore::empty();
    let authority = certificates("the front proxy's authority", &material.authority)?;
    let (usable, _) = roots.add_parsable_certificates(authority);
    let builder = if usable == 0 {
        builder.with_no_client_auth()
    } else {
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
        let verifier = verifier.allow_unauthenticated().build();
        builder.with_client_cert_verifier(verifier.map_err(TlsError::Verifier)?)
    };
    let chain = certificates("the server's certificate", &material.certificate)?;
    let key = PrivateKeyDer::from_pem_slice(&material.key).map_err(|source| {
        let what = "the server's key";
        TlsError::Pem { what, source }
    })?;
    let mut tls = builder
        .with_single_cert(chain, key)
        .map_err(TlsError::Pair)?;
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Whoever resumes a session was checked by the authority of then.
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    tls.send_tls13_tickets = 0;
    Ok(Settings {
        tls: Arc::new(tls),
        allowed_names: material.allowed_names.clone(),
    })
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    certificates.map_err(|source| TlsError::Pem { what, source })
}
