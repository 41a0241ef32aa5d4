//! What is offered and why something is missing: for the operator's table, for metrics and for the node's status.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::plugins::{InUse, Offers, record};
use crate::resource::ResourceName;
use crate::runner::Registration;
use crate::unit::{Health, LeftOut, Offer, Unit};

/// Name of the file with the report, in the folder for records of our own.
pub const FILE_NAME: &str = "devices.json";
/// Most bytes of that file: a thousand units with their reasons come to half a million.
const LEN_MAX: u64 = 16 << 20;

/// The state of all plugins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The resources in order of their names.
    pub resources: Vec<ResourceReport>,
    /// What was asked for and makes no sense, each in one sentence with its field.
    pub problems: Vec<String>,
}

/// The state of one resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceReport {
    /// The resource.
    pub resource: ResourceName,
    /// How its plugin stands with the kubelet.
    pub registration: Registration,
    /// Its units.
    pub units: Vec<UnitReport>,
    /// Devices that were asked for and are not offered.
    pub left_out: Vec<LeftOut>,
}

/// The state of a unit. What can be shared is one entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnitReport {
    /// Name of the unit.
    pub id: String,
    /// How many containers may have it at the same time.
    pub copies: u32,
    /// Its device nodes.
    pub nodes: Vec<PathBuf>,
    /// Addresses of its devices.
    pub addresses: Vec<String>,
    /// Whether it can be given.
    pub health: Health,
    /// The NUMA node that it is near to.
    pub numa_node: Option<u32>,
    /// Who has it: pod uid and container.
    pub holders: Vec<Holder>,
}

/// A container that has a unit.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Holder {
    /// Uid of the pod.
    pub pod_uid: String,
    /// Name of the container.
    pub container: String,
}

/// Why a report cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// There is none.
    #[error("{} is not there: the node agent does not run, or runs no device plugins", .path.display())]
    Missing {
        /// Where it was expected.
        path: PathBuf,
    },
    /// It cannot be read, or is no report.
    #[error("read {}", .path.display())]
    Read {
        /// Where it is.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be written.
    #[error("write {}: {source}", .path.display())]
    Write {
        /// Where it was to be.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl Report {
    /// Writes the report to a file, as a whole or not at all. Blocks.
    ///
    /// # Errors
    ///
    /// Fails where the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), ReportError> {
        record::write(path, self).map_err(|source| ReportError::Write {
            path: path.to_owned(),
            source,
        })
    }

    /// Reads a report that was [written](Self::write). Blocks.
    ///
    /// # Errors
    ///
    /// Fails where there is none, and where it makes no sense.
    pub fn read(path: &Path) -> Result<Self, ReportError> {
        record::read(path, LEN_MAX).map_err(|source| {
            let path = path.to_owned();
            if source.kind() == io::ErrorKind::NotFound {
                return ReportError::Missing { path };
            }
            ReportError::Read { path, source }
        })
    }
}

impl ResourceReport {
    /// How many containers could have a unit if all were healthy: what the kubelet calls the capacity.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.units.iter().map(|unit| u64::from(unit.copies)).sum()
    }

    /// How many of them are healthy: what the kubelet calls allocatable.
    #[must_use]
    pub fn healthy(&self) -> u64 {
        let healthy = self.units.iter().filter(|unit| unit.health.is_healthy());
        healthy.map(|unit| u64::from(unit.copies)).sum()
    }

    /// How many are had by containers.
    #[must_use]
    pub fn held(&self) -> usize {
        self.units.iter().map(|unit| unit.holders.len()).sum()
    }
}

/// Puts a report together.
pub(crate) fn report(
    offers: &Offers,
    in_use: &[InUse],
    registration: impl Fn(&ResourceName) -> Registration,
    problems: Vec<String>,
) -> Report {
    let mut by_resource: HashMap<&ResourceName, Vec<&InUse>> = HashMap::new();
    for one in in_use {
        by_resource.entry(&one.resource).or_default().push(one);
    }
    let resources = offers.values().map(|offer| {
        let in_use = by_resource.get(&offer.resource);
        let in_use = in_use.map(Vec::as_slice).unwrap_or_default();
        resource_report(offer, in_use, registration(&offer.resource))
    });
    Report {
        resources: resources.collect(),
        problems,
    }
}

fn resource_report(offer: &Offer, in_use: &[&InUse], registration: Registration) -> ResourceReport {
    let units = offer.units.iter().map(|unit| unit_report(unit, in_use));
    ResourceReport {
        resource: offer.resource.clone(),
        registration,
        units: units.collect(),
        left_out: offer.left_out.clone(),
    }
}

fn unit_report(unit: &Unit, in_use: &[&InUse]) -> UnitReport {
    let holding = in_use.iter().filter(|one| unit.is_named(&one.id));
    UnitReport {
        id: unit.id.clone(),
        copies: unit.copies,
        nodes: unit.nodes.iter().map(|node| node.path.clone()).collect(),
        addresses: unit.addresses.clone(),
        health: unit.health.clone(),
        numa_node: unit.numa_node,
        holders: holding.map(|one| one.holder.clone()).collect(),
    }
}

#[cfg(test)]
mod tests;
