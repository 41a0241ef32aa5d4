//! Devices that containers ask for as resources, such as `devices.kubevirt.io/kvm`.

mod checkpoint;
mod plugins;
mod registry;

use std::collections::BTreeMap;

use futures::future::BoxFuture;

pub use self::plugins::{PluginDevices, PluginError};
pub use self::registry::Counts;
use crate::sandbox::spec::{Device, Mount};

/// Devices for one container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allocation {
    /// Device nodes.
    pub devices: Vec<Device>,
    /// Folders and files.
    pub mounts: Vec<Mount>,
    /// Environment.
    pub env: Vec<(String, String)>,
}

/// Why there are no devices.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// Nobody offers the resource.
    #[error("no device plugin offers {resource}: see `ferrovirt devices`")]
    Unknown {
        /// The resource.
        resource: String,
    },
    /// Who offers the resource has too few, or failed.
    #[error("{resource}: {reason}")]
    Refused {
        /// The resource.
        resource: String,
        /// Why.
        reason: String,
    },
}

/// Gives devices to containers and takes them back.
pub trait DeviceSource: Send + Sync + 'static {
    /// Gives a container so many of each resource. Asked again for the same container, the answer is the same, whoever
    /// offers the resource then.
    fn allocate<'a>(
        &'a self,
        pod_uid: &'a str,
        container: &'a str,
        wanted: &'a BTreeMap<String, u64>,
    ) -> BoxFuture<'a, Result<Allocation, DeviceError>>;

    /// Takes back what a pod was given.
    fn release(&self, pod_uid: &str);
}

/// Resources that are no devices.
#[must_use]
pub fn is_device(resource: &str) -> bool {
    let is_native = !resource.contains('/') || resource.starts_with("kubernetes.io/");
    !is_native && !resource.starts_with("hugepages-")
}

#[cfg(test)]
mod tests;
