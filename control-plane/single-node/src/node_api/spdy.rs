//! SPDY/3.1 as `kubectl` speaks it: streams that the client opens, on one connection.
//!
//! Nobody in this protocol counts windows: a stream whose reader is slow holds back the others of its connection, as it
//! does in Kubernetes.

mod connection;
mod frame;
mod headers;

use std::future::Future;

use apiserver::failure::Failure;
use axum::body::Body;
use http::request::Parts;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;

pub(super) use self::connection::{Stream, Writer, serve};

/// The protocol in `Upgrade`.
pub(super) const PROTOCOL: &str = "SPDY/3.1";
/// Header of what the streams are for.
const STREAM_PROTOCOL: &str = "x-stream-protocol-version";

/// Accepts a connection that goes on as SPDY, and hands it to a function. `purposes` are what the streams may be for, the
/// best first.
pub(super) fn accept<F, R>(
    mut parts: Parts,
    purposes: &[&'static str],
    run: F,
) -> Result<Response<Body>, Failure>
where
    F: FnOnce(TokioIo<Upgraded>) -> R + Send + 'static,
    R: Future<Output = ()> + Send + 'static,
{
    if !super::wants_upgrade(&parts, PROTOCOL) {
        let message = format!("this needs a WebSocket or an upgrade to {PROTOCOL}");
        return Err(Failure::bad_request(message));
    }
    let asked = parts.headers.get_all(STREAM_PROTOCOL).iter();
    let asked: Vec<_> = asked
        .filter_map(|it| it.to_str().ok())
        .flat_map(|it| it.split(','))
        .collect();
    let purpose = purposes
        .iter()
        .find(|it| asked.iter().any(|asked| asked.trim() == **it));
    let purpose = purpose.ok_or_else(|| {
        let message = format!("{STREAM_PROTOCOL} must be one of: {}", purposes.join(", "));
        Failure::new(403, "Forbidden", message)
    })?;
    let upgrade = parts.extensions.remove::<OnUpgrade>();
    let upgrade = upgrade
        .ok_or_else(|| Failure::bad_request("this connection cannot be upgraded: use HTTP/1.1"))?;
    tokio::spawn(async move {
        if let Ok(upgraded) = upgrade.await {
            run(TokioIo::new(upgraded)).await;
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    for (name, value) in [
        (header::CONNECTION, "Upgrade"),
        (header::UPGRADE, PROTOCOL),
        (HeaderName::from_static(STREAM_PROTOCOL), purpose),
    ] {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

#[cfg(test)]
pub(super) mod tests {
    pub(in crate::node_api) use super::headers::tests::pack;
}
