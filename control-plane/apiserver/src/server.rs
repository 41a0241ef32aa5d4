//! The server: what all requests share, and the way of a request from its path to its answer.

mod listener;
mod metrics;
mod node;
mod paths;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::body::Body;
use http::{Request, Response};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

pub use self::listener::Security;
pub use self::node::NODE;

use self::metrics::Metrics;
use crate::access::authorizer::Authorizer;
use crate::access::tokens::Tokens;
use crate::access::{Attributes, User, impersonation};
use crate::admission::Admission;
use crate::answer::{self, Accept, Warnings};
use crate::catalog::{self, Catalog, Registry, Resource};
use crate::definitions::Definitions;
use crate::failure::Failure;
use crate::proxy::{self, LocalServices};
use crate::request::{Query, Target, Verb};
use crate::selector;
use crate::store::{Limits, Store, StoreError};
use crate::verbs::{self, Budget, Call};

/// What a server needs.
#[derive(Debug)]
pub struct Options {
    /// Directory of the database; made when it is missing.
    pub directory: PathBuf,
    /// Bounds of the history in memory.
    pub limits: Limits,
    /// Kinds that are there from the start.
    pub catalog: Catalog,
    /// Secret that signs service accounts' tokens.
    pub token_secret: Vec<u8>,
    /// Services of this process that answer for aggregated APIs, webhooks and pods.
    pub services: LocalServices,
    /// Ends watches and connections.
    pub stop: CancellationToken,
}

impl Options {
    /// Returns options with the built-in kinds and without services.
    #[must_use]
    pub fn new(directory: &Path, token_secret: Vec<u8>) -> Self {
        Self {
            directory: directory.to_owned(),
            limits: Limits::default(),
            catalog: catalog::built_in(),
            token_secret,
            services: LocalServices::default(),
            stop: CancellationToken::new(),
        }
    }
}

/// The API server; clones are the same.
#[derive(Clone, Debug)]
pub struct ApiServer {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    store: Store,
    registry: Registry,
    definitions: Definitions,
    authorizer: Authorizer,
    admission: Admission,
    services: LocalServices,
    metrics: Metrics,
    bodies: Budget,
    stop: CancellationToken,
}

impl ApiServer {
    /// Opens the store and returns a server on it. Blocks while objects are read.
    ///
    /// # Errors
    ///
    /// When the store cannot be opened.
    pub fn open(options: Options) -> Result<Self, StoreError> {
        let store = Store::open(&options.directory, options.limits)?;
        let shared = Shared {
            registry: Registry::default(),
            definitions: Definitions::new(options.catalog),
            authorizer: Authorizer::new(store.clone(), Tokens::new(options.token_secret)),
            admission: Admission::new(store.clone(), options.services.clone()),
            services: options.services,
            metrics: Metrics::default(),
            bodies: Budget::default(),
            stop: options.stop,
            store,
        };
        Ok(Self {
            shared: Arc::new(shared),
        })
    }

    /// Returns the store.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// Returns the kinds that there are.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        self.shared
            .definitions
            .refresh(&self.shared.store, &self.shared.registry);
        &self.shared.registry
    }

    /// Returns who decides about access.
    #[must_use]
    pub fn authorizer(&self) -> &Authorizer {
        &self.shared.authorizer
    }

    /// Returns the services of this process.
    #[must_use]
    pub fn services(&self) -> &LocalServices {
        &self.shared.services
    }

    /// Returns what ends the server.
    #[must_use]
    pub fn stop(&self) -> &CancellationToken {
        &self.shared.stop
    }

    pub(crate) fn admission(&self) -> &Admission {
        &self.shared.admission
    }

    pub(crate) fn bodies(&self) -> &Budget {
        &self.shared.bodies
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Answers a request. Who asks is the request's extension [`User`], without one it is anonymous, or whom that user may
    /// act as and does.
    pub async fn call(&self, mut request: Request<Body>) -> Response<Body> {
        let user = request.extensions().get::<User>().cloned();
        let sender = user.unwrap_or_else(User::anonymous);
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let who = sender.name.clone();
        let answered = match impersonation::act_as(self.authorizer(), sender, request.headers_mut())
        {
            Ok(user) => Box::pin(self.route(request, user)).await,
            Err(failure) => Err(failure),
        };
        let response = answered.unwrap_or_else(|failure| answer::failure(&failure));
        self.metrics().count(&method, response.status());
        tracing::debug!(%method, path, user = who, status = response.status().as_u16(), "answered");
        response
    }

    async fn route(&self, request: Request<Body>, user: User) -> Result<Response<Body>, Failure> {
        let Some(target) = Target::parse(request.uri().path())? else {
            self.authorize_path(&request, &user)?;
            return paths::answer(self, request, &user).await;
        };
        let query = Query::parse(request.uri().query().unwrap_or_default())?;
        let verb = target
            .verb(request.method(), &query)
            .ok_or_else(verbs::not_allowed)?;
        self.authorizer()
            .authorize(&user, &attributes(&target, verb, &query))?;
        let Some((resource, version)) = self.kind(&target) else {
            return self.aggregate(&target, &user, request).await;
        };
        if node::is_its_matter(&target) {
            return node::answer(self, &target, request).await;
        }
        let (parts, body) = request.into_parts();
        let call = Call {
            accept: Accept::of(&parts.headers, &query)?,
            server: self.clone(),
            user,
            verb,
            query,
            headers: parts.headers,
            store_name: resource.store_name().into(),
            resource,
            version,
            target,
            warnings: Warnings::default(),
        };
        verbs::answer(call, body).await
    }

    fn authorize_path(&self, request: &Request<Body>, user: &User) -> Result<(), Failure> {
        let wanted = Attributes {
            verb: request.method().as_str().to_ascii_lowercase(),
            path: request.uri().path().to_owned(),
            ..Attributes::default()
        };
        self.authorizer().authorize(user, &wanted)
    }

    fn kind(&self, target: &Target) -> Option<(Arc<Resource>, usize)> {
        let catalog = self.registry().catalog();
        let resource = catalog.get(&target.group, &target.resource)?;
        let is_asked = |it: &catalog::Version| it.is_served && it.name == target.version;
        let version = resource.versions.iter().position(is_asked)?;
        Some((Arc::clone(resource), version))
    }

    async fn aggregate(
        &self,
        target: &Target,
        user: &User,
        request: Request<Body>,
    ) -> Result<Response<Body>, Failure> {
        let apis = proxy::api_services(self.store());
        let api = apis
            .iter()
            .find(|it| it.group == target.group && it.version == target.version);
        let api = api.ok_or_else(verbs::no_such_path)?;
        proxy::aggregate(self.services(), api, user, request).await
    }

    /// Returns who asks by the token of a request.
    fn authenticate(&self, request: &Request<Body>) -> Result<User, Failure> {
        self.authorizer()
            .authenticate(request.headers(), Timestamp::now())
    }
}

fn attributes(target: &Target, verb: Verb, query: &Query) -> Attributes {
    // A list of one name is a matter of that name; nothing else may be named by a selector, which it does not obey.
    let name = match verb {
        Verb::List | Verb::Watch => selector::only_name(query).unwrap_or_default(),
        Verb::Get
        | Verb::Create
        | Verb::Update
        | Verb::Patch
        | Verb::Delete
        | Verb::DeleteCollection => target.name.clone(),
    };
    Attributes {
        verb: verb.name().to_owned(),
        group: target.group.clone(),
        version: target.version.clone(),
        resource: target.resource.clone(),
        subresource: target.subresource.clone(),
        namespace: target.namespace.clone(),
        name,
        path: String::new(),
    }
}
