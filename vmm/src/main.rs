//! The command `vmm`: runs one machine from the command line.

use std::process::ExitCode;

use clap::Parser;
use vmm::cli::Cli;

fn main() -> ExitCode {
    Cli::parse().execute()
}
