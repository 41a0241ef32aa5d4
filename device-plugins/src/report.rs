//! What is offered and why something is missing: for the operator's table, for metrics and for the node's status.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::resource::ResourceName;
use crate::runner::Registration;
use crate::unit::{Health, LeftOut};

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
