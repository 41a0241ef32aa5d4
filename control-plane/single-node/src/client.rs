//! A client of the API server in this process, for what is written against a cluster.

use std::convert::Infallible;

use apiserver::ApiServer;
use apiserver::access::User;
use axum::body::Body;
use http::{Request, Response};

/// Returns a client for parts of this process that are written against a cluster.
#[must_use]
pub(crate) fn client(api: ApiServer, user: User) -> kube::Client {
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let (api, user) = (api.clone(), user.clone());
        async move {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(user);
            Ok::<Response<Body>, Infallible>(api.call(request).await)
        }
    });
    kube::Client::new(service, "default")
}
