//! virt-handler: the node agent.
//!
//! ```text
//!   API server ──cluster──▶ store ─┐                        ┌─▶ launchers, mounts, ownership, cgroup
//!                                  ├─▶ controller ── plan ──┤
//!   launchers ───── domains ───────┘                        └─▶ status ──cluster──▶ API server
//! ```
//!
//! [`cluster`] watches this node's instances into the [`store`] and writes patches and events; [`launchers`] finds the
//! launchers, commands them and hears from them. For each instance that changed, the [`controller`] looks, lets [`plan`]
//! decide, acts, and publishes what [`status`] says. [`server`] and [`metrics`] answer others, [`heartbeat`] and
//! [`node_labels`] speak for the node, [`devices`] offers its devices to the kubelet, [`cleanup`] removes what is left of instances that are gone. [`run`] assembles it.

pub mod cgroup;
pub mod cleanup;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod controller;
pub mod devices;
pub mod heartbeat;
pub mod key;
pub mod launchers;
pub mod metrics;
pub mod mounts;
pub mod node_labels;
pub mod ownership;
pub mod plan;
mod pod_files;
pub mod run;
pub mod server;
pub mod status;
pub mod store;
