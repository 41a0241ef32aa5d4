//! Evacuation (KubeVirt §6.7): instances that must leave their node get a migration.

use std::sync::Arc;
use std::time::Duration;

use api::labels;
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::actions::Action;
use super::cache::uid;
use super::change::{is_deleted, text};
use super::configuration::Config;
use super::events::Event;
use super::key::{Key, Kind};
use super::migration::is_final;
use super::pod;
use super::time::parse;

/// Taint of nodes that are being drained when the configuration names none.
const DRAIN_TAINT: &str = "kubevirt.io/drain";
/// Most migrations at once when the configuration says nothing: in the cluster, and off one node.
const PARALLEL: (usize, usize) = (5, 2);
/// First and longest wait after a migration that failed; it doubles with each.
const RETRY: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(640));
/// How long to wait where there are as many migrations as there may be.
const CROWDED: Duration = Duration::from_secs(30);

/// What is known of an instance that may have to leave.
#[derive(Clone, Debug)]
pub(crate) struct Observed<'a> {
    /// The instance.
    pub(crate) instance: &'a Value,
    /// Its node.
    pub(crate) node: Option<&'a Value>,
    /// All migrations.
    pub(crate) migrations: &'a [Arc<Value>],
}

/// Decides whether an instance gets a migration.
pub(crate) fn plan(now: Timestamp, observed: &Observed<'_>, config: &Config) -> Vec<Action> {
    let Some(key) = Key::of(Kind::Instance, observed.instance) else {
        return Vec::new();
    };
    if !must_leave(observed, config) {
        return Vec::new();
    }
    let own: Vec<&Value> = of_instance(observed.migrations, &key).collect();
    if own.iter().any(|migration| !is_final(migration)) {
        return Vec::new();
    }
    if let Some(at) = retry_at(&own).filter(|at| *at > now) {
        return vec![Action::LookAgain(at)];
    }
    if is_crowded(observed, config) {
        return vec![Action::LookAgain(now + CROWDED)];
    }
    create(now, &key, observed.instance)
}

/// Migrations of an instance.
fn of_instance<'m>(migrations: &'m [Arc<Value>], key: &'m Key) -> impl Iterator<Item = &'m Value> {
    migrations
        .iter()
        .map(AsRef::as_ref)
        .filter(move |migration| is_of(migration, key))
}

/// Whether a migration is an instance's.
pub(crate) fn is_of(migration: &Value, instance: &Key) -> bool {
    text(migration, "/metadata/namespace") == instance.namespace
        && text(migration, "/spec/vmiName") == instance.name
}

fn must_leave(observed: &Observed<'_>, config: &Config) -> bool {
    let instance = observed.instance;
    let node = text(instance, "/status/nodeName");
    if is_deleted(instance) || node.is_empty() || text(instance, "/status/phase") != "Running" {
        return false;
    }
    text(instance, "/status/evacuationNodeName") == node
        || (migrates_on_eviction(instance, config) && is_drained(observed.node, config))
}

fn migrates_on_eviction(instance: &Value, config: &Config) -> bool {
    let own = text(instance, "/spec/evictionStrategy");
    let by_cluster = config.cluster.eviction_strategy.as_deref();
    let strategy = if own.is_empty() {
        by_cluster.unwrap_or_default()
    } else {
        own
    };
    matches!(strategy, "LiveMigrate" | "LiveMigrateIfPossible")
}

fn is_drained(node: Option<&Value>, config: &Config) -> bool {
    let settings = config.cluster.migrations.as_ref();
    let taint = settings.and_then(|settings| settings.node_drain_taint_key.as_deref());
    let taint = taint.unwrap_or(DRAIN_TAINT);
    let taints = node.and_then(|node| node.pointer("/spec/taints"));
    let mut taints = taints.and_then(Value::as_array).into_iter().flatten();
    taints.any(|known| known["key"] == taint)
}

/// When the next attempt may be made, after those that failed.
fn retry_at(own: &[&Value]) -> Option<Timestamp> {
    let failed = own
        .iter()
        .filter(|migration| text(migration, "/status/phase") == "Failed");
    let times: Vec<Timestamp> = failed
        .filter_map(|migration| parse(text(migration, "/metadata/creationTimestamp")))
        .collect();
    let last = times.iter().max()?;
    let doublings = u32::try_from(times.len() - 1).unwrap_or(u32::MAX).min(10);
    Some(*last + (RETRY.0 * (1 << doublings)).min(RETRY.1))
}

fn is_crowded(observed: &Observed<'_>, config: &Config) -> bool {
    let settings = config.cluster.migrations.as_ref();
    let number = |of: Option<u32>, default| {
        of.and_then(|count| usize::try_from(count).ok())
            .filter(|count| *count > 0)
            .unwrap_or(default)
    };
    let in_cluster = settings.and_then(|settings| settings.parallel_migrations_per_cluster);
    let off_node = settings.and_then(|settings| settings.parallel_outbound_migrations_per_node);
    let node = text(observed.instance, "/status/nodeName");
    let active = observed.migrations.iter().filter(|known| !is_final(known));
    let leaving = active.clone().filter(|known| {
        let annotations = known.pointer("/metadata/annotations");
        annotations.is_some_and(|known| known[labels::EVACUATION_MIGRATION] == node)
    });
    active.clone().count() >= number(in_cluster, PARALLEL.0)
        || leaving.count() >= number(off_node, PARALLEL.1)
}

fn create(now: Timestamp, key: &Key, instance: &Value) -> Vec<Action> {
    let seed = format!("{} {}", uid(instance), now.as_nanosecond());
    let name = pod::with_suffix("kubevirt-evacuation", &Sha256::digest(seed.as_bytes()));
    let migration = json!({
        "apiVersion": Kind::Migration.api_version(),
        "kind": Kind::Migration.name(),
        "metadata": {
            "name": name,
            "namespace": key.namespace,
            "labels": { labels::VMI_NAME: labels::value_of(&key.name) },
            "annotations": {
                labels::EVACUATION_MIGRATION: text(instance, "/status/nodeName"),
            },
            "finalizers": [labels::MIGRATION_FINALIZER],
        },
        "spec": { "vmiName": key.name, "priority": "system-critical" },
    });
    let text = format!("Created Migration {name}");
    vec![
        Action::Create {
            key: key.sibling(Kind::Migration, &name),
            object: migration,
        },
        Action::Tell(Event::normal(key, uid(instance), "SuccessfulCreate", text)),
    ]
}

#[cfg(test)]
mod tests;
