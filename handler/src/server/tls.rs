//! The certificates of the servers, and whose clients they believe. Both are read anew when they change;
//! connections that are there stay.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use api::error_chain::chain;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Longest file of certificates that is read, bytes; a bundle of hundreds.
const FILE_LEN_MAX: u64 = 1 << 20;

/// Why certificates are of no use.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// A file is longer than any certificate.
    #[error("read {}: longer than {FILE_LEN_MAX} bytes", path.display())]
    TooLong {
        /// The file.
        path: PathBuf,
    },
    /// What was read is no certificate or key.
    #[error("read {what}: it holds no PEM")]
    Pem {
        /// What was read.
        what: &'static str,
        /// What is wrong with it.
        source: rustls::pki_types::pem::Error,
    },
    /// The authority has no certificate that can be used.
    #[error("read the clients' authority: it holds no certificate")]
    NoAuthority,
    /// Certificate and key don't go together, or are of a kind that is not known.
    #[error("use the certificate and its key")]
    Pair(#[source] rustls::Error),
    /// Clients' certificates cannot be checked.
    #[error("check clients by their authority")]
    Verifier(#[source] rustls::server::VerifierBuilderError),
}

/// Files of the server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate and those between it and its authority.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Where the certificates of the clients' authority are, in PEM.
#[derive(Clone, Debug)]
pub enum Authority {
    /// In a file.
    File(PathBuf),
    /// Somebody tells them; `None` as long as they are not known.
    Told(watch::Receiver<Option<Arc<str>>>),
}

/// The certificates as they are now. Clones are handles of the same.
#[derive(Clone, Debug)]
pub struct TlsKeeper {
    configs: watch::Receiver<Configs>,
}

/// Settings of TLS, `None` where certificates are lacking.
#[derive(Clone, Debug, Default)]
struct Configs {
    /// For anyone.
    open: Option<Arc<ServerConfig>>,
    /// For clients of the authority.
    closed: Option<Arc<ServerConfig>>,
}

/// What the settings are made from.
#[derive(Clone, PartialEq, Eq)]
struct Material {
    certificate: Vec<u8>,
    key: Vec<u8>,
    authority: Option<Vec<u8>>,
}

impl TlsKeeper {
    /// Time between two looks at the files that is enough: the kubelet changes them a minute after the secret.
    pub const LOOK: Duration = Duration::from_secs(10);

    /// Reads certificates, and keeps reading them each `look` until told to stop. As long as there are none, nobody
    /// is served.
    pub async fn start(
        files: TlsFiles,
        authority: Authority,
        look: Duration,
        stop: CancellationToken,
    ) -> Self {
        let (tell, configs) = watch::channel(Configs::default());
        let mut keeper = Keeping {
            files,
            authority,
            tell,
            used: None,
            trouble: None,
        };
        keeper.look().await;
        tokio::spawn(async move { stop.run_until_cancelled(keeper.keep(look)).await });
        Self { configs }
    }

    /// Returns the settings for connections of anyone.
    pub(super) fn open(&self) -> Option<Arc<ServerConfig>> {
        self.configs.borrow().open.clone()
    }

    /// Returns the settings for connections of clients that have a certificate of the authority.
    pub(super) fn closed(&self) -> Option<Arc<ServerConfig>> {
        self.configs.borrow().closed.clone()
    }
}

struct Keeping {
    files: TlsFiles,
    authority: Authority,
    tell: watch::Sender<Configs>,
    used: Option<Material>,
    /// What was complained about last.
    trouble: Option<String>,
}

impl Keeping {
    async fn keep(mut self, look: Duration) {
        let mut ticks = interval(look);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = told(&mut self.authority) => {}
            }
            self.look().await;
        }
    }

    /// Takes over what changed, unless it is of no use.
    async fn look(&mut self) {
        match self.update().await {
            Ok(()) => self.trouble = None,
            Err(error) => self.complain(chain(&error)),
        }
    }

    async fn update(&mut self) -> Result<(), TlsError> {
        let material = self.read().await?;
        if self.used.as_ref() == Some(&material) {
            return Ok(());
        }
        let configs = configs(&material)?;
        info!(
            has_authority = configs.closed.is_some(),
            certificate = %self.files.certificate.display(),
            "certificates of the servers are read"
        );
        self.used = Some(material);
        self.tell.send_replace(configs);
        Ok(())
    }

    /// Says what is wrong once.
    fn complain(&mut self, trouble: String) {
        if self.trouble.as_ref() != Some(&trouble) {
            let serves_on = self.used.is_some();
            warn!(
                error = trouble,
                serves_on, "certificates of the servers cannot be used"
            );
            self.trouble = Some(trouble);
        }
    }

    async fn read(&self) -> Result<Material, TlsError> {
        let files = self.files.clone();
        let authority = self.authority.clone();
        let reading = spawn_blocking(move || {
            Ok(Material {
                certificate: read(&files.certificate)?,
                key: read(&files.key)?,
                authority: match &authority {
                    Authority::File(path) => Some(read(path)?),
                    Authority::Told(told) => {
                        told.borrow().as_ref().map(|pem| pem.as_bytes().to_vec())
                    }
                },
            })
        });
        reading.await.unwrap_or_else(|error| {
            let path = self.files.certificate.clone();
            let source = io::Error::other(error);
            Err(TlsError::Read { path, source })
        })
    }
}

/// Returns once an authority is told that was not known before.
async fn told(authority: &mut Authority) {
    let is_over = match authority {
        Authority::File(_) => true,
        Authority::Told(told) => told.changed().await.is_err(),
    };
    if is_over {
        std::future::pending::<()>().await;
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let mut bytes = Vec::new();
    let read =
        File::open(path).and_then(|file| file.take(FILE_LEN_MAX + 1).read_to_end(&mut bytes));
    let path = path.to_owned();
    match read {
        Err(source) => Err(TlsError::Read { path, source }),
        Ok(_) if bytes.len() as u64 > FILE_LEN_MAX => Err(TlsError::TooLong { path }),
        Ok(_) => Ok(bytes),
    }
}

fn configs(material: &Material) -> Result<Configs, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let open = config(&provider, material, None)?;
    let closed = match &material.authority {
        None => None,
        Some(pem) => Some(config(&provider, material, Some(pem))?),
    };
    Ok(Configs {
        open: Some(open),
        closed,
    })
}

fn config(
    provider: &Arc<CryptoProvider>,
    material: &Material,
    authority: Option<&Vec<u8>>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider));
    let builder = builder
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Pair)?;
    let builder = match authority {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let roots = Arc::new(roots(pem)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider));
            builder.with_client_cert_verifier(verifier.build().map_err(TlsError::Verifier)?)
        }
    };
    let chain = certificates("the server's certificate", &material.certificate)?;
    let key = PrivateKeyDer::from_pem_slice(&material.key).map_err(|source| TlsError::Pem {
        what: "the server's key",
        source,
    })?;
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(TlsError::Pair)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Whoever resumes a session was checked by the authority of then.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn roots(pem: &[u8]) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(certificates("the clients' authority", pem)?);
    if usable == 0 {
        return Err(TlsError::NoAuthority);
    }
    Ok(roots)
}

fn certificates(what: &'static str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    certificates.map_err(|source| TlsError::Pem { what, source })
}
