//! Stopping a node, telling about it, and deleting what it has.

use std::io::{BufRead, IsTerminal, Write};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::state::State;

/// Time that machines may take to shut down, with what `up` itself adds.
const PATIENCE: Duration = Duration::from_secs(300);

/// Shuts down the machines and stops the node. Blocks.
///
/// # Errors
///
/// Fails when the node does not stop.
pub(crate) fn down(state: &State) -> anyhow::Result<()> {
    match state.process() {
        Some(process) => {
            say("shutting down the machines");
            stop(process)?;
            say("stopped");
        }
        None => say("no node runs here"),
    }
    crate::leftovers::end_all(state)
}

fn stop(process: Pid) -> anyhow::Result<()> {
    let ended = rustix::process::Pid::from_raw(process.as_raw()).and_then(|pid| {
        rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).ok()
    });
    let Some(ended) = ended else { return Ok(()) };
    kill(process, Signal::SIGINT).with_context(|| format!("signal process {process}"))?;
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        let mut polled = [rustix::event::PollFd::new(
            &ended,
            rustix::event::PollFlags::IN,
        )];
        let second = rustix::event::Timespec {
            tv_sec: 5,
            tv_nsec: 0,
        };
        if rustix::event::poll(&mut polled, Some(&second)).unwrap_or(0) > 0 {
            return Ok(());
        }
        say(&format!(
            "machines are still shutting down ({} s)",
            began.elapsed().as_secs()
        ));
    }
    bail!(
        "the node (process {process}) does not stop within {} s: its log says what it waits for",
        PATIENCE.as_secs()
    )
}

/// Tells what the node runs. Blocks.
///
/// # Errors
///
/// Fails when the node runs and does not answer.
pub(crate) fn status(state: &State) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "state       {}", state.path().display())?;
    let Some(process) = state.process() else {
        writeln!(
            out,
            "node        does not run: start it with `ferrovirt up`"
        )?;
        return Ok(());
    };
    writeln!(out, "node        runs (process {process})")?;
    writeln!(out, "kubeconfig  {}", state.kubeconfig().display())?;
    crate::kubectl::summary(state, &mut out)
}

/// Stops the node and deletes all that it has. Blocks.
///
/// # Errors
///
/// Fails when the user does not agree, the node does not stop, or a file cannot be deleted.
pub(crate) fn reset(state: &State, yes: bool) -> anyhow::Result<()> {
    let path = state.path();
    if !path.exists() {
        say(&format!(
            "nothing to delete: {} does not exist",
            path.display()
        ));
        return Ok(());
    }
    if !yes && !agrees(path)? {
        bail!("nothing was deleted");
    }
    down(state)?;
    let lock = state.lock()?;
    std::fs::remove_dir_all(path).with_context(|| format!("delete {}", path.display()))?;
    drop(lock);
    say(&format!("deleted {}", path.display()));
    Ok(())
}

fn agrees(path: &std::path::Path) -> anyhow::Result<bool> {
    if !std::io::stdin().is_terminal() {
        bail!(
            "this deletes all machines, volumes and images in {}: say --yes",
            path.display()
        );
    }
    let mut err = std::io::stderr();
    write!(
        err,
        "Delete all machines, volumes and images in {}? [y/N] ",
        path.display()
    )?;
    err.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn say(text: &str) {
    let _unprintable = writeln!(std::io::stderr(), "{text}");
}
