//! What keeps a plugin from being registered.

use std::io;
use std::path::PathBuf;

use super::register::ANSWER_LIMIT;
use super::step::ASKED_WITHIN;

/// Why a plugin is not registered: cause and cure.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// The own socket cannot be made.
    #[error(
        "make the socket {}: {source}; the kubelet's folder of device plugins must be mounted writable", path.display()
    )]
    Serve { path: PathBuf, source: io::Error },
    /// Nobody listens.
    #[error("kubelet.sock takes no connection: {source}; see whether the kubelet runs")]
    Connect { source: io::Error },
    /// The kubelet takes the connection and says nothing.
    #[error("the kubelet has not answered in {ANSWER_LIMIT:?}; see its log, or start it again")]
    Silent,
    /// The kubelet says no.
    #[error("the kubelet refuses the plugin: {reason}")]
    Refused { reason: String },
    /// The kubelet said yes and asks nothing.
    #[error(
        "the kubelet took the plugin and has not asked for its devices in {ASKED_WITHIN:?}; see its log, or start it again"
    )]
    Unasked,
}

impl Fault {
    /// Whether this is what a kubelet that starts or ends shows for a moment.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self, Self::Connect { .. })
    }
}
