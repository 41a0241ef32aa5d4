//! Command lines of the program.

use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::time::timeout;

use super::endpoint::Endpoint;

/// Time for a command, also on a machine that is busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What a command said, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Returns the program without any configuration of the user's.
pub(crate) fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_virtctl"));
    command
        .env_remove("KUBECONFIG")
        .env("HOME", "/nonexistent")
        .env("USER", "jdoe");
    command.env_remove("KUBERNETES_SERVICE_HOST");
    command.kill_on_drop(true);
    command
}

/// Returns the program with flags that lead to a server.
pub(crate) fn program_at(endpoint: &Endpoint) -> Command {
    let mut command = program();
    command.arg(format!("--server=http://{}", endpoint.address));
    command.arg("--namespace=ns");
    command
}

/// Runs a command to its end.
pub(crate) async fn run(mut command: Command, input: &str) -> Outcome {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let _not_read = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = timeout(PATIENCE, child.wait_with_output()).await;
    outcome(output.expect("the command hangs").unwrap())
}

fn outcome(output: Output) -> Outcome {
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs the words of a line.
pub(crate) async fn run_line(endpoint: &Endpoint, line: &str) -> Outcome {
    let mut command = program_at(endpoint);
    command.args(line.split_whitespace());
    run(command, "").await
}

/// Runs the words of a line without any server.
pub(crate) async fn run_line_of(line: &str) -> Outcome {
    let mut command = program();
    command.args(line.split_whitespace());
    run(command, "").await
}
