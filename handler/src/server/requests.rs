//! What can be asked of an instance: its console, its lifecycle, its guest (KubeVirt's `virt-handler` REST API).

use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path, State};
use axum::routing::{MethodRouter, get, put};
use http::StatusCode;
use http::request::Parts;
use serde_json::Value;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::answer::{Refusal, fall_back};
use super::console::{self, Consoles};
use super::{ServerSetup, lifecycle};
use crate::cluster::Recorder;
use crate::key::VmiKey;
use crate::launchers::{Launcher, Launchers};
use crate::store::{Stored, VmiStore};

/// Path of an instance.
const BASE: &str = "/v1/namespaces/{namespace}/virtualmachineinstances/{name}";
/// Bytes of a body that are read: options have some dozens.
const BODY_LEN_MAX_BYTES: usize = 64 << 10;
/// Time for a body to arrive.
const BODY: Duration = Duration::from_secs(10);

/// What this machine monitor does not have, with the word for clients.
const GETS_UNSUPPORTED: &[(&str, &str)] = &[
    ("/vnc", "the machine has no display: use the serial console"),
    (
        "/vnc/screenshot",
        "the machine has no display: use the serial console",
    ),
    ("/usbredir", "redirection of USB devices is not supported"),
    ("/vsock", "vsock is not supported"),
    (
        "/sev/fetchcertchain",
        "encrypted machines are not supported",
    ),
    (
        "/sev/querylaunchmeasurement",
        "encrypted machines are not supported",
    ),
];
const PUTS_UNSUPPORTED: &[(&str, &str)] = &[
    ("/backup", "backups of running machines are not supported"),
    (
        "/redefine-checkpoint",
        "backups of running machines are not supported",
    ),
    ("/sev/setupsession", "encrypted machines are not supported"),
    (
        "/sev/injectlaunchsecret",
        "encrypted machines are not supported",
    ),
];

/// What requests are answered with.
#[derive(Clone, Debug)]
pub(super) struct Desk {
    pub(super) launchers: Launchers,
    pub(super) instances: VmiStore,
    pub(super) consoles: Consoles,
    pub(super) recorder: Recorder,
    pub(super) stop: CancellationToken,
}

/// An instance whose launcher is here.
#[derive(Debug)]
pub(super) struct Present {
    pub(super) stored: Stored,
    pub(super) launcher: Launcher,
}

impl Desk {
    /// Returns an instance as the API server told of it.
    pub(super) fn instance(&self, key: &VmiKey) -> Result<Stored, Refusal> {
        self.instances.get(key).ok_or_else(|| {
            if self.instances.is_complete() {
                return Refusal::unknown(key);
            }
            let message = "the node agent does not know its instances yet; try again";
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, message)
        })
    }

    /// Returns an instance with its launcher.
    pub(super) fn present(&self, key: &VmiKey) -> Result<Present, Refusal> {
        let stored = self.instance(key)?;
        let launcher = self.launchers.get(key);
        let launcher = launcher.filter(|found| found.uid == stored.uid() && !found.has_ended());
        let launcher = launcher.ok_or_else(|| {
            let tree = stored.raw.tree();
            let phase = tree["status"]["phase"].as_str().unwrap_or("Pending");
            Refusal::conflict(format!("{key} has no launcher here: its phase is {phase}"))
        })?;
        Ok(Present { stored, launcher })
    }
}

/// The instance that a request's path names.
#[derive(Debug)]
pub(super) struct Named(pub(super) VmiKey);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let path: Result<Path<(String, String)>, PathRejection> =
            Path::from_request_parts(parts, state).await;
        let Path((namespace, name)) =
            path.map_err(|_| Refusal::bad_request("the path names no instance"))?;
        Ok(Self(VmiKey::new(namespace, name)))
    }
}

/// Makes an answer that the machine has no such thing, if there is such a machine.
macro_rules! unsupported {
    ($why:expr) => {
        move |State(desk): State<Desk>, Named(key): Named| async move {
            let known = desk.instance(&key).map(|_| Refusal::unsupported(*$why));
            known.unwrap_or_else(|unknown| unknown)
        }
    };
}

/// Returns the router of requests.
pub(super) fn router(setup: ServerSetup, stop: CancellationToken) -> Router {
    let mut router = Router::new();
    for (action, answer) in console::routes().into_iter().chain(lifecycle::routes()) {
        router = router.route(&format!("{BASE}/{action}"), answer);
    }
    for (path, why) in GETS_UNSUPPORTED {
        router = router.route(&format!("{BASE}{path}"), get(unsupported!(why)));
    }
    for (path, why) in PUTS_UNSUPPORTED {
        router = router.route(&format!("{BASE}{path}"), put(unsupported!(why)));
    }
    let desk = Desk {
        launchers: setup.launchers,
        instances: setup.instances,
        consoles: setup.consoles,
        recorder: setup.recorder,
        stop,
    };
    fall_back(router).with_state(desk)
}

/// Reads a body of JSON; an empty one is `null`.
pub(super) async fn json(body: Body) -> Result<Value, Refusal> {
    let read = timeout(BODY, to_bytes(body, BODY_LEN_MAX_BYTES)).await;
    let too_slow = |_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body does not arrive");
    let bytes = read.map_err(too_slow)?.map_err(|_| {
        let message = format!("the body has more than {BODY_LEN_MAX_BYTES} bytes, or broke off");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    })?;
    if bytes.trim_ascii().is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&bytes)
        .map_err(|error| Refusal::bad_request(format!("the body is no JSON: {error}")))
}

/// An action of an instance and who answers.
pub(super) type Route = (&'static str, MethodRouter<Desk>);
