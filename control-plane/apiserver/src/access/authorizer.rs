//! Decides with the roles and bindings of the store, and finds out who asks.

use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use jiff::Timestamp;

use super::rbac::Rbac;
use super::tokens::Tokens;
use super::{Attributes, MASTERS, User};
use crate::failure::{About, Failure};
use crate::store::{Derived, Store};

/// What decides: cluster roles, roles, and the bindings of each.
const RULES: [&str; 4] = [
    "clusterroles.rbac.authorization.k8s.io",
    "roles.rbac.authorization.k8s.io",
    "clusterrolebindings.rbac.authorization.k8s.io",
    "rolebindings.rbac.authorization.k8s.io",
];
/// Paths that everybody may read, as clients ask them before they know who they are.
const PUBLIC: [&str; 4] = ["/healthz", "/livez", "/readyz", "/version"];
/// Paths that everybody who proved who they are may read.
const DISCOVERY: [&str; 3] = ["/api", "/apis", "/openapi"];

/// Decides with the roles and bindings of a store.
#[derive(Debug)]
pub struct Authorizer {
    store: Store,
    tokens: Tokens,
    rbac: Derived<Rbac, 4>,
}

impl Authorizer {
    /// Returns an authorizer that decides with what the store has.
    #[must_use]
    pub fn new(store: Store, tokens: Tokens) -> Self {
        Self {
            store,
            tokens,
            rbac: Derived::new(RULES),
        }
    }

    /// Signer of service accounts' tokens.
    #[must_use]
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// Returns who asks by the token of a request; anonymous without one. Certificates are the listener's matter.
    ///
    /// # Errors
    ///
    /// 401 when the token is not valid, or its service account is gone.
    pub fn authenticate(&self, headers: &HeaderMap, now: Timestamp) -> Result<User, Failure> {
        let Some(header) = headers.get(AUTHORIZATION) else {
            return Ok(User::anonymous());
        };
        let denied = || Failure::new(401, "Unauthorized", "Unauthorized");
        let header = header.to_str().map_err(|_| denied())?;
        let token = header.strip_prefix("Bearer ").ok_or_else(denied)?;
        let claims = self.tokens.check(token.trim(), now).ok_or_else(denied)?;
        let account = self
            .store
            .get("serviceaccounts", &claims.namespace, &claims.name);
        let account = account.filter(|it| it.uid == claims.uid && !it.is_deleting);
        account.map(|_| claims.user()).ok_or_else(denied)
    }

    /// Decides whether a user may do something.
    ///
    /// # Errors
    ///
    /// 403 that names who may not do what.
    pub fn authorize(&self, user: &User, wanted: &Attributes) -> Result<(), Failure> {
        if user.is_in(MASTERS) || is_public(user, wanted) || self.rbac().allows(user, wanted) {
            return Ok(());
        }
        Err(forbidden(user, wanted))
    }

    /// Returns the roles and bindings in force.
    #[must_use]
    pub fn rbac(&self) -> Arc<Rbac> {
        self.rbac.get(
            &self.store,
            |[cluster_roles, roles, cluster_bindings, bindings]| {
                let roles: Vec<_> = cluster_roles.iter().chain(&roles).collect();
                let bindings: Vec<_> = cluster_bindings.iter().chain(&bindings).collect();
                Rbac::new(&roles, &bindings)
            },
        )
    }
}

fn is_public(user: &User, wanted: &Attributes) -> bool {
    let below = |paths: &[&str]| {
        paths.iter().any(|it| {
            wanted
                .path
                .strip_prefix(it)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    };
    let is_reading = matches!(wanted.verb.as_str(), "get" | "head");
    let asks_itself = wanted.verb == "create"
        && matches!(
            wanted.resource.as_str(),
            "selfsubjectreviews" | "selfsubjectaccessreviews" | "selfsubjectrulesreviews"
        );
    let is_known = user.is_in(super::AUTHENTICATED);
    (is_reading && (below(&PUBLIC) || is_known && below(&DISCOVERY))) || (asks_itself && is_known)
}

fn forbidden(user: &User, wanted: &Attributes) -> Failure {
    let who = &user.name;
    if !wanted.path.is_empty() {
        let (verb, path) = (&wanted.verb, &wanted.path);
        let message = format!("forbidden: User \"{who}\" cannot {verb} path \"{path}\"");
        return Failure::new(403, "Forbidden", message);
    }
    let about = About {
        group: wanted.group.clone(),
        kind: wanted.resource.clone(),
        name: wanted.name.clone(),
        uid: String::new(),
    };
    let scope = if wanted.namespace.is_empty() {
        "at the cluster scope".to_owned()
    } else {
        format!("in the namespace \"{}\"", wanted.namespace)
    };
    let (verb, resource, group) = (&wanted.verb, wanted.full_resource(), &wanted.group);
    let full = if group.is_empty() {
        resource.clone()
    } else {
        format!("{resource}.{group}")
    };
    let name = if wanted.name.is_empty() {
        String::new()
    } else {
        format!(" \"{}\"", wanted.name)
    };
    let message = format!(
        "{full}{name} is forbidden: User \"{who}\" cannot {verb} resource \"{resource}\" in API group \"{group}\" {scope}"
    );
    Failure::new(403, "Forbidden", message).about(about)
}
