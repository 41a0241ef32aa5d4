//! What is done with objects.
//!
//! ```text
//!   create ┐                            ┌ metadata, status apart
//!   update ┤                            ├ prune, default        admission
//!   patch  ┼─▶ pipeline: read, change ─▶┤ generation      ────▶ validate ──▶ write if unchanged meanwhile, else again
//!   scale  ┤                            └ managed fields
//!   delete ┘
//! ```

mod body;
mod delete;
mod metadata;
mod pipeline;
mod pods;
mod read;
mod scale;
mod watching;
mod write;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::body::{Body, Bytes};
use http::{HeaderMap, Response, StatusCode};
use serde_json::Value;

pub(crate) use self::body::{BODY_MAX_BYTES, Budget};

use crate::access::User;
use crate::answer::{self, Accept, Warnings};
use crate::catalog::{Resource, Version};
use crate::failure::{About, Failure};
use crate::request::{Query, Target, Verb};
use crate::server::ApiServer;
use crate::store::{Key, StoreError, Stored};

/// A request about a resource that there is, by somebody who may ask it.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) server: ApiServer,
    pub(crate) user: User,
    pub(crate) target: Target,
    pub(crate) verb: Verb,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) accept: Accept,
    pub(crate) resource: Arc<Resource>,
    /// Place of the version that was asked for among those of the resource.
    pub(crate) version: usize,
    pub(crate) store_name: Arc<str>,
    pub(crate) warnings: Warnings,
}

impl Call {
    pub(crate) fn version(&self) -> &Version {
        &self.resource.versions[self.version]
    }

    pub(crate) fn kind(&self) -> (&Resource, &Version) {
        (&self.resource, self.version())
    }

    /// Namespace of the request; nothing when it is about all of them.
    pub(crate) fn namespace(&self) -> Option<&str> {
        let is_scoped = self.resource.is_namespaced && !self.target.namespace.is_empty();
        is_scoped.then_some(self.target.namespace.as_str())
    }

    pub(crate) fn key(&self, name: &str) -> Key {
        Key {
            resource: Arc::clone(&self.store_name),
            namespace: self.namespace().unwrap_or_default().to_owned(),
            name: name.to_owned(),
        }
    }

    pub(crate) fn find(&self, name: &str) -> Option<Arc<Stored>> {
        let namespace = self.namespace().unwrap_or_default();
        self.server.store().get(&self.store_name, namespace, name)
    }

    /// The object that the request names.
    pub(crate) fn existing(&self, name: &str) -> Result<Arc<Stored>, Failure> {
        self.find(name)
            .ok_or_else(|| Failure::not_found(self.about(name)))
    }

    /// An object's JSON in the version that was asked for.
    pub(crate) fn show(&self, object: &Stored) -> Bytes {
        answer::in_version(&object.json, &self.target.api_version())
    }

    /// An object in the version that was asked for.
    pub(crate) fn value(&self, object: &Stored) -> Value {
        let mut value = object.value();
        value["apiVersion"] = self.target.api_version().into();
        value
    }

    pub(crate) fn answer(&self, status: StatusCode, object: &Stored) -> Response<Body> {
        answer::object(status, &self.accept, self.kind(), self.show(object))
    }

    /// What failures say that they are about: the resource.
    pub(crate) fn about(&self, name: &str) -> About {
        About {
            group: self.resource.group.clone(),
            kind: self.resource.plural.clone(),
            name: name.to_owned(),
            uid: String::new(),
        }
    }

    /// What failures about fields say that they are about: the kind.
    pub(crate) fn about_kind(&self, name: &str) -> About {
        About {
            kind: self.resource.kind.clone(),
            ..self.about(name)
        }
    }

    pub(crate) fn conflict(&self, name: &str) -> Failure {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Failure::conflict(self.about(name), why)
    }

    /// Whether nothing is to be written.
    pub(crate) fn is_dry_run(&self) -> Result<bool, Failure> {
        let mut wanted = self.query.all("dryRun").filter(|it| !it.is_empty());
        match (wanted.next(), wanted.next()) {
            (None, _) => Ok(false),
            (Some("All"), None) => Ok(true),
            (Some(other), _) => Err(Failure::bad_request(format!(
                "dryRun: Unsupported value: {other:?}: the only supported value is \"All\""
            ))),
        }
    }

    /// Who owns the fields that this request writes.
    pub(crate) fn manager(&self) -> &str {
        let agent = || {
            let agent = self.headers.get(http::header::USER_AGENT)?.to_str().ok()?;
            agent.split('/').next()
        };
        self.query
            .get("fieldManager")
            .or_else(agent)
            .unwrap_or("unknown")
    }
}

/// Answers a request about a resource.
pub(crate) async fn answer(call: Call, body: Body) -> Result<Response<Body>, Failure> {
    if let Some(deprecation) = &call.version().deprecation {
        call.warnings.add(deprecation.clone());
    }
    if matches!(call.verb, Verb::Watch) {
        return watching::watch(call);
    }
    let answered = match call.target.subresource.as_str() {
        "" => on_object(&call, body).await,
        _ => on_part(&call, body).await,
    };
    let mut response = answered.unwrap_or_else(|failure| answer::failure(&failure));
    call.warnings.put(&mut response);
    Ok(response)
}

async fn on_object(call: &Call, body: Body) -> Result<Response<Body>, Failure> {
    if !call.resource.is_stored() {
        return pods::review(call, body).await;
    }
    let name = call.target.name.as_str();
    match call.verb {
        Verb::Get => read::get(call, name),
        Verb::List | Verb::Watch => read::list(call),
        Verb::Create if name.is_empty() => write::create(call, body).await,
        Verb::Create => Err(not_allowed()),
        Verb::Update | Verb::Patch if name.is_empty() => Err(not_allowed()),
        Verb::Update => write::update(call, body).await,
        Verb::Patch => write::patch(call, body).await,
        Verb::Delete => delete::delete(call, body).await,
        Verb::DeleteCollection => delete::delete_collection(call, body).await,
    }
}

async fn on_part(call: &Call, body: Body) -> Result<Response<Body>, Failure> {
    let version = call.version();
    match (call.target.subresource.as_str(), call.verb) {
        ("status", Verb::Get) if version.has_status => read::get(call, &call.target.name),
        ("status", Verb::Update) if version.has_status => write::update(call, body).await,
        ("status", Verb::Patch) if version.has_status => write::patch(call, body).await,
        ("scale", _) if version.scale.is_some() => scale::answer(call, body).await,
        _ => pods::answer(call, body).await,
    }
}

/// 405: there is no such verb here.
pub(crate) fn not_allowed() -> Failure {
    Failure::new(
        405,
        "MethodNotAllowed",
        "the server does not allow this method on the requested resource",
    )
}

/// 404: there is no such path.
pub(crate) fn no_such_path() -> Failure {
    let message = "the server could not find the requested resource";
    Failure::new(404, "NotFound", message).about(About::default())
}

/// Turns what the store says into an answer.
pub(crate) fn refused(error: &StoreError) -> Failure {
    match error {
        StoreError::Expired { asked, oldest } => Failure::new(
            410,
            "Expired",
            format!("too old resource version: {asked} ({oldest})"),
        ),
        StoreError::TooLarge(_) => Failure::new(
            413,
            "RequestEntityTooLarge",
            format!("Request entity too large: {error}"),
        ),
        StoreError::Closed => Failure::new(
            503,
            "ServiceUnavailable",
            "the server is ending; try again later",
        ),
        other => Failure::new(
            500,
            "InternalError",
            format!("Internal error occurred: {other}"),
        ),
    }
}
