//! The small programs, run as processes under their names. The launcher that `virt-probe` and `virt-freezer` call is a
//! stand-in behind a real socket: it answers as it is told and notes what it was asked.

#![expect(
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "an integration test is a test module as a whole"
)]

use std::convert::Infallible;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use proto::cmd::v1::{
    EmptyRequest, ExecRequest, ExecResponse, FreezeRequest, GuestInfoResponse, GuestPingRequest,
    GuestPingResponse, Response, VmiRequest,
};
use tempfile::TempDir;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, NamedService, UnaryService};

/// Time for anything that is to happen at once.
const SOON: Duration = Duration::from_secs(20);

fn program(name: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_virt-launcher"));
    command.arg0(name).stdin(Stdio::null());
    command
}

fn run(name: &str, args: &[&str]) -> Output {
    program(name).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

// --- a launcher's command socket, stand-in ---

#[derive(Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one at a time, and tests read better without boxes"
)]
enum Asked {
    Ping(GuestPingRequest),
    Exec(ExecRequest),
    Info,
    Freeze(FreezeRequest),
    Unfreeze(VmiRequest),
}

#[derive(Clone, Default)]
struct Answers {
    success: bool,
    exit_code: i32,
    stdout: String,
    agent_version: String,
}

impl Answers {
    fn response(&self) -> Response {
        let message = if self.success { "" } else { "the reason" };
        Response {
            success: self.success,
            message: message.to_owned(),
        }
    }
}

#[derive(Clone)]
struct StandIn {
    answers: Arc<Answers>,
    asked: Arc<Mutex<Sender<Asked>>>,
}

/// One call: what a request is to be noted as, and what is answered.
struct Call<Q, A> {
    answer: A,
    note: fn(Q) -> Asked,
    asked: Arc<Mutex<Sender<Asked>>>,
}

impl<Q, A: Clone + Send + 'static> UnaryService<Q> for Call<Q, A> {
    type Response = A;
    type Future = std::future::Ready<Result<tonic::Response<A>, Status>>;

    fn call(&mut self, request: tonic::Request<Q>) -> Self::Future {
        let asked = (self.note)(request.into_inner());
        self.asked.lock().unwrap().send(asked).unwrap();
        std::future::ready(Ok(tonic::Response::new(self.answer.clone())))
    }
}

impl StandIn {
    async fn answer<Q, A>(
        self,
        request: http::Request<Body>,
        answer: A,
        note: fn(Q) -> Asked,
    ) -> http::Response<Body>
    where
        Q: prost::Message + Default + 'static,
        A: prost::Message + Clone + 'static,
    {
        let codec = tonic_prost::ProstCodec::<A, Q>::default();
        let asked = self.asked;
        let call = Call {
            answer,
            note,
            asked,
        };
        Grpc::new(codec).unary(call, request).await
    }
}

impl NamedService for StandIn {
    const NAME: &str = "kubevirt.cmd.v1.Cmd";
}

impl Service<http::Request<Body>> for StandIn {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (this, answers) = (self.clone(), Arc::clone(&self.answers));
        Box::pin(async move {
            let response = answers.response();
            let call = request.uri().path().rsplit('/').next().unwrap().to_owned();
            Ok(match call.as_str() {
                "GuestPing" => {
                    let answer = GuestPingResponse {
                        response: Some(response),
                    };
                    this.answer(request, answer, Asked::Ping).await
                }
                "Exec" => {
                    let answer = ExecResponse {
                        response: Some(response),
                        exit_code: answers.exit_code,
                        std_out: answers.stdout.clone(),
                    };
                    this.answer(request, answer, Asked::Exec).await
                }
                "GetGuestInfo" => {
                    let info = format!(r#"{{"guestAgentVersion":"{}"}}"#, answers.agent_version);
                    let answer = GuestInfoResponse {
                        response: Some(Response {
                            success: true,
                            message: String::new(),
                        }),
                        guest_info_response: info,
                    };
                    this.answer(request, answer, |_: EmptyRequest| Asked::Info)
                        .await
                }
                "FreezeVirtualMachine" => this.answer(request, response, Asked::Freeze).await,
                "UnfreezeVirtualMachine" => this.answer(request, response, Asked::Unfreeze).await,
                other => panic!("nobody should call {other}"),
            })
        })
    }
}

struct Launcher {
    _folder: TempDir,
    socket: String,
    asked: Receiver<Asked>,
}

fn launcher(answers: Answers) -> Launcher {
    let folder = TempDir::new().unwrap();
    let socket = folder.path().join("launcher-sock");
    let listener = UnixListener::bind(&socket).unwrap();
    listener.set_nonblocking(true).unwrap();
    let (sender, asked) = mpsc::channel();
    let stand_in = StandIn {
        answers: Arc::new(answers),
        asked: Arc::new(Mutex::new(sender)),
    };
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::UnixListener::from_std(listener).unwrap();
            let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
            let server = tonic::transport::Server::builder();
            server
                .serve_with_incoming(stand_in, incoming)
                .await
                .unwrap();
        });
    });
    Launcher {
        socket: socket.to_str().unwrap().to_owned(),
        _folder: folder,
        asked,
    }
}

// --- virt-probe ---

#[test]
fn a_probe_runs_its_command_in_the_guest() {
    let launcher = launcher(Answers {
        success: true,
        exit_code: 3,
        stdout: "all is well\n".to_owned(),
        ..Answers::default()
    });
    let args = [
        "--socket",
        &launcher.socket,
        "--domainName",
        "ns_vm",
        "--timeoutSeconds",
        "7",
    ];
    let args = [&args[..], &["--command", "cat", "--", "-n", "/etc/motd"]].concat();
    let output = run("virt-probe", &args);
    assert_eq!(output.status.code(), Some(3));
    assert_eq!(text(&output.stdout), "all is well\n");
    let expected = ExecRequest {
        domain_name: "ns_vm".to_owned(),
        command: "cat".to_owned(),
        args: vec!["-n".to_owned(), "/etc/motd".to_owned()],
        timeout_seconds: 7,
    };
    assert_eq!(launcher.asked.recv().unwrap(), Asked::Exec(expected));
}

#[test]
fn a_probe_pings_the_agent() {
    for (success, code) in [(true, 0), (false, 1)] {
        let launcher = launcher(Answers {
            success,
            ..Answers::default()
        });
        let args = [
            "--socket",
            &launcher.socket,
            "--domainName",
            "ns_vm",
            "--guestAgentPing",
        ];
        let output = run("virt-probe", &args);
        assert_eq!(output.status.code(), Some(code));
        let said = text(&output.stderr);
        assert_eq!(said.contains("GuestPing: the reason"), !success, "{said}");
        let expected = GuestPingRequest {
            domain_name: "ns_vm".to_owned(),
            timeout_seconds: 1,
        };
        assert_eq!(launcher.asked.recv().unwrap(), Asked::Ping(expected));
    }
}

#[test]
fn a_probe_without_a_launcher_fails_and_says_why() {
    let args = ["--socket", "/nowhere/launcher-sock", "--guestAgentPing"];
    let output = run("virt-probe", &args);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(
        said.contains("reach the launcher at /nowhere/launcher-sock"),
        "{said}"
    );
}

#[test]
fn a_probe_is_told_what_to_ask() {
    for args in [&[][..], &["--guestAgentPing", "--command", "true"]] {
        assert_eq!(run("virt-probe", args).status.code(), Some(2));
    }
    let help = run("virt-probe", &["--help"]);
    assert!(help.status.success() && text(&help.stdout).contains("--guestAgentPing"));
}

// --- virt-freezer ---

fn freezer(launcher: &Launcher, what: &[&str]) -> Output {
    let args = [
        "--socket",
        &launcher.socket,
        "--name",
        "vm",
        "--namespace",
        "ns",
    ];
    run("virt-freezer", &[&args[..], what].concat())
}

fn answers_with_agent(success: bool) -> Answers {
    Answers {
        success,
        agent_version: "7.2".to_owned(),
        ..Answers::default()
    }
}

#[test]
fn a_freezer_freezes_and_thaws() {
    let launcher = launcher(answers_with_agent(true));
    assert!(
        freezer(&launcher, &["--freeze", "--unfreezeTimeoutSeconds", "42"])
            .status
            .success()
    );
    assert_eq!(launcher.asked.recv().unwrap(), Asked::Info);
    let Asked::Freeze(request) = launcher.asked.recv().unwrap() else {
        panic!("no freeze");
    };
    assert_eq!(request.unfreeze_timeout_seconds, 42);
    let vmi: serde_json::Value = serde_json::from_slice(&request.vmi.unwrap().vmi_json).unwrap();
    assert_eq!(
        (&vmi["metadata"]["name"], &vmi["metadata"]["namespace"]),
        (&"vm".into(), &"ns".into())
    );
    assert!(freezer(&launcher, &["--unfreeze"]).status.success());
    assert_eq!(launcher.asked.recv().unwrap(), Asked::Info);
    assert!(matches!(launcher.asked.recv().unwrap(), Asked::Unfreeze(_)));
}

#[test]
fn a_freezer_tells_a_failure() {
    let launcher = launcher(answers_with_agent(false));
    let output = freezer(&launcher, &["--freeze"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("FreezeVirtualMachine: the reason"));
}

#[test]
fn a_freezer_leaves_a_guest_without_agent_alone() {
    let launcher = launcher(Answers {
        success: true,
        ..Answers::default()
    });
    let output = freezer(&launcher, &["--freeze"]);
    assert!(output.status.success());
    assert!(text(&output.stderr).contains("no guest agent"));
    assert_eq!(launcher.asked.recv().unwrap(), Asked::Info);
    assert!(launcher.asked.try_recv().is_err());
}

#[test]
fn a_freezer_is_told_one_thing() {
    let nobody = ["--name", "vm", "--namespace", "ns"];
    for what in [&[][..], &["--freeze", "--unfreeze"]] {
        let output = run("virt-freezer", &[&nobody[..], what].concat());
        assert_eq!(output.status.code(), Some(2));
    }
}

// --- virt-tail ---

struct Tail {
    child: Child,
    lines: Receiver<String>,
}

fn tail(log: &Path) -> Tail {
    let mut child = program("virt-tail")
        .args(["--logfile", log.to_str().unwrap()])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(child.stdout.take().unwrap());
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in output.lines() {
            if sender.send(line.unwrap()).is_err() {
                return;
            }
        }
    });
    Tail { child, lines }
}

impl Tail {
    fn expect(&self, line: &str) {
        assert_eq!(self.lines.recv_timeout(SOON).unwrap(), line);
    }

    fn finish(mut self) -> Option<i32> {
        wait(&mut self.child)
    }
}

/// Waits for the end of a process, but not for ever.
fn wait(child: &mut Child) -> Option<i32> {
    let pid = Pid::from_raw(child.id().cast_signed());
    let (over, ended) = mpsc::channel::<()>();
    let guard = std::thread::spawn(move || {
        if ended.recv_timeout(SOON) == Err(mpsc::RecvTimeoutError::Timeout) {
            kill(pid, Signal::SIGKILL).unwrap();
        }
    });
    let status = child.wait().unwrap();
    drop(over);
    guard.join().unwrap();
    status.code()
}

fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

#[test]
fn a_tail_waits_for_its_log_and_ends_with_the_console() {
    let folder = TempDir::new().unwrap();
    let private = folder.path().join("uid");
    let (log, socket) = (
        private.join("virt-serial0-log"),
        private.join("virt-serial0"),
    );
    let tail = tail(&log);
    fs::create_dir(&private).unwrap();
    append(&log, "one\n");
    tail.expect("one");
    let listener = UnixListener::bind(&socket).unwrap();
    append(&log, "two\n");
    tail.expect("two");
    append(&log, "last words\n");
    fs::remove_file(&socket).unwrap();
    drop(listener);
    tail.expect("last words");
    assert_eq!(tail.finish(), Some(0));
}

#[test]
fn a_tail_follows_its_log_across_rotation_and_truncation() {
    let folder = TempDir::new().unwrap();
    let log = folder.path().join("virt-serial0-log");
    append(&log, "one\n");
    let tail = tail(&log);
    tail.expect("one");
    append(&log, "two\n");
    fs::rename(&log, folder.path().join("virt-serial0-log.0")).unwrap();
    append(&log, "three\n");
    tail.expect("two");
    tail.expect("three");
    OpenOptions::new()
        .write(true)
        .open(&log)
        .unwrap()
        .set_len(0)
        .unwrap();
    append(&log, "4\n");
    tail.expect("4");
    let pid = Pid::from_raw(tail.child.id().cast_signed());
    kill(pid, Signal::SIGTERM).unwrap();
    assert_eq!(tail.finish(), Some(0));
}

#[test]
fn a_tail_ends_when_its_log_stays_away() {
    let folder = TempDir::new().unwrap();
    let log = folder.path().join("console.txt");
    append(&log, "one\n");
    let tail = tail(&log);
    tail.expect("one");
    fs::remove_file(&log).unwrap();
    assert_eq!(tail.finish(), Some(0));
}

// --- container-disk ---

fn disk(args: &[&str]) -> Option<i32> {
    run("container-disk", args).status.code()
}

/// Starts the program and waits until it listens.
fn kept(path: &Path) -> (Child, PathBuf) {
    let args = ["--copy-path", path.to_str().unwrap()];
    let child = program("container-disk").args(args).spawn().unwrap();
    let socket = path.with_extension("sock");
    let late = Instant::now() + SOON;
    while UnixStream::connect(&socket).is_err() {
        assert!(
            Instant::now() < late,
            "nobody listens on {}",
            socket.display()
        );
        std::thread::yield_now();
    }
    (child, socket)
}

#[test]
fn a_container_disk_lives_as_long_as_its_socket() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("disk_0");
    let (mut child, socket) = kept(&path);
    let args = ["--copy-path", path.to_str().unwrap(), "--health-check"];
    assert_eq!(disk(&args), Some(0));
    let pid = Pid::from_raw(child.id().cast_signed());
    kill(pid, Signal::SIGTERM).unwrap();
    assert_eq!(disk(&args), Some(0), "still listens");
    fs::remove_file(&socket).unwrap();
    assert_eq!(wait(&mut child), Some(0));
    assert_eq!(disk(&args), Some(1));
}

#[test]
fn a_container_disk_takes_the_place_of_one_that_was_killed() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("disk_0");
    let (mut child, _) = kept(&path);
    child.kill().unwrap();
    child.wait().unwrap();
    let (mut child, socket) = kept(&path);
    fs::remove_file(&socket).unwrap();
    assert_eq!(wait(&mut child), Some(0));
}

#[test]
fn a_container_disk_only_pulls_its_image_when_told() {
    assert_eq!(disk(&["--no-op"]), Some(0));
    assert_eq!(disk(&[]), Some(2));
}
