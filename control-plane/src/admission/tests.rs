mod eviction;
mod instances;
mod machines;

use api::kubevirt::Configuration;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use serde_json::{Value, json};
use uuid::Uuid;

use super::{ClusterConfig, Facts, path, paths, review};

fn cluster() -> ClusterConfig {
    ClusterConfig {
        namespace: "kubevirt".to_owned(),
        configuration: Configuration::default(),
        now: "2026-01-02T03:04:05.6Z".parse().unwrap(),
        fresh_ids: [Uuid::from_u128(1), Uuid::from_u128(2)],
        facts: Facts::default(),
    }
}

const USER: &str = "jane";
const HANDLER: &str = "system:serviceaccount:kubevirt:kubevirt-handler";
const CONTROLLER: &str = "system:serviceaccount:kubevirt:kubevirt-controller";

/// A review of a change of an object; `null` for an object that is not there.
fn asked(operation: &str, user: &str, object: &Value, old: &Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "u", "operation": operation, "namespace": "ns",
            "name": object["metadata"]["name"], "userInfo": {"username": user},
            "object": object, "oldObject": old,
        },
    })
}

/// Returns the response to a new object.
fn create(at: &str, object: &Value, cluster: &ClusterConfig) -> Value {
    response(at, &asked("CREATE", USER, object, &Value::Null), cluster)
}

fn update(at: &str, user: &str, object: &Value, old: &Value) -> Value {
    response(at, &asked("UPDATE", user, object, old), &cluster())
}

fn response(at: &str, asked: &Value, cluster: &ClusterConfig) -> Value {
    let mut answer = review(at, asked, cluster);
    assert_eq!(answer["apiVersion"], "admission.k8s.io/v1");
    assert_eq!(answer["kind"], "AdmissionReview");
    assert_eq!(answer["response"]["uid"], asked["request"]["uid"]);
    answer["response"].take()
}

/// Returns an object as a response's patch makes it.
fn patched(object: &Value, response: &Value) -> Value {
    assert_eq!(response["allowed"], true, "{response}");
    let mut object = object.clone();
    if let Some(patch) = response["patch"].as_str() {
        assert_eq!(response["patchType"], "JSONPatch");
        let patch = BASE64_STANDARD.decode(patch).unwrap();
        let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
        json_patch::patch(&mut object, &patch).unwrap();
    }
    object
}

/// Returns the fields of a denial's causes.
fn fields(response: &Value) -> Vec<&str> {
    assert_eq!(response["allowed"], false, "{response}");
    let status = &response["status"];
    assert_eq!(
        (&status["code"], &status["reason"]),
        (&json!(422), &json!("Invalid"))
    );
    let causes = status["details"]["causes"].as_array().unwrap();
    let field = |cause: &'_ Value| -> &str {
        assert!(
            cause["message"]
                .as_str()
                .is_some_and(|text| !text.is_empty())
        );
        assert!(cause["reason"].as_str().unwrap().starts_with("FieldValue"));
        // The borrow lasts as long as the response.
        Box::leak(cause["field"].as_str().unwrap().to_owned().into_boxed_str())
    };
    causes.iter().map(field).collect()
}

fn instance() -> Value {
    json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstance",
        "metadata": {"name": "vmi", "namespace": "ns"},
        "spec": {"domain": {
            "devices": {"disks": [{"name": "d", "disk": {"bus": "virtio"}}]},
            "memory": {"guest": "1024Mi"},
        }, "volumes": [{"name": "d", "containerDisk": {"image": "image"}}]},
    })
}

fn migration() -> Value {
    json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstanceMigration",
        "metadata": {"name": "m", "namespace": "ns"}, "spec": {"vmiName": "vmi"},
    })
}

#[test]
fn migrations_get_label_and_finalizer() {
    let object = patched(
        &migration(),
        &create(path::MIGRATION_MUTATE, &migration(), &cluster()),
    );
    assert_eq!(object["metadata"]["labels"]["kubevirt.io/vmi-name"], "vmi");
    assert_eq!(
        object["metadata"]["finalizers"],
        json!(["kubevirt.io/migrationJobFinalize"])
    );
}

#[test]
fn migrations_need_an_instance_that_can_move_and_does_not_yet() {
    let at = path::MIGRATION_CREATE_VALIDATE;
    let mut cluster = cluster();
    assert_eq!(
        fields(&create(at, &migration(), &cluster)),
        ["spec.vmiName"]
    );
    cluster.facts.instance = Some(json!({"status": {"phase": "Running"}}));
    assert_eq!(create(at, &migration(), &cluster)["allowed"], true);
    let over = json!({"spec": {"vmiName": "vmi"}, "status": {"phase": "Succeeded"}});
    cluster.facts.migrations = vec![over];
    assert_eq!(create(at, &migration(), &cluster)["allowed"], true);
    cluster.facts.migrations = vec![json!({"spec": {"vmiName": "vmi"}})];
    let refused = create(at, &migration(), &cluster);
    let message = refused["status"]["message"].as_str().unwrap();
    assert!(message.contains("under way"), "{message}");
    cluster.facts.migrations.clear();
    let fixed =
        json!({"type": "LiveMigratable", "status": "False", "reason": "DisksNotLiveMigratable"});
    cluster.facts.instance = Some(json!({"status": {"phase": "Running", "conditions": [fixed]}}));
    assert_eq!(
        fields(&create(at, &migration(), &cluster)),
        ["spec.vmiName"]
    );
}

#[test]
fn priorities_of_migrations_are_the_controllers() {
    let mut cluster = cluster();
    cluster.facts.instance = Some(json!({"status": {"phase": "Running"}}));
    let mut urgent = migration();
    urgent["spec"]["priority"] = json!("system-critical");
    let at = path::MIGRATION_CREATE_VALIDATE;
    assert_eq!(fields(&create(at, &urgent, &cluster)), ["spec.priority"]);
    let asked = asked("CREATE", CONTROLLER, &urgent, &Value::Null);
    assert_eq!(response(at, &asked, &cluster)["allowed"], true);
}

#[test]
fn migrations_are_not_changed_under_way() {
    let at = path::MIGRATION_UPDATE_VALIDATE;
    let mut other = migration();
    other["spec"]["vmiName"] = json!("other");
    assert_eq!(fields(&update(at, USER, &other, &migration())), ["spec"]);
    let mut labelled = migration();
    labelled["metadata"]["labels"] = json!({"kubevirt.io/vmi-name": "vmi"});
    assert_eq!(
        fields(&update(at, USER, &migration(), &labelled)),
        ["metadata.labels.kubevirt.io/vmi-name"]
    );
    assert_eq!(update(at, USER, &labelled, &labelled)["allowed"], true);
}

#[test]
fn replica_sets_know_their_instances_by_labels() {
    let at = path::REPLICA_SET_VALIDATE;
    let set = |selector: Value| {
        json!({
            "metadata": {"name": "set", "namespace": "ns"},
            "spec": {
                "selector": selector,
                "template": {"metadata": {"labels": {"app": "a"}}, "spec": instance()["spec"]},
            },
        })
    };
    let fits = set(json!({"matchLabels": {"app": "a"}}));
    assert_eq!(create(at, &fits, &cluster())["allowed"], true);
    for selector in [json!(null), json!({}), json!({"matchLabels": {"app": "b"}})] {
        let refused = create(at, &set(selector), &cluster());
        assert_eq!(fields(&refused), ["spec.selector"]);
    }
    let mut wrong = fits.clone();
    wrong["spec"]["template"]["spec"]["domain"]["devices"]["disks"][0]["name"] = json!("x");
    let refused = create(at, &wrong, &cluster());
    assert!(
        fields(&refused)[0].starts_with("spec.template.spec."),
        "{refused}"
    );
    assert_eq!(
        update(at, USER, &wrong, &wrong)["allowed"],
        true,
        "nothing has changed"
    );
}

#[test]
fn presets_need_a_domain() {
    let preset = json!({"metadata": {"name": "p"}, "spec": {"selector": {}}});
    let refused = create(path::PRESET_VALIDATE, &preset, &cluster());
    assert_eq!(fields(&refused), ["spec.domain"]);
}

#[test]
fn launchers_pods_stay_as_they_are() {
    let pod = json!({"metadata": {"name": "virt-launcher-x"}});
    let allowed = create(path::LAUNCHER_MUTATE, &pod, &cluster());
    assert_eq!(allowed, json!({"uid": "u", "allowed": true}));
}

#[test]
fn what_is_no_review_is_denied() {
    let answer = review(path::MACHINE_VALIDATE, &json!({"request": {}}), &cluster());
    assert_eq!(answer["response"]["allowed"], false);
    assert_eq!(answer["response"]["status"]["code"], 400);
    let asked = asked("CREATE", USER, &instance(), &Value::Null);
    let answer = review("/nowhere", &asked, &cluster());
    assert_eq!(answer["response"]["status"]["code"], 404);
}

/// Any JSON, with names that reviews have.
fn json_values() -> impl Strategy<Value = Value> {
    const NAMES: [&str; 14] = [
        "metadata",
        "name",
        "labels",
        "annotations",
        "spec",
        "template",
        "domain",
        "devices",
        "cpu",
        "firmware",
        "status",
        "phase",
        "conditions",
        "running",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z]{0,3}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 40, 6, |inner| {
        let name = (0..NAMES.len()).prop_map(|at| NAMES[at].to_owned());
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            proptest::collection::btree_map(name, inner, 0..6)
                .prop_map(|fields| fields.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

proptest! {
    #[test]
    fn any_objects_are_survived(
        object in json_values(),
        old in json_values(),
        is_new in any::<bool>(),
    ) {
        let operation = if is_new { "CREATE" } else { "UPDATE" };
        let mut cluster = cluster();
        cluster.facts = Facts {
            presets: vec![old.clone()],
            pod: Some(old.clone()),
            owner: Some(object.clone()),
            instance: Some(object.clone()),
            migrations: vec![old.clone()],
            ..Facts::default()
        };
        for at in paths() {
            let answer = response(at, &asked(operation, USER, &object, &old), &cluster);
            if answer["allowed"] == true {
                let _applies = patched(&object, &answer);
            }
        }
    }
}
