//! The small programs that KubeVirt's pods run beside a machine, all in one file under several names.
//!
//! `virt-probe` is the exec probe of a pod, `virt-freezer` a backup tool's hook, `virt-tail` shows the guest's console as a
//! container's log, and `container-disk` keeps a container with a disk image alive until the machine has ended.

mod commands;
mod container_disk;
mod files;
mod freezer;
mod probe;
mod tail;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use vmm::error_chain;

/// Exit status after a failure of the program itself.
const FAILED: u8 = 1;
/// Exit status after a wrong command line.
const MISUSED: u8 = 2;

/// Why a program failed.
#[derive(Debug, thiserror::Error)]
enum ProgramError {
    #[error(transparent)]
    Command(#[from] commands::CommandError),
    #[error(transparent)]
    Tail(#[from] tail::TailError),
    #[error(transparent)]
    ContainerDisk(#[from] container_disk::ContainerDiskError),
}

/// Runs the program of this name and returns its exit status, or `None` when there is none. `args` are without the name.
pub fn run(name: &str, args: &[OsString]) -> Option<ExitCode> {
    let status = match name {
        "virt-probe" => start(name, args, probe::run),
        "virt-freezer" => start(name, args, freezer::run),
        "virt-tail" => start(name, args, tail::run),
        "container-disk" => start(name, args, container_disk::run),
        _ => return None,
    };
    Some(status)
}

#[expect(clippy::print_stderr, reason = "why a program failed belongs there")]
fn start<A: Parser, E: Into<ProgramError>>(
    name: &str,
    args: &[OsString],
    run: impl FnOnce(&A) -> Result<ExitCode, E>,
) -> ExitCode {
    let args = std::iter::once(name.into()).chain(args.iter().cloned());
    let parsed = match A::try_parse_from(args) {
        Ok(parsed) => parsed,
        Err(error) => {
            let _unprintable = error.print();
            let asked_for_help = !error.use_stderr();
            return ExitCode::from(if asked_for_help { 0 } else { MISUSED });
        }
    };
    run(&parsed).unwrap_or_else(|error| {
        eprintln!("{name}: {}", error_chain(&error.into()));
        ExitCode::from(FAILED)
    })
}
