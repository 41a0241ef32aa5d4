//! Requests to the API server.

use std::time::Duration;

use api::error_chain::chain;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use kube::client::Body;
use kube::core::Status;
use kube::{Client, Config};
use serde_json::Value;
use tokio::time::timeout;

use crate::connection::ConnectionFlags;
use crate::failure::{Failure, Refusal};

/// Group of the actions.
const SUBRESOURCES: &str = "/apis/subresources.kubevirt.io/v1";
/// Group of the machines.
const KUBEVIRT: &str = "/apis/kubevirt.io/v1";
/// Time for an answer; the API server itself gives up after a minute.
const ANSWER: Duration = Duration::from_secs(70);
/// Bytes of an answer that are taken: lists of machines.
const ANSWER_LEN_MAX_BYTES: usize = 64 << 20;
/// Characters of an answer that are shown when it makes no sense.
const WORDS_MAX: usize = 200;

/// Kinds of objects with actions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A virtual machine.
    Machine,
    /// An instance of one.
    Instance,
}

impl Kind {
    /// Returns the name in paths.
    pub(crate) fn plural(self) -> &'static str {
        match self {
            Self::Machine => "virtualmachines",
            Self::Instance => "virtualmachineinstances",
        }
    }

    /// Returns the short name, as targets have it.
    pub(crate) fn short(self) -> &'static str {
        match self {
            Self::Machine => "vm",
            Self::Instance => "vmi",
        }
    }
}

/// The API server, and the namespace that is meant.
#[derive(Clone)]
pub(crate) struct Cluster {
    client: Client,
    server: String,
    /// Time for an answer.
    patience: Duration,
    /// Namespace of objects whose namespace is not given.
    pub(crate) namespace: String,
}

impl Cluster {
    /// Reads the configuration; nothing is sent yet.
    ///
    /// # Errors
    ///
    /// Fails when there is no configuration or it is wrong.
    pub(crate) async fn connect(flags: &ConnectionFlags) -> Result<Self, Failure> {
        let config = flags.config().await?;
        let namespace = flags.namespace.clone();
        let patience = flags.request_timeout.filter(|time| !time.is_zero());
        Self::of_config(config, namespace, patience.unwrap_or(ANSWER))
    }

    fn of_config(
        mut config: Config,
        namespace: Option<String>,
        patience: Duration,
    ) -> Result<Self, Failure> {
        // Another process of a test may have been here before.
        let _already = rustls::crypto::ring::default_provider().install_default();
        // A person waits: errors are shown at once. Consoles are silent for hours.
        config.default_retry = false;
        config.read_timeout = None;
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        let server = config.cluster_url.to_string();
        let server = server.trim_end_matches('/').to_owned();
        let client = Client::try_from(config);
        let client = client.map_err(|error| Failure::Configuration(chain(&error)))?;
        Ok(Self {
            client,
            server,
            patience,
            namespace,
        })
    }

    /// Returns the path of an object of group `kubevirt.io`.
    pub(crate) fn object(&self, kind: Kind, name: &str) -> String {
        let namespace = &self.namespace;
        format!("{KUBEVIRT}/namespaces/{namespace}/{}/{name}", kind.plural())
    }

    /// Returns the path of objects of group `kubevirt.io`.
    pub(crate) fn objects(&self, plural: &str) -> String {
        format!("{KUBEVIRT}/namespaces/{}/{plural}", self.namespace)
    }

    /// Returns the path that writes out a machine that is sent.
    pub(crate) fn expansion(&self) -> String {
        format!(
            "{SUBRESOURCES}/namespaces/{}/expand-vm-spec",
            self.namespace
        )
    }

    /// Returns the path of an object's action.
    pub(crate) fn action(&self, kind: Kind, name: &str, action: &str) -> String {
        let namespace = &self.namespace;
        let plural = kind.plural();
        format!("{SUBRESOURCES}/namespaces/{namespace}/{plural}/{name}/{action}")
    }

    /// Reads an object or the answer of an action; `null` when there is none.
    pub(crate) async fn get(&self, path: &str) -> Result<Value, Refusal> {
        self.request(Method::GET, path, None).await
    }

    /// Asks a question that has a body.
    pub(crate) async fn ask(&self, path: &str, question: &Value) -> Result<Value, Refusal> {
        self.request(Method::GET, path, Some(question)).await
    }

    /// Has something done, and returns the answer; `null` when there is none.
    pub(crate) async fn put(&self, path: &str, body: &Value) -> Result<Value, Refusal> {
        self.request(Method::PUT, path, Some(body)).await
    }

    /// Has an object made, and returns it.
    pub(crate) async fn post(&self, path: &str, body: &Value) -> Result<Value, Refusal> {
        self.request(Method::POST, path, Some(body)).await
    }

    /// Has an object deleted.
    pub(crate) async fn delete(&self, path: &str, options: &Value) -> Result<Value, Refusal> {
        self.request(Method::DELETE, path, Some(options)).await
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Refusal> {
        tracing::info!(%method, path, "request");
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::ACCEPT, "application/json")
            .header(header::USER_AGENT, user_agent());
        let request = match body {
            Some(body) => request
                .header(header::CONTENT_TYPE, "application/json")
                .body(Body::from(body.to_string().into_bytes())),
            None => request.body(Body::empty()),
        };
        let request = request.map_err(|error| self.unreachable(&error))?;
        let body = self.exchange(request).await?;
        if body.is_empty() {
            return Ok(Value::Null);
        }
        // Actions answer with nothing or with words that mean nothing.
        Ok(serde_json::from_slice(&body).unwrap_or(Value::Null))
    }

    /// Sends a request and returns the body of the answer, which must be a good one and come in time.
    async fn exchange(&self, request: Request<Body>) -> Result<Vec<u8>, Refusal> {
        let exchange = async {
            let response = self.send(request).await?;
            let code = response.status();
            Ok((code, self.body(response).await?))
        };
        let late = |_| self.without_answer(format!("{} s have passed", self.patience.as_secs()));
        let (code, body) = timeout(self.patience, exchange).await.map_err(late)??;
        tracing::debug!(%code, body = %String::from_utf8_lossy(&body), "answer");
        if !code.is_success() {
            return Err(self.refusal(code, &body));
        }
        Ok(body)
    }

    /// Reads something that is no JSON, such as a picture.
    pub(crate) async fn download(&self, path: &str) -> Result<Vec<u8>, Refusal> {
        let request = Request::get(path).header(header::USER_AGENT, user_agent());
        let request = request.body(Body::empty());
        let request = request.map_err(|error| self.unreachable(&error))?;
        self.exchange(request).await
    }

    /// Sends a request and returns what is answered, whatever it is.
    pub(crate) async fn send(
        &self,
        request: Request<Body>,
    ) -> Result<http::Response<Body>, Refusal> {
        let sent = self.client.send(request).await;
        sent.map_err(|error| match error {
            kube::Error::Api(status) => Refusal::Status(status),
            kube::Error::Service(error) => self.without_answer(chain(error.as_ref())),
            error => self.unreachable(&error),
        })
    }

    /// Reads the body of an answer.
    pub(crate) async fn body(&self, response: http::Response<Body>) -> Result<Vec<u8>, Refusal> {
        let body = Limited::new(response.into_body(), ANSWER_LEN_MAX_BYTES);
        let read = body.collect().await;
        let read = read.map_err(|error| self.without_answer(chain(error.as_ref())))?;
        Ok(read.to_bytes().to_vec())
    }

    /// Returns what an answer that is no success means.
    pub(crate) fn refusal(&self, code: StatusCode, body: &[u8]) -> Refusal {
        match serde_json::from_slice::<Status>(body) {
            Ok(mut status) if !status.message.is_empty() || status.code != 0 => {
                status.code = code.as_u16();
                Refusal::Status(status.boxed())
            }
            _ => Refusal::Foreign {
                server: self.server.clone(),
                code: code.as_u16(),
                words: words(body),
            },
        }
    }

    fn unreachable(&self, error: &dyn std::error::Error) -> Refusal {
        self.without_answer(chain(error))
    }

    pub(crate) fn without_answer(&self, cause: String) -> Refusal {
        Refusal::Unreachable {
            server: self.server.clone(),
            cause,
        }
    }
}

/// Returns who asks, for the server's logs.
pub(crate) fn user_agent() -> String {
    format!("virtctl/{} ferrovirt", env!("CARGO_PKG_VERSION"))
}

/// Returns the beginning of a text that nobody vouches for, without control characters.
fn words(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let text = text.trim().chars().take(WORDS_MAX);
    let text: String = text.map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.is_empty() {
        "(nothing)".to_owned()
    } else {
        text
    }
}
