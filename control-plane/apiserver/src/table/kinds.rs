//! Columns of built-in kinds.

mod apps;
mod cluster;
mod core;
mod storage;

use jiff::Timestamp;
use serde_json::Value;

use super::Native;
use super::cells::{created, created_at, name};
use crate::catalog::Resource;

type Cell = fn(&Value, Timestamp) -> Value;

const NAME: Native = column("Name", name);
const AGE: Native = column("Age", created);

/// Columns of kinds that have no others.
pub(super) const NAME_AND_AGE: &[Native] = &[NAME, AGE];

const fn column(name: &'static str, cell: Cell) -> Native {
    Native {
        name,
        kind: "string",
        priority: 0,
        cell,
    }
}

const fn wide(name: &'static str, cell: Cell) -> Native {
    Native {
        priority: 1,
        ..column(name, cell)
    }
}

const fn count(name: &'static str, cell: Cell) -> Native {
    Native {
        kind: "integer",
        ..column(name, cell)
    }
}

/// Returns the columns of a kind that has its own.
pub(super) fn columns(resource: &Resource) -> Option<&'static [Native]> {
    Some(match (resource.group.as_str(), resource.plural.as_str()) {
        ("", "pods") => core::PODS,
        ("", "nodes") => core::NODES,
        ("", "namespaces") => core::NAMESPACES,
        ("", "events") => core::EVENTS,
        ("events.k8s.io", "events") => core::NEW_EVENTS,
        ("", "services") => core::SERVICES,
        ("", "endpoints") => core::ENDPOINTS,
        ("", "persistentvolumeclaims") => storage::CLAIMS,
        ("", "persistentvolumes") => storage::VOLUMES,
        ("", "configmaps") => core::CONFIG_MAPS,
        ("", "secrets") => core::SECRETS,
        ("", "serviceaccounts") => core::SERVICE_ACCOUNTS,
        ("", "replicationcontrollers") | ("apps", "replicasets") => apps::REPLICA_SETS,
        ("", "limitranges") => CREATED,
        ("apps", "deployments") => apps::DEPLOYMENTS,
        ("apps", "daemonsets") => apps::DAEMON_SETS,
        ("apps", "statefulsets") => apps::STATEFUL_SETS,
        ("apps", "controllerrevisions") => apps::REVISIONS,
        ("batch", "jobs") => apps::JOBS,
        ("batch", "cronjobs") => apps::CRON_JOBS,
        ("policy", "poddisruptionbudgets") => apps::BUDGETS,
        ("storage.k8s.io", "storageclasses") => storage::STORAGE_CLASSES,
        ("storage.k8s.io", "volumeattachments") => storage::ATTACHMENTS,
        ("storage.k8s.io", "csinodes") => storage::CSI_NODES,
        ("coordination.k8s.io", "leases") => cluster::LEASES,
        ("apiextensions.k8s.io", "customresourcedefinitions") => CREATED,
        ("apiregistration.k8s.io", "apiservices") => cluster::API_SERVICES,
        ("rbac.authorization.k8s.io", "roles" | "clusterroles") => CREATED,
        ("rbac.authorization.k8s.io", _) => cluster::BINDINGS,
        ("admissionregistration.k8s.io", _) => cluster::WEBHOOKS,
        ("discovery.k8s.io", "endpointslices") => cluster::SLICES,
        ("networking.k8s.io", "ingresses") => cluster::INGRESSES,
        ("networking.k8s.io", "networkpolicies") => cluster::NETWORK_POLICIES,
        ("scheduling.k8s.io", "priorityclasses") => cluster::PRIORITY_CLASSES,
        ("node.k8s.io", "runtimeclasses") => cluster::RUNTIME_CLASSES,
        ("autoscaling", "horizontalpodautoscalers") => apps::AUTOSCALERS,
        _ => return None,
    })
}

const CREATED: &[Native] = &[NAME, column("Created At", created_at)];

fn size(value: &Value) -> usize {
    match value {
        Value::Array(items) => items.len(),
        Value::Object(fields) => fields.len(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}
