//! Whether a cluster takes an object in: creation and changes of every kind, by whom, under which
//! configuration. Everything is decided from what is passed in.
//!
//! The rules are upstream's (the validating webhooks of virt-api and virt-operator), on top of what the
//! machine itself can do ([`validate`](crate::validate)). Each refusal names the field and the cure.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::components::{service_account, service_account_user};
use crate::features;
use crate::field::{FieldError, FieldPath};
use crate::kubevirt::Configuration;
use crate::vmi::Vmi;

mod devices;
pub mod eviction;
mod kubevirt;
mod migration;
mod networks;
mod placement;
mod processors;
mod security;
mod spec;
mod storage;
mod template;
mod vm;
mod vmi;
mod volumes;

pub use kubevirt::{create_kubevirt, delete_kubevirt, update_kubevirt};
pub use migration::{create_migration, update_migration};
pub use template::{create_preset, create_replica_set, update_preset, update_replica_set};
pub use vm::{create_vm, update_vm, update_vm_status};
pub use vmi::{create_vmi, keep_status, update_vmi};

/// What is said to a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Why it is refused; it is granted when there are none.
    pub errors: Vec<FieldError>,
    /// What its sender should know in either case.
    pub warnings: Vec<String>,
}

impl Verdict {
    /// Whether the request is granted.
    pub fn is_granted(&self) -> bool {
        self.errors.is_empty()
    }

    fn refused(error: FieldError) -> Self {
        Self::from(vec![error])
    }
}

impl From<Vec<FieldError>> for Verdict {
    fn from(errors: Vec<FieldError>) -> Self {
        Self {
            errors,
            warnings: Vec::new(),
        }
    }
}

/// Who asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Requester<'a> {
    /// User name as the API server tells it.
    pub user: &'a str,
    /// Node that the user's token is bound to (`authentication.kubernetes.io/node-name`).
    pub node: Option<&'a str>,
}

/// What decisions depend on beside the objects.
#[derive(Clone, Copy, Debug)]
pub struct Cluster<'a> {
    /// How the cluster runs machines, with the gates of old config maps added.
    pub config: &'a Configuration,
    /// Namespace of the installation.
    pub namespace: &'a str,
    /// Who asks.
    pub requester: Requester<'a>,
}

impl Cluster<'_> {
    fn is_account(&self, account: &str) -> bool {
        self.requester.user == service_account_user(self.namespace, account)
    }

    /// Whether a part of the installation asks.
    pub fn is_one_of_us(&self) -> bool {
        [
            service_account::API,
            service_account::CONTROLLER,
            service_account::HANDLER,
            service_account::SYNCHRONIZATION_CONTROLLER,
        ]
        .iter()
        .any(|account| self.is_account(account))
    }

    fn is_on(&self, gate: &str) -> bool {
        self.config.is_on(gate)
    }
}

/// Reads an object; one that cannot be read is refused with the field that is wrong.
fn read<T: DeserializeOwned>(object: &Value) -> Result<T, Verdict> {
    serde_path_to_error::deserialize(object).map_err(|error| {
        let path = FieldPath::new(&error.path().to_string());
        Verdict::refused(FieldError::invalid(path, error.inner().to_string()))
    })
}

/// Says that a feature must be switched on first.
fn gate_text(gate: &str) -> String {
    format!(
        "needs the feature gate {gate}, which is off: add it to spec.configuration.developerConfiguration.featureGates of the KubeVirt object"
    )
}

/// Warnings about an instance's specification.
fn warnings(_vmi: &Vmi, cluster: &Cluster<'_>) -> Vec<String> {
    let gates = &cluster.config.developer_configuration.feature_gates;
    let is_deprecated = |name: &str| {
        features::find(name).is_some_and(|gate| gate.stage == features::Stage::Deprecated)
    };
    gates
        .iter()
        .filter(|name| is_deprecated(name))
        .map(|name| format!("the cluster's feature gate {name:?} is deprecated"))
        .collect()
}

#[cfg(test)]
mod tests;
