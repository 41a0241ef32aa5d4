//! `ferrovirt`: one machine as a whole node.
//!
//! One process holds the API server, the control plane, the node agent, and what a kubelet and a container runtime
//! would be: pod sandboxes, volumes, images, logs.

pub mod bootstrap;
pub mod cli;
mod client;
mod down;
pub mod images;
pub mod kubectl;
mod leftovers;
pub mod node;
pub mod node_api;
pub mod pods;
pub mod provisioner;
pub mod sandbox;
pub mod scheduler;
pub mod state;
mod up;

use std::process::ExitCode;

/// Runs `ferrovirt` with the arguments of this process, and returns its exit status.
///
/// The parts of containers are told by their first argument and come before anything that starts a thread: they enter
/// namespaces, which belong to threads.
#[must_use]
pub fn main_entry() -> ExitCode {
    sandbox::run_part(std::env::args_os()).unwrap_or_else(cli::main)
}
