//! Containers and pods for real: processes in namespaces, with mounts and control groups. That takes root; without it,
//! each test prints that it was skipped.

mod containers;
mod memory;
mod node;
mod place;
mod pods;
