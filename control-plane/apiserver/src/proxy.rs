//! Parts of the node that answer requests themselves: aggregated APIs, webhooks in this process, the pods' side.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use axum::body::Body;
use futures::future::BoxFuture;
use http::{HeaderName, HeaderValue, Request, Response};
use serde_json::Value;

use crate::access::User;
use crate::failure::Failure;
use crate::store::Store;

/// Something in this process that answers requests. Upgrades (WebSockets) go through it untouched.
pub type LocalService =
    Arc<dyn Fn(Request<Body>) -> BoxFuture<'static, Response<Body>> + Send + Sync>;

/// Headers that say who asks; a client's own are never passed on.
const REMOTE: &str = "x-remote-";
/// Extra facts about a user that are passed on.
const EXTRA_MAX: usize = 32;

/// Services of this process, by namespace and name: what an `APIService` or a webhook's `clientConfig.service` names.
#[derive(Clone, Default)]
pub struct LocalServices {
    services: Arc<RwLock<BTreeMap<(String, String), LocalService>>>,
}

impl LocalServices {
    /// Adds a service, or replaces it.
    pub fn insert(&self, namespace: &str, name: &str, service: LocalService) {
        let mut services = self
            .services
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        services.insert((namespace.to_owned(), name.to_owned()), service);
    }

    /// Returns a service.
    #[must_use]
    pub fn get(&self, namespace: &str, name: &str) -> Option<LocalService> {
        let services = self.services.read().unwrap_or_else(PoisonError::into_inner);
        services
            .get(&(namespace.to_owned(), name.to_owned()))
            .cloned()
    }
}

impl std::fmt::Debug for LocalServices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalServices").finish_non_exhaustive()
    }
}

/// An aggregated API (`apiregistration.k8s.io/v1` `APIService` with a service).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiService {
    /// API group.
    pub group: String,
    /// Version.
    pub version: String,
    /// Namespace of the service.
    pub namespace: String,
    /// Name of the service.
    pub name: String,
    /// Groups with a higher one are preferred.
    pub group_priority: i64,
    /// Versions with a higher one are preferred.
    pub version_priority: i64,
}

/// Returns the aggregated APIs that the store has.
#[must_use]
pub fn api_services(store: &Store) -> Vec<ApiService> {
    let stored = store
        .list("apiservices.apiregistration.k8s.io", None)
        .objects;
    let values = stored
        .iter()
        .filter_map(|it| serde_json::from_slice::<Value>(&it.json).ok());
    values.filter_map(|it| api_service(&it)).collect()
}

fn api_service(object: &Value) -> Option<ApiService> {
    let spec = &object["spec"];
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Some(ApiService {
        group: text(&spec["group"])?,
        version: text(&spec["version"])?,
        namespace: text(&spec["service"]["namespace"])?,
        name: text(&spec["service"]["name"])?,
        group_priority: spec["groupPriorityMinimum"].as_i64().unwrap_or(1000),
        version_priority: spec["versionPriority"].as_i64().unwrap_or(15),
    })
}

/// Hands a request on to the aggregated API that it is about, with headers that say who asks.
///
/// # Errors
///
/// 503 when the API's service is not in this process.
pub async fn aggregate(
    services: &LocalServices,
    api: &ApiService,
    user: &User,
    mut request: Request<Body>,
) -> Result<Response<Body>, Failure> {
    let Some(service) = services.get(&api.namespace, &api.name) else {
        let (group, version) = (&api.group, &api.version);
        let message = format!(
            "the API {group}/{version} is served by the service {}/{}, which does not run on this node",
            api.namespace, api.name
        );
        return Err(Failure::new(503, "ServiceUnavailable", message));
    };
    say_who(&mut request, user);
    Ok(service(request).await)
}

/// Replaces the headers that say who asks.
pub fn say_who(request: &mut Request<Body>, user: &User) {
    let headers = request.headers_mut();
    let claimed: Vec<_> = headers
        .keys()
        .filter(|it| it.as_str().starts_with(REMOTE))
        .cloned()
        .collect();
    for name in claimed {
        headers.remove(name);
    }
    headers.remove(http::header::AUTHORIZATION);
    let mut add = |name: &str, value: &str| {
        let name = HeaderName::try_from(name);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) {
            headers.append(name, value);
        }
    };
    add("x-remote-user", &user.name);
    if !user.uid.is_empty() {
        add("x-remote-uid", &user.uid);
    }
    for group in &user.groups {
        add("x-remote-group", group);
    }
    for (key, values) in user.extra.iter().take(EXTRA_MAX) {
        let key = key.to_ascii_lowercase().replace('/', "%2f");
        for value in values {
            add(&format!("x-remote-extra-{key}"), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::Request;

    use super::say_who;
    use crate::access::User;

    #[test]
    fn who_asks_is_said_by_us_alone() {
        let request = Request::builder()
            .header("X-Remote-User", "mallory")
            .header("X-Remote-Extra-Scopes", "all")
            .header("Authorization", "Bearer x")
            .body(Body::empty());
        let mut request = request.unwrap();
        let mut user = User::master("admin");
        user.extra
            .insert("example.org/Scope".to_owned(), vec!["a".to_owned()]);
        say_who(&mut request, &user);
        let headers = request.headers();
        let all = |name: &str| headers.get_all(name).iter().collect::<Vec<_>>();
        assert_eq!(all("x-remote-user"), ["admin"]);
        assert_eq!(
            all("x-remote-group"),
            ["system:masters", "system:authenticated"]
        );
        assert_eq!(all("x-remote-extra-example.org%2fscope"), ["a"]);
        assert!(all("x-remote-extra-scopes").is_empty());
        assert!(all("authorization").is_empty());
    }
}
