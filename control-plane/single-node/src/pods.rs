//! Pods of this node, run as a kubelet runs them.
//!
//! Each pod has a worker, which owns what is known of it ([`observed`]), asks what is to be done ([`plan`]), does it, and
//! tells the API what there is ([`status`]). A pod's way:
//!
//! ```text
//! bound ─▶ volumes, namespaces ─▶ init containers, one by one ─▶ containers ─▶ all ended ─▶ released ─▶ deleted
//!                 │ not yet                                         ▲   │ ended, policy wants it
//!                 └─── tried again                                  └───┘ after a growing wait
//! ```
//!
//! Written to the API are only changes of the status, one patch for all that happened at once, warnings as events, and
//! the deletion of pods that were asked to go.

pub mod cluster;
pub mod devices;
mod environment;
pub mod observed;
pub mod options;
pub mod plan;
mod probes;
pub mod runner;
mod spec;
pub mod status;
mod volumes;
mod worker;

pub use self::cluster::{Cluster, ClusterError, KubeCluster};
pub use self::devices::{
    Allocation, Counts, DeviceError, DeviceSource, PluginDevices, PluginError,
};
pub use self::options::{EventLevel, Options, Timing};
pub use self::runner::{ContainerHandle, Runner, RunnerError};
