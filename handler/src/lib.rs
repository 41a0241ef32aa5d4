//! virt-handler: the node agent.

#![forbid(unsafe_code)]

pub mod cli;
pub mod config;
pub mod key;
pub mod launchers;
