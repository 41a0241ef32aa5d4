//! `make demo` without a terminal: shows the boot, logs in, looks around and powers off.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people to read"
)]

use std::process::ExitCode;

use clap::Parser;

/// Runs images/demo/vmi.yaml, logs in, shows the machine and powers it off.
#[derive(Parser)]
struct Arguments {
    /// CPU back end: auto, kvm or soft.
    #[arg(long, default_value = "auto")]
    accel: String,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (Some(guests), Some(launcher)) = (tests::guests(), tests::program("virt-launcher")) else {
        return ExitCode::FAILURE;
    };
    match tests::demo::run(&launcher, &guests, &arguments.accel, true) {
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
