//! Fetching from registries (OCI distribution-spec v1.1, "Pull").
//!
//! ```text
//! GET manifest ─▶ 401 with a challenge ─▶ token (bearer) or password (basic) ─▶ GET manifest ─▶ GET blobs, resumed when cut
//! ```
//!
//! HTTPS with the host's certificate authorities (`SSL_CERT_FILE` overrides); plain HTTP on this machine alone. Programs
//! that keep passwords (`credHelpers`) are not asked, mirrors and proxies are not used.

mod blob;
mod challenge;
mod connection;
mod keyring;

use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::{Bytes, Incoming};
use serde::Deserialize;
use tokio::sync::Mutex;

use self::challenge::Challenge;
use self::connection::Connection;
pub use self::keyring::{Keyring, KeyringError, Login};
use super::archive::DOCUMENT_MAX_BYTES;
use super::digest::Digest;
use super::manifest::{INDEXES, MANIFESTS};
use super::reference::{Reference, Version};

/// Host of the registry `docker.io`.
const DOCKER_HUB_HOST: &str = "registry-1.docker.io";
/// Most bytes of a message or a token.
const ANSWER_MAX_BYTES: usize = 1 << 20;
/// Times that one request is sent anew after the registry was busy or broken.
const ATTEMPTS_MAX: u32 = 4;

/// Why something cannot be fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    /// Nobody answers, or the connection breaks.
    #[error("cannot reach {host}: {reason}")]
    Unreachable { host: String, reason: String },
    /// The registry does not let us.
    #[error(
        "{registry} refuses it: {reason}; it may not exist, or need a login: give one with --creds, ~/.docker/config.json or imagePullSecrets"
    )]
    Denied { registry: String, reason: String },
    /// There is no such image.
    #[error("{registry} has no such image: {reason}")]
    NotFound { registry: String, reason: String },
    /// The registry does not do as it should.
    #[error("{registry}: {reason}")]
    Odd { registry: String, reason: String },
    /// It cannot be written here.
    #[error("write it here: {reason}")]
    Local { reason: String },
}

impl FetchError {
    /// Whether another try may do better.
    fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

/// A repository of a registry, as one user.
pub(super) struct Repository<'a> {
    connection: Connection,
    reference: &'a Reference,
    login: Option<Login>,
    /// What the registry wants to see of us. Held for reading and writing alone.
    authorization: Mutex<Option<HeaderValue>>,
}

impl<'a> Repository<'a> {
    pub(super) fn new(reference: &'a Reference, login: Option<Login>) -> Result<Self, FetchError> {
        Ok(Self {
            connection: Connection::new()?,
            reference,
            login,
            authorization: Mutex::new(None),
        })
    }

    /// Fetches a manifest or an index, and checks its digest where the version is one.
    pub(super) async fn manifest(&self, version: &Version) -> Result<(Bytes, Digest), FetchError> {
        let response = self.get("manifests", &name_of(version), &accept()).await?;
        let text = self.whole(response, DOCUMENT_MAX_BYTES).await?;
        let digest = Digest::of(&text);
        match version {
            Version::Digest(wanted) if *wanted != digest => {
                Err(self.odd(format!("sent a manifest {digest} for {wanted}")))
            }
            _ => Ok((text, digest)),
        }
    }

    /// Fetches a small blob, and checks its digest.
    pub(super) async fn document(&self, digest: &Digest) -> Result<Bytes, FetchError> {
        let response = self
            .get("blobs", &digest.to_string(), &HeaderMap::new())
            .await?;
        let text = self.whole(response, DOCUMENT_MAX_BYTES).await?;
        if Digest::of(&text) != *digest {
            return Err(self.odd(format!("sent something else than {digest}")));
        }
        Ok(text)
    }

    async fn whole(&self, response: Response<Incoming>, max: u64) -> Result<Bytes, FetchError> {
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        let whole = Limited::new(response.into_body(), max).collect();
        let whole = connection::in_time(whole).await;
        let whole =
            whole.ok_or_else(|| self.odd("stopped in the middle of an answer".to_owned()))?;
        whole
            .map(http_body_util::Collected::to_bytes)
            .map_err(|error| self.odd(format!("answer cannot be read: {error}")))
    }

    /// Asks for a part of the repository, as whoever the registry wants to see.
    async fn get(
        &self,
        kind: &str,
        name: &str,
        headers: &HeaderMap,
    ) -> Result<Response<Incoming>, FetchError> {
        let uri = self.uri(kind, name)?;
        for attempt in 0.. {
            let answered = match self.get_once(&uri, headers).await {
                Ok(response) => self.judge(response).await,
                Err(error) => Err(error),
            };
            match answered {
                Err(error) if error.is_passing() && attempt + 1 < ATTEMPTS_MAX => {
                    connection::pause(attempt).await;
                }
                answered => return answered,
            }
        }
        unreachable!("the last attempt returns")
    }

    async fn get_once(
        &self,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<Response<Incoming>, FetchError> {
        let mut headers = headers.clone();
        if let Some(known) = self.authorization.lock().await.clone() {
            headers.insert(header::AUTHORIZATION, known);
        }
        let response = self
            .connection
            .send(Method::GET, uri, &headers, Bytes::new())
            .await?;
        if response.status() != StatusCode::UNAUTHORIZED {
            return Ok(response);
        }
        let Some(authorization) = self.authorize(&response).await? else {
            return Ok(response);
        };
        headers.insert(header::AUTHORIZATION, authorization.clone());
        *self.authorization.lock().await = Some(authorization);
        self.connection
            .send(Method::GET, uri, &headers, Bytes::new())
            .await
    }

    /// Returns the response when it is a success.
    async fn judge(&self, response: Response<Incoming>) -> Result<Response<Incoming>, FetchError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let registry = self.reference.registry.clone();
        let text = Limited::new(response.into_body(), ANSWER_MAX_BYTES).collect();
        let text = connection::in_time(text).await.and_then(Result::ok);
        let reason = reason(
            status,
            &text
                .map(http_body_util::Collected::to_bytes)
                .unwrap_or_default(),
        );
        Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                FetchError::Denied { registry, reason }
            }
            StatusCode::NOT_FOUND => FetchError::NotFound { registry, reason },
            StatusCode::TOO_MANY_REQUESTS => FetchError::Unreachable {
                host: registry,
                reason,
            },
            status if status.is_server_error() => FetchError::Unreachable {
                host: registry,
                reason,
            },
            _ => FetchError::Odd { registry, reason },
        })
    }

    /// Returns what the registry's challenge asks for; `None` when there is nothing that we could show.
    async fn authorize(
        &self,
        response: &Response<Incoming>,
    ) -> Result<Option<HeaderValue>, FetchError> {
        let challenges = challenge::parse(response.headers());
        for challenge in challenges {
            match (challenge, &self.login) {
                (Challenge::Bearer(asked), login) => {
                    let token = self.token(&asked, login.as_ref()).await?;
                    return Ok(HeaderValue::try_from(format!("Bearer {token}")).ok());
                }
                (Challenge::Basic, Some(login)) => return Ok(login.basic()),
                (Challenge::Basic, None) => {}
            }
        }
        Ok(None)
    }

    /// Fetches a token (Docker's token authentication; OAuth2 where the login is a refresh token).
    async fn token(
        &self,
        asked: &challenge::Bearer,
        login: Option<&Login>,
    ) -> Result<String, FetchError> {
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
        }
        let scope = format!("repository:{}:pull", self.reference.repository);
        let request = asked.request(&scope, login).map_err(|it| self.odd(it))?;
        if !self.is_local() && request.uri.scheme_str() != Some("https") {
            return Err(self.odd("wants a login at a place that is not https".to_owned()));
        }
        let sent =
            self.connection
                .send(request.method, &request.uri, &request.headers, request.body);
        let response = self.judge(sent.await?).await?;
        let text = self
            .whole(response, ANSWER_MAX_BYTES.try_into().unwrap_or(u64::MAX))
            .await?;
        let answer: Option<Answer> = serde_json::from_slice(&text).ok();
        let token = answer.and_then(|it| it.token.or(it.access_token));
        token.ok_or_else(|| self.odd("gave no token".to_owned()))
    }

    fn uri(&self, kind: &str, name: &str) -> Result<Uri, FetchError> {
        let host = match self.reference.registry.as_str() {
            "docker.io" => DOCKER_HUB_HOST,
            host => host,
        };
        let scheme = if self.is_local() { "http" } else { "https" };
        let repository = &self.reference.repository;
        let uri = format!("{scheme}://{host}/v2/{repository}/{kind}/{name}");
        uri.parse()
            .map_err(|_| self.odd(format!("has no address {uri}")))
    }

    /// Whether the registry is on this machine, where plain HTTP is safe.
    fn is_local(&self) -> bool {
        let registry = &self.reference.registry;
        let host = registry
            .rsplit_once(':')
            .filter(|(_, port)| !port.contains(']'));
        let host = host.map_or(registry.as_str(), |(host, _)| host);
        let address: Option<std::net::IpAddr> = host.trim_matches(['[', ']']).parse().ok();
        host == "localhost" || address.is_some_and(|it| it.is_loopback())
    }

    fn odd(&self, reason: String) -> FetchError {
        FetchError::Odd {
            registry: self.reference.registry.clone(),
            reason,
        }
    }
}

fn name_of(version: &Version) -> String {
    match version {
        Version::Tag(tag) => tag.clone(),
        Version::Digest(digest) => digest.to_string(),
    }
}

fn accept() -> HeaderMap {
    let kinds = MANIFESTS.iter().chain(&INDEXES);
    let value = |kind: &&'static str| HeaderValue::from_static(kind);
    kinds.map(|kind| (header::ACCEPT, value(kind))).collect()
}

/// Returns why a registry refuses, in its own words (distribution-spec, "Error Codes").
fn reason(status: StatusCode, text: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Answer {
        errors: Vec<Entry>,
    }
    #[derive(Deserialize)]
    struct Entry {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let answer: Option<Answer> = serde_json::from_slice(text).ok();
    let first = answer.and_then(|it| it.errors.into_iter().next());
    match first {
        Some(entry) => format!("{} {} {}", status.as_u16(), entry.code, entry.message),
        None => status.to_string(),
    }
}
