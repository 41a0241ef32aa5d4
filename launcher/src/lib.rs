//! virt-launcher: one VMI, one process, one machine.
//!
//! [`instance`] reads the manifest, [`volumes`] decides what files the machine needs and makes them
//! ([`images`] finds container images, [`state_dir`] is where they go), [`convert`] turns the instance
//! into a machine configuration, [`support`] says which fields do nothing here, and [`standalone`] runs
//! it all: [`life`] is the machine's, with the terminal as [`console`].

#![forbid(unsafe_code)]

pub mod agent;
pub mod cli;
pub mod console;
pub mod convert;
pub mod host;
pub mod images;
pub mod instance;
pub mod life;
pub mod pod;
pub mod standalone;
pub mod state_dir;
pub mod support;
pub mod volumes;
