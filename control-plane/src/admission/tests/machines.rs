use serde_json::{Value, json};

use super::{USER, cluster, create, fields, instance, patched, update};
use crate::admission::path;

fn machine() -> Value {
    json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachine",
        "metadata": {"name": "vm", "namespace": "ns"},
        "spec": {"runStrategy": "Halted", "template": {"spec": instance()["spec"]}},
    })
}

#[test]
fn a_new_machine_gets_an_identity_that_it_keeps() {
    let filled = patched(
        &machine(),
        &create(path::MACHINE_MUTATE, &machine(), &cluster()),
    );
    let template = &filled["spec"]["template"];
    let firmware = &template["spec"]["domain"]["firmware"];
    assert_eq!(firmware["uuid"], "00000000-0000-0000-0000-000000000001");
    assert_eq!(firmware["serial"], "00000000-0000-0000-0000-000000000002");
    assert_eq!(template["spec"]["architecture"], "amd64");
    assert_eq!(template["spec"]["domain"]["machine"]["type"], "q35");
    let again = update(path::MACHINE_MUTATE, USER, &filled, &filled);
    assert!(again["patch"].is_null(), "{again}");
    let mut bare = machine();
    bare["spec"]["template"]["spec"]["architecture"] = json!("amd64");
    bare["spec"]["template"]["spec"]["domain"]["machine"] = json!({"type": "pc-q35-9.0"});
    let later = update(path::MACHINE_MUTATE, USER, &bare, &bare);
    assert!(
        later["patch"].is_null(),
        "an old machine gets no new identity: {later}"
    );
}

#[test]
fn the_cluster_says_which_machine_type_there_is_by_default() {
    let mut cluster = cluster();
    cluster.configuration.machine_type = "pc-q35-8.2".to_owned();
    let filled = patched(
        &machine(),
        &create(path::MACHINE_MUTATE, &machine(), &cluster),
    );
    assert_eq!(
        filled["spec"]["template"]["spec"]["domain"]["machine"]["type"],
        "pc-q35-8.2"
    );
}

#[test]
fn a_machine_is_allowed_and_the_old_field_warned_of() {
    let allowed = create(path::MACHINE_VALIDATE, &machine(), &cluster());
    assert_eq!(allowed, json!({"uid": "u", "allowed": true}));
    let mut old = machine();
    old["spec"]["runStrategy"] = Value::Null;
    old["spec"]["running"] = json!(false);
    let allowed = create(path::MACHINE_VALIDATE, &old, &cluster());
    assert_eq!(allowed["allowed"], true, "{allowed}");
    let warning = allowed["warnings"][0].as_str().unwrap();
    assert!(
        warning.starts_with("spec.running is deprecated"),
        "{warning}"
    );
}

#[test]
fn when_a_machine_runs_must_be_said_once() {
    let with = |field: &str, value: Value| {
        let mut vm = machine();
        vm["spec"][field] = value;
        let refused = create(path::MACHINE_VALIDATE, &vm, &cluster());
        fields(&refused).join(",")
    };
    assert_eq!(with("running", json!(true)), "spec.running");
    assert_eq!(with("runStrategy", Value::Null), "spec.runStrategy");
    assert_eq!(with("runStrategy", json!("Sometimes")), "spec.runStrategy");
    assert_eq!(with("template", Value::Null), "spec.template");
}

#[test]
fn errors_of_the_template_are_named_where_they_are() {
    let mut vm = machine();
    vm["spec"]["template"]["spec"]["domain"]["memory"]["guest"] = json!("1Ki");
    let refused = create(path::MACHINE_VALIDATE, &vm, &cluster());
    assert_eq!(fields(&refused), ["spec.template.spec.domain.memory.guest"]);
}

#[test]
fn what_was_stored_before_can_be_labelled_and_removed() {
    let mut vm = machine();
    vm["spec"]["template"]["spec"]["domain"]["memory"]["guest"] = json!("1Ki");
    let mut labelled = vm.clone();
    labelled["metadata"]["labels"] = json!({"a": "b"});
    let at = path::MACHINE_VALIDATE;
    assert_eq!(update(at, USER, &labelled, &vm)["allowed"], true);
    let mut changed = vm.clone();
    changed["spec"]["runStrategy"] = json!("Always");
    assert_eq!(update(at, USER, &changed, &vm)["allowed"], false);
    changed["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    assert_eq!(update(at, USER, &changed, &vm)["allowed"], true);
}

/// What `virtctl create vm --volume-pvc=src:claim` makes.
#[test]
fn a_machine_that_may_do_without_inference_does() {
    let infer =
        |policy: &str| json!({"inferFromVolume": "claim", "inferFromVolumeFailurePolicy": policy});
    let mut asking = machine();
    asking["spec"]["instancetype"] = infer("Ignore");
    asking["spec"]["preference"] = infer("Ignore");
    let answer = create(path::MACHINE_MUTATE, &asking, &cluster());
    let filled = patched(&asking, &answer);
    assert!(filled["spec"].get("instancetype").is_none());
    assert!(filled["spec"].get("preference").is_none());
    let warnings = answer["warnings"].as_array().unwrap();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    let allowed = create(path::MACHINE_VALIDATE, &filled, &cluster());
    assert_eq!(allowed["allowed"], true, "{allowed}");
    // Who insists is told that there is nothing of the kind.
    asking["spec"]["instancetype"] = infer("Reject");
    asking["spec"]["preference"] = json!({"name": "fedora"});
    let answer = create(path::MACHINE_MUTATE, &asking, &cluster());
    let kept = patched(&asking, &answer);
    assert_eq!(kept["spec"]["instancetype"], infer("Reject"));
    assert_eq!(kept["spec"]["preference"]["name"], "fedora");
}
