//! A node of one process (`ferrovirt up`) in a folder of its own, and the commands that its users type.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::console::{Console, ConsoleError, Spawned};
use crate::guests::Guests;
use crate::programs::tool;
use crate::{guests, program, skip};

/// Time for the node to be ready; it takes a second or two, on a busy host more.
pub const READY: Duration = Duration::from_secs(60);
/// Time for one command.
const COMMAND: Duration = Duration::from_secs(120);
/// How often something is looked at that does not tell by itself.
const LOOK: Duration = Duration::from_millis(100);

/// A node; dropped, it is shut down with all that it runs.
pub struct SingleNode {
    /// The guests to run.
    pub guests: Guests,
    folder: tempfile::TempDir,
    ferrovirt: PathBuf,
    virtctl: PathBuf,
    kubectl: Option<PathBuf>,
    accel: String,
    up: Option<Spawned>,
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It cannot be run.
    #[error("run {command}: {source}")]
    Host {
        /// The command line.
        command: String,
        /// Why.
        source: io::Error,
    },
    /// It says that something is wrong.
    #[error("{command}: {status}\n{output}")]
    Failed {
        /// The command line.
        command: String,
        /// Its exit status.
        status: std::process::ExitStatus,
        /// What it said.
        output: String,
    },
    /// The node's own log did not say what was awaited.
    #[error("{0}")]
    Node(#[from] ConsoleError),
}

impl SingleNode {
    /// Prepares a node without starting it. `None`, with the reason printed, where that is not possible.
    #[must_use]
    pub fn new(accel: &str) -> Option<Self> {
        let guests = guests()?;
        let (ferrovirt, virtctl) = (program("ferrovirt")?, program("virtctl")?);
        program("virt-launcher")?;
        if !nix::unistd::geteuid().is_root() {
            skip("pods need namespaces and mounts, and these need root");
            return None;
        }
        let folder = tempfile::Builder::new()
            .prefix("fvnode")
            .tempdir_in("/tmp")
            .ok()?;
        Some(Self {
            guests,
            folder,
            ferrovirt,
            virtctl,
            kubectl: tool("kubectl"),
            accel: accel.to_owned(),
            up: None,
        })
    }

    /// The folder of the node's state.
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    /// The file by which kubectl and virtctl find the node.
    #[must_use]
    pub fn kubeconfig(&self) -> PathBuf {
        self.state().join("kubeconfig")
    }

    /// Whether the real kubectl is there.
    #[must_use]
    pub fn has_kubectl(&self) -> bool {
        self.kubectl.is_some()
    }

    /// Starts the node and waits until it says that it is ready; returns how long that took.
    ///
    /// # Errors
    ///
    /// When it cannot be started, or does not become ready.
    pub fn start(&mut self) -> Result<Duration, CommandError> {
        let began = Instant::now();
        let mut command = Command::new(&self.ferrovirt);
        command
            .args([
                "up",
                "--listen",
                "127.0.0.1:0",
                "--node-name",
                "node01",
                "--accel",
                &self.accel,
            ])
            .arg("--state-dir")
            .arg(self.state());
        if std::env::var_os("RUST_LOG").is_none() {
            command.env("RUST_LOG", "info");
        }
        let up = Spawned::start(command, Console::OutputOnly);
        let up = up.map_err(|source| CommandError::Host {
            command: "ferrovirt up".to_owned(),
            source,
        })?;
        while !up.errors().contains("\nready in ") {
            if began.elapsed() > READY || up.has_ended() {
                return Err(ConsoleError::Late {
                    wanted: "ready in".to_owned(),
                    within: began.elapsed(),
                    tail: up.errors(),
                }
                .into());
            }
            pause(LOOK / 10);
        }
        self.up = Some(up);
        Ok(began.elapsed())
    }

    /// The process of the node.
    ///
    /// # Panics
    ///
    /// When it was not started.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.up.as_ref().expect("the node was started").pid()
    }

    /// What the node logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.up.as_ref().map(Spawned::errors).unwrap_or_default()
    }

    /// Kills the node's process; what it runs goes on.
    ///
    /// # Errors
    ///
    /// When it does not end.
    pub fn kill(&mut self) -> Result<(), CommandError> {
        if let Some(up) = self.up.take() {
            up.signal(Signal::SIGKILL);
            up.finish(COMMAND)?;
        }
        Ok(())
    }

    /// Runs `ferrovirt` with arguments and the node's state.
    ///
    /// # Errors
    ///
    /// When it fails.
    pub fn ferrovirt(&self, arguments: &[&str]) -> Result<String, CommandError> {
        let mut command = Command::new(&self.ferrovirt);
        command.args(arguments).arg("--state-dir").arg(self.state());
        self.run(command)
    }

    /// Runs `virtctl`.
    ///
    /// # Errors
    ///
    /// When it fails.
    pub fn virtctl(&self, arguments: &[&str]) -> Result<String, CommandError> {
        let mut command = Command::new(&self.virtctl);
        command.args(arguments);
        self.run(command)
    }

    /// Runs `kubectl`, or what `ferrovirt` has of it where there is none.
    ///
    /// # Errors
    ///
    /// When it fails.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String, CommandError> {
        let mut command = Command::new(self.kubectl.as_ref().unwrap_or(&self.ferrovirt));
        command.args(arguments);
        self.run(command)
    }

    /// Starts `virtctl console` of an instance with a console of the test's.
    ///
    /// # Errors
    ///
    /// When it cannot be started.
    pub fn console(&self, name: &str) -> io::Result<Spawned> {
        let mut command = Command::new(&self.virtctl);
        command
            .args(["console", name])
            .env("KUBECONFIG", self.kubeconfig());
        Spawned::start(command, Console::Pipes)
    }

    /// Imports the demo's images under the names of the demo's manifests.
    ///
    /// # Errors
    ///
    /// When the node does not take them.
    pub fn import_demo_images(&self) -> Result<(), CommandError> {
        for name in ["demo-disk", "demo-kernel"] {
            let layout = self.guests.images().join(name);
            let reference = format!("registry.example/ferrovirt/{name}:latest");
            let path = layout.to_string_lossy().into_owned();
            self.ferrovirt(&["image", "import", &path, "--name", &reference])?;
        }
        Ok(())
    }

    /// Returns an object, by `ferrovirt get`; null when it is not there.
    #[must_use]
    pub fn get(&self, kind: &str, name: &str) -> Value {
        let kubeconfig = self.kubeconfig().to_string_lossy().into_owned();
        let answer =
            self.ferrovirt(&["get", kind, name, "-o", "json", "--kubeconfig", &kubeconfig]);
        let parsed = answer
            .ok()
            .and_then(|text| serde_json::from_str(&text).ok());
        parsed.unwrap_or_default()
    }

    /// Waits until an object is as wanted, and returns it; `what` names that in the failure.
    ///
    /// # Panics
    ///
    /// When it is not in time; the message has the object and the node's log.
    pub fn wait_for(
        &self,
        kind: &str,
        name: &str,
        what: &str,
        patience: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Value {
        let began = Instant::now();
        loop {
            let object = self.get(kind, name);
            if wanted(&object) {
                return object;
            }
            assert!(
                began.elapsed() < patience,
                "{kind} {name} is not {what} after {:?}: {:#}\n{}",
                began.elapsed(),
                object["status"],
                self.log()
            );
            pause(LOOK);
        }
    }

    /// Returns processes, mounts and control groups that belong to the node's state, beside its own process.
    #[must_use]
    pub fn leftovers(&self) -> Vec<String> {
        let state = self.state().to_string_lossy().into_owned();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let mounts = mounts
            .lines()
            .filter(|line| line.contains(&state))
            .map(str::to_owned);
        mounts.chain(self.processes()).collect()
    }

    fn processes(&self) -> Vec<String> {
        let state = self.state().to_string_lossy().into_owned();
        let own = self.up.as_ref().map(|up| up.pid().to_string());
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        let lines = entries.filter_map(|entry| {
            let pid = entry.file_name().into_string().ok()?;
            pid.parse::<u32>().ok()?;
            let line = fs::read(entry.path().join("cmdline")).ok()?;
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            (line.contains(&state) && own.as_ref() != Some(&pid)).then_some(line)
        });
        lines.collect()
    }

    fn run(&self, mut command: Command) -> Result<String, CommandError> {
        command
            .env("KUBECONFIG", self.kubeconfig())
            .stdin(Stdio::null());
        let line = line(&command);
        let output: Output = command.output().map_err(|source| CommandError::Host {
            command: line.clone(),
            source,
        })?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.success() {
            return Ok(text);
        }
        Err(CommandError::Failed {
            command: line,
            status: output.status,
            output: format!("{text}{}", String::from_utf8_lossy(&output.stderr)),
        })
    }
}

impl Drop for SingleNode {
    fn drop(&mut self) {
        if self.state().exists() {
            // What is still there is told by whoever asks for leftovers.
            let _ended = self.ferrovirt(&["down"]);
        }
    }
}

/// Returns a command as it is typed.
#[must_use]
pub fn line(command: &Command) -> String {
    let program = Path::new(command.get_program())
        .file_name()
        .unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args());
    words
        .map(|it| it.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}

/// Waits a moment before looking again.
fn pause(moment: Duration) {
    std::thread::park_timeout(moment);
}
