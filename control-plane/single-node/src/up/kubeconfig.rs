//! The file by which kubectl and virtctl find the node.

use std::net::SocketAddr;
use std::path::Path;

use apiserver::tls::{self, TlsError};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::identities::Identities;

/// Name of cluster, user and context.
const NAME: &str = "ferrovirt";

/// Writes the file with mode 0600: it holds the key of a user who may do everything. Blocks.
pub(super) fn write(
    path: &Path,
    identities: &Identities,
    address: SocketAddr,
) -> Result<(), TlsError> {
    // JSON is YAML, and no name in it needs quoting that JSON does not give.
    let text = serde_json::to_string_pretty(&kubeconfig(identities, address)).unwrap_or_default();
    tls::write(path, format!("{text}\n").as_bytes(), 0o600)
}

fn kubeconfig(identities: &Identities, address: SocketAddr) -> Value {
    let encode = |pem: &str| STANDARD.encode(pem);
    json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": NAME,
        "clusters": [{"name": NAME, "cluster": {
            "server": format!("https://{address}"),
            "certificate-authority-data": encode(identities.authority.certificate()),
        }}],
        "users": [{"name": NAME, "user": {
            "client-certificate-data": encode(&identities.admin.certificate),
            "client-key-data": encode(&identities.admin.key),
        }}],
        "contexts": [{"name": NAME, "context": {"cluster": NAME, "user": NAME, "namespace": "default"}}],
    })
}
