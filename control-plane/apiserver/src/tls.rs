//! Certificates of the node: an authority of its own, and what it signs.

use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

/// Years that the authority and what it signs are good for: they are made for one machine, and made anew with its state.
const YEARS: i64 = 10;
const SECONDS_PER_YEAR: i64 = 365 * 24 * 3600;
/// A certificate may be used on machines whose clock is this late.
const CLOCK_SKEW_SECONDS: i64 = 3600;

/// Why there are no certificates.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or written.
    #[error("certificates: {what} {}", path.display())]
    File {
        /// `read` or `write`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A certificate cannot be made or read.
    #[error("certificates: {0}")]
    Certificate(#[from] rcgen::Error),
    /// TLS does not take them.
    #[error("certificates: {0}")]
    Tls(String),
}

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub struct Identity {
    /// The certificate.
    pub certificate: String,
    /// The key.
    pub key: String,
}

/// The node's certificate authority.
pub struct Authority {
    certificate: String,
    issuer: Issuer<'static, KeyPair>,
}

/// Whom a certificate is for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subject<'s> {
    /// Common name: the user.
    pub name: &'s str,
    /// Organisation: the user's group.
    pub group: Option<&'s str>,
    /// Names that a server is reached by.
    pub hosts: &'s [&'s str],
    /// Addresses that a server is reached by.
    pub addresses: &'s [IpAddr],
}

impl Authority {
    /// Opens the authority in a folder, or makes it there: `ca.crt`, and `ca.key` with mode 0600. Blocks.
    ///
    /// # Errors
    ///
    /// Fails when the files cannot be read, written or understood.
    pub fn open(folder: &Path) -> Result<Self, TlsError> {
        let (certificate_path, key_path) = (folder.join("ca.crt"), folder.join("ca.key"));
        if !certificate_path.exists() {
            let made = make_authority()?;
            write(&key_path, made.key.as_bytes(), 0o600)?;
            write(&certificate_path, made.certificate.as_bytes(), 0o644)?;
        }
        let certificate = read(&certificate_path)?;
        let key = KeyPair::from_pem(&read(&key_path)?)?;
        let issuer = Issuer::from_ca_cert_pem(&certificate, key)?;
        Ok(Self {
            certificate,
            issuer,
        })
    }

    /// The authority's own certificate, in PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Makes a certificate for servers and clients.
    ///
    /// # Errors
    ///
    /// Fails when a host is no DNS name.
    pub fn sign(&self, subject: &Subject<'_>) -> Result<Identity, TlsError> {
        let mut parameters = parameters(subject.name, subject.group);
        for host in subject.hosts {
            parameters
                .subject_alt_names
                .push(SanType::DnsName((*host).try_into()?));
        }
        let addresses = subject.addresses.iter().copied().map(SanType::IpAddress);
        parameters.subject_alt_names.extend(addresses);
        parameters.key_usages = vec![
            KeyUsagePurpose::DigitalSignature,
            KeyUsagePurpose::KeyEncipherment,
        ];
        parameters.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate()?;
        let certificate = parameters.signed_by(&key, &self.issuer)?;
        Ok(Identity {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }

    /// Returns the configuration of a server with a certificate of this authority, which asks clients for theirs and goes
    /// on without.
    ///
    /// # Errors
    ///
    /// Fails when TLS does not take the certificates.
    pub fn server(&self, identity: &Identity) -> Result<ServerConfig, TlsError> {
        let tls = |error: &dyn std::fmt::Display| TlsError::Tls(error.to_string());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.certificate)? {
            roots.add(certificate).map_err(|error| tls(&error))?;
        }
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
                .allow_unauthenticated()
                .build()
                .map_err(|error| tls(&error))?;
        let key =
            PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).map_err(|error| tls(&error))?;
        let builder = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| tls(&error))?;
        let mut config = builder
            .with_client_cert_verifier(verifier)
            .with_single_cert(certificates(&identity.certificate)?, key)
            .map_err(|error| tls(&error))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// Writes a file with a mode, so that it is there as a whole or not at all. Blocks.
///
/// # Errors
///
/// Fails when the disk refuses.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), TlsError> {
    let failed = |source| TlsError::File {
        what: "write",
        path: path.to_owned(),
        source,
    };
    let new = path.with_extension("new");
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let _stale = fs::remove_file(&new);
    let opened = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&new);
    let mut file = opened.map_err(failed)?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(failed)?;
    fs::rename(&new, path).map_err(failed)
}

fn read(path: &Path) -> Result<String, TlsError> {
    fs::read_to_string(path).map_err(|source| TlsError::File {
        what: "read",
        path: path.to_owned(),
        source,
    })
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>();
    read.map_err(|error| TlsError::Tls(error.to_string()))
}

fn make_authority() -> Result<Identity, TlsError> {
    let mut parameters = parameters("ferrovirt-ca", None);
    parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    let certificate = parameters.self_signed(&key)?;
    Ok(Identity {
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    })
}

fn parameters(name: &str, group: Option<&str>) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    parameters.distinguished_name = rcgen::DistinguishedName::new();
    parameters.distinguished_name.push(DnType::CommonName, name);
    if let Some(group) = group {
        parameters
            .distinguished_name
            .push(DnType::OrganizationName, group);
    }
    let now = std::time::SystemTime::now();
    let skew = std::time::Duration::from_secs(CLOCK_SKEW_SECONDS.unsigned_abs());
    let life = std::time::Duration::from_secs((YEARS * SECONDS_PER_YEAR).unsigned_abs());
    parameters.not_before = (now - skew).into();
    parameters.not_after = (now + life).into();
    parameters
}

#[cfg(test)]
mod tests;
