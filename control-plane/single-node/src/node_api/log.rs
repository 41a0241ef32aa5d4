//! `kubectl logs`: lines of a container's log, followed until the container ends.

pub(super) mod follow;
pub(super) mod lines;

use std::io;

use apiserver::failure::Failure;
use axum::body::{Body, Bytes};
use http::{HeaderValue, Response, header};
use jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;

use self::follow::Follower;
use self::lines::{Line, Lines};
use super::internal;
use super::target::LogOptions;
use crate::pods::ContainerHandle;

/// Pieces of a log that wait for the client.
const PIECES_MAX: usize = 4;

/// Answers with a container's log.
pub(super) async fn answer(
    container: ContainerHandle,
    wanted: LogOptions,
    place: OwnedSemaphorePermit,
) -> Result<Response<Body>, Failure> {
    let path = if wanted.is_previous {
        let missing = || {
            Failure::bad_request("previous terminated container not found: it was not restarted")
        };
        container.previous_log_path.clone().ok_or_else(missing)?
    } else {
        container.log_path.clone()
    };
    let has_begun = container.pid.is_some() || container.has_ended;
    if !has_begun && !wanted.is_previous {
        return Err(Failure::bad_request(
            "the container is waiting to start: see `kubectl describe pod` for what it waits for",
        ));
    }
    let tail = wanted.tail;
    let opened = tokio::task::spawn_blocking(move || Lines::open(&path, tail)).await;
    let lines = opened
        .map_err(|error| internal(&error))?
        .map_err(|error| internal(&format!("open the log: {error}")))?;
    let (pieces, body) = mpsc::channel(PIECES_MAX);
    let follows = wanted.follows && !wanted.is_previous;
    let follower = Follower::new(lines, follows.then_some(container.folder));
    tokio::spawn(async move {
        send(follower, Selection::new(&wanted), pieces).await;
        drop(place);
    });
    let mut response = Response::new(Body::from_stream(ReceiverStream::new(body)));
    let text = HeaderValue::from_static("text/plain");
    response.headers_mut().insert(header::CONTENT_TYPE, text);
    Ok(response)
}

/// Sends lines until the log or the client ends.
async fn send(
    mut follower: Follower,
    mut selection: Selection,
    pieces: mpsc::Sender<io::Result<Bytes>>,
) {
    loop {
        let read = tokio::select! {
            read = follower.next() => read,
            () = pieces.closed() => return,
        };
        let piece = match read {
            Ok(Some(lines)) => Ok(selection.text(&lines)),
            Ok(None) => return,
            Err(error) => Err(error),
        };
        let is_last = piece.is_err() || selection.is_full();
        let is_empty = piece.as_ref().is_ok_and(Vec::is_empty);
        if !is_empty && pieces.send(piece.map(Bytes::from)).await.is_err() {
            return;
        }
        if is_last {
            return;
        }
    }
}

/// Which lines are shown, and how.
struct Selection {
    since: Option<Timestamp>,
    with_times: bool,
    left_bytes: usize,
    /// Whether the line before goes on in the next.
    is_inside: bool,
}

impl Selection {
    fn new(wanted: &LogOptions) -> Self {
        let limit = wanted
            .limit_bytes
            .map(|it| usize::try_from(it).unwrap_or(usize::MAX));
        Self {
            since: wanted.since,
            with_times: wanted.with_times,
            left_bytes: limit.unwrap_or(usize::MAX),
            is_inside: false,
        }
    }

    fn is_full(&self) -> bool {
        self.left_bytes == 0
    }

    fn text(&mut self, lines: &[Line]) -> Vec<u8> {
        let mut text = Vec::new();
        for line in lines {
            if self.since.is_some_and(|since| line.at() < since) {
                continue;
            }
            if self.with_times && !self.is_inside {
                text.extend_from_slice(line.time.as_bytes());
                text.push(b' ');
            }
            text.extend_from_slice(&line.text);
            if line.is_whole {
                text.push(b'\n');
            }
            self.is_inside = !line.is_whole;
        }
        text.truncate(self.left_bytes);
        self.left_bytes -= text.len();
        text
    }
}

#[cfg(test)]
mod tests {
    use super::lines::parse;
    use super::{LogOptions, Selection};

    const LINES: [&str; 4] = [
        "2026-01-02T03:04:05.000000001Z stdout F one",
        "2026-01-02T03:04:06.000000001Z stderr P be",
        "2026-01-02T03:04:06.000000002Z stderr F gin",
        "2026-01-02T03:04:07.000000001Z stdout F ",
    ];

    fn check(options: &LogOptions, wanted: &str) {
        let lines: Vec<_> = LINES.iter().filter_map(|it| parse(it.as_bytes())).collect();
        let text = Selection::new(options).text(&lines);
        assert_eq!(String::from_utf8(text).unwrap(), wanted);
    }

    #[test]
    fn lines_are_shown_as_asked() {
        check(&LogOptions::default(), "one\nbegin\n\n");
        let since = Some("2026-01-02T03:04:06Z".parse().unwrap());
        let options = LogOptions {
            since,
            with_times: true,
            ..LogOptions::default()
        };
        check(
            &options,
            "2026-01-02T03:04:06.000000001Z begin\n2026-01-02T03:04:07.000000001Z \n",
        );
        let options = LogOptions {
            limit_bytes: Some(5),
            ..LogOptions::default()
        };
        check(&options, "one\nb");
    }
}
