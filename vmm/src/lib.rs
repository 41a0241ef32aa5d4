//! One virtual machine from one configuration.

pub mod config;
pub mod memory;
