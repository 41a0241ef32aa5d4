//! `kubectl attach`: what a container writes from now on, until it ends.

use apiserver::failure::Failure;
use axum::body::{Body, Bytes};
use http::Response;
use http::request::Parts;
use tokio::sync::OwnedSemaphorePermit;

use super::log::follow::Follower;
use super::log::lines::{Line, Lines};
use super::session::{self, Input, Output, Session};
use super::target::StreamOptions;
use super::{internal, streams, web_socket};
use crate::pods::ContainerHandle;

/// Shows a container's output to a client that brings a WebSocket or SPDY.
pub(super) async fn answer(
    parts: Parts,
    container: ContainerHandle,
    wanted: &StreamOptions,
    place: OwnedSemaphorePermit,
) -> Result<Response<Body>, Failure> {
    if wanted.stdin {
        return Err(Failure::bad_request(
            "containers of this node keep no standard input: attach without -i, or run a program with `kubectl exec -it`",
        ));
    }
    let path = container.log_path.clone();
    let opened = tokio::task::spawn_blocking(move || Lines::open(&path, Some(0))).await;
    let lines = opened
        .map_err(|error| internal(&error))?
        .map_err(|error| internal(&error))?;
    let follower = Follower::new(lines, Some(container.folder));
    let run = move |session| async move {
        run(session, follower).await;
        drop(place);
    };
    if super::wants_upgrade(&parts, "websocket") {
        return web_socket::accept(parts, run).await;
    }
    streams::accept(parts, *wanted, run)
}

async fn run(session: Session, mut follower: Follower) {
    let Session {
        mut inputs,
        outputs,
    } = session;
    let gone = async {
        while let Some(Input::Stdin(_) | Input::StdinEnd | Input::Resize(..)) = inputs.recv().await
        {
        }
    };
    let shown = async {
        let status = loop {
            match follower.next().await {
                Ok(Some(lines)) => {
                    for line in lines {
                        if outputs.send(output(line)).await.is_err() {
                            return;
                        }
                    }
                }
                Ok(None) => break session::ended(0),
                Err(error) => break session::failed(&format!("read the log: {error}")),
            }
        };
        let _gone = outputs.send(Output::End(status)).await;
    };
    tokio::select! {
        () = gone => {}
        () = shown => {}
    }
}

fn output(line: Line) -> Output {
    let mut text = line.text;
    if line.is_whole {
        text.push(b'\n');
    }
    let text = Bytes::from(text);
    if line.is_stderr {
        Output::Stderr(text)
    } else {
        Output::Stdout(text)
    }
}
