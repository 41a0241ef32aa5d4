//! Who this side is to node agents, and which of them it believes.
//!
//! A node agent is reached by an address that no certificate holds; it is known by the common name in a certificate of
//! the cluster's authority.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use api::components::common_name::HANDLER_SERVER;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::virt_api::objects::{Kind, ObjectName, Objects, text};

/// Longest text of certificates that is taken, bytes; a bundle of hundreds.
const TEXT_LEN_MAX: usize = 1 << 20;

/// Where certificates or a key are, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pem {
    /// In a file, which is read for each connection.
    File(PathBuf),
    /// Here.
    Text(Arc<str>),
    /// In a config map of the installation's namespace, which is read for each connection.
    ConfigMap {
        /// Its name.
        name: String,
        /// The key in it.
        key: String,
    },
}

/// What this side shows to node agents, and whose certificates it believes.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Certificate with the common name `kubevirt.io:system:client:virt-handler`, and those between it and its authority.
    certificate: Pem,
    /// Its key.
    key: Pem,
    /// Certificates of the authority of the node agents.
    authority: Pem,
    made: Arc<Mutex<Option<Made>>>,
}

/// Settings that were made, and what of.
type Made = (Material, Arc<ClientConfig>);

/// Why certificates are of no use.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The host's answer.
        source: io::Error,
    },
    /// A config map has no such key, or is not to be had.
    #[error("read {key} of config map {name}: {why}")]
    ConfigMap {
        /// Its name.
        name: String,
        /// The key.
        key: String,
        /// What is wrong.
        why: String,
    },
    /// What was read is longer than any certificate.
    #[error("read {0}: it is longer than {TEXT_LEN_MAX} bytes")]
    TooLong(&'static str),
    /// What was read is no certificate or key.
    #[error("read {what}: it holds no PEM")]
    Pem {
        /// What was read.
        what: &'static str,
        /// What is wrong with it.
        source: rustls::pki_types::pem::Error,
    },
    /// The authority has no certificate that can be used.
    #[error("read the authority of node agents: it holds no certificate")]
    NoAuthority,
    /// Certificate and key don't go together, or are of a kind that is not known.
    #[error("use the client certificate and its key")]
    Pair(#[source] rustls::Error),
}

/// What settings are made from.
#[derive(Clone, PartialEq, Eq)]
struct Material {
    certificate: Vec<u8>,
    key: Vec<u8>,
    authority: Vec<u8>,
}

impl std::fmt::Debug for Material {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Material").finish_non_exhaustive()
    }
}

impl Identity {
    /// Makes an identity from where its parts are.
    #[must_use]
    pub fn new(certificate: Pem, key: Pem, authority: Pem) -> Self {
        Self {
            certificate,
            key,
            authority,
            made: Arc::default(),
        }
    }

    /// Returns the settings of TLS for a connection to a node agent.
    pub(super) async fn config(
        &self,
        objects: &Objects,
        namespace: &str,
    ) -> Result<Arc<ClientConfig>, IdentityError> {
        let read = |what, pem| read(objects, namespace, what, pem);
        let material = Material {
            certificate: read("the client certificate", &self.certificate).await?,
            key: read("the client key", &self.key).await?,
            authority: read("the authority of node agents", &self.authority).await?,
        };
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((from, config)) = &*made
            && *from == material
        {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(config(&material)?);
        *made = Some((material, Arc::clone(&config)));
        Ok(config)
    }
}

async fn read(
    objects: &Objects,
    namespace: &str,
    what: &'static str,
    pem: &Pem,
) -> Result<Vec<u8>, IdentityError> {
    let bytes = match pem {
        Pem::Text(text) => text.as_bytes().to_vec(),
        Pem::File(path) => tokio::fs::read(path).await.map_err(|source| {
            let path = path.clone();
            IdentityError::Read { path, source }
        })?,
        Pem::ConfigMap { name, key } => {
            let fail = |why: String| IdentityError::ConfigMap {
                name: name.clone(),
                key: key.clone(),
                why,
            };
            let map = ObjectName::new(Kind::ConfigMap, namespace, name);
            let map = objects.get(&map).await;
            let map = map.map_err(|refusal| fail(refusal.message().to_owned()))?;
            let value = map["data"].get(key).unwrap_or(&serde_json::Value::Null);
            match text(value, "") {
                "" => return Err(fail("it has no such key".to_owned())),
                text => text.as_bytes().to_vec(),
            }
        }
    };
    if bytes.len() > TEXT_LEN_MAX {
        return Err(IdentityError::TooLong(what));
    }
    Ok(bytes)
}

fn config(material: &Material) -> Result<ClientConfig, IdentityError> {
    let provider = Arc::new(ring::default_provider());
    let verifier = AgentVerifier {
        roots: roots(&material.authority)?,
        provider: Arc::clone(&provider),
    };
    let chain = certificates("the client certificate", &material.certificate)?;
    let key = PrivateKeyDer::from_pem_slice(&material.key).map_err(|source| {
        let what = "the client key";
        IdentityError::Pem { what, source }
    })?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(IdentityError::Pair)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(chain, key)
        .map_err(IdentityError::Pair)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    // Whoever resumes a session was checked by the authority of then.
    config.resumption = rustls::client::Resumption::disabled();
    Ok(config)
}

fn roots(pem: &[u8]) -> Result<RootCertStore, IdentityError> {
    let mut roots = RootCertStore::empty();
    let certificates = certificates("the authority of node agents", pem)?;
    let (usable, _) = roots.add_parsable_certificates(certificates);
    if usable == 0 {
        return Err(IdentityError::NoAuthority);
    }
    Ok(roots)
}

fn certificates(
    what: &'static str,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    certificates.map_err(|source| IdentityError::Pem { what, source })
}

/// Believes servers that have a certificate of the authority with the common name of node agents.
#[derive(Debug)]
struct AgentVerifier {
    roots: RootCertStore,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AgentVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            algorithms,
        )?;
        if common_name(end_entity).as_deref() == Some(HANDLER_SERVER) {
            return Ok(ServerCertVerified::assertion());
        }
        let error = CertificateError::ApplicationVerificationFailure;
        Err(rustls::Error::InvalidCertificate(error))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

/// Returns the common name in a certificate.
pub(crate) fn common_name(certificate: &[u8]) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    let mut names = certificate.subject().iter_common_name();
    names.next()?.as_str().ok().map(str::to_owned)
}
