//! HTTP to registries: TLS, redirects, patience.

use std::future::Future;
use std::time::Duration;

use api::error_chain::chain;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::{ClientConfig, RootCertStore};

use super::FetchError;

/// Time for a connection.
const CONNECT: Duration = Duration::from_secs(15);
/// Time for the head of an answer, and between two pieces of it.
const SILENCE: Duration = Duration::from_secs(60);
/// First pause before a request is sent anew; it doubles.
const PAUSE: Duration = Duration::from_millis(500);
/// Most redirects of one request.
const REDIRECTS_MAX: usize = 5;

/// Connections to registries and to where they send us.
pub(super) struct Connection {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

impl Connection {
    pub(super) fn new() -> Result<Self, FetchError> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(Some(CONNECT));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls()?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        Ok(Self {
            client: Client::builder(TokioExecutor::new()).build(connector),
        })
    }

    /// Sends a request, also to where it is redirected; who asks is only told to the first host.
    pub(super) async fn send(
        &self,
        method: Method,
        uri: &Uri,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Result<Response<Incoming>, FetchError> {
        let mut uri = uri.clone();
        let mut headers = headers.clone();
        headers.insert(
            header::USER_AGENT,
            http::HeaderValue::from_static("ferrovirt"),
        );
        for _ in 0..=REDIRECTS_MAX {
            let mut request = Request::new(Full::new(body.clone()));
            *request.method_mut() = method.clone();
            *request.uri_mut() = uri.clone();
            *request.headers_mut() = headers.clone();
            let answered = in_time(self.client.request(request)).await;
            let answered = answered.ok_or_else(|| unreachable(&uri, "it does not answer"))?;
            let response = answered.map_err(|error| unreachable(&uri, &chain(&error)))?;
            if !is_redirect(response.status()) {
                return Ok(response);
            }
            let next = redirected(&uri, response.headers())?;
            if next.authority() != uri.authority() || next.scheme() != uri.scheme() {
                headers.remove(header::AUTHORIZATION);
            }
            uri = next;
        }
        Err(unreachable(&uri, "it redirects without end"))
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Returns where an answer sends us: never from HTTPS to plain HTTP.
fn redirected(from: &Uri, headers: &HeaderMap) -> Result<Uri, FetchError> {
    let odd = || FetchError::Odd {
        registry: from.host().unwrap_or_default().to_owned(),
        reason: "redirects to a place that is no address, or not https".to_owned(),
    };
    let location = headers
        .get(header::LOCATION)
        .and_then(|it| it.to_str().ok());
    let location: Uri = location.and_then(|it| it.parse().ok()).ok_or_else(odd)?;
    if location.authority().is_none() {
        let mut parts = from.clone().into_parts();
        parts.path_and_query = location.into_parts().path_and_query;
        return Uri::from_parts(parts).map_err(|_| odd());
    }
    let is_worse = from.scheme_str() == Some("https") && location.scheme_str() != Some("https");
    if is_worse { Err(odd()) } else { Ok(location) }
}

fn tls() -> Result<ClientConfig, FetchError> {
    let local = |reason: String| FetchError::Local { reason };
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    for certificate in found.certs {
        // Hosts have some that are not well-formed; the others do.
        let _unusable = roots.add(certificate);
    }
    let provider = rustls::crypto::ring::default_provider();
    let config = ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .map_err(|error| local(error.to_string()))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// Returns what comes in time, or `None`.
pub(super) async fn in_time<F: Future>(future: F) -> Option<F::Output> {
    tokio::time::timeout(SILENCE, future).await.ok()
}

/// Waits before the next attempt.
pub(super) async fn pause(attempt: u32) {
    tokio::time::sleep(PAUSE.saturating_mul(2_u32.saturating_pow(attempt))).await;
}

fn unreachable(uri: &Uri, reason: &str) -> FetchError {
    let host = uri
        .authority()
        .map_or_else(String::new, ToString::to_string);
    let is_certificate = reason.contains("UnknownIssuer");
    let cure = if is_certificate {
        "; install its authority, or the package ca-certificates, or set SSL_CERT_FILE"
    } else {
        ""
    };
    FetchError::Unreachable {
        host,
        reason: format!("{reason}{cure}"),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, Uri, header};

    use super::redirected;

    #[test]
    fn redirects_lead_to_addresses_that_are_as_safe() {
        let check = |from: &'static str, to: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::LOCATION, HeaderValue::from_static(to));
            redirected(&Uri::from_static(from), &headers)
                .ok()
                .map(|it| it.to_string())
        };
        let from = "https://a.example/v2/x";
        assert_eq!(
            check(from, "/y?z=1").as_deref(),
            Some("https://a.example/y?z=1")
        );
        assert_eq!(
            check(from, "https://b.example/y").as_deref(),
            Some("https://b.example/y")
        );
        assert_eq!(check(from, "http://b.example/y"), None);
        assert_eq!(
            check("http://localhost/x", "http://localhost/y").as_deref(),
            Some("http://localhost/y")
        );
    }
}
