//! Migrations: this version does not move running machines, and says so at once.

use std::cmp::Reverse;
use std::sync::Arc;

use api::labels;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::actions::Action;
use super::cache::uid;
use super::change::{entry, is_deleted, remove_finalizers, set, text};
use super::events::Event;
use super::key::{Key, Kind};
use super::time::rfc3339;

/// Migrations of an instance that are kept after their end.
const KEPT: usize = 5;
/// Why migrations fail.
const UNSUPPORTED: &str = "live migration is not supported by this version: stop and start the virtual machine to move it";

/// What is known of a migration.
#[derive(Clone, Debug)]
pub(crate) struct Observed<'a> {
    /// The migration as the API server has it.
    pub(crate) raw: &'a Value,
    /// Its instance.
    pub(crate) instance: Option<&'a Value>,
    /// All migrations of the same instance.
    pub(crate) siblings: &'a [Arc<Value>],
}

/// Whether a migration is over.
pub(crate) fn is_final(migration: &Value) -> bool {
    matches!(text(migration, "/status/phase"), "Succeeded" | "Failed")
}

/// Decides what is to be done for a migration.
pub(crate) fn plan(now: Timestamp, observed: &Observed<'_>) -> Vec<Action> {
    let Some(key) = Key::of(Kind::Migration, observed.raw) else {
        return Vec::new();
    };
    if is_deleted(observed.raw) {
        let mut next = observed.raw.clone();
        remove_finalizers(&mut next, &[labels::MIGRATION_FINALIZER]);
        let release = Action::change(&key, None, observed.raw, &next);
        return release.into_iter().collect();
    }
    if is_final(observed.raw) {
        return forget(observed);
    }
    fail(now, &key, observed)
}

fn fail(now: Timestamp, key: &Key, observed: &Observed<'_>) -> Vec<Action> {
    let why = match observed.instance {
        None => format!(
            "there is no instance {} in this namespace",
            text(observed.raw, "/spec/vmiName")
        ),
        Some(_) => UNSUPPORTED.to_owned(),
    };
    let at = rfc3339(now);
    let mut next = observed.raw.clone();
    set(&mut next, &["status", "phase"], "Failed");
    let noted = entry(&mut next, &["status", "phaseTransitionTimestamps"]);
    let transition = json!({ "phase": "Failed", "phaseTransitionTimestamp": at });
    match noted.as_array_mut() {
        Some(noted) => noted.push(transition),
        None => *noted = json!([transition]),
    }
    let state = json!({
        "startTimestamp": at,
        "endTimestamp": at,
        "completed": true,
        "failed": true,
        "failureReason": why,
        "migrationUid": uid(observed.raw),
    });
    set(&mut next, &["status", "migrationState"], state);
    let mut actions: Vec<Action> = Vec::new();
    actions.extend(Action::change(key, Some("status"), observed.raw, &next));
    let told = Event::warning(key, uid(observed.raw), "FailedMigration", why);
    actions.push(Action::Tell(told));
    actions
}

/// Deletes the oldest of more migrations than are kept.
fn forget(observed: &Observed<'_>) -> Vec<Action> {
    let mut over: Vec<&Value> = observed
        .siblings
        .iter()
        .map(AsRef::as_ref)
        .filter(|migration| is_final(migration) && !is_deleted(migration))
        .collect();
    over.sort_by_key(|migration| Reverse(text(migration, "/metadata/creationTimestamp")));
    let old = over.into_iter().skip(KEPT);
    old.filter_map(|migration| Action::delete(Kind::Migration, migration))
        .collect()
}

#[cfg(test)]
mod tests;
