//! Where offers come from.

use std::path::{Path, PathBuf};

use crate::resource::ResourceName;
use crate::unit::Offer;

/// Folders of the host as this process sees them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// `sysfs`.
    pub sys_dir: PathBuf,
    /// What is `/dev` for the host. In the node agent's pod it is reached through the host's process 1, since the pod's own
    /// `/dev` does not get new devices.
    pub dev_dir: PathBuf,
    /// The kubelet's folder of device plugins.
    pub plugin_dir: PathBuf,
    /// Folders of the kubelet's pods, one per pod uid.
    pub pods_dir: PathBuf,
    /// Records of our own.
    pub private_dir: PathBuf,
}

impl Host {
    /// Where this process reaches a path below `/dev` of the host.
    #[must_use]
    pub fn node(&self, path: &Path) -> PathBuf {
        match path.strip_prefix("/dev") {
            Ok(below) => self.dev_dir.join(below),
            Err(_) => path.to_owned(),
        }
    }
}

/// A unit that a container has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldUnit {
    /// Resource under which it was given.
    pub resource: ResourceName,
    /// Its [`parts`](crate::unit::Unit::parts), in their order.
    pub parts: Vec<String>,
}

/// Finds devices of one kind and says what a container needs to use them.
pub trait Source: Send + Sync {
    /// Finds what there is now of the resources it was made for: one offer for each, present or not, in a fixed order. Reads
    /// files of the host and changes nothing; blocks. A file that is absent or makes no sense leaves its device out, with the
    /// reason where somebody asked for the device.
    fn discover(&self, host: &Host) -> Vec<Offer>;

    /// Finds the same while containers have these units: where several devices make a unit, those that were given together
    /// stay together, whatever is plugged in or out beside them. The same as [`discover`](Self::discover) where a unit never
    /// has other parts.
    fn discover_beside(&self, host: &Host, _held: &[HeldUnit]) -> Vec<Offer> {
        self.discover(host)
    }

    /// Paths of the host's folders below `/dev` in which nodes of its devices come and go: `/dev/vfio`.
    fn folders(&self) -> Vec<PathBuf>;

    /// Makes devices ready to be offered, where it was asked to (binding to a driver), before [`discover`](Self::discover).
    /// Returns what could not be done. Blocks; does nothing where nothing is to be done.
    fn prepare(&self, _host: &Host) -> Vec<crate::unit::LeftOut> {
        Vec::new()
    }
}
