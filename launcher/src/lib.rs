//! virt-launcher: one VMI, one process, one machine.
//!
//! [`instance`] reads the manifest, [`volumes`] decides what files the machine needs and makes them
//! ([`images`] finds container images, [`state_dir`] is where they go), [`convert`] turns the instance
//! into a machine configuration ([`host_devices`] finds what device plugins gave), [`support`] says which fields do
//! nothing here.
//!
//! In a pod, [`server`] takes commands for the [`domain`], which owns the machine; [`notify`] tells the node
//! agent what happens, [`monitor`] does what a pod's first process must, and [`pod`] names the folders.
//! Without a cluster, [`standalone`] runs one instance: [`life`] is its machine's, with the terminal as
//! [`console`].

#![forbid(unsafe_code)]

pub mod agent;
pub mod cli;
pub mod console;
pub mod convert;
pub mod domain;
pub mod host;
pub mod host_devices;
pub mod images;
pub mod instance;
pub mod life;
pub mod monitor;
pub mod node_facts;
pub mod notify;
pub mod pod;
pub mod programs;
pub mod server;
pub mod standalone;
pub mod state_dir;
pub mod support;
pub mod volumes;
