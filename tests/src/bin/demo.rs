//! `make demo`: a node from nothing to a machine that was logged in to. Without root, the machine alone.
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
use tests::single_node::SingleNode;
use tests::{demo, tour};

/// Starts a node, imports the demo's images, applies images/demo/vm.yaml, logs in to the machine and stops it.
#[derive(Parser)]
struct Arguments {
    /// CPU back end: auto, kvm or soft.
    #[arg(long, default_value = "auto")]
    accel: String,
}

fn main() -> ExitCode {
    let Arguments { accel } = Arguments::parse();
    if !nix::unistd::geteuid().is_root() {
        println!("demo: pods need root; this is the machine of images/demo/vmi.yaml alone");
        return machine_alone(&accel);
    }
    let Some(mut node) = SingleNode::new(&accel) else {
        return ExitCode::FAILURE;
    };
    match tour::take(&mut node, true, |text| println!("{}", text.trim_end())) {
        Ok(times) => {
            report(&times);
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("\ndemo: {error}\n{}", node.log());
            ExitCode::FAILURE
        }
    }
}

fn report(times: &tour::Times) {
    println!(
        "\ndemo: the node was ready after {:.1} s, the machine ran {:.1} s after its start, with a login prompt after {:.1} s",
        times.ready.as_secs_f64(),
        times.running.as_secs_f64(),
        times.prompt.as_secs_f64()
    );
    println!("demo: the node is gone again. To go on by hand, as root:");
    for line in [
        "target/release/ferrovirt up                         # stays in the foreground; Ctrl-C ends it",
        "export KUBECONFIG=/var/lib/ferrovirt/kubeconfig     # in another terminal",
        "target/release/ferrovirt image import target/guests/oci/demo-disk --name registry.example/ferrovirt/demo-disk:latest",
        "target/release/ferrovirt image import target/guests/oci/demo-kernel --name registry.example/ferrovirt/demo-kernel:latest",
        "kubectl apply -f images/demo/vm.yaml                # or: target/release/ferrovirt apply -f ...",
        "target/release/virtctl start demo",
        "target/release/virtctl console demo                 # root, password ferrovirt; Ctrl-] leaves",
    ] {
        println!("  {line}");
    }
}

/// Runs images/demo/vmi.yaml without a node, on the user's terminal or scripted.
fn machine_alone(accel: &str) -> ExitCode {
    let (Some(guests), Some(launcher)) = (tests::guests(), tests::program("virt-launcher")) else {
        return ExitCode::FAILURE;
    };
    let outcome = if stdin().is_terminal() && stdout().is_terminal() {
        demo::attach(&launcher, &guests, accel)
    } else {
        demo::run(&launcher, &guests, accel, true)
    };
    match outcome {
        Ok(report) => {
            let seconds = report.to_prompt.as_secs_f64();
            println!(
                "\ndemo: {}\ndemo: {seconds:.1} s from start to prompt",
                report.back_end
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("\ndemo: failed to {error}");
            ExitCode::FAILURE
        }
    }
}
