//! `make demo`: a node from nothing to a machine that was logged in to, by the commands that a user types.

use std::time::{Duration, Instant};

use crate::console::ConsoleError;
use crate::demo::{BOOT, ask, log_in};
use crate::guests::repository;
use crate::single_node::{CommandError, SingleNode};

/// Name of the machine of `images/demo/vm.yaml`.
pub const MACHINE: &str = "demo";
/// Time for the machine to be gone after `virtctl stop`.
const STOP: Duration = Duration::from_secs(60);

/// What the logged-in user types, and a text that the answer must hold.
const SESSION: [(&str, &str); 4] = [
    ("uname -a", "Linux ferrovirt"),
    ("cat /proc/cpuinfo | grep -c processor", "2"),
    ("lsblk", "vdb"),
    ("cat /run/greeting", "cloud-init was here"),
];

/// How long the parts of the tour took.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// `ferrovirt up` until it was ready.
    pub ready: Duration,
    /// `virtctl start` until the instance was running.
    pub running: Duration,
    /// `virtctl start` until the login prompt.
    pub prompt: Duration,
}

/// Why the tour ended early.
#[derive(Debug, thiserror::Error)]
pub enum TourError {
    /// A command failed.
    #[error("{0}")]
    Command(#[from] CommandError),
    /// The console did not show what it should.
    #[error("talk to the guest: {0}")]
    Console(#[from] ConsoleError),
    /// A program could not be started or written to.
    #[error("run virtctl: {0}")]
    Host(#[from] std::io::Error),
    /// The guest answered something else.
    #[error("the guest's answer to {command:?} lacks {wanted:?}:\n{answer}")]
    Answer {
        /// The command.
        command: &'static str,
        /// What was to be in the answer.
        wanted: &'static str,
        /// The answer.
        answer: String,
    },
}

/// Takes the tour; `say` is told each command before it runs, and what it printed; with `echo` the console appears on
/// standard output.
///
/// # Errors
///
/// When a command fails or the guest does not answer as it should.
pub fn take(node: &mut SingleNode, echo: bool, say: impl Fn(&str)) -> Result<Times, TourError> {
    say("$ ferrovirt up");
    let ready = node.start()?;
    say(
        "$ ferrovirt image import target/guests/oci/demo-disk --name registry.example/ferrovirt/demo-disk:latest",
    );
    say(
        "$ ferrovirt image import target/guests/oci/demo-kernel --name registry.example/ferrovirt/demo-kernel:latest",
    );
    node.import_demo_images()?;
    let kubectl = if node.has_kubectl() {
        "kubectl"
    } else {
        "ferrovirt"
    };
    let manifest = repository().join("images/demo/vm.yaml");
    say(&format!("$ {kubectl} apply -f images/demo/vm.yaml"));
    say(&node.kubectl(&["apply", "-f", &manifest.to_string_lossy()])?);
    say("$ virtctl start demo");
    let began = Instant::now();
    say(&node.virtctl(&["start", MACHINE])?);
    node.wait_for("vmi", MACHINE, "running", BOOT, |vmi| {
        vmi["status"]["phase"] == "Running"
    });
    let running = began.elapsed();
    say(&format!("$ {kubectl} get vm,vmi,pods"));
    for kind in ["vm", "vmi", "pods"] {
        say(&node.kubectl(&["get", kind])?);
    }
    say("$ virtctl console demo");
    let prompt = log_in_and_look(node, echo, began)?;
    say("\n$ virtctl stop demo");
    say(&node.virtctl(&["stop", MACHINE])?);
    node.wait_for("vmi", MACHINE, "gone", STOP, serde_json::Value::is_null);
    say(&format!("$ {kubectl} get vm"));
    say(&node.kubectl(&["get", "vm"])?);
    Ok(Times {
        ready,
        running,
        prompt,
    })
}

fn log_in_and_look(node: &SingleNode, echo: bool, began: Instant) -> Result<Duration, TourError> {
    let mut console = node.console(MACHINE)?;
    if echo {
        console.echo();
    }
    // The prompt may have come before the console was connected: a line feed brings it again.
    console.send("\n")?;
    console.expect("login: ", BOOT)?;
    let prompt = began.elapsed();
    log_in(&mut console, Some("ferrovirt"))?;
    for (command, wanted) in SESSION {
        let answer = ask(&mut console, command)?;
        if !answer.contains(wanted) {
            return Err(TourError::Answer {
                command,
                wanted,
                answer,
            });
        }
    }
    Ok(prompt)
}
