//! virt-handler: the node agent.

#![forbid(unsafe_code)]

pub mod cli;
