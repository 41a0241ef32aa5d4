#![expect(
    clippy::needless_pass_by_value,
    reason = "checks read better with the literals in place"
)]

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{CONTROLLER, USER, by, changed, grants, names};
use crate::admission::eviction::{DESCHEDULER, EvictedPod, Eviction, plan, plan_volumes};
use crate::admission::{Verdict, create_migration, update_migration};
use crate::kubevirt::Configuration;

fn migration() -> Value {
    json!({"metadata": {"name": "x", "labels": {"kubevirt.io/vmi-name": "m"}}, "spec": {"vmiName": "m"}})
}

fn instance(status: Value) -> Value {
    json!({"metadata": {"name": "m", "namespace": "default"}, "status": status})
}

fn created(patch: Value, vmi: Option<Value>, others: &[Value], user: &str) -> Verdict {
    let config = Configuration::default();
    let migration = changed(migration(), &patch);
    create_migration(&migration, vmi.as_ref(), others, &by(user, &config))
}

#[test]
fn migrations_need_an_instance_that_can_move() {
    let running = instance(json!({"phase": "Running"}));
    grants(&created(json!({}), Some(running.clone()), &[], USER));
    let path = "spec.vmiName";
    names(
        &created(
            json!({"spec": {"vmiName": ""}}),
            Some(running.clone()),
            &[],
            USER,
        ),
        path,
    );
    names(&created(json!({}), None, &[], USER), path);
    names(
        &created(
            json!({}),
            Some(instance(json!({"phase": "Succeeded"}))),
            &[],
            USER,
        ),
        path,
    );
    let fixed = instance(json!({"phase": "Running", "conditions": [
        {"type": "LiveMigratable", "status": "False", "reason": "DisksNotLiveMigratable"}]}));
    names(&created(json!({}), Some(fixed.clone()), &[], USER), path);
    let elsewhere = json!({"spec": {"sendTo": {"migrationID": "i", "connectURL": "u"}}});
    grants(&created(elsewhere, Some(fixed), &[], USER));
    let under_way = changed(migration(), &json!({"status": {"phase": "Running"}}));
    names(
        &created(json!({}), Some(running.clone()), &[under_way], USER),
        path,
    );
    let over = changed(migration(), &json!({"status": {"phase": "Failed"}}));
    grants(&created(json!({}), Some(running), &[over], USER));
}

#[test]
fn only_the_controllers_set_priorities() {
    let running = || Some(instance(json!({"phase": "Running"})));
    let urgent = json!({"spec": {"priority": "system-critical"}});
    names(
        &created(urgent.clone(), running(), &[], USER),
        "spec.priority",
    );
    grants(&created(urgent, running(), &[], CONTROLLER));
    let unknown = json!({"spec": {"priority": "now"}});
    names(
        &created(unknown, running(), &[], CONTROLLER),
        "spec.priority",
    );
    let ends = json!({"spec": {
        "sendTo": {"migrationID": "a", "connectURL": "u"}, "receive": {"migrationID": "b"}}});
    names(
        &created(ends, running(), &[], USER),
        "spec.receive.migrationID",
    );
}

#[test]
fn a_migration_stays_as_it_was_made() {
    let old = migration();
    grants(&update_migration(
        &old,
        &changed(old.clone(), &json!({"status": {"phase": "Running"}})),
    ));
    let other = changed(old.clone(), &json!({"spec": {"vmiName": "n"}}));
    names(&update_migration(&old, &other), "spec");
    let label = "metadata.labels.kubevirt.io/vmi-name";
    let moved = changed(
        old.clone(),
        &json!({"metadata": {"labels": {"kubevirt.io/vmi-name": "n"}}}),
    );
    names(&update_migration(&old, &moved), label);
    let bare = changed(old.clone(), &json!({"metadata": {"labels": null}}));
    names(&update_migration(&old, &bare), label);
    let over = changed(bare, &json!({"status": {"phase": "Succeeded"}}));
    grants(&update_migration(&old, &over));
}

fn evicted(strategy: Option<&str>, migratable: bool, status: Value, by: &str) -> Eviction {
    let labels = BTreeMap::from([("kubevirt.io".to_owned(), "virt-launcher".to_owned())]);
    let annotations = BTreeMap::from([("kubevirt.io/domain".to_owned(), "m".to_owned())]);
    let pod = EvictedPod {
        labels: &labels,
        annotations: &annotations,
        phase: "Running",
        node: "here",
    };
    assert_eq!(pod.instance(), Some("m"));
    let truth = if migratable { "True" } else { "False" };
    let mut vmi = instance(
        json!({"nodeName": "here", "conditions": [{"type": "LiveMigratable", "status": truth}]}),
    );
    vmi["spec"] = json!({ "evictionStrategy": strategy });
    super::merge(&mut vmi["status"], &status);
    let vmi = serde_json::from_value(vmi).unwrap();
    plan(&pod, &vmi, &Configuration::default(), by)
}

#[test]
fn evictions_follow_the_strategy() {
    let of = |strategy, migratable| evicted(strategy, migratable, json!({}), "");
    assert_eq!(of(None, true), Eviction::Allowed);
    assert_eq!(of(Some("None"), true), Eviction::Allowed);
    assert_eq!(of(Some("LiveMigrateIfPossible"), false), Eviction::Allowed);
    assert!(matches!(
        of(Some("LiveMigrate"), false),
        Eviction::Refused { .. }
    ));
    for (strategy, migratable) in [
        ("LiveMigrate", true),
        ("LiveMigrateIfPossible", true),
        ("External", false),
    ] {
        let marked = of(Some(strategy), migratable);
        assert!(
            matches!(&marked, Eviction::Marked { node, .. } if node == "here"),
            "{marked:?}"
        );
    }
    let again = evicted(
        Some("LiveMigrate"),
        true,
        json!({"evacuationNodeName": "here"}),
        "",
    );
    assert!(matches!(again, Eviction::Refused { .. }));
    let target = evicted(Some("LiveMigrate"), true, json!({"nodeName": "there"}), "");
    assert!(matches!(target, Eviction::Refused { .. }));
    let tool = evicted(Some("LiveMigrate"), true, json!({}), DESCHEDULER);
    assert!(matches!(
        tool,
        Eviction::Marked {
            by_descheduler: true,
            ..
        }
    ));
}

#[test]
fn pods_with_plugged_volumes_stay_with_their_machine() {
    assert_eq!(plan_volumes(None), Eviction::Allowed);
    assert!(matches!(plan_volumes(Some("m")), Eviction::Refused { .. }));
}
