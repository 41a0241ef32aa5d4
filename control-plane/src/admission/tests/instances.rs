use serde_json::{Value, json};

use super::{
    CONTROLLER, HANDLER, USER, asked, cluster, create, fields, instance, patched, response, update,
};
use crate::admission::path;

#[test]
fn a_new_instance_is_filled_in_and_keeps_what_nobody_knows() {
    let mut object = instance();
    object["spec"]["domain"]["devices"]["unknown"] = json!({"a": 1});
    object["status"] = json!({"phase": "Running", "nodeName": "elsewhere"});
    let filled = patched(&object, &create(path::INSTANCE_MUTATE, &object, &cluster()));
    let domain = &filled["spec"]["domain"];
    assert_eq!(domain["devices"]["unknown"], json!({"a": 1}));
    assert_eq!(domain["memory"]["guest"], "1024Mi");
    assert_eq!(domain["machine"]["type"], "q35");
    assert_eq!(domain["cpu"]["sockets"], 1);
    let metadata = &filled["metadata"];
    assert_eq!(
        metadata["finalizers"],
        json!(["kubevirt.io/foregroundDeleteVirtualMachine"])
    );
    assert_eq!(
        metadata["annotations"]["kubevirt.io/pci-topology-version"],
        "v3"
    );
    let status = &filled["status"];
    assert_eq!(status["phase"], "Pending");
    assert_eq!(status["runtimeUser"], 107);
    assert!(
        status["nodeName"].is_null(),
        "the status of a copy is not true"
    );
    let reached = &status["phaseTransitionTimestamps"][0];
    assert_eq!(reached["phaseTransitionTimestamp"], "2026-01-02T03:04:05Z");
}

#[test]
fn what_an_instance_says_itself_stays() {
    let mut object = instance();
    object["metadata"]["annotations"] = json!({"kubevirt.io/pci-topology-version": "v2"});
    object["metadata"]["finalizers"] = json!(["kubevirt.io/foregroundDeleteVirtualMachine"]);
    object["spec"]["domain"]["cpu"] = json!({"cores": 2});
    object["spec"]["domain"]["firmware"] = json!({"uuid": "5d307ca9-b3ef-428c-8861-06e72d69f223"});
    let filled = patched(&object, &create(path::INSTANCE_MUTATE, &object, &cluster()));
    assert_eq!(
        filled["metadata"]["annotations"],
        object["metadata"]["annotations"]
    );
    assert_eq!(
        filled["metadata"]["finalizers"],
        object["metadata"]["finalizers"]
    );
    assert_eq!(filled["spec"]["domain"]["cpu"]["cores"], 2);
    assert_eq!(
        filled["spec"]["domain"]["firmware"]["uuid"],
        object["spec"]["domain"]["firmware"]["uuid"]
    );
}

#[test]
fn an_instance_whose_name_is_still_to_come_gets_no_uuid_of_it() {
    let mut object = instance();
    object["metadata"] = json!({"generateName": "vmi-", "namespace": "ns"});
    let filled = patched(&object, &create(path::INSTANCE_MUTATE, &object, &cluster()));
    let uuid = &filled["spec"]["domain"]["firmware"]["uuid"];
    assert!(uuid.as_str().unwrap_or_default().is_empty(), "{uuid}");
    let allowed = create(path::INSTANCE_CREATE_VALIDATE, &filled, &cluster());
    assert_eq!(allowed["allowed"], true, "{allowed}");
}

#[test]
fn a_filled_in_instance_is_allowed() {
    let object = instance();
    let filled = patched(&object, &create(path::INSTANCE_MUTATE, &object, &cluster()));
    let allowed = create(path::INSTANCE_CREATE_VALIDATE, &filled, &cluster());
    assert_eq!(allowed["allowed"], true, "{allowed}");
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let mut object = instance();
    object["spec"]["domain"]["devices"]["disks"][0]["disk"]["bus"] = json!("warp");
    object["spec"]["volumes"] = json!([{"name": "other", "containerDisk": {"image": "i"}}]);
    object["spec"]["domain"]["memory"]["guest"] = json!("1Ki");
    let refused = create(path::INSTANCE_CREATE_VALIDATE, &object, &cluster());
    let fields = fields(&refused);
    assert!(fields.len() >= 3, "{fields:?}");
    assert!(
        fields.contains(&"spec.domain.devices.disks[0].disk.bus"),
        "{fields:?}"
    );
    assert!(fields.contains(&"spec.domain.memory.guest"), "{fields:?}");
}

#[test]
fn a_field_of_the_wrong_type_is_named() {
    let mut object = instance();
    object["spec"]["domain"]["cpu"] = json!({"cores": "two"});
    for at in [path::INSTANCE_MUTATE, path::INSTANCE_CREATE_VALIDATE] {
        let refused = create(at, &object, &cluster());
        assert_eq!(fields(&refused), ["spec.domain.cpu.cores"]);
    }
}

#[test]
fn labels_of_the_installation_are_not_for_users() {
    let mut object = instance();
    object["metadata"]["labels"] = json!({"kubevirt.io/nodeName": "mine", "app": "a"});
    let refused = create(path::INSTANCE_CREATE_VALIDATE, &object, &cluster());
    assert_eq!(fields(&refused), ["metadata.labels.kubevirt.io/nodeName"]);
    let at = path::INSTANCE_UPDATE_VALIDATE;
    assert_eq!(
        fields(&update(at, USER, &instance(), &object)),
        ["metadata.labels.kubevirt.io/nodeName"]
    );
    assert_eq!(update(at, USER, &object, &object)["allowed"], true);
    assert_eq!(
        update(at, CONTROLLER, &instance(), &object)["allowed"],
        true
    );
}

#[test]
fn only_the_installation_changes_specification_and_status() {
    let mut changed = instance();
    changed["spec"]["terminationGracePeriodSeconds"] = json!(5);
    let at = path::INSTANCE_UPDATE_VALIDATE;
    let refused = update(at, USER, &changed, &instance());
    assert_eq!(fields(&refused), ["spec"]);
    assert_eq!(
        update(at, CONTROLLER, &changed, &instance())["allowed"],
        true
    );

    let (mut old, mut new) = (instance(), instance());
    old["status"] = json!({"phase": "Running"});
    new["status"] = json!({"phase": "Failed"});
    let at = path::INSTANCE_MUTATE;
    assert_eq!(patched(&new, &update(at, USER, &new, &old)), old);
    assert_eq!(
        patched(&new, &update(at, USER, &new, &instance())),
        instance()
    );
    assert_eq!(patched(&new, &update(at, CONTROLLER, &new, &old)), new);
}

#[test]
fn ceilings_of_a_running_machine_stay() {
    let mut old = instance();
    old["spec"]["domain"]["cpu"] = json!({"maxSockets": 4});
    let mut new = old.clone();
    new["spec"]["domain"]["cpu"]["maxSockets"] = json!(8);
    let refused = update(path::INSTANCE_UPDATE_VALIDATE, CONTROLLER, &new, &old);
    assert_eq!(fields(&refused), ["spec.domain.cpu.maxSockets"]);
}

fn preset(name: &str, domain: &Value) -> Value {
    json!({
        "apiVersion": "kubevirt.io/v1alpha3", "kind": "VirtualMachineInstancePreset",
        "metadata": {"name": name, "namespace": "ns"},
        "spec": {"selector": {"matchLabels": {"size": "small"}}, "domain": domain},
    })
}

#[test]
fn presets_fill_in_what_instances_with_their_labels_leave_open() {
    let mut object = instance();
    object["metadata"]["labels"] = json!({"size": "small"});
    object["spec"]["domain"]["firmware"] = json!({"serial": "own"});
    let mut cluster = cluster();
    cluster.facts.presets = vec![
        preset("cores", &json!({"cpu": {"cores": 3}})),
        preset("firmware", &json!({"firmware": {"serial": "theirs"}})),
    ];
    let response = create(path::INSTANCE_MUTATE, &object, &cluster);
    let filled = patched(&object, &response);
    assert_eq!(filled["spec"]["domain"]["cpu"]["cores"], 3);
    assert_eq!(filled["spec"]["domain"]["firmware"]["serial"], "own");
    let annotations = &filled["metadata"]["annotations"];
    assert_eq!(
        annotations["virtualmachinepreset.kubevirt.io/cores"],
        "kubevirt.io/v1"
    );
    assert!(annotations["virtualmachinepreset.kubevirt.io/firmware"].is_null());
    assert!(
        response["warnings"][0]
            .as_str()
            .unwrap()
            .contains("deprecated")
    );
}

#[test]
fn presets_leave_others_alone() {
    let mut cluster = cluster();
    cluster.facts.presets = vec![preset("cores", &json!({"cpu": {"cores": 3}}))];
    let mut excluded = instance();
    excluded["metadata"]["labels"] = json!({"size": "small"});
    excluded["metadata"]["annotations"] =
        json!({"virtualmachineinstancepresets.admission.kubevirt.io/exclude": "true"});
    for object in [instance(), excluded] {
        let response = create(path::INSTANCE_MUTATE, &object, &cluster);
        assert_eq!(
            patched(&object, &response)["spec"]["domain"]["cpu"]["cores"],
            1
        );
        assert!(response["warnings"].is_null());
    }
}

#[test]
fn presets_that_contradict_each_other_are_refused() {
    let mut object = instance();
    object["metadata"]["labels"] = json!({"size": "small"});
    let mut cluster = cluster();
    cluster.facts.presets = vec![
        preset("a", &json!({"cpu": {"cores": 3}})),
        preset("b", &json!({"cpu": {"cores": 4}})),
    ];
    let refused = create(path::INSTANCE_MUTATE, &object, &cluster);
    assert_eq!(refused["status"]["code"], 422);
    let message = refused["status"]["message"].as_str().unwrap();
    assert!(
        message.contains("presets \"a\" and \"b\" conflict"),
        "{message}"
    );
}

#[test]
fn a_node_agent_changes_instances_of_its_own_node() {
    let mut vmi = instance();
    vmi["status"] = json!({"nodeName": "here", "phase": "Running"});
    let by = |node: &str| {
        let mut asked = asked("UPDATE", HANDLER, &vmi, &vmi);
        asked["request"]["userInfo"]["extra"] =
            json!({"authentication.kubernetes.io/node-name": [node]});
        response(path::INSTANCE_UPDATE_VALIDATE, &asked, &cluster())
    };
    assert_eq!(by("here")["allowed"], true);
    assert_eq!(fields(&by("there")), ["status.nodeName"]);
    let mut asked = asked("UPDATE", HANDLER, &vmi, &vmi);
    asked["request"]["userInfo"]["groups"] = json!(["system:masters"]);
    let allowed = response(path::INSTANCE_UPDATE_VALIDATE, &asked, &cluster());
    assert_eq!(allowed["allowed"], true, "a single node's agent: {allowed}");
}
