//! What answers depend on beside the reviewed object.

use api::kubevirt::Configuration;
use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

use super::path;

/// What is known of the cluster.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// Namespace of the installation, whose service accounts may change instances.
    pub namespace: String,
    /// `spec.configuration` of the `KubeVirt` resource.
    pub configuration: Configuration,
    /// The time.
    pub now: Timestamp,
    /// Numbers that nobody else has, for a machine's system UUID and serial number.
    pub fresh_ids: [Uuid; 2],
    /// Objects that this answer depends on.
    pub facts: Facts,
}

/// Objects that an answer depends on.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Presets of the namespace.
    pub presets: Vec<Value>,
    /// The pod that is to be evicted.
    pub pod: Option<Value>,
    /// The pod that owns it.
    pub owner: Option<Value>,
    /// The instance of the pod or of the migration.
    pub instance: Option<Value>,
    /// Migrations of the instance.
    pub migrations: Vec<Value>,
    /// How many installations there are.
    pub installations: usize,
    /// Kinds of machines of which there are any.
    pub workloads: Vec<&'static str>,
}

/// Objects to be read for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequiredFacts {
    /// None.
    Nothing,
    /// The presets of the request's namespace.
    Presets,
    /// The instance that `spec.vmiName` names, and its migrations.
    Migration,
    /// The instance of the request's name.
    Instance,
    /// The number of installations.
    Installations,
    /// Kinds of machines of which there are any.
    Workloads,
    /// The pod that the request names; its owner, if it is a plugged volume's; and the instance of either.
    Eviction,
}

/// Returns what is to be read for an answer.
#[must_use]
pub fn required_facts(at: &str, review: &Value) -> RequiredFacts {
    let is_new = review["request"]["operation"] == "CREATE";
    match at {
        path::INSTANCE_MUTATE if is_new => RequiredFacts::Presets,
        path::MIGRATION_CREATE_VALIDATE => RequiredFacts::Migration,
        path::EVICTION_VALIDATE => RequiredFacts::Eviction,
        path::STATUS_VALIDATE if has_volume_requests(review) => RequiredFacts::Instance,
        path::INSTALLATION_CREATE_VALIDATE => RequiredFacts::Installations,
        path::INSTALLATION_DELETE_VALIDATE => RequiredFacts::Workloads,
        _ => RequiredFacts::Nothing,
    }
}

/// Whether volumes are to be plugged or unplugged, which depends on those that are there.
fn has_volume_requests(review: &Value) -> bool {
    let requests = review.pointer("/request/object/status/volumeRequests");
    requests
        .and_then(Value::as_array)
        .is_some_and(|requests| !requests.is_empty())
}
