//! Devices that containers ask for as resources, such as `devices.kubevirt.io/kvm`.

mod plugins;
mod registry;

use std::collections::BTreeMap;
use std::path::Path;

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
    #[error("no device plugin and no device of this host offers {resource}")]
    Unknown {
        /// The resource.
        resource: String,
    },
    /// The device is not there.
    #[error("{resource}: this host has no {path}")]
    Absent {
        /// The resource.
        resource: String,
        /// The device.
        path: String,
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
    /// Gives a container so many of each resource. Asked again for the same container, the answer is the same.
    fn allocate<'a>(
        &'a self,
        pod_uid: &'a str,
        container: &'a str,
        wanted: &'a BTreeMap<String, u64>,
    ) -> BoxFuture<'a, Result<Allocation, DeviceError>>;

    /// Takes back what a pod was given.
    fn release(&self, pod_uid: &str);
}

/// Devices of the host that any number of machines share, under the names of KubeVirt's device plugins.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostDevices;

/// Resources and their devices.
const SHARED: [(&str, &str); 4] = [
    ("devices.kubevirt.io/kvm", "/dev/kvm"),
    ("devices.kubevirt.io/tun", "/dev/net/tun"),
    ("devices.kubevirt.io/vhost-net", "/dev/vhost-net"),
    ("devices.kubevirt.io/vhost-vsock", "/dev/vhost-vsock"),
];

impl HostDevices {
    fn device(resource: &str) -> Result<Device, DeviceError> {
        let resource = resource.to_owned();
        let Some((_, path)) = SHARED.iter().find(|(name, _)| *name == resource) else {
            return Err(DeviceError::Unknown { resource });
        };
        if !Path::new(path).exists() {
            return Err(DeviceError::Absent {
                resource,
                path: (*path).to_owned(),
            });
        }
        Ok(Device {
            source: path.into(),
            target: (*path).to_owned(),
            permissions: "rw".to_owned(),
        })
    }
}

impl DeviceSource for HostDevices {
    fn allocate<'a>(
        &'a self,
        _pod_uid: &'a str,
        _container: &'a str,
        wanted: &'a BTreeMap<String, u64>,
    ) -> BoxFuture<'a, Result<Allocation, DeviceError>> {
        let devices: Result<_, _> = wanted
            .keys()
            .map(|resource| Self::device(resource))
            .collect();
        let allocated = devices.map(|devices| Allocation {
            devices,
            ..Allocation::default()
        });
        Box::pin(std::future::ready(allocated))
    }

    fn release(&self, _pod_uid: &str) {}
}

/// Resources that are no devices.
#[must_use]
pub fn is_device(resource: &str) -> bool {
    let is_native = !resource.contains('/') || resource.starts_with("kubernetes.io/");
    !is_native && !resource.starts_with("hugepages-")
}

#[cfg(test)]
mod tests;
