//! Mediated devices, by the name of their type.

use std::path::PathBuf;

use crate::resource::ResourceName;
use crate::source::{Host, Source};
use crate::unit::Offer;

/// Asks for the mediated devices of one type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediatedSelector {
    /// Resource under which they are offered.
    pub resource: ResourceName,
    /// Name of the type: `GRID T4-1Q`.
    pub type_name: String,
}

/// Finds mediated devices.
#[derive(Clone, Debug, Default)]
pub struct MediatedDevices {
    /// What is asked for, in order.
    pub selectors: Vec<MediatedSelector>,
}

impl Source for MediatedDevices {
    fn discover(&self, _host: &Host) -> Vec<Offer> {
        Vec::new()
    }

    fn folders(&self) -> Vec<PathBuf> {
        vec!["/dev/vfio".into()]
    }
}
