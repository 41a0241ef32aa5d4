//! `make bench`: prints the figures of the project as a Markdown table.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people to read"
)]

use std::process::ExitCode;

use clap::Parser;
use tests::bench::{Peers, Row};

/// Measures the software CPU and the devices beside QEMU and the host.
#[derive(Parser)]
struct Arguments {
    /// Runs of each measurement; the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only measurements whose name contains this: boot, workloads, memory, idle, disks.
    #[arg(long, default_value = "")]
    only: String,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let Some(peers) = Peers::find(arguments.rounds) else {
        return ExitCode::FAILURE;
    };
    for line in peers.skipped() {
        println!("{line}");
    }
    println!("{}", Row::HEADER);
    let failures = peers.run(&arguments.only, |row| println!("{row}"));
    for failure in &failures {
        eprintln!("bench: {failure}");
    }
    if failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
