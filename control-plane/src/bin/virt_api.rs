//! `virt-api`: serves the subresources of virtual machines, and admits objects.

use std::process::ExitCode;

fn main() -> ExitCode {
    control_plane::virt_api::cli::main(std::env::args_os())
}
