//! One plugin: serves the kubelet's five calls on a socket of its own and registers it.
//!
//! ```text
//!               own socket made        kubelet.sock is there      the kubelet answers and asks for the list
//!  no folder ──────────────► waiting ───────────────► asking ──────────────────► registered
//!      ▲                     ▲  ▲                      │  ▲                          │
//!      └─ own socket is gone ┘  └─ kubelet.sock gone ──┤  └─ after a while, longer ──┤ another kubelet.sock, or
//!                                                      └───── each time, or at once ─┘ the kubelet's stream ended
//!                                                             for another kubelet.sock
//! ```
//!
//! A kubelet that restarts empties the folder and makes its socket anew. Connections outlive a socket that is made again,
//! since they belong to one server for the life of the plugin.

mod backoff;
mod connection;
mod fault;
mod keeper;
mod list;
mod preferred;
mod register;
mod service;
mod socket;
mod step;
mod streams;

use std::path::PathBuf;
use std::sync::Arc;

use futures::future::BoxFuture;
use proto::deviceplugin::v1beta1::ContainerAllocateResponse;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::resource::ResourceName;
use crate::unit::Offer;

/// Why devices cannot be given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AllocateError {
    /// There is no such unit, or no longer.
    #[error("{resource} has no unit {id}: {reason}")]
    Gone {
        /// The resource.
        resource: ResourceName,
        /// The unit.
        id: String,
        /// What happened to it, as far as is known.
        reason: String,
    },
    /// The host refused.
    #[error("give {id} of {resource} to the launcher: {reason}")]
    Refused {
        /// The resource.
        resource: ResourceName,
        /// The unit.
        id: String,
        /// The host's answer, and what to do.
        reason: String,
    },
    /// Whoever gives them has ended.
    #[error("give devices: the node agent is ending")]
    Ending,
}

/// Whom a plugin asks for devices.
pub trait Giver: Send + Sync + 'static {
    /// Gives a container these units of a resource.
    fn give(
        &self,
        resource: &ResourceName,
        ids: Vec<String>,
    ) -> BoxFuture<'static, Result<ContainerAllocateResponse, AllocateError>>;
}

/// What a plugin runs with.
pub struct PluginSetup {
    /// The resource.
    pub resource: ResourceName,
    /// The kubelet's folder of device plugins, with `kubelet.sock`.
    pub plugin_dir: PathBuf,
    /// What is offered, whenever that changes.
    pub offer: watch::Receiver<Arc<Offer>>,
    /// Changes whenever something in the folder may have changed. The plugin then looks whether its socket and the kubelet's
    /// are still the ones that it knows.
    pub folder_changed: watch::Receiver<u64>,
    /// Whom to ask for devices.
    pub giver: Arc<dyn Giver>,
    /// Where to tell how the kubelet took it.
    pub registration: watch::Sender<Registration>,
    /// Ends the plugin: it offers nothing any more and removes its socket.
    pub stop: CancellationToken,
}

/// How a plugin stands with the kubelet.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase", tag = "state", content = "reason")]
pub enum Registration {
    /// There is no kubelet yet.
    #[default]
    Waiting,
    /// The kubelet knows the plugin.
    Registered,
    /// The kubelet did not take it, or does not answer; tried again.
    Failed(String),
}

/// Runs a plugin until it is stopped. Then every stream gets an empty list, and the socket is removed; that takes a second
/// at most.
pub async fn run(setup: PluginSetup) {
    Box::pin(keeper::run(setup)).await;
}

pub use preferred::preferred;
pub use socket::socket_name;

#[cfg(test)]
mod tests;
