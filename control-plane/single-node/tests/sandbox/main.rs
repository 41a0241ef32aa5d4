//! Containers and pods for real: processes in namespaces, with mounts and control groups. That takes root; without it,
//! each test prints that it was skipped.

#![expect(
    clippy::print_stdout,
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "an integration test is a test module as a whole"
)]

mod containers;
mod crashes;
mod launcher;
mod memory;
mod node;
mod place;
mod pods;
mod restarts;
mod volumes;
