//! `ferrovirt sandbox-init <folder>`: what a container's first process does before it becomes the container's program.
//!
//! The order matters: control groups first, so that everything counts for the container; then mounts, with root's rights;
//! then the root is changed, and last the rights go.

pub(super) mod dev;
pub(super) mod identity;
mod mounts;
mod root;

use std::fs;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use nix::sched::{CloneFlags, unshare};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::process::{chdir, pivot_root};

use super::record;
use super::spec::ContainerSpec;

/// First argument that makes the program a container's first process.
pub const NAME: &str = "sandbox-init";

/// Becomes the container's program. Who waits at the other end of standard input reads why not.
pub(crate) fn main(folder: &Path) -> ExitCode {
    // Closed when the program begins, since it is not passed on; that is how success is told.
    let report = io::stdin().as_fd().try_clone_to_owned();
    let Err(failure) = become_program(folder);
    if let Ok(report) = report {
        let _nobody_listens = UnixStream::from(report).write_all(failure.to_string().as_bytes());
    }
    ExitCode::FAILURE
}

fn become_program(folder: &Path) -> io::Result<std::convert::Infallible> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, "there is no spec.json");
    let spec: ContainerSpec = record::read(folder, record::SPEC)?.ok_or_else(missing)?;
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    join(&spec.cgroups)?;
    adjust_oom_score(spec.oom_score_adj);
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWCGROUP)?;
    let all = MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC;
    mount_change("/", all).map_err(told("detach mounts from the host's"))?;
    let root = root::mount_root(folder, &spec)?;
    mounts::mount_kernel(&root, &spec)?;
    dev::mount_dev(&root, &spec)?;
    mounts::mount_volumes(&root, &spec)?;
    root::finish(&root, &spec)?;
    change_root(&root)?;
    take_terminal(&spec)?;
    let account = identity::resolve(&spec)?;
    make_workdir(&spec.workdir, &account)?;
    enter_workdir(&spec.workdir)?;
    let mut command = program(&spec, &account)?;
    identity::assume(&spec, &account)?;
    let error = command.exec();
    Err(explain_exec(&spec.argv, &error))
}

/// Says what could not be done.
pub(super) fn told<E: Into<io::Error>>(
    what: impl std::fmt::Display,
) -> impl FnOnce(E) -> io::Error {
    move |error| {
        let error = error.into();
        io::Error::new(error.kind(), format!("{what}: {error}"))
    }
}

/// Joins control groups.
pub(super) fn join(cgroups: &[impl AsRef<Path>]) -> io::Result<()> {
    for group in cgroups {
        let file = group.as_ref().join("cgroup.procs");
        fs::write(&file, "0").map_err(told(format_args!("join {}", file.display())))?;
    }
    Ok(())
}

fn adjust_oom_score(score: i32) {
    // Lowering it below what this program has takes CAP_SYS_RESOURCE, which not everyone has; nothing else depends on it.
    let _stays_as_it_is = fs::write("/proc/self/oom_score_adj", score.to_string());
}

fn change_root(root: &Path) -> io::Result<()> {
    let failed = |error: rustix::io::Errno| {
        io::Error::new(
            io::Error::from(error).kind(),
            format!("change the root to {}: {error}", root.display()),
        )
    };
    chdir(root).map_err(failed)?;
    pivot_root(".", ".").map_err(failed)?;
    // The old root lies over the new one.
    unmount(".", UnmountFlags::DETACH).map_err(failed)?;
    chdir("/").map_err(failed)
}

/// Leaves the report channel's number to the container's input.
fn take_terminal(spec: &ContainerSpec) -> io::Result<()> {
    let _leads_already = rustix::process::setsid();
    if spec.has_terminal {
        nix::unistd::dup2_stdin(io::stdout())?;
        rustix::process::ioctl_tiocsctty(io::stdin())?;
        return Ok(());
    }
    let null = fs::File::open("/dev/null").map_err(told("open /dev/null"))?;
    Ok(nix::unistd::dup2_stdin(null)?)
}

fn make_workdir(workdir: &str, account: &identity::Account) -> io::Result<()> {
    if workdir.is_empty() || Path::new(workdir).exists() {
        return Ok(());
    }
    fs::create_dir_all(workdir).map_err(told(format_args!("make the working folder {workdir}")))?;
    std::os::unix::fs::chown(workdir, Some(account.uid), Some(account.gid))
}

/// Enters the working folder of a container.
pub(super) fn enter_workdir(workdir: &str) -> io::Result<()> {
    let workdir = if workdir.is_empty() { "/" } else { workdir };
    chdir(workdir).map_err(told(format_args!("enter the working folder {workdir}")))
}

/// Returns the container's program with its environment.
pub(super) fn program(spec: &ContainerSpec, account: &identity::Account) -> io::Result<Command> {
    let none = || {
        io::Error::new(
            io::ErrorKind::InvalidInput,
            "neither the pod nor the image names a command",
        )
    };
    let name = spec
        .argv
        .first()
        .filter(|name| !name.is_empty())
        .ok_or_else(none)?;
    let mut command = Command::new(name);
    command
        .args(&spec.argv[1..])
        .env_clear()
        .env("HOME", &account.home);
    command.envs(spec.env.iter().map(|(name, value)| (name, value)));
    Ok(command)
}

/// Says why a program does not run.
pub(super) fn explain_exec(argv: &[String], error: &io::Error) -> io::Error {
    let name = argv.first().map_or("", String::as_str);
    let reason = match error.kind() {
        io::ErrorKind::NotFound => {
            format!("run {name:?}: no such program in the image (or in its $PATH)")
        }
        io::ErrorKind::PermissionDenied => {
            format!("run {name:?}: it is not executable for the container's user")
        }
        _ => format!("run {name:?}: {error}"),
    };
    io::Error::new(error.kind(), reason)
}
