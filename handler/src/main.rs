//! The command `virt-handler`.

use std::process::ExitCode;

fn main() -> ExitCode {
    handler::cli::main(std::env::args_os())
}
