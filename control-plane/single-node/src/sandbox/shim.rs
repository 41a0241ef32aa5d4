//! `ferrovirt sandbox-shim <folder>`: the keeper of one container.
//!
//! It starts the container's first process in namespaces of its own, writes its output into the log, and notes how it
//! ends. It has one thread and does not depend on who started it, so containers outlive that program; should the keeper
//! itself be killed, the kernel ends the container too.
//!
//! ```text
//! ferrovirt up ──starts──▶ sandbox-shim ──starts──▶ sandbox-init ──becomes──▶ the program
//!      ◀──"started"/why not──┘   ◀──nothing/why not──────┘ (its standard input, until it is the program)
//! ```

mod log;

use std::fs;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};

use jiff::Timestamp;
use nix::sched::{CloneFlags, setns, unshare};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use self::log::{Log, Stream};
use super::process::ProcessId;
use super::record::{self, Ended, Started};
use super::spec::{ContainerSpec, Namespaces};

/// First argument that makes the program a keeper.
pub const NAME: &str = "sandbox-shim";
/// What the keeper tells on its standard output once the container runs.
pub(super) const IS_RUNNING: &[u8] = b"running\n";
/// Bytes that are read of a container's output at once.
const CHUNK_LEN_BYTES: usize = 16 << 10;
/// Most bytes of a reason why a container cannot start.
const FAILURE_LEN_MAX_BYTES: u64 = 4096;

/// Keeps the container of a folder until it has ended.
pub(crate) fn main(folder: &Path) -> ExitCode {
    match keep(folder) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let failure = format!("keep the container: {error}");
            let noted = record::write(
                folder,
                record::ENDED,
                &Ended::failed(Timestamp::now(), failure.clone()),
            );
            let _nobody_listens = io::stdout().write_all(failure.as_bytes());
            noted.map_or(ExitCode::FAILURE, |()| ExitCode::FAILURE)
        }
    }
}

fn keep(folder: &Path) -> io::Result<()> {
    let missing = || io::Error::new(io::ErrorKind::NotFound, "there is no spec.json");
    let _kept = record::hold(folder)?.ok_or_else(missing)?;
    let spec: ContainerSpec = record::read(folder, record::SPEC)?.ok_or_else(missing)?;
    if folder.join(record::ENDED).exists() {
        // Who had this keeper started was restarted, and has given the container up.
        return Ok(());
    }
    if let Some(group) = &spec.keeper_cgroup {
        // Whoever ends the group of who started this keeper would end the container with it. Not every host lets us.
        let _stays_there = fs::write(group.join("cgroup.procs"), "0");
    }
    let _leads_already = rustix::process::setsid();
    // Whoever is short of memory takes the container rather than its keeper. Not everyone may ask for that.
    let _stays_ordinary = fs::write("/proc/self/oom_score_adj", "-999");
    let mut log = Log::open(&spec.log)?;
    let kills_before = spec.oom_counter.as_deref().map_or(0, oom_kills);
    enter(&spec.namespaces)?;
    let (mut child, output, mut report) = spawn(folder, spec.has_terminal)?;
    let failure = read_report(&mut report)?;
    if !failure.is_empty() {
        child.wait()?;
        let failure = String::from_utf8_lossy(&failure).into_owned();
        record::write(
            folder,
            record::ENDED,
            &Ended::failed(Timestamp::now(), failure.clone()),
        )?;
        return io::stdout().write_all(failure.as_bytes());
    }
    note_start(folder, &child)?;
    pump(&child, output, &mut log)?;
    let status = child.wait()?;
    let is_out_of_memory = spec
        .oom_counter
        .as_deref()
        .is_some_and(|file| oom_kills(file) > kills_before);
    record::write(folder, record::ENDED, &ended(status, is_out_of_memory))
}

/// Enters the pod's namespaces; the first process that is started will be the first of a new process namespace.
fn enter(namespaces: &Namespaces) -> io::Result<()> {
    let joined = [
        (&namespaces.net, CloneFlags::CLONE_NEWNET),
        (&namespaces.ipc, CloneFlags::CLONE_NEWIPC),
        (&namespaces.uts, CloneFlags::CLONE_NEWUTS),
    ];
    for (file, kind) in joined {
        if let Some(path) = file {
            let failed = |error: io::Error| {
                io::Error::new(
                    error.kind(),
                    format!("enter namespace {}: {error}", path.display()),
                )
            };
            let file = fs::File::open(path).map_err(failed)?;
            setns(file, kind).map_err(|error| failed(error.into()))?;
        }
    }
    if !namespaces.is_pid_host {
        unshare(CloneFlags::CLONE_NEWPID)?;
    }
    Ok(())
}

/// Where a container's output is read from.
struct Output {
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

fn spawn(folder: &Path, has_terminal: bool) -> io::Result<(Child, Output, UnixStream)> {
    let (report, told) = UnixStream::pair()?;
    let mut command = Command::new("/proc/self/exe");
    command.arg0("ferrovirt").arg(super::init::NAME).arg(folder);
    command.env_clear().stdin(Stdio::from(OwnedFd::from(told)));
    let output = if has_terminal {
        terminal(&mut command)?
    } else {
        pipes(&mut command)?
    };
    let child = command.spawn()?;
    Ok((child, output, report))
}

fn pipes(command: &mut Command) -> io::Result<Output> {
    let (stdout, write_stdout) = io::pipe()?;
    let (stderr, write_stderr) = io::pipe()?;
    command.stdout(write_stdout).stderr(write_stderr);
    Ok(Output {
        stdout: Some(stdout.into()),
        stderr: Some(stderr.into()),
    })
}

fn terminal(command: &mut Command) -> io::Result<Output> {
    use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    let slave = ioctl_tiocgptpeer(&master, flags)?;
    command
        .stdout(Stdio::from(slave.try_clone()?))
        .stderr(Stdio::from(slave));
    Ok(Output {
        stdout: Some(master),
        stderr: None,
    })
}

/// Reads why the container cannot start, which is nothing when it has started.
fn read_report(report: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut failure = Vec::new();
    report
        .take(FAILURE_LEN_MAX_BYTES)
        .read_to_end(&mut failure)?;
    Ok(failure)
}

fn note_start(folder: &Path, child: &Child) -> io::Result<()> {
    let pid = i32::try_from(child.id()).map_err(io::Error::other)?;
    // One that has ended already is a zombie until it is waited for, so its number is its own.
    let process = ProcessId::of(pid)?;
    let keeper = ProcessId::own()?;
    record::write(
        folder,
        record::STARTED,
        &Started {
            process,
            keeper,
            at: Timestamp::now(),
        },
    )?;
    // Who started the container may be gone.
    let _nobody_listens = io::stdout()
        .write_all(IS_RUNNING)
        .and_then(|()| io::stdout().flush());
    let null = fs::OpenOptions::new().write(true).open("/dev/null")?;
    nix::unistd::dup2_stdout(null)?;
    Ok(())
}

/// Writes output into the log until the container's first process has ended and nothing is left to read.
fn pump(child: &Child, mut output: Output, log: &mut Log) -> io::Result<()> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let process = pidfd_open(pid.ok_or(Errno::SRCH)?, PidfdFlags::empty())?;
    let mut chunk = vec![0; CHUNK_LEN_BYTES];
    let mut has_ended = false;
    loop {
        let open = [
            output.stdout.as_ref(),
            output.stderr.as_ref(),
            (!has_ended).then_some(&process),
        ];
        let ready = wait(open.map(|file| file.map(AsFd::as_fd)), has_ended)?;
        if ready[0] {
            drain(&mut output.stdout, Stream::Stdout, &mut chunk, log);
        }
        if ready[1] {
            drain(&mut output.stderr, Stream::Stderr, &mut chunk, log);
        }
        if has_ended && !ready[0] && !ready[1] {
            break;
        }
        has_ended |= ready[2];
    }
    log.finish();
    Ok(())
}

/// Waits until one of the files can be read, or only looks.
fn wait(files: [Option<BorrowedFd<'_>>; 3], only_looks: bool) -> io::Result<[bool; 3]> {
    let mut polled = Vec::with_capacity(files.len());
    polled.extend(
        files
            .iter()
            .flatten()
            .map(|file| PollFd::from_borrowed_fd(*file, PollFlags::IN)),
    );
    let now = rustix::event::Timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    match poll(&mut polled, only_looks.then_some(&now)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(error) => return Err(error.into()),
    }
    let mut polled = polled.iter();
    Ok(files
        .map(|file| file.is_some() && polled.next().is_some_and(|poll| !poll.revents().is_empty())))
}

fn drain(file: &mut Option<OwnedFd>, stream: Stream, chunk: &mut [u8], log: &mut Log) {
    let Some(open) = file else { return };
    match rustix::io::read(&*open, &mut *chunk) {
        Ok(0) => *file = None,
        Ok(len) => log.write(stream, &chunk[..len]),
        Err(Errno::INTR | Errno::AGAIN) => {}
        // A terminal that nobody has open any more.
        Err(_) => *file = None,
    }
}

fn ended(status: ExitStatus, is_out_of_memory: bool) -> Ended {
    let signal = status.signal();
    let code = status
        .code()
        .unwrap_or_else(|| 128 + signal.unwrap_or_default());
    let is_out_of_memory = is_out_of_memory && code == 137;
    Ended {
        code,
        signal,
        at: Timestamp::now(),
        is_out_of_memory,
        failure: None,
    }
}

/// Returns how often the kernel killed for want of memory (`memory.oom_control`, `memory.events`).
fn oom_kills(counter: &Path) -> u64 {
    let text = fs::read_to_string(counter).unwrap_or_default();
    let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or_default()
}
