//! Probes: whether containers have started, are ready, and live.

use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::ExitStatus;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use nix::sched::{CloneFlags, setns};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use super::observed::Probed;
use super::volumes::on_disk;
use crate::sandbox::exec::{Exec, ExecRequest};

/// Bytes of an answer that are looked at.
const ANSWER_LEN_MAX_BYTES: usize = 4096;

/// What a probe looks at.
#[derive(Clone, Debug)]
pub(super) struct Subject {
    /// This program.
    pub(super) ferrovirt: PathBuf,
    /// The container's folder.
    pub(super) folder: PathBuf,
    /// The pod's network namespace; `None` for the host's.
    pub(super) network: Option<PathBuf>,
    /// The container, for its probes and the names of its ports.
    pub(super) container: Container,
    /// What its probes have found.
    pub(super) found: Probed,
}

/// What probes have found before any of them ran.
pub(super) fn before(container: &Container) -> Probed {
    let has_startup = container.startup_probe.is_some();
    Probed {
        has_started: !has_startup,
        is_ready: !has_startup && container.readiness_probe.is_none(),
        is_unhealthy: false,
    }
}

/// Whether a container has probes.
pub(super) fn has_any(container: &Container) -> bool {
    container.startup_probe.is_some()
        || container.readiness_probe.is_some()
        || container.liveness_probe.is_some()
}

/// Probes a container until it ends (the future is dropped then), and tells each change.
pub(super) async fn watch(
    subject: Subject,
    mut tell: impl FnMut(Probed) -> Pin<Box<dyn Future<Output = ()> + Send>>,
) {
    let mut found = subject.found;
    let startup = subject.container.startup_probe.as_ref();
    if let Some(startup) = startup.filter(|_| !found.has_started) {
        let healthy = Judge::new(startup, false)
            .until_decided(&subject, startup)
            .await;
        found = Probed {
            has_started: healthy,
            is_ready: healthy && subject.container.readiness_probe.is_none(),
            is_unhealthy: !healthy,
        };
        tell(found).await;
        if !healthy {
            return;
        }
    }
    let (changes, mut changed) = tokio::sync::mpsc::channel(4);
    let ready = follow(
        &subject,
        subject.container.readiness_probe.as_ref(),
        found.is_ready,
        |is_ready| changes.try_send((true, is_ready)).is_ok(),
    );
    let live = follow(
        &subject,
        subject.container.liveness_probe.as_ref(),
        true,
        |is_live| changes.try_send((false, is_live)).is_ok(),
    );
    let told = async {
        while let Some((is_readiness, value)) = changed.recv().await {
            if is_readiness {
                found.is_ready = value;
            } else {
                found.is_unhealthy = !value;
            }
            tell(found).await;
        }
    };
    tokio::join!(ready, live, told);
}

/// Probes again and again, and tells when the judgement changes. Without a probe nothing is told.
async fn follow(
    subject: &Subject,
    probe: Option<&Probe>,
    begins_as: bool,
    tell: impl Fn(bool) -> bool,
) {
    let Some(probe) = probe else { return };
    let mut judge = Judge::new(probe, begins_as);
    sleep(seconds(probe.initial_delay_seconds, 0)).await;
    loop {
        let before = judge.is_good;
        judge.count(look(subject, probe).await);
        if judge.is_good != before && !tell(judge.is_good) {
            // The teller is behind; the change is told the next time.
            judge.is_good = before;
        }
        sleep(seconds(probe.period_seconds, 10)).await;
    }
}

/// Counts results: a few in a row change the judgement.
struct Judge {
    is_good: bool,
    in_a_row: i32,
    last: bool,
    needs_good: i32,
    needs_bad: i32,
}

impl Judge {
    fn new(probe: &Probe, is_good: bool) -> Self {
        let needs = |wanted: Option<i32>, default| wanted.unwrap_or(default).max(1);
        Self {
            is_good,
            in_a_row: 0,
            last: is_good,
            needs_good: needs(probe.success_threshold, 1),
            needs_bad: needs(probe.failure_threshold, 3),
        }
    }

    fn count(&mut self, result: bool) {
        self.in_a_row = if result == self.last {
            self.in_a_row.saturating_add(1)
        } else {
            1
        };
        self.last = result;
        let needed = if result {
            self.needs_good
        } else {
            self.needs_bad
        };
        if self.in_a_row >= needed {
            self.is_good = result;
        }
    }

    /// Probes until the container has started, or failed to.
    async fn until_decided(mut self, subject: &Subject, probe: &Probe) -> bool {
        sleep(seconds(probe.initial_delay_seconds, 0)).await;
        loop {
            self.count(look(subject, probe).await);
            if self.is_good || (!self.last && self.in_a_row >= self.needs_bad) {
                return self.is_good;
            }
            sleep(seconds(probe.period_seconds, 10)).await;
        }
    }
}

fn seconds(wanted: Option<i32>, default: u64) -> Duration {
    let wanted = wanted.and_then(|seconds| u64::try_from(seconds).ok());
    Duration::from_secs(
        wanted
            .filter(|seconds| *seconds > 0 || default == 0)
            .unwrap_or(default),
    )
}

/// Probes once.
async fn look(subject: &Subject, probe: &Probe) -> bool {
    let limit = seconds(probe.timeout_seconds, 1);
    let found = async {
        if let Some(exec) = &probe.exec {
            return run(subject, exec.command.clone().unwrap_or_default(), limit).await;
        }
        if let Some(http) = &probe.http_get {
            return get(subject, http).await;
        }
        if let Some(tcp) = &probe.tcp_socket {
            let port = port(&subject.container, &tcp.port);
            return connect(subject, tcp.host.as_deref(), port).await.is_ok();
        }
        if let Some(grpc) = &probe.grpc {
            // Whoever listens is taken for healthy.
            return connect(subject, None, u16::try_from(grpc.port).ok())
                .await
                .is_ok();
        }
        true
    };
    timeout(limit, found).await.unwrap_or(false)
}

/// Runs a program in the container; success is an exit status of 0.
async fn run(subject: &Subject, argv: Vec<String>, limit: Duration) -> bool {
    let status = run_in(
        subject.ferrovirt.clone(),
        subject.folder.clone(),
        argv,
        limit,
    )
    .await;
    status.is_ok_and(|status| status.success())
}

/// Runs a program in a container, no longer than this.
pub(super) async fn run_in(
    ferrovirt: PathBuf,
    folder: PathBuf,
    argv: Vec<String>,
    limit: Duration,
) -> std::io::Result<ExitStatus> {
    let request = ExecRequest {
        argv,
        has_stdin: false,
        has_output: false,
        terminal: None,
    };
    on_disk(move || {
        let mut exec = Exec::start(&ferrovirt, &folder, &request)?;
        wait(&mut exec, limit)
    })
    .await
}

fn wait(exec: &mut Exec, limit: Duration) -> std::io::Result<ExitStatus> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::process::{Pid, PidfdFlags, pidfd_open};
    let pid = i32::try_from(exec.child.id()).ok().and_then(Pid::from_raw);
    let held = pidfd_open(pid.ok_or(rustix::io::Errno::SRCH)?, PidfdFlags::empty())?;
    let seconds = i64::try_from(limit.as_secs()).unwrap_or(i64::MAX);
    let limit = Timespec {
        tv_sec: seconds,
        tv_nsec: i64::from(limit.subsec_nanos()),
    };
    let ready = poll(&mut [PollFd::new(&held, PollFlags::IN)], Some(&limit))?;
    if ready == 0 {
        exec.child.kill()?;
    }
    exec.child.wait()
}

/// Returns a port by number or by a container's name for it.
fn port(container: &Container, port: &IntOrString) -> Option<u16> {
    match port {
        IntOrString::Int(number) => u16::try_from(*number).ok(),
        IntOrString::String(name) => {
            let named = container
                .ports
                .iter()
                .flatten()
                .find(|port| port.name.as_deref() == Some(name));
            named.map_or_else(
                || name.parse().ok(),
                |port| u16::try_from(port.container_port).ok(),
            )
        }
    }
}

/// Connects from inside the pod's network: pods have no address outside of it.
async fn connect(
    subject: &Subject,
    host: Option<&str>,
    port: Option<u16>,
) -> std::io::Result<tokio::net::TcpStream> {
    let port =
        port.ok_or_else(|| std::io::Error::other("the probe's port is none of the container's"))?;
    let address = (
        host.filter(|host| !host.is_empty())
            .unwrap_or("127.0.0.1")
            .to_owned(),
        port,
    );
    let network = subject.network.clone();
    let stream = on_disk(move || connect_in(network, &address)).await?;
    stream.set_nonblocking(true)?;
    tokio::net::TcpStream::from_std(stream)
}

/// A thread that ends afterwards enters the network. The connection stays there.
fn connect_in(
    network: Option<PathBuf>,
    (host, port): &(String, u16),
) -> std::io::Result<std::net::TcpStream> {
    let dial = || std::net::TcpStream::connect((host.as_str(), *port));
    let Some(network) = network else {
        return dial();
    };
    std::thread::scope(|scope| {
        let inside = || {
            setns(std::fs::File::open(network)?, CloneFlags::CLONE_NEWNET)?;
            dial()
        };
        let thread = std::thread::Builder::new()
            .name("probe".to_owned())
            .spawn_scoped(scope, inside)?;
        thread.join().unwrap_or_else(|_| {
            Err(std::io::Error::other(
                "the thread that connects has panicked",
            ))
        })
    })
}

/// Asks a web server; success is a status from 200 to 399.
async fn get(subject: &Subject, wanted: &HTTPGetAction) -> bool {
    let port = port(&subject.container, &wanted.port);
    let Ok(mut stream) = connect(subject, wanted.host.as_deref(), port).await else {
        return false;
    };
    if wanted.scheme.as_deref() == Some("HTTPS") {
        // Certificates of probes are not looked at; that somebody listens is what can be seen without them.
        return true;
    }
    let answer = ask(&mut stream, &request(wanted)).await;
    answer.is_ok_and(|status| (200..400).contains(&status))
}

fn request(wanted: &HTTPGetAction) -> String {
    let one_line = |text: &str| text.replace(['\r', '\n'], "");
    let path = wanted
        .path
        .as_deref()
        .filter(|path| path.starts_with('/'))
        .unwrap_or("/");
    let headers = wanted.http_headers.iter().flatten();
    let headers: String = headers
        .map(|header| {
            format!(
                "{}: {}\r\n",
                one_line(&header.name),
                one_line(&header.value)
            )
        })
        .collect();
    format!(
        "GET {} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: kube-probe/1.33\r\nConnection: close\r\n{headers}\r\n",
        one_line(path)
    )
}

async fn ask(stream: &mut tokio::net::TcpStream, request: &str) -> std::io::Result<u16> {
    stream.write_all(request.as_bytes()).await?;
    let mut answer = vec![0; ANSWER_LEN_MAX_BYTES];
    let mut len = 0;
    while len < answer.len() && !answer[..len].contains(&b'\n') {
        let read = stream.read(&mut answer[len..]).await?;
        if read == 0 {
            break;
        }
        len += read;
    }
    let line = String::from_utf8_lossy(&answer[..len]).into_owned();
    let status = line
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    status
        .filter(|_| line.starts_with("HTTP/"))
        .ok_or_else(|| std::io::Error::other("the answer is not HTTP"))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Probe;

    use super::Judge;

    #[test]
    fn a_few_results_in_a_row_change_the_judgement() {
        let probe = Probe {
            failure_threshold: Some(2),
            success_threshold: Some(2),
            ..Probe::default()
        };
        let mut judge = Judge::new(&probe, true);
        let mut seen = Vec::new();
        for result in [false, true, false, false, true, false, true, true] {
            judge.count(result);
            seen.push(judge.is_good);
        }
        assert_eq!(seen, [true, true, true, false, false, false, false, true]);
    }
}
