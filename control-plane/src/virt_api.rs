//! `virt-api`: the subresources of machines and instances, and the admission of all kinds.
//!
//! ```text
//!   API server ─▶ authorization ─▶ machine (start, stop, …) ───────▶ patches at the API server
//!                                ├▶ instance (pause, console, …) ──▶ node agent, TLS, port 8186
//!                                └▶ port_forward ──────────────────▶ the instance's address
//!   API server ─▶ webhooks ─▶ crate::admission (pure)
//! ```
//!
//! KubeVirt's aggregated API `subresources.kubevirt.io`, versions `v1` and `v1alpha3`.

mod answer;
mod authorization;
pub mod cli;
mod discovery;
mod evacuation;
mod expand;
mod graph;
mod installation;
mod instance;
mod machine;
mod node;
pub(crate) mod objects;
pub(crate) mod patches;
mod port_forward;
mod request;
mod reviews;
mod server;
mod stream;
mod unsupported;
mod volumes;

use std::sync::Arc;

use axum::Router;
use axum::middleware;
use http::StatusCode;
use kube::Client;

pub use self::installation::{
    api_services, api_services_for, cluster_roles, cluster_roles_for, webhooks, webhooks_for,
};
pub use self::node::{HANDLER_PORT, HandlerAddress, HandlerPlace, Identity, IdentityError, Pem};
use answer::Refusal;
use node::Nodes;
use objects::Objects;
use request::{Desk, Route};
use stream::Pulse;

/// API group of the subresources.
pub const GROUP: &str = "subresources.kubevirt.io";
/// Versions of [`GROUP`], the preferred one first; they are equal.
pub const VERSIONS: [&str; 2] = ["v1", "v1alpha3"];

/// What `virt-api` works with.
#[derive(Clone)]
pub struct Options {
    /// The API server, as the service account `kubevirt-apiserver`: other accounts may not change instances.
    pub client: Client,
    /// Namespace of the installation, `kubevirt`.
    pub namespace: String,
    /// How node agents are reached.
    pub handler: HandlerAddress,
    /// Whether each request is reviewed by the API server (`SubjectAccessReview`), as its headers `X-Remote-*` say
    /// who sent it. The caller of the router answers for these headers.
    pub authorize: bool,
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Options")
            .field("namespace", &self.namespace)
            .field("handler", &self.handler.place)
            .field("authorize", &self.authorize)
            .finish_non_exhaustive()
    }
}

/// Returns the service: subresources and discovery under `/apis/subresources.kubevirt.io`, `/healthz`, and webhooks.
pub fn router(options: Options) -> Router {
    let namespace: Arc<str> = options.namespace.into();
    let objects = Objects::new(options.client);
    let desk = Desk {
        nodes: Nodes::new(objects.clone(), Arc::clone(&namespace), options.handler),
        objects,
        namespace,
        pulse: Pulse::default(),
        reaches_loopback: false,
    };
    served(desk, options.authorize)
}

fn served(desk: Desk, authorize: bool) -> Router {
    let mut router = Router::new();
    for version in VERSIONS {
        let base = format!("/apis/{GROUP}/{version}");
        let namespace = format!("{base}/namespaces/{{namespace}}");
        for (path, route) in expand::routes() {
            router = router.route(&format!("{namespace}/{path}"), route);
        }
        for (resource, routes) in resources() {
            for (action, route) in routes {
                let path = format!("{namespace}/{resource}/{{name}}/{action}");
                router = router.route(&path, route);
            }
        }
        for (path, route) in discovery::version_routes(version) {
            router = router.route(&format!("{base}{path}"), route);
        }
    }
    for (path, route) in discovery::routes() {
        router = router.route(path, route);
    }
    for (path, route) in reviews::routes() {
        router = router.route(path, route);
    }
    if authorize {
        let review = middleware::from_fn_with_state(desk.clone(), authorization::review);
        router = router.layer(review);
    }
    router
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .with_state(desk)
}

/// Returns the resources and who answers which action of theirs.
fn resources() -> [(&'static str, Vec<Route>); 2] {
    let machines = [
        machine::routes(),
        expand::machine_routes(),
        port_forward::machine_routes(),
        volumes::machine_routes(),
        evacuation::machine_routes(),
        graph::machine_routes(),
        unsupported::machine_routes(),
    ];
    let instances = [
        instance::routes(),
        port_forward::instance_routes(),
        volumes::instance_routes(),
        evacuation::instance_routes(),
        graph::instance_routes(),
        unsupported::instance_routes(),
    ];
    [
        ("virtualmachines", machines.into_iter().flatten().collect()),
        (
            "virtualmachineinstances",
            instances.into_iter().flatten().collect(),
        ),
    ]
}

async fn unknown_path() -> Refusal {
    let message = "the server could not find the requested resource";
    Refusal::new(StatusCode::NOT_FOUND, message)
}

async fn wrong_method() -> Refusal {
    let message = "the server does not allow this method on the requested resource";
    Refusal::new(StatusCode::METHOD_NOT_ALLOWED, message)
}

#[cfg(test)]
mod tests;
