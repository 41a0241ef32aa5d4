//! `make demo`: the machine of images/demo/vmi.yaml on the user's terminal, or scripted where there is none.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people to read"
)]

use std::{
    io::{IsTerminal, stdin, stdout},
    process::ExitCode,
};

use clap::Parser;
use tests::demo;

/// Runs images/demo/vmi.yaml; without a terminal, logs in, shows the machine and powers it off.
#[derive(Parser)]
struct Arguments {
    /// CPU back end: auto, kvm or soft.
    #[arg(long, default_value = "auto")]
    accel: String,
}

fn main() -> ExitCode {
    let Arguments { accel } = Arguments::parse();
    let (Some(guests), Some(launcher)) = (tests::guests(), tests::program("virt-launcher")) else {
        return ExitCode::FAILURE;
    };
    let outcome = if stdin().is_terminal() && stdout().is_terminal() {
        demo::attach(&launcher, &guests, &accel)
    } else {
        demo::run(&launcher, &guests, &accel, true)
    };
    report(outcome)
}

fn report(outcome: Result<demo::Report, demo::DemoError>) -> ExitCode {
    match outcome {
        Ok(report) => {
            println!("\ndemo: {}", report.back_end);
            println!(
                "demo: {:.1} s from start to prompt",
                report.to_prompt.as_secs_f64()
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("\ndemo: failed to {error}");
            ExitCode::FAILURE
        }
    }
}
