//! The demo without a terminal: the machine of `images/demo/vmi.yaml` boots, is logged in to, shows itself and powers
//! off.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    Guests,
    console::{Console, ConsoleError, Spawned},
    guests::repository,
};

/// Time for a boot; generous, for a busy host with a software CPU built without optimisation.
pub const BOOT: Duration = Duration::from_secs(300);

/// Time for one command in the guest, or for its shutdown.
pub const COMMAND: Duration = Duration::from_secs(60);

/// The prompt of the guest's root shell.
pub const PROMPT: &str = "root@ferrovirt:~# ";

/// What the logged-in user types, and a text that the answer must hold.
const SESSION: [(&str, &str); 5] = [
    ("uname -a", "Linux ferrovirt"),
    ("cat /proc/cpuinfo", "processor\t: 1"),
    ("lsblk", "vdb"),
    ("cat /mnt/cidata/user-data", "#cloud-config"),
    ("cat /run/greeting", "cloud-init was here"),
];

/// What a run of the demo showed.
#[derive(Debug)]
pub struct Report {
    /// The launcher's own words on which CPU back end ran the machine, and why.
    pub back_end: String,
    /// From the start of the launcher to the login prompt.
    pub to_prompt: Duration,
    /// Everything on the console.
    pub console: String,
}

/// Why the demo failed.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The console did not show what it should.
    #[error("talk to the guest: {0}")]
    Console(#[from] ConsoleError),
    /// The launcher could not be started or written to.
    #[error("run virt-launcher: {0}")]
    Host(#[from] std::io::Error),
    /// A command's answer was not the expected one.
    #[error("the guest's answer to {command:?} lacks {wanted:?}:\n{answer}")]
    Answer {
        /// The command.
        command: &'static str,
        /// What was to be in the answer.
        wanted: &'static str,
        /// The answer.
        answer: String,
    },
    /// The launcher did not end well.
    #[error("virt-launcher ended with {status} after the guest powered off:\n{errors}")]
    Exit {
        /// Its exit status.
        status: std::process::ExitStatus,
        /// Its standard error.
        errors: String,
    },
}

/// Runs the demo manifest with the launcher given; with `echo`, the console appears on standard output.
///
/// # Errors
///
/// When the guest does not answer as the demo expects, or the launcher does not exit with status 0.
pub fn run(launcher: &Path, guests: &Guests, accel: &str, echo: bool) -> Result<Report, DemoError> {
    let began = Instant::now();
    let mut machine = Spawned::start(command(launcher, guests, accel), Console::Pipes)?;
    if echo {
        machine.echo();
    }
    machine.expect("login: ", BOOT)?;
    let to_prompt = began.elapsed();
    log_in(&mut machine, Some("ferrovirt"))?;
    for (command, wanted) in SESSION {
        let answer = ask(&mut machine, command)?;
        if !answer.contains(wanted) {
            return Err(DemoError::Answer {
                command,
                wanted,
                answer,
            });
        }
    }
    machine.send("poweroff\n")?;
    let finished = machine.finish(COMMAND)?;
    if !finished.status.success() {
        return Err(DemoError::Exit {
            status: finished.status,
            errors: finished.errors,
        });
    }
    let back_end = back_end(&finished.errors);
    Ok(Report {
        back_end,
        to_prompt,
        console: finished.output,
    })
}

/// Runs the demo manifest with the user's terminal as its console until the guest powers off.
///
/// # Errors
///
/// When there is no terminal, or the launcher does not exit with status 0.
pub fn attach(launcher: &Path, guests: &Guests, accel: &str) -> Result<Report, DemoError> {
    let mut machine = Spawned::start(command(launcher, guests, accel), Console::Terminal)?;
    let to_prompt = machine.relay("login: ")?.unwrap_or_default();
    let finished = machine.finish(COMMAND)?;
    if !finished.status.success() {
        return Err(DemoError::Exit {
            status: finished.status,
            errors: finished.errors,
        });
    }
    Ok(Report {
        back_end: back_end(&finished.errors),
        to_prompt,
        console: finished.output,
    })
}

/// The launcher's command line for the demo manifest.
#[must_use]
pub fn command(launcher: &Path, guests: &Guests, accel: &str) -> Command {
    let mut command = Command::new(launcher);
    command
        .arg("--standalone")
        .arg(repository().join("images/demo/vmi.yaml"));
    command
        .arg("--image-dir")
        .arg(guests.images())
        .args(["--accel", accel]);
    command
}

/// Answers the login prompt that was just matched, and waits for the shell.
///
/// # Errors
///
/// When the shell's prompt does not come.
pub fn log_in(machine: &mut Spawned, password: Option<&str>) -> Result<(), ConsoleError> {
    machine.send("root\n")?;
    if let Some(password) = password {
        machine.expect("Password: ", COMMAND)?;
        machine.send(&format!("{password}\n"))?;
    }
    machine.expect(PROMPT, COMMAND).map(drop)
}

/// Types a command at the shell's prompt and gives what the console shows up to the next prompt.
///
/// # Errors
///
/// When the prompt does not come back.
pub fn ask(machine: &mut Spawned, command: &str) -> Result<String, ConsoleError> {
    machine.send(&format!("{command}\n"))?;
    machine.expect(PROMPT, COMMAND)
}

/// Finds the line of the log that tells which back end runs.
fn back_end(log: &str) -> String {
    let telling = |line: &&str| line.contains("back end") || line.contains("back_end");
    log.lines()
        .find(telling)
        .unwrap_or("not told by the launcher")
        .trim()
        .to_owned()
}
