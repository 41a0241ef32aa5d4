//! The command `virt-launcher`.

use std::process::ExitCode;

fn main() -> ExitCode {
    launcher::cli::main(std::env::args_os())
}
