//! Asks one webhook: a service in this process, or an address by HTTPS.

use std::sync::Arc;

use axum::body::Body;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::matching::{Client, Webhook};
use crate::failure::{Cause, Failure};
use crate::proxy::LocalServices;

/// Longest answer, in bytes.
const ANSWER_LEN_MAX: usize = 4 << 20;
/// Warnings of one answer that are passed on, and their longest.
const WARNINGS_MAX: (usize, usize) = (16, 1024);

/// What a webhook answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Answer {
    /// JSON patch to the object.
    pub(super) patch: Option<Value>,
    /// What the client should be told.
    pub(super) warnings: Vec<String>,
}

/// Why an operation does not go on.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Refusal {
    /// The webhook says so.
    Denied(Failure),
    /// The webhook cannot be asked, or its answer not understood.
    Unreachable(String),
}

pub(super) async fn ask(
    webhook: &Webhook,
    services: &LocalServices,
    question: &Value,
) -> Result<Answer, Refusal> {
    let answered = timeout(webhook.patience, send(&webhook.client, services, question)).await;
    let late = |_| format!("no answer within {} s", webhook.patience.as_secs());
    let answer = answered
        .map_err(late)
        .and_then(|it| it)
        .map_err(Refusal::Unreachable)?;
    read(&webhook.name, &answer, &question["request"]["uid"])
}

async fn send(
    client: &Client,
    services: &LocalServices,
    question: &Value,
) -> Result<Value, String> {
    let local = client.service.as_ref().map(|it| {
        let service = services.get(&it.namespace, &it.name);
        service.map(|service| (service, it)).ok_or_else(|| {
            format!(
                "the service {}/{} does not run on this node",
                it.namespace, it.name
            )
        })
    });
    let body = match (local, &client.url) {
        (Some(found), _) => {
            let (service, at) = found?;
            let path = if at.path.is_empty() { "/" } else { &at.path };
            let request = request(path, question)?;
            service(request.map(Body::from)).await.into_body()
        }
        (None, Some(url)) => call(url, &client.ca_bundle, question).await?,
        (None, None) => return Err("clientConfig has neither url nor service".to_owned()),
    };
    let collected = Limited::new(body, ANSWER_LEN_MAX).collect().await;
    let bytes = collected.map_err(|error| error.to_string())?.to_bytes();
    serde_json::from_slice(&bytes).map_err(|error| format!("the answer is not JSON: {error}"))
}

fn request(target: &str, question: &Value) -> Result<Request<Vec<u8>>, String> {
    let request = Request::post(target)
        .header("content-type", "application/json")
        .header("accept", "application/json");
    request
        .body(question.to_string().into_bytes())
        .map_err(|error| error.to_string())
}

/// Calls a webhook outside of this process, on a connection of its own.
async fn call(url: &str, ca_bundle: &str, question: &Value) -> Result<Body, String> {
    let uri: Uri = url
        .parse()
        .map_err(|error| format!("clientConfig.url: {error}"))?;
    let host = uri
        .host()
        .unwrap_or_default()
        .trim_matches(['[', ']'])
        .to_owned();
    if uri.scheme_str() != Some("https") || host.is_empty() {
        return Err("clientConfig.url must be https://host[:port]/path".to_owned());
    }
    let stream = TcpStream::connect((host.as_str(), uri.port_u16().unwrap_or(443))).await;
    let stream = stream.map_err(|error| format!("connect to {host}: {error}"))?;
    let name = ServerName::try_from(host.clone()).map_err(|error| error.to_string())?;
    let stream = connector(ca_bundle)?.connect(name, stream).await;
    let stream = stream.map_err(|error| format!("TLS with {host}: {error}"))?;
    let shaken = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.map_err(|error| error.to_string())?;
    tokio::spawn(connection);
    let mut request = request(uri.path_and_query().map_or("/", |it| it.as_str()), question)?;
    let value = uri
        .authority()
        .map_or(host.as_str(), |it| it.as_str())
        .parse();
    request.headers_mut().insert(
        http::header::HOST,
        value.map_err(|_| "bad host".to_owned())?,
    );
    let request = request.map(|bytes| Full::new(axum::body::Bytes::from(bytes)));
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| error.to_string())?;
    Ok(Body::new(response.into_body()))
}

fn connector(ca_bundle: &str) -> Result<TlsConnector, String> {
    let pem = STANDARD
        .decode(ca_bundle)
        .map_err(|error| format!("clientConfig.caBundle: {error}"))?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| format!("clientConfig.caBundle: {error}"))?;
        roots
            .add(certificate)
            .map_err(|error| format!("clientConfig.caBundle: {error}"))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let config = builder.with_root_certificates(roots).with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn read(name: &str, answer: &Value, uid: &Value) -> Result<Answer, Refusal> {
    let response = &answer["response"];
    if !response.is_object() || response["uid"] != *uid {
        let why = "the answer is no AdmissionReview with the response to this request";
        return Err(Refusal::Unreachable(why.to_owned()));
    }
    if response["allowed"] != true {
        return Err(Refusal::Denied(denial(name, &response["status"])));
    }
    let warnings = response["warnings"].as_array().into_iter().flatten();
    let warnings = warnings.filter_map(Value::as_str).take(WARNINGS_MAX.0);
    let warnings = warnings
        .map(|it| it.chars().take(WARNINGS_MAX.1).collect())
        .collect();
    let patch = response["patch"].as_str().map(decode).transpose();
    Ok(Answer {
        patch: patch.map_err(Refusal::Unreachable)?,
        warnings,
    })
}

fn decode(patch: &str) -> Result<Value, String> {
    let bytes = STANDARD
        .decode(patch)
        .map_err(|error| format!("response.patch: {error}"))?;
    serde_json::from_slice(&bytes).map_err(|error| format!("response.patch: {error}"))
}

/// Returns what a client is told of a denial: the webhook's words, code and causes.
fn denial(name: &str, status: &Value) -> Failure {
    let said = status["message"].as_str().filter(|it| !it.is_empty());
    let said = said.or(status["reason"].as_str());
    let message = match said {
        Some(said) => format!("admission webhook \"{name}\" denied the request: {said}"),
        None => format!("admission webhook \"{name}\" denied the request without explanation"),
    };
    let code = status["code"]
        .as_u64()
        .and_then(|it| u16::try_from(it).ok());
    let code = code.filter(|it| (400..600).contains(it)).unwrap_or(403);
    let reason = match status["reason"].as_str() {
        Some("Invalid") => "Invalid",
        Some("BadRequest") => "BadRequest",
        Some("Conflict") => "Conflict",
        Some("NotFound") => "NotFound",
        Some("AlreadyExists") => "AlreadyExists",
        Some("TooManyRequests") => "TooManyRequests",
        Some("InternalError") => "InternalError",
        _ => match code {
            422 => "Invalid",
            429 => "TooManyRequests",
            _ => "Forbidden",
        },
    };
    let causes = status["details"]["causes"].as_array().into_iter().flatten();
    Failure {
        causes: causes.map(cause).collect(),
        retry_after: (code == 429).then_some(10),
        ..Failure::new(code, reason, message)
    }
}

fn cause(json: &Value) -> Cause {
    let text = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
    let reason = match json["reason"].as_str() {
        Some("FieldValueRequired") => "FieldValueRequired",
        Some("FieldValueNotSupported") => "FieldValueNotSupported",
        Some("FieldValueDuplicate") => "FieldValueDuplicate",
        Some("FieldValueForbidden") => "FieldValueForbidden",
        Some("FieldValueNotFound") => "FieldValueNotFound",
        _ => "FieldValueInvalid",
    };
    Cause {
        reason,
        message: text("message"),
        field: text("field"),
    }
}
