//! Character devices that any number of machines share: `/dev/kvm`, `/dev/net/tun`, `/dev/vhost-net`, `/dev/vhost-vsock`.

use std::path::PathBuf;

use crate::source::{Host, Source};
use crate::unit::Offer;

/// Units of a shared device unless the node was told otherwise (KubeVirt's default).
pub const MAX_DEVICES: u32 = 1000;

/// How the shared devices are offered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CharDevices {
    /// Units of each.
    pub count: u32,
    /// Why KVM is not usable here although its device may be there, if it is not: what the probe measured.
    pub kvm_refusal: Option<String>,
}

impl Default for CharDevices {
    fn default() -> Self {
        Self {
            count: MAX_DEVICES,
            kvm_refusal: None,
        }
    }
}

impl Source for CharDevices {
    fn discover(&self, _host: &Host) -> Vec<Offer> {
        Vec::new()
    }

    fn folders(&self) -> Vec<PathBuf> {
        vec!["/dev".into(), "/dev/net".into()]
    }
}
