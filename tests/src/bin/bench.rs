//! `make bench`: prints the figures of the project as a Markdown table.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people to read"
)]

use std::process::ExitCode;

use clap::Parser;
use tests::bench::{Peers, Row};

/// Measures the software CPU and the devices beside QEMU and the host, and what a node costs.
#[derive(Parser)]
struct Arguments {
    /// Runs of each measurement; the median counts.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Sections whose name begins so: boot, workloads, memory, idle, disks, node (node-one, node-start, node-many),
    /// up (up-one, up-many, up-api)
    /// [default: all].
    #[arg(value_name = "SECTION", value_parser = section)]
    sections: Vec<String>,
}

/// A section that is none would measure nothing and look as if all were well.
fn section(text: &str) -> Result<String, String> {
    let sections = Peers::sections();
    if sections.iter().any(|name| name.starts_with(text)) {
        return Ok(text.to_owned());
    }
    Err(format!("there are {}", sections.join(", ")))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let Some(peers) = Peers::find(arguments.rounds) else {
        return ExitCode::FAILURE;
    };
    let failures = measure(&peers, &arguments.sections);
    for failure in &failures {
        eprintln!("bench: {failure}");
    }
    ExitCode::from(u8::from(!failures.is_empty()))
}

/// Prints the table, and returns what could not be measured.
fn measure(peers: &Peers, sections: &[String]) -> Vec<String> {
    for line in peers.skipped() {
        println!("{line}");
    }
    println!("{}", Row::HEADER);
    let mut missed = 0;
    let failures = peers.run(sections, |row| {
        missed += usize::from(row.misses_goal());
        println!("{row}");
    });
    if missed > 0 {
        println!("\n{missed} of the figures miss their goal.");
    }
    failures
}
