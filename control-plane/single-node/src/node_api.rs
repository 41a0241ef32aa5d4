//! What a kubelet's server answers for the pods of its node: logs, programs in containers, forwarded ports.
//!
//! ```text
//!   API server ─▶ target (path, query) ─┬─ log ──────────▶ text, followed until the container ends
//!                                       ├─ exec, attach ─▶ session ◀─▶ WebSocket v5/v4, or SPDY streams
//!                                       └─ port_forward ─▶ SPDY streams, raw or in a WebSocket ◀─▶ pod's network
//! ```
//!
//! Who may do what is decided before: this part is only reached through the API server. Containers keep no standard
//! input, so attaching shows output alone.

mod attach;
mod descriptor;
mod exec;
mod log;
mod port_forward;
mod session;
mod spdy;
mod streams;
mod target;
mod web_socket;

use std::path::PathBuf;
use std::sync::Arc;

use apiserver::LocalService;
use apiserver::failure::Failure;
use axum::body::Body;
use http::request::Parts;
use http::{Request, Response, StatusCode, header};
use tokio::sync::Semaphore;

use self::target::{Action, Target};
use crate::pods::{ContainerHandle, Runner};

/// Sessions (programs, followed logs, forwarded connections of one client) at one time: each has a few open files.
const SESSIONS_MAX: usize = 256;

/// What is known of the pods of the node.
pub(crate) trait Pods: Send + Sync + 'static {
    /// Returns a container of a pod.
    fn container(&self, namespace: &str, pod: &str, container: &str) -> Option<ContainerHandle>;
    /// Returns the file that holds the network namespace of a pod, `None` inside for the host's.
    fn network(&self, namespace: &str, pod: &str) -> Option<Option<PathBuf>>;
    /// This program.
    fn ferrovirt(&self) -> PathBuf;
}

impl Pods for Runner {
    fn container(&self, namespace: &str, pod: &str, container: &str) -> Option<ContainerHandle> {
        Self::container(self, namespace, pod, container)
    }

    fn network(&self, namespace: &str, pod: &str) -> Option<Option<PathBuf>> {
        Self::network(self, namespace, pod)
    }

    fn ferrovirt(&self) -> PathBuf {
        self.options().ferrovirt.clone()
    }
}

/// Returns the service that answers for the runner's pods, by the kubelet's paths: `/containerLogs`, `/exec`, `/attach`,
/// `/portForward`.
#[must_use]
pub fn service(runner: Arc<Runner>) -> LocalService {
    serve(runner)
}

pub(crate) fn serve(pods: Arc<dyn Pods>) -> LocalService {
    let node = Node {
        pods,
        places: Arc::new(Semaphore::new(SESSIONS_MAX)),
    };
    Arc::new(move |request| {
        let node = node.clone();
        Box::pin(async move {
            let answered = node.answer(request).await;
            answered.unwrap_or_else(|failure| refusal(&failure))
        })
    })
}

#[derive(Clone)]
struct Node {
    pods: Arc<dyn Pods>,
    places: Arc<Semaphore>,
}

impl Node {
    async fn answer(&self, request: Request<Body>) -> Result<Response<Body>, Failure> {
        let (parts, _) = request.into_parts();
        let target = Target::parse(parts.uri.path(), parts.uri.query().unwrap_or_default())?;
        let place = Arc::clone(&self.places).try_acquire_owned();
        let place = place.map_err(|_| busy())?;
        match target.action {
            Action::Log(wanted) => {
                let container = self.container(&target.pod, &target.container)?;
                log::answer(container, wanted, place).await
            }
            Action::Exec(wanted) => {
                let container = self.running(&target.pod, &target.container)?;
                exec::answer(parts, self.pods.ferrovirt(), container, wanted, place).await
            }
            Action::Attach(wanted) => {
                let container = self.running(&target.pod, &target.container)?;
                attach::answer(parts, container, &wanted, place).await
            }
            Action::PortForward => {
                let pod = &target.pod;
                let network = self.pods.network(&pod.namespace, &pod.name);
                let network = network.ok_or_else(|| not_here(&target.pod))?;
                port_forward::answer(parts, network, place).await
            }
        }
    }

    fn container(
        &self,
        pod: &target::PodName,
        container: &str,
    ) -> Result<ContainerHandle, Failure> {
        let found = self.pods.container(&pod.namespace, &pod.name, container);
        found.ok_or_else(|| {
            let message = format!("container {container} of pod {pod} is not on this node");
            Failure::new(404, "NotFound", message)
        })
    }

    fn running(&self, pod: &target::PodName, container: &str) -> Result<ContainerHandle, Failure> {
        let found = self.container(pod, container)?;
        if found.pid.is_some() {
            return Ok(found);
        }
        let message =
            format!("container {container} of pod {pod} does not run: see `kubectl describe pod`");
        Err(Failure::bad_request(message))
    }
}

fn not_here(pod: &target::PodName) -> Failure {
    Failure::new(404, "NotFound", format!("pod {pod} is not on this node"))
}

fn busy() -> Failure {
    let message = format!("this node has {SESSIONS_MAX} sessions already; close some of them");
    Failure {
        retry_after: Some(5),
        ..Failure::new(429, "TooManyRequests", message)
    }
}

fn internal(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(500, "InternalError", error.to_string())
}

fn refusal(failure: &Failure) -> Response<Body> {
    let mut response = Response::new(Body::from(failure.status().to_string()));
    *response.status_mut() =
        StatusCode::from_u16(failure.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// Whether a request wants to go on with a protocol.
fn wants_upgrade(parts: &Parts, protocol: &str) -> bool {
    let values = parts.headers.get_all(header::UPGRADE).iter();
    let mut tokens = values
        .filter_map(|it| it.to_str().ok())
        .flat_map(|it| it.split(','));
    tokens.any(|it| it.trim().eq_ignore_ascii_case(protocol))
}

#[cfg(test)]
mod tests;
