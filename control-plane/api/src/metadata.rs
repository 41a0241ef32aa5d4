//! What every object carries: kind, version, name (`metav1.TypeMeta`, `metav1.ObjectMeta`).

use std::collections::BTreeMap;

use serde_json::Value;

use crate::object::object;

object! {
    /// `metadata` of an object.
    pub struct ObjectMeta {
        /// Name, unique in its namespace.
        pub name: String,
        /// Prefix from which the API server makes a name.
        pub generate_name: String,
        /// Namespace; empty means `default`.
        pub namespace: String,
        /// Identity over the object's life.
        pub uid: String,
        /// Version for optimistic concurrency.
        pub resource_version: String,
        /// Counts changes of the specification.
        pub generation: Option<i64>,
        /// Creation time (RFC 3339).
        pub creation_timestamp: Option<String>,
        /// When deletion was asked for (RFC 3339).
        pub deletion_timestamp: Option<String>,
        /// Seconds granted to a deletion.
        pub deletion_grace_period_seconds: Option<i64>,
        /// Labels.
        pub labels: BTreeMap<String, String>,
        /// Annotations.
        pub annotations: BTreeMap<String, String>,
        /// Who must act before the object goes.
        pub finalizers: Vec<String>,
        /// Owners, without which the object goes.
        pub owner_references: Vec<OwnerReference>,
        /// Field ownership of server-side apply (untyped).
        pub managed_fields: Vec<Value>,
        /// Address of the object, no longer set by API servers.
        pub self_link: String,
    }

    /// An owner of an object.
    pub struct OwnerReference {
        /// Group and version.
        pub api_version: String,
        /// Kind.
        pub kind: String,
        /// Name.
        pub name: String,
        /// Identity.
        pub uid: String,
        /// Whether it is the one that looks after the object.
        pub controller: Option<bool>,
        /// Whether it waits for the object's end before it goes itself.
        pub block_owner_deletion: Option<bool>,
    }

    /// A reference to an object of the same namespace by name.
    pub struct LocalObjectReference {
        /// Name of the object.
        pub name: String,
    }
}

impl ObjectMeta {
    /// Returns the owner that looks after the object.
    pub fn controller(&self) -> Option<&OwnerReference> {
        self.owner_references
            .iter()
            .find(|owner| owner.controller == Some(true))
    }

    /// Whether deletion was asked for.
    pub fn is_deleting(&self) -> bool {
        self.deletion_timestamp.is_some()
    }

    /// Returns the namespace, `default` when none is given.
    pub fn namespace_or_default(&self) -> &str {
        if self.namespace.is_empty() {
            "default"
        } else {
            &self.namespace
        }
    }
}
