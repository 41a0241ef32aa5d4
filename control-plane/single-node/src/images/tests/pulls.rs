//! Pulls from a registry of the test's own, over plain HTTP on this machine.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Response, StatusCode, header};
use axum::routing::get;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::Place;
use super::fixture::{Fixture, descriptor};
use crate::images::progress::silent;
use crate::images::{Digest, Keyring};
use crate::sandbox::image::{ImageRequest, ImageSource, PullPolicy, PullSecret};

/// How the registry behaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Manners {
    /// Wants a token, for which user and password are asked.
    wants_login: bool,
    /// Breaks the connection in the middle of the first answers with a layer.
    breaks: usize,
    /// Sends another layer than it says.
    lies: bool,
}

struct Registry {
    address: String,
    manners: Manners,
    blobs: HashMap<String, Vec<u8>>,
    index: Mutex<Vec<u8>>,
    broken: AtomicUsize,
    asked: Mutex<Vec<String>>,
}

type Shared = State<Arc<Registry>>;

impl Registry {
    async fn start(fixture: &Fixture, manners: Manners) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let blobs = fixture
            .blobs()
            .map(|it| (Digest::of(it).to_string(), it.to_vec()));
        let registry = Arc::new(Self {
            address: listener.local_addr().unwrap().to_string(),
            manners,
            blobs: blobs.into_iter().collect(),
            index: Mutex::new(serde_json::to_vec(&fixture.index(None)).unwrap()),
            broken: AtomicUsize::new(0),
            asked: Mutex::default(),
        });
        let router = axum::Router::new()
            .route("/v2/team/disk/manifests/{name}", get(manifest))
            .route("/v2/team/disk/blobs/{digest}", get(blob))
            .route("/elsewhere/{digest}", get(content))
            .route("/token", get(token))
            .with_state(Arc::clone(&registry));
        tokio::spawn(async move { axum::serve(listener, router).await });
        registry
    }

    fn reference(&self) -> String {
        format!("{}/team/disk:v1", self.address)
    }

    fn times(&self, what: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|it| it.starts_with(what)).count()
    }

    fn note(&self, what: &str) {
        self.asked.lock().unwrap().push(what.to_owned());
    }

    fn refusal(&self, headers: &HeaderMap) -> Option<Response<Body>> {
        let shown = headers
            .get(header::AUTHORIZATION)
            .and_then(|it| it.to_str().ok());
        if !self.manners.wants_login || shown == Some("Bearer good") {
            return None;
        }
        let challenge = format!(
            "Bearer realm=\"http://{}/token\",service=\"test\"",
            self.address
        );
        let refusal = Response::builder()
            .status(401)
            .header(header::WWW_AUTHENTICATE, challenge);
        let body = json!({"errors": [{"code": "UNAUTHORIZED", "message": "log in first"}]});
        Some(refusal.body(Body::from(body.to_string())).unwrap())
    }
}

async fn token(State(registry): Shared, headers: HeaderMap) -> Result<String, StatusCode> {
    registry.note("token");
    let shown = headers
        .get(header::AUTHORIZATION)
        .ok_or(StatusCode::UNAUTHORIZED)?;
    // me:secret
    if shown == "Basic bWU6c2VjcmV0" {
        Ok(json!({"token": "good"}).to_string())
    } else {
        Err(StatusCode::UNAUTHORIZED)
    }
}

async fn manifest(
    State(registry): Shared,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Response<Body> {
    registry.note("manifest");
    if let Some(refusal) = registry.refusal(&headers) {
        return refusal;
    }
    assert!(headers.get_all(header::ACCEPT).iter().count() >= 4);
    let content = match name.as_str() {
        "v1" => registry.index.lock().unwrap().clone(),
        digest => match registry.blobs.get(digest) {
            Some(content) => content.clone(),
            None => return Response::builder().status(404).body(Body::empty()).unwrap(),
        },
    };
    Response::new(Body::from(content))
}

/// Redirects, as registries do that keep layers elsewhere.
async fn blob(
    State(registry): Shared,
    Path(digest): Path<String>,
    headers: HeaderMap,
) -> Response<Body> {
    registry.note("blob");
    if let Some(refusal) = registry.refusal(&headers) {
        return refusal;
    }
    let port = registry.address.rsplit(':').next().unwrap();
    let elsewhere = format!("http://localhost:{port}/elsewhere/{digest}");
    let answer = Response::builder()
        .status(307)
        .header(header::LOCATION, elsewhere);
    answer.body(Body::empty()).unwrap()
}

async fn content(
    State(registry): Shared,
    Path(digest): Path<String>,
    headers: HeaderMap,
) -> Response<Body> {
    assert!(
        !headers.contains_key(header::AUTHORIZATION),
        "who asks is told to another host"
    );
    let range = headers.get(header::RANGE).and_then(|it| it.to_str().ok());
    registry.note(&format!("content {range:?}"));
    let mut content = registry.blobs[&digest].clone();
    if registry.manners.lies {
        content[5] ^= 1;
    }
    let begin = range.and_then(|it| {
        it.strip_prefix("bytes=")?
            .strip_suffix('-')?
            .parse::<usize>()
            .ok()
    });
    let rest = content.split_off(begin.unwrap_or(0));
    let is_layer = rest.len() > 1 << 20 || begin.is_some();
    if is_layer && registry.broken.fetch_add(1, Ordering::SeqCst) < registry.manners.breaks {
        let half = Bytes::copy_from_slice(&rest[..rest.len() / 2]);
        let pieces = [Ok(half), Err(std::io::Error::other("cut"))];
        return Response::builder()
            .status(if begin.is_some() { 206 } else { 200 })
            .body(Body::from_stream(futures::stream::iter(pieces)))
            .unwrap();
    }
    let status = if begin.is_some() { 206 } else { 200 };
    Response::builder()
        .status(status)
        .body(Body::from(rest))
        .unwrap()
}

/// Content that does not become small.
fn noise(len: usize) -> String {
    let mut state = 1_u64;
    let next = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        char::from(b'a' + u8::try_from(state >> 33 & 15).unwrap())
    };
    (0..len).map(next).collect()
}

fn secrets(user: &str, address: &str) -> Vec<PullSecret> {
    use base64::Engine;
    let auth = base64::engine::general_purpose::STANDARD.encode(format!("{user}:secret"));
    let docker_config: Value = json!({"auths": {address: {"auth": auth}}});
    vec![PullSecret {
        name: "pull".to_owned(),
        docker_config: docker_config.to_string().into_bytes(),
    }]
}

#[tokio::test]
async fn an_image_is_pulled_once_for_all_who_wait() {
    let place = Place::new();
    let registry = Registry::start(&Fixture::new("pulled"), Manners::default()).await;
    let reference = registry.reference();
    let waiting = (0..8).map(|_| place.resolve(&reference, PullPolicy::IfNotPresent));
    for content in futures::future::join_all(waiting).await {
        assert_eq!(content.unwrap(), "pulled");
    }
    assert_eq!((registry.times("manifest"), registry.times("blob")), (2, 2));
    place
        .resolve(&reference, PullPolicy::IfNotPresent)
        .await
        .unwrap();
    assert_eq!(registry.times("manifest"), 2);
    // Asked each time, but what is there is not fetched again.
    place.resolve(&reference, PullPolicy::Always).await.unwrap();
    assert_eq!((registry.times("manifest"), registry.times("blob")), (4, 2));
    assert_eq!(place.left(), 0);
}

#[tokio::test]
async fn a_tag_that_moved_is_pulled_again() {
    let place = Place::new();
    let registry = Registry::start(&Fixture::new("old"), Manners::default()).await;
    place
        .resolve(&registry.reference(), PullPolicy::Always)
        .await
        .unwrap();
    let other = json!({"schemaVersion": 2, "manifests": [descriptor("", b"absent")]});
    *registry.index.lock().unwrap() = serde_json::to_vec(&other).unwrap();
    let error = place
        .resolve(&registry.reference(), PullPolicy::Always)
        .await
        .unwrap_err();
    assert!(error.contains("no such image"), "{error}");
    let kept = place
        .resolve(&registry.reference(), PullPolicy::IfNotPresent)
        .await;
    assert_eq!(kept.unwrap(), "old");
}

#[tokio::test]
async fn a_broken_connection_goes_on_where_it_broke() {
    let place = Place::new();
    let content = noise(4 << 20);
    let manners = Manners {
        breaks: 2,
        ..Manners::default()
    };
    let registry = Registry::start(&Fixture::new(&content), manners).await;
    let found = place
        .resolve(&registry.reference(), PullPolicy::Always)
        .await
        .unwrap();
    assert!(found == content);
    assert_eq!(registry.times("content Some"), 2);
}

#[tokio::test]
async fn a_layer_that_is_another_is_refused() {
    let place = Place::new();
    let manners = Manners {
        lies: true,
        ..Manners::default()
    };
    let registry = Registry::start(&Fixture::new("disk"), manners).await;
    let error = place
        .resolve(&registry.reference(), PullPolicy::Always)
        .await
        .unwrap_err();
    assert!(error.contains("something else than sha256:"), "{error}");
    assert_eq!((place.left(), place.images.list().unwrap().len()), (0, 0));
}

#[tokio::test]
async fn logins_are_shown_to_those_who_ask() {
    let place = Place::new();
    let manners = Manners {
        wants_login: true,
        ..Manners::default()
    };
    let registry = Registry::start(&Fixture::new("secret disk"), manners).await;
    let reference = registry.reference();
    let pull = async |secrets: &[PullSecret]| {
        let request = ImageRequest {
            reference: &reference,
            pull: PullPolicy::Always,
            secrets,
        };
        place
            .images
            .resolve(request)
            .await
            .map_err(|error| error.to_string())
    };
    for wrong in [
        Vec::new(),
        secrets("you", &registry.address),
        secrets("me", "other.io"),
    ] {
        let error = pull(&wrong).await.unwrap_err();
        assert!(error.contains("imagePullSecrets"), "{error}");
    }
    // The right one after a wrong one.
    let mut both = secrets("you", &registry.address);
    both.extend(secrets("me", &registry.address));
    pull(&both).await.unwrap();
    let other = Place::new();
    let keyring = Keyring::of_user("me:secret").unwrap();
    let pulled = other
        .images
        .pull(&reference, &keyring, &silent())
        .await
        .unwrap();
    assert_eq!(pulled.references, [reference.as_str()]);
    assert_eq!(
        pulled.created,
        Some("2026-01-02T03:04:05Z".parse().unwrap())
    );
}

#[tokio::test]
async fn a_registry_that_is_not_there_is_told() {
    let place = Place::new();
    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let error = place
        .resolve(&format!("{closed}/a/b"), PullPolicy::IfNotPresent)
        .await
        .unwrap_err();
    assert!(
        error.contains("cannot reach") && error.contains("refused"),
        "{error}"
    );
}
