//! virt-handler: the node agent.

#![forbid(unsafe_code)]

pub mod cli;
pub mod cluster;
pub mod config;
pub mod controller;
pub mod heartbeat;
pub mod key;
pub mod launchers;
pub mod node_labels;
pub mod plan;
pub mod run;
pub mod status;
pub mod store;
