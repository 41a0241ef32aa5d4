use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{KEPT, Observed, plan};
use crate::controller::actions::Action;

fn migration(name: &str, phase: &str) -> Value {
    json!({
        "metadata": {
            "name": name, "namespace": "ns", "uid": name, "resourceVersion": "1",
            "creationTimestamp": format!("2026-01-01T00:00:{name}Z"),
            "finalizers": ["kubevirt.io/migrationJobFinalize"],
        },
        "spec": {"vmiName": "vm"},
        "status": {"phase": phase},
    })
}

fn decide(migration: &Value, instance: Option<&Value>, siblings: &[Arc<Value>]) -> Vec<Action> {
    plan(
        Timestamp::UNIX_EPOCH,
        &Observed {
            raw: migration,
            instance,
            siblings,
        },
    )
}

fn outcome(migration: &Value, instance: Option<&Value>) -> Value {
    let mut outcome = migration.clone();
    for action in decide(migration, instance, &[]) {
        if let Action::Patch { patch, .. } = action {
            json_patch::patch(&mut outcome, &patch).unwrap();
        }
    }
    outcome
}

#[test]
fn a_migration_fails_at_once_and_says_why() {
    let instance = json!({});
    for phase in ["", "Pending", "Running"] {
        let told = outcome(&migration("01", phase), Some(&instance));
        assert_eq!(told["status"]["phase"], "Failed");
        let why = told["status"]["migrationState"]["failureReason"]
            .as_str()
            .unwrap();
        assert!(why.contains("not supported"), "{why}");
        assert!(decide(&told, Some(&instance), &[]).is_empty());
    }
    let told = outcome(&migration("01", ""), None);
    let why = told["status"]["migrationState"]["failureReason"]
        .as_str()
        .unwrap();
    assert!(why.contains("no instance vm"), "{why}");
}

#[test]
fn a_deleted_migration_goes() {
    let mut deleted = migration("01", "Running");
    deleted["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert_eq!(outcome(&deleted, None)["metadata"]["finalizers"], json!([]));
}

#[test]
fn old_ones_are_forgotten() {
    let all: Vec<Arc<Value>> = (1..=KEPT + 2)
        .map(|n| Arc::new(migration(&format!("{n:02}"), "Failed")))
        .collect();
    let plan = decide(&all[0], None, &all);
    let gone: Vec<&str> = plan
        .iter()
        .filter_map(|action| match action {
            Action::Delete { key, .. } => Some(key.name.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(gone, ["02", "01"]);
}
