//! Running another program in a container that runs: `kubectl exec`, probes and hooks.
//!
//! `ferrovirt sandbox-exec <folder> -- <program>…` enters the process namespace and starts `sandbox-enter` there, which
//! enters the rest, takes the container's rights and becomes the program. Both end with the program, and it with them.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};

use nix::sched::{CloneFlags, setns};
use rustix::process::Signal;
use rustix::termios::{Winsize, tcsetwinsize};

use super::init::{self, identity, told};
use super::record::{self, Started};
use super::spec::ContainerSpec;

/// First argument that makes the program one that runs another in a container.
pub const NAME: &str = "sandbox-exec";
/// First argument of its second half.
pub(crate) const ENTER: &str = "sandbox-enter";
/// Exit status when the program cannot be started; a shell's for one that it does not find.
const CANNOT_RUN: u8 = 126;
/// Exit status when the program is not there.
const NOT_FOUND: u8 = 127;

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExecRequest {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Whether its input can be written.
    pub has_stdin: bool,
    /// Whether its output can be read; it goes nowhere otherwise.
    pub has_output: bool,
    /// Columns and rows of its terminal, if it has one.
    pub terminal: Option<(u16, u16)>,
}

/// A program that runs in a container.
#[derive(Debug)]
pub struct Exec {
    /// Ends with the program, and with its exit status. To end the program, kill it.
    pub child: Child,
    /// What the program reads.
    pub stdin: Option<OwnedFd>,
    /// What it writes.
    pub stdout: Option<OwnedFd>,
    /// What it writes as errors; with a terminal these are in `stdout`.
    pub stderr: Option<OwnedFd>,
    /// The terminal, to change its size ([`Exec::resize`]).
    pub terminal: Option<OwnedFd>,
}

impl Exec {
    /// Starts a program in a container, which is in this folder. `ferrovirt` is this program.
    ///
    /// # Errors
    ///
    /// Fails when processes or terminals cannot be made; that the program is not in the image is an exit status of 126 or
    /// 127, with a reason in its errors.
    pub fn start(ferrovirt: &Path, container: &Path, request: &ExecRequest) -> io::Result<Self> {
        let mut command = Command::new(ferrovirt);
        command.arg0("ferrovirt").arg(NAME).arg(container);
        command.arg(if request.terminal.is_some() {
            "tty"
        } else {
            "-"
        });
        command.args(&request.argv).env_clear();
        match request.terminal {
            Some(size) => Self::start_with_terminal(command, size),
            None => Self::start_with_pipes(command, request),
        }
    }

    fn start_with_pipes(mut command: Command, request: &ExecRequest) -> io::Result<Self> {
        let pipe = |wanted: bool| {
            if wanted {
                Stdio::piped()
            } else {
                Stdio::null()
            }
        };
        command.stdin(pipe(request.has_stdin));
        command
            .stdout(pipe(request.has_output))
            .stderr(pipe(request.has_output));
        let mut child = command.spawn()?;
        Ok(Self {
            stdin: child.stdin.take().map(Into::into),
            stdout: child.stdout.take().map(Into::into),
            stderr: child.stderr.take().map(Into::into),
            terminal: None,
            child,
        })
    }

    fn start_with_terminal(mut command: Command, (columns, rows): (u16, u16)) -> io::Result<Self> {
        use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let slave = ioctl_tiocgptpeer(&master, flags)?;
        command
            .stdin(Stdio::from(slave.try_clone()?))
            .stdout(Stdio::from(slave.try_clone()?));
        let child = command.stderr(Stdio::from(slave)).spawn()?;
        let started = Self {
            stdin: Some(master.try_clone()?),
            stdout: Some(master.try_clone()?),
            stderr: None,
            terminal: Some(master),
            child,
        };
        started.resize(columns, rows)?;
        Ok(started)
    }

    /// Changes the size of the program's terminal; without one, nothing happens.
    ///
    /// # Errors
    ///
    /// Fails when the terminal refuses.
    pub fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        let Some(terminal) = &self.terminal else {
            return Ok(());
        };
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        Ok(tcsetwinsize(terminal, size)?)
    }
}

/// What both halves are told.
struct Arguments {
    container: PathBuf,
    has_terminal: String,
    argv: Vec<String>,
}

impl Arguments {
    fn parse(mut arguments: impl Iterator<Item = String>) -> io::Result<Self> {
        let missing = || io::Error::new(io::ErrorKind::InvalidInput, "arguments are missing");
        let container = arguments.next().ok_or_else(missing)?.into();
        let has_terminal = arguments.next().ok_or_else(missing)?;
        Ok(Self {
            container,
            has_terminal,
            argv: arguments.collect(),
        })
    }
}

/// Enters the process namespace of a container, starts the second half there, and ends as that does.
pub(crate) fn main(arguments: impl Iterator<Item = String>) -> ExitCode {
    match Arguments::parse(arguments).and_then(|arguments| start_inside(&arguments)) {
        Ok(status) => ExitCode::from(status),
        Err(error) => fail(&error),
    }
}

fn start_inside(arguments: &Arguments) -> io::Result<u8> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let started = running(&arguments.container)?;
    let processes = namespace(&started, "pid")?;
    setns(processes, CloneFlags::CLONE_NEWPID)
        .map_err(told("enter the container's process namespace"))?;
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("ferrovirt")
        .arg(ENTER)
        .arg(&arguments.container);
    command.arg(&arguments.has_terminal).args(&arguments.argv);
    let mut child = command.spawn()?;
    // Whoever waits for the end of these waits for the program's own.
    let null = File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    nix::unistd::dup2_stdout(&null)?;
    nix::unistd::dup2_stderr(&null)?;
    let status = child.wait()?;
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

fn running(container: &Path) -> io::Result<Started> {
    let ended = || io::Error::new(io::ErrorKind::NotFound, "the container does not run");
    let started: Started = record::read(container, record::STARTED)?.ok_or_else(ended)?;
    // By the files of `/proc` alone: inside the container's process namespace, numbers mean others.
    if !started.process.is_alive() {
        return Err(ended());
    }
    Ok(started)
}

fn namespace(started: &Started, kind: &str) -> io::Result<File> {
    let path = format!("/proc/{}/ns/{kind}", started.process.pid);
    let opened = File::open(&path).map_err(told(format_args!("open {path}")))?;
    let is_it_still = started.process.is_alive();
    is_it_still
        .then_some(opened)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the container has ended"))
}

/// Becomes the program in the container.
pub(crate) fn enter(arguments: impl Iterator<Item = String>) -> ExitCode {
    let Err(error) = Arguments::parse(arguments).and_then(|arguments| become_program(&arguments));
    fail(&error)
}

fn become_program(arguments: &Arguments) -> io::Result<std::convert::Infallible> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let missing = || io::Error::new(io::ErrorKind::NotFound, "there is no spec.json");
    let spec: ContainerSpec =
        record::read(&arguments.container, record::SPEC)?.ok_or_else(missing)?;
    let spec = ContainerSpec {
        argv: arguments.argv.clone(),
        ..spec
    };
    let started = running(&arguments.container)?;
    let entered = [
        ("net", CloneFlags::CLONE_NEWNET),
        ("ipc", CloneFlags::CLONE_NEWIPC),
        ("uts", CloneFlags::CLONE_NEWUTS),
        ("cgroup", CloneFlags::CLONE_NEWCGROUP),
        ("mnt", CloneFlags::CLONE_NEWNS),
    ];
    let mut namespaces = Vec::new();
    for (kind, flag) in entered {
        namespaces.push((kind, flag, namespace(&started, kind)?));
    }
    init::join(&spec.cgroups)?;
    for (kind, flag, file) in namespaces {
        setns(file, flag).map_err(told(format_args!("enter the container's {kind} namespace")))?;
    }
    let _leads_already = rustix::process::setsid();
    if arguments.has_terminal == "tty" {
        rustix::process::ioctl_tiocsctty(io::stdin().as_fd())?;
    }
    init::enter_workdir(&spec.workdir)?;
    let account = identity::resolve(&spec)?;
    let mut command = init::program(&spec, &account)?;
    if arguments.has_terminal == "tty" {
        command.env("TERM", "xterm");
    }
    identity::assume(&spec, &account)?;
    let error = command.exec();
    Err(init::explain_exec(&spec.argv, &error))
}

fn fail(error: &io::Error) -> ExitCode {
    let _nobody_listens = writeln!(io::stderr(), "{error}");
    let is_not_found = error.kind() == io::ErrorKind::NotFound;
    ExitCode::from(if is_not_found { NOT_FOUND } else { CANNOT_RUN })
}
