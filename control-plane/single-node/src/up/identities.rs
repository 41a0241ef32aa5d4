//! Who the parts of the node are: certificates and secrets in the state.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use anyhow::Context;
use api::components::common_name::{HANDLER_CLIENT, HANDLER_SERVER};
use apiserver::access::MASTERS;
use apiserver::tls::{self, Authority, Identity, Subject, TlsError};

use crate::state::State;

/// Bytes of the secret that signs tokens.
const SECRET_LEN: usize = 32;
/// Names by which pods would find the API server.
const HOSTS: [&str; 5] = [
    "localhost",
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
];

/// Who the parts of the node are.
pub(super) struct Identities {
    /// Who vouches for all of them.
    pub(super) authority: Authority,
    /// The API server.
    server: Identity,
    /// The user of the kubeconfig, who may do everything.
    pub(super) admin: Identity,
    /// virt-api as a client of the node agent.
    pub(super) virt_api: Identity,
    /// Files of the node agent's certificate and key, and of the authority.
    pub(super) handler: HandlerFiles,
    /// Signs tokens of service accounts.
    pub(super) token_secret: Vec<u8>,
}

/// Files that the node agent reads, and reads again when they change.
#[derive(Clone, Debug)]
pub(super) struct HandlerFiles {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    pub(super) authority: PathBuf,
}

impl Identities {
    /// Opens or makes everybody's identity. Blocks.
    pub(super) fn open(state: &State, node: &str, address: SocketAddr) -> anyhow::Result<Self> {
        let folder = state.certificates();
        let authority = Authority::open(&folder)?;
        let loopback = IpAddr::from(Ipv4Addr::LOCALHOST);
        let addresses = [loopback, address.ip()];
        let mut hosts = HOSTS.to_vec();
        hosts.push(node);
        let server = authority.sign(&Subject {
            name: "kube-apiserver",
            hosts: &hosts,
            addresses: &addresses,
            ..Subject::default()
        })?;
        let admin = authority.sign(&Subject {
            name: "kubernetes-admin",
            group: Some(MASTERS),
            ..Subject::default()
        })?;
        let virt_api = authority.sign(&Subject {
            name: HANDLER_CLIENT,
            ..Subject::default()
        })?;
        let handler = HandlerFiles {
            certificate: folder.join("virt-handler.crt"),
            key: folder.join("virt-handler.key"),
            authority: folder.join("ca.crt"),
        };
        write_handler(&authority, &handler, &addresses)?;
        Ok(Self {
            token_secret: token_secret(&folder.join("token.key"))?,
            authority,
            server,
            admin,
            virt_api,
            handler,
        })
    }

    pub(super) fn server_config(&self) -> Result<rustls::ServerConfig, TlsError> {
        self.authority.server(&self.server)
    }
}

fn write_handler(
    authority: &Authority,
    files: &HandlerFiles,
    addresses: &[IpAddr],
) -> Result<(), TlsError> {
    let identity = authority.sign(&Subject {
        name: HANDLER_SERVER,
        hosts: &["localhost"],
        addresses,
        ..Subject::default()
    })?;
    tls::write(&files.key, identity.key.as_bytes(), 0o600)?;
    tls::write(&files.certificate, identity.certificate.as_bytes(), 0o644)
}

/// Returns the secret in a file, which is made when it is missing: tokens outlive restarts.
fn token_secret(path: &PathBuf) -> anyhow::Result<Vec<u8>> {
    if let Ok(secret) = fs::read(path)
        && secret.len() >= SECRET_LEN
    {
        return Ok(secret);
    }
    let mut secret = vec![0; SECRET_LEN];
    getrandom::fill(&mut secret).context("make a secret")?;
    tls::write(path, &secret, 0o600)?;
    Ok(secret)
}
