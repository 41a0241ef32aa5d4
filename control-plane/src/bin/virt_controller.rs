//! `virt-controller`: looks after virtual machines, instances and replica sets.

use std::process::ExitCode;

fn main() -> ExitCode {
    control_plane::controller::cli::main(std::env::args_os())
}
