//! virt-handler: the node agent.

#![forbid(unsafe_code)]

pub mod cgroup;
pub mod cleanup;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod controller;
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
