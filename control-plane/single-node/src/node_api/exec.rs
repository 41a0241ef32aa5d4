//! `kubectl exec`: a program in a container that runs.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::Child;
use std::time::Duration;

use apiserver::failure::Failure;
use axum::body::{Body, Bytes};
use http::Response;
use http::request::Parts;
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;

use super::descriptor::Descriptor;
use super::session::{self, Input, Output, Session};
use super::target::ExecOptions;
use super::{streams, web_socket};
use crate::pods::ContainerHandle;
use crate::sandbox::exec::{Exec, ExecRequest};

/// Bytes that are read at once.
const CHUNK_LEN_BYTES: usize = 32 << 10;
/// Columns and rows of a terminal until the client tells its own.
const TERMINAL: (u16, u16) = (80, 24);
/// Silence after the end of a program, after which nobody waits for output of those that it left behind.
const SILENCE: Duration = Duration::from_millis(500);

/// Runs a program for a client that brings a WebSocket or SPDY.
pub(super) async fn answer(
    parts: Parts,
    ferrovirt: PathBuf,
    container: ContainerHandle,
    wanted: ExecOptions,
    place: OwnedSemaphorePermit,
) -> Result<Response<Body>, Failure> {
    let streams = wanted.streams;
    let run = move |session| async move {
        run(session, ferrovirt, container, wanted).await;
        drop(place);
    };
    if super::wants_upgrade(&parts, "websocket") {
        return web_socket::accept(parts, run).await;
    }
    streams::accept(parts, streams, run)
}

async fn run(
    session: Session,
    ferrovirt: PathBuf,
    container: ContainerHandle,
    wanted: ExecOptions,
) {
    let outputs = session.outputs.clone();
    let start = move || {
        let request = ExecRequest {
            argv: wanted.command,
            has_stdin: wanted.streams.stdin,
            has_output: wanted.streams.stdout || wanted.streams.stderr,
            terminal: wanted.streams.terminal.then_some(TERMINAL),
        };
        Exec::start(&ferrovirt, &container.folder, &request)
    };
    let started = tokio::task::spawn_blocking(start).await;
    let ran = match started.unwrap_or_else(|error| Err(io::Error::other(error))) {
        Ok(exec) => drive(exec, session).await,
        Err(error) => Err(error),
    };
    let status = match ran {
        Ok(status) => status,
        Err(error) => Some(session::failed(&format!("run the program: {error}"))),
    };
    if let Some(status) = status {
        let _gone = outputs.send(Output::End(status)).await;
    }
}

/// Carries what the program and the client tell each other, until the program ends; `None` when the client went away.
async fn drive(mut exec: Exec, session: Session) -> io::Result<Option<Value>> {
    let Session { inputs, outputs } = session;
    let stdin = exec.stdin.take().map(Descriptor::writable).transpose()?;
    let stdout = exec.stdout.take().map(Descriptor::readable).transpose()?;
    let stderr = exec.stderr.take().map(Descriptor::readable).transpose()?;
    let process = watch(&exec.child)?;
    let ended = CancellationToken::new();
    let end = async {
        process.ready().await;
        ended.cancel();
    };
    let ran = async {
        tokio::join!(
            end,
            pump(stdout, &outputs, Output::Stdout, &ended),
            pump(stderr, &outputs, Output::Stderr, &ended),
        );
    };
    let is_gone = tokio::select! {
        () = ran => false,
        () = feed(inputs, stdin, &exec) => true,
        () = outputs.closed() => true,
    };
    if is_gone {
        exec.child.kill()?;
        process.ready().await;
    }
    let status = exec.child.wait()?;
    let code = status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    Ok((!is_gone).then(|| session::ended(code)))
}

fn watch(child: &Child) -> io::Result<Descriptor> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let process = pidfd_open(pid.ok_or(Errno::SRCH)?, PidfdFlags::NONBLOCK)?;
    Descriptor::readable(process)
}

/// Hands on what a program writes, until it or its side of the pipe ends.
async fn pump(
    pipe: Option<Descriptor>,
    outputs: &mpsc::Sender<Output>,
    as_output: fn(Bytes) -> Output,
    ended: &CancellationToken,
) {
    let Some(pipe) = pipe else { return };
    let mut chunk = vec![0; CHUNK_LEN_BYTES];
    loop {
        let read = tokio::select! {
            read = pipe.read(&mut chunk) => read,
            () = silence(ended) => return,
        };
        let Ok(len @ 1..) = read else { return };
        let output = as_output(Bytes::copy_from_slice(&chunk[..len]));
        if outputs.send(output).await.is_err() {
            return;
        }
    }
}

async fn silence(ended: &CancellationToken) {
    ended.cancelled().await;
    tokio::time::sleep(SILENCE).await;
}

/// Hands on what the client sends, until it goes away.
async fn feed(mut inputs: mpsc::Receiver<Input>, mut stdin: Option<Descriptor>, exec: &Exec) {
    while let Some(input) = inputs.recv().await {
        match input {
            Input::Stdin(bytes) => {
                if let Some(pipe) = &stdin
                    && pipe.write_all(&bytes).await.is_err()
                {
                    // The program reads no more; that is no reason to end it.
                    stdin = None;
                }
            }
            Input::StdinEnd => stdin = None,
            Input::Resize(columns, rows) => {
                let _keeps_its_size = exec.resize(columns, rows);
            }
        }
    }
}
