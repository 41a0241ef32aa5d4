//! Sessions on SPDY streams, one for each of standard input, output, errors, terminal size and status
//! (`v4.channel.k8s.io`), as `kubectl` before 1.30 speaks.

use std::future::Future;
use std::time::Duration;

use apiserver::failure::Failure;
use axum::body::Body;
use http::Response;
use http::request::Parts;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

use super::session::{self, Client, Input, Output, Session};
use super::spdy::{self, Stream, Writer};
use super::target::StreamOptions;

/// What the streams may be for.
const PURPOSE: &str = "v4.channel.k8s.io";
/// Header of what one stream is for.
pub(super) const STREAM_TYPE: &str = "streamtype";
/// Time for the client to open its streams.
const OPENING: Duration = Duration::from_secs(30);
/// Time for the client to leave after all is said.
const FAREWELL: Duration = Duration::from_secs(5);
/// Bytes of the size of a terminal.
const SIZE_LEN_MAX_BYTES: usize = 256;

/// The streams of a session.
#[derive(Default)]
struct Streams {
    error: Option<Stream>,
    stdin: Option<Stream>,
    stdout: Option<Stream>,
    stderr: Option<Stream>,
    resize: Option<Stream>,
}

/// Accepts a connection with SPDY and runs a session on it.
pub(super) fn accept<F, R>(
    parts: Parts,
    wanted: StreamOptions,
    run: F,
) -> Result<Response<Body>, Failure>
where
    F: FnOnce(Session) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    spdy::accept(parts, &[PURPOSE], move |connection| {
        spdy::serve(connection, move |opened| async move {
            let (session, client) = session::pair();
            tokio::join!(run(session), carry(opened, wanted, client));
        })
    })
}

async fn carry(mut opened: mpsc::Receiver<Stream>, wanted: StreamOptions, client: Client) {
    let Some(streams) = Streams::collect(&mut opened, wanted).await else {
        return;
    };
    let Client { inputs, outputs } = client;
    let Streams {
        error,
        stdin,
        stdout,
        stderr,
        resize,
    } = streams;
    let writers = [error, stdout, stderr].map(|stream| stream.map(|it| it.writer));
    let reading = async {
        tokio::join!(feed(stdin, &inputs), resizes(resize, &inputs));
        // The client is still there, though it sends no more.
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = reading => {}
        () = until_left(&mut opened) => {}
        () = write(writers, outputs) => {
            // A client that has all it waits for leaves.
            let _in_time = timeout(FAREWELL, until_left(&mut opened)).await;
        }
    }
}

/// Waits for the end of the connection; more streams than were named are not wanted.
async fn until_left(opened: &mut mpsc::Receiver<Stream>) {
    while opened.recv().await.is_some() {}
}

impl Streams {
    /// Waits until the client has opened the streams that it named; `None` when it does not.
    async fn collect(opened: &mut mpsc::Receiver<Stream>, wanted: StreamOptions) -> Option<Self> {
        let deadline = Instant::now() + OPENING;
        let mut streams = Self::default();
        while !streams.has(wanted) {
            let stream = timeout_at(deadline, opened.recv()).await.ok()??;
            let place = match stream.header(STREAM_TYPE)? {
                "error" => &mut streams.error,
                "stdin" => &mut streams.stdin,
                "stdout" => &mut streams.stdout,
                "stderr" => &mut streams.stderr,
                "resize" => &mut streams.resize,
                _ => return None,
            };
            *place = Some(stream);
        }
        Some(streams)
    }

    fn has(&self, wanted: StreamOptions) -> bool {
        let StreamOptions {
            stdin,
            stdout,
            stderr,
            terminal,
        } = wanted;
        let is_there = |wanted: bool, stream: &Option<Stream>| !wanted || stream.is_some();
        self.error.is_some()
            && is_there(stdin, &self.stdin)
            && is_there(stdout, &self.stdout)
            && is_there(stderr && !terminal, &self.stderr)
            && is_there(terminal, &self.resize)
    }
}

async fn feed(stream: Option<Stream>, inputs: &mpsc::Sender<Input>) {
    let Some(mut stream) = stream else { return };
    while let Some(bytes) = stream.input.recv().await {
        if inputs.send(Input::Stdin(bytes)).await.is_err() {
            return;
        }
    }
    let _ended = inputs.send(Input::StdinEnd).await;
    stream.writer.end().await;
}

/// Hands on the sizes of a terminal: JSON, one after the other, each ended by a line's end.
async fn resizes(stream: Option<Stream>, inputs: &mpsc::Sender<Input>) {
    let Some(mut stream) = stream else { return };
    let mut pending = Vec::new();
    while let Some(bytes) = stream.input.recv().await {
        for byte in bytes {
            if byte != b'\n' && pending.len() < SIZE_LEN_MAX_BYTES {
                pending.push(byte);
                continue;
            }
            if let Some(size) = session::size(&pending)
                && inputs.send(size).await.is_err()
            {
                return;
            }
            pending.clear();
        }
    }
}

/// Sends what the program writes and how it ended, and ends all streams.
async fn write(writers: [Option<Writer>; 3], mut outputs: mpsc::Receiver<Output>) {
    let [error, stdout, stderr] = &writers;
    while let Some(output) = outputs.recv().await {
        let (writer, bytes) = match output {
            Output::Stdout(bytes) => (stdout, bytes),
            Output::Stderr(bytes) => (stderr, bytes),
            Output::End(status) => (error, status.to_string().into()),
        };
        if let Some(writer) = writer
            && !writer.write(&bytes).await
        {
            return;
        }
    }
    for writer in writers.into_iter().flatten() {
        writer.end().await;
    }
}
