//! Lines of scripts that were written for upstream's program.

use serde_json::{Value, json};

use super::commands::{VM, VMI, check, willing};
use super::endpoint::{Endpoint, refusal};
use super::line::{run_line, run_line_of};

#[tokio::test]
async fn the_objects_of_a_machine_are_asked_for_by_name_alone() {
    let tree = "{\n  \"kind\": \"tree\"\n}\n";
    let ask = async |line: &str, path: String, wish: Value, stdout: &str| {
        let endpoint = Endpoint::start(|_, _| (200, json!({"kind": "tree"}))).await;
        let outcome = run_line(&endpoint, line).await;
        assert_eq!(
            (outcome.stderr.as_str(), outcome.stdout.as_str()),
            ("", stdout),
            "{line}"
        );
        let asked = endpoint.asked().pop().unwrap();
        assert_eq!(
            (asked.method.as_str(), asked.path, asked.body),
            ("GET", path, wish),
            "{line}"
        );
    };
    let all = || json!({"includeOptionalNodes": true});
    ask("objectgraph a", format!("{VM}/a/objectgraph"), all(), tree).await;
    let of_instance = format!("{VMI}/a/objectgraph");
    ask(
        "objectgraph --vmi a -o yaml",
        of_instance.clone(),
        all(),
        "kind: tree\n",
    )
    .await;
    ask("objectgraph vmi a", of_instance.clone(), all(), tree).await;
    ask("objectgraph vmi/a", of_instance, all(), tree).await;
    let labels = json!({"matchLabels": {"x/y": "storage", "z": "1"}});
    let some = json!({"includeOptionalNodes": false, "labelSelector": labels});
    let line = "objectgraph a --exclude-optional --selector=x/y=storage,z=1";
    ask(line, format!("{VM}/a/objectgraph"), some, tree).await;
}

#[tokio::test]
async fn a_claim_is_made_for_a_dump_and_taken_back_when_there_is_none() {
    let script = |code: u16| {
        move |method: &str, path: &str| match (method, path) {
            ("PUT", _) if code == 202 => (202, Value::Null),
            ("PUT", _) => refusal(code, "NotImplemented", "dumps are not supported"),
            ("GET", _) => (
                200,
                json!({"spec": {"domain": {"memory": {"guest": "845Mi"}}}}),
            ),
            _ => (201, json!({})),
        }
    };
    let line = "memory-dump get a --claim-name=c --create-claim --storage-class=fast --access-mode=ReadWriteMany";
    let endpoint = Endpoint::start(script(202)).await;
    let outcome = run_line(&endpoint, line).await;
    let expected = "PVC ns/c created\nSuccessfully submitted memory dump request of VM a\n";
    assert_eq!(
        (outcome.stderr.as_str(), outcome.stdout.as_str()),
        ("", expected)
    );
    let claim = &endpoint.asked()[1];
    assert_eq!(claim.path, "/api/v1/namespaces/ns/persistentvolumeclaims");
    let spec = json!({"accessModes": ["ReadWriteMany"], "storageClassName": "fast",
        "resources": {"requests": {"storage": "1000Mi"}}});
    assert_eq!(claim.body["spec"], spec);

    let endpoint = Endpoint::start(script(501)).await;
    let outcome = run_line(&endpoint, line).await;
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome
            .stderr
            .contains("error dumping vm memory, dumps are not"),
        "{outcome:?}"
    );
    let last = endpoint.asked().pop().unwrap();
    let deleted = "/api/v1/namespaces/ns/persistentvolumeclaims/c";
    assert_eq!(
        (last.method.as_str(), last.path.as_str()),
        ("DELETE", deleted)
    );
}

#[tokio::test]
async fn a_picture_of_the_display_is_written_as_it_comes() {
    let endpoint = Endpoint::start(|_, _| (200, json!("not really a picture"))).await;
    let outcome = run_line(&endpoint, "vnc screenshot a --file=- -m").await;
    assert_eq!(outcome.stdout, "\"not really a picture\"", "{outcome:?}");
    let asked = endpoint.asked().pop().unwrap();
    assert_eq!(
        asked.path,
        format!("{VMI}/a/vnc/screenshot?moveCursor=true")
    );
}

#[tokio::test]
async fn manifests_of_other_kinds_are_made_without_a_cluster() {
    let manifest = async |line: &str| {
        let outcome = run_line_of(line).await;
        assert_eq!(
            (outcome.code, outcome.stderr.as_str()),
            (Some(0), ""),
            "{line}"
        );
        outcome.stdout
    };
    let line = "create instancetype --name=s --cpu 2 --memory 256Mi --gpu=name:g,devicename:x/gpu --iothreadspolicy=auto";
    let expected = "apiVersion: instancetype.kubevirt.io/v1beta1\nkind: VirtualMachineClusterInstancetype\n\
        metadata:\n  name: s\nspec:\n  cpu:\n    guest: 2\n  gpus:\n  - deviceName: x/gpu\n    name: g\n  \
        ioThreadsPolicy: auto\n  memory:\n    guest: 256Mi\n";
    assert_eq!(manifest(line).await, expected);
    let of_namespace = manifest("create instancetype -n lab --cpu=1 --memory=1Gi").await;
    assert!(
        of_namespace.contains("kind: VirtualMachineInstancetype\n"),
        "{of_namespace}"
    );
    assert!(
        of_namespace.contains("name: instancetype-"),
        "{of_namespace}"
    );
    assert!(of_namespace.contains("namespace: lab\n"), "{of_namespace}");
    let preference = manifest("create preference --cpu-topology=spread --machine-type=q35").await;
    assert!(
        preference.contains("preferredCPUTopology: spread\n"),
        "{preference}"
    );
    assert!(
        preference.contains("name: clusterpreference-"),
        "{preference}"
    );
    let line = "create clone --name=c --source-name=a --target-name=b --template-label-filter=!x --new-mac-address=e0:00-11";
    let expected = "apiVersion: clone.kubevirt.io/v1beta1\nkind: VirtualMachineClone\nmetadata:\n  name: c\nspec:\n  \
        newMacAddresses:\n    e0: 00-11\n  source:\n    apiGroup: kubevirt.io\n    kind: VirtualMachine\n    name: a\n  \
        target:\n    apiGroup: kubevirt.io\n    kind: VirtualMachine\n    name: b\n  template:\n    labelFilters:\n    - \"!x\"\n";
    assert_eq!(manifest(line).await, expected);
}

#[tokio::test]
async fn flags_of_all_commands_are_taken() {
    let body = json!({});
    let line = "start a --request-timeout=30s --disable-compression";
    let stdout = "VM a was scheduled to start\n";
    check(line, "PUT", &format!("{VM}/a/start"), body, stdout).await;
    let endpoint = Endpoint::start(willing).await;
    let outcome = run_line(&endpoint, "options").await;
    assert!(outcome.stdout.contains("--request-timeout"), "{outcome:?}");
}

#[tokio::test]
async fn what_is_not_here_says_what_to_do_instead() {
    for line in [
        "guestfs claim --root",
        "usbredir 1-1 a",
        "vmexport create e --vm=a",
        "template process t",
        "credentials set-password a --user=root",
        "adm log-verbosity --all=3",
    ] {
        let outcome = run_line_of(line).await;
        let command = line.split(' ').next().unwrap();
        let expected = format!("virtctl {command} is not supported: ");
        assert!(outcome.stderr.contains(&expected), "{outcome:?}");
        assert_eq!(
            (outcome.code, outcome.stdout.as_str()),
            (Some(1), ""),
            "{line}"
        );
    }
}
