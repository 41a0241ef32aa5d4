//! Character devices that any number of machines share: `/dev/kvm`, `/dev/net/tun`, `/dev/vhost-net`, `/dev/vhost-vsock`.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use crate::resource::ResourceName;
use crate::source::{Host, Source};
use crate::unit::{Health, LeftOut, Node, Offer, Unit};

/// Units of a shared device unless the node was told otherwise (KubeVirt's default).
pub const MAX_DEVICES: u32 = 1000;

const KVM: &str = "kvm";

/// How the shared devices are offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CharDevices {
    /// Units of each.
    pub count: u32,
    /// Why KVM is not usable here although its device may be there, if it is not: what the probe measured.
    pub kvm_refusal: Option<String>,
}

/// One device that is shared.
struct Shared {
    /// Name of its resource, of its units and below `/sys/class/misc`.
    name: &'static str,
    path: &'static str,
    /// What makes it appear.
    cure: &'static str,
    /// Whether its node can be there before its module is, which the first opening then loads.
    is_loaded_by_opening: bool,
}

const SHARED: [Shared; 4] = [
    Shared {
        name: KVM,
        path: "/dev/kvm",
        cure: "switch virtualization on in the firmware (or nested virtualization in the host of this machine), then modprobe kvm_intel or kvm_amd; machines run without it where the KubeVirt object sets useEmulation",
        is_loaded_by_opening: false,
    },
    Shared {
        name: "tun",
        path: "/dev/net/tun",
        cure: "modprobe tun",
        is_loaded_by_opening: true,
    },
    Shared {
        name: "vhost-net",
        path: "/dev/vhost-net",
        cure: "modprobe vhost_net",
        is_loaded_by_opening: true,
    },
    Shared {
        name: "vhost-vsock",
        path: "/dev/vhost-vsock",
        cure: "modprobe vhost_vsock",
        is_loaded_by_opening: true,
    },
];

impl Default for CharDevices {
    fn default() -> Self {
        Self {
            count: MAX_DEVICES,
            kvm_refusal: None,
        }
    }
}

impl Source for CharDevices {
    fn discover(&self, host: &Host) -> Vec<Offer> {
        SHARED
            .iter()
            .map(|device| self.offer(device, host))
            .collect()
    }

    fn folders(&self) -> Vec<PathBuf> {
        vec!["/dev".into(), "/dev/net".into()]
    }

    /// Opens devices whose modules are not loaded yet: only the node agent may load modules, a launcher may not.
    fn prepare(&self, host: &Host) -> Vec<LeftOut> {
        SHARED
            .iter()
            .filter(|device| device.is_loaded_by_opening && !device.has_driver(host))
            .filter_map(|device| device.open(host).err())
            .collect()
    }
}

impl CharDevices {
    fn offer(&self, device: &Shared, host: &Host) -> Offer {
        let unit = (self.count > 0).then(|| Unit {
            id: device.name.to_owned(),
            copies: self.count,
            parts: Vec::new(),
            health: self.health(device, host),
            numa_node: None,
            nodes: vec![Node {
                path: device.path.into(),
                permissions: permissions(host).to_owned(),
                is_owned: false,
            }],
            addresses: Vec::new(),
        });
        Offer {
            resource: device.resource(),
            variable: None,
            units: unit.into_iter().collect(),
            left_out: Vec::new(),
        }
    }

    fn health(&self, device: &Shared, host: &Host) -> Health {
        let Shared { path, cure, .. } = device;
        if !host.node(Path::new(path)).exists() {
            return Health::Unhealthy(format!("there is no {path}: {cure}"));
        }
        if is_without_driver(device, host) {
            return Health::Unhealthy(format!("{path} has no driver behind it: {cure}"));
        }
        match &self.kvm_refusal {
            Some(refusal) if device.name == KVM => Health::Unhealthy(refusal.clone()),
            _ => Health::Healthy,
        }
    }
}

impl Shared {
    fn resource(&self) -> ResourceName {
        ResourceName::new(&format!("devices.kubevirt.io/{}", self.name))
            .expect("the names in the table are short words")
    }

    fn has_driver(&self, host: &Host) -> bool {
        misc(host).join(self.name).exists()
    }

    fn open(&self, host: &Host) -> Result<(), LeftOut> {
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(host.node(Path::new(self.path)));
        match opened {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(LeftOut {
                device: self.path.to_owned(),
                reason: format!(
                    "cannot be opened to load its module: {error}; {}",
                    self.cure
                ),
            }),
            // A node that is not there is told by the unit's health.
            _ => Ok(()),
        }
    }
}

/// Whether the node is there and the kernel knows of no driver for it. Where the kernel's list is not to be had, the node is
/// enough.
fn is_without_driver(device: &Shared, host: &Host) -> bool {
    misc(host).is_dir() && !device.has_driver(host)
}

fn misc(host: &Host) -> PathBuf {
    host.sys_dir.join("class/misc")
}

/// What a container may do with a shared device: cgroups of version 2 need to be told that its node may be made.
fn permissions(host: &Host) -> &'static str {
    let is_version_2 = host.sys_dir.join("fs/cgroup/cgroup.controllers").exists();
    if is_version_2 { "rwm" } else { "rw" }
}

#[cfg(test)]
mod tests;
