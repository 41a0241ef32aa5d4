//! What requests are answered with, and what they say.

use std::sync::Arc;
use std::time::Duration;

use api::options::{MAX_OPTIONS_LEN, Options, parse_with_dry_run};
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequestParts, Path};
use axum::routing::MethodRouter;
use http::StatusCode;
use http::request::Parts;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::timeout;

use super::answer::Refusal;
use super::node::Nodes;
use super::objects::{Kind, ObjectName, Objects};
use super::stream::Pulse;

/// Time for a body to arrive.
const BODY: Duration = Duration::from_secs(10);

/// What requests are answered with.
#[derive(Clone, Debug)]
pub(crate) struct Desk {
    pub(crate) objects: Objects,
    /// Namespace of the installation.
    pub(crate) namespace: Arc<str>,
    pub(crate) nodes: Nodes,
    pub(crate) pulse: Pulse,
    /// Whether a guest may have an address that means this host: never but in tests.
    pub(crate) reaches_loopback: bool,
}

impl Desk {
    /// Reads the instance that a virtual machine has started.
    pub(crate) async fn instance_of_machine(&self, named: &Named) -> Result<Value, Refusal> {
        let vm = self.objects.get(&named.object(Kind::Machine)).await?;
        if vm["status"]["created"] != true {
            let why = "VMI is not started";
            return Err(Refusal::conflict(Kind::Machine, &named.name, why));
        }
        let vmi = self.objects.get(&named.object(Kind::Instance)).await?;
        let mut owners = vmi["metadata"]["ownerReferences"]
            .as_array()
            .into_iter()
            .flatten();
        if owners.any(|owner| owner["uid"] == vm["metadata"]["uid"]) {
            return Ok(vmi);
        }
        let why = "the instance of that name is not one of the virtual machine's";
        Err(Refusal::conflict(Kind::Machine, &named.name, why))
    }
}

/// An action of an object and who answers.
pub(crate) type Route = (&'static str, MethodRouter<Desk>);

/// The object that a request's path names.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Named {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Named {
    pub(crate) fn object(&self, kind: Kind) -> ObjectName {
        ObjectName::new(kind, &self.namespace, &self.name)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let path: Result<Path<Self>, PathRejection> = Path::from_request_parts(parts, state).await;
        let Path(named) = path.map_err(|_| Refusal::bad_request("the path names no object"))?;
        Ok(named)
    }
}

/// Reads a body of at most `len_max` bytes.
pub(crate) async fn bytes(body: Body, len_max: usize) -> Result<Bytes, Refusal> {
    let too_slow = |_| {
        Refusal::new(
            StatusCode::REQUEST_TIMEOUT,
            "the body does not arrive in time",
        )
    };
    let read = timeout(BODY, to_bytes(body, len_max)).await;
    read.map_err(too_slow)?.map_err(|_| {
        let message = format!("the body has more than {len_max} bytes, or broke off");
        Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, message)
    })
}

/// Reads the options in a body, and whether nothing is to be changed.
pub(crate) async fn options<T: Options>(body: Body) -> Result<(T, bool), Refusal> {
    Ok(parse_with_dry_run(&bytes(body, MAX_OPTIONS_LEN).await?)?)
}
