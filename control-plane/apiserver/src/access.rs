//! Who asks, and what they may: users, their proofs, and role-based access control (RBAC).

pub mod authorizer;
pub mod impersonation;
pub mod rbac;
pub mod reviews;
pub mod tokens;
mod x509;

use std::collections::BTreeMap;

pub use self::x509::{CertificateError, user_of_certificate};

/// Group that may do everything.
pub const MASTERS: &str = "system:masters";
/// Group of everybody who proved who they are.
pub const AUTHENTICATED: &str = "system:authenticated";
/// Group of those who did not.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
/// Group of all service accounts.
pub const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";

/// Somebody who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// Name, `system:serviceaccount:default:builder`.
    pub name: String,
    /// Identity that outlasts the name, empty where there is none.
    pub uid: String,
    /// Groups.
    pub groups: Vec<String>,
    /// What else the proof says.
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// Returns somebody who may do everything: a part of this process.
    #[must_use]
    pub fn master(name: &str) -> Self {
        Self::authenticated(name, vec![MASTERS.to_owned()])
    }

    /// Returns somebody who proved who they are.
    #[must_use]
    pub fn authenticated(name: &str, mut groups: Vec<String>) -> Self {
        groups.push(AUTHENTICATED.to_owned());
        Self {
            name: name.to_owned(),
            groups,
            ..Self::default()
        }
    }

    /// Returns a service account.
    #[must_use]
    pub fn service_account(namespace: &str, name: &str, uid: &str) -> Self {
        let groups = vec![
            SERVICE_ACCOUNTS.to_owned(),
            format!("{SERVICE_ACCOUNTS}:{namespace}"),
        ];
        let user =
            Self::authenticated(&format!("system:serviceaccount:{namespace}:{name}"), groups);
        Self {
            uid: uid.to_owned(),
            ..user
        }
    }

    /// Returns somebody who proved nothing.
    #[must_use]
    pub fn anonymous() -> Self {
        Self {
            name: "system:anonymous".to_owned(),
            groups: vec![UNAUTHENTICATED.to_owned()],
            ..Self::default()
        }
    }

    /// Whether the user is in a group.
    #[must_use]
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|it| it == group)
    }
}

/// What somebody wants to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; for paths the method, in lower
    /// case.
    pub verb: String,
    /// API group, empty for the core group.
    pub group: String,
    /// Version of the group.
    pub version: String,
    /// Resource, empty for requests of a path.
    pub resource: String,
    /// Part of the object, `status`.
    pub subresource: String,
    /// Namespace, empty for what is in none and for all.
    pub namespace: String,
    /// Name of the object, empty for collections.
    pub name: String,
    /// Path of a request that is about no resource, `/healthz`.
    pub path: String,
}

impl Attributes {
    /// Returns the resource as rules name it: `pods`, `pods/log`.
    #[must_use]
    pub fn full_resource(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.clone()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }
}

#[cfg(test)]
mod tests;
