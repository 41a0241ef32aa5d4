//! An object as it is kept: compact JSON, and beside it what selectors and the collector ask often.

use std::collections::BTreeMap;

use axum::body::Bytes;
use serde::Deserialize;
use serde_json::Value;

/// An object of the store.
#[derive(Debug)]
pub struct Stored {
    /// Compact JSON, fields sorted by name.
    pub json: Bytes,
    /// `metadata.resourceVersion`.
    pub revision: u64,
    /// `metadata.namespace`, empty for objects outside of namespaces.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `metadata.ownerReferences`.
    pub owners: Vec<Owner>,
    /// Whether `metadata.deletionTimestamp` is set.
    pub is_deleting: bool,
}

/// An owner of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Owner {
    /// Group and version.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Identity.
    pub uid: String,
    /// Whether it is the controller.
    pub controller: bool,
    /// Whether it waits for the object's end when it is deleted in the foreground.
    pub block_owner_deletion: bool,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Head {
    metadata: Metadata,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    namespace: Option<String>,
    name: String,
    uid: Option<String>,
    resource_version: String,
    labels: Option<BTreeMap<String, String>>,
    owner_references: Option<Vec<Owner>>,
    deletion_timestamp: Option<String>,
}

impl Stored {
    /// Reads what is asked often from JSON that the store wrote.
    pub(crate) fn read(json: Bytes) -> Result<Self, serde_json::Error> {
        let Head { metadata } = serde_json::from_slice(&json)?;
        Ok(Self {
            json,
            revision: metadata.resource_version.parse().unwrap_or(0),
            namespace: metadata.namespace.unwrap_or_default(),
            name: metadata.name,
            uid: metadata.uid.unwrap_or_default(),
            labels: metadata.labels.unwrap_or_default(),
            owners: metadata.owner_references.unwrap_or_default(),
            is_deleting: metadata.deletion_timestamp.is_some(),
        })
    }

    /// Makes the object of a revision.
    pub(crate) fn write(mut object: Value, revision: u64) -> Result<Self, serde_json::Error> {
        object["metadata"]["resourceVersion"] = Value::String(revision.to_string());
        Self::read(serde_json::to_vec(&object)?.into())
    }

    /// Returns the object as a value.
    ///
    /// # Panics
    ///
    /// Never: the JSON was written by the store.
    #[must_use]
    pub fn value(&self) -> Value {
        serde_json::from_slice(&self.json).expect("the store holds JSON that it wrote")
    }
}
