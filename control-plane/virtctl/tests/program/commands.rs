//! What each command asks of the API server, and what it says.

use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use super::endpoint::{Endpoint, not_found, refusal};
use super::line::{program, program_at, run, run_line};

pub(crate) const VM: &str = "/apis/subresources.kubevirt.io/v1/namespaces/ns/virtualmachines";
pub(crate) const VMI: &str =
    "/apis/subresources.kubevirt.io/v1/namespaces/ns/virtualmachineinstances";
const OBJECTS: &str = "/apis/kubevirt.io/v1/namespaces/ns";

pub(crate) fn willing(_: &str, path: &str) -> (u16, Value) {
    match path {
        _ if path.ends_with("/guestosinfo") => (200, json!({"guestAgentVersion": "9"})),
        _ if path.ends_with("list") => (200, json!({"items": [{"userName": "root"}]})),
        _ if path.ends_with("expand-spec") || path.ends_with("expand-vm-spec") => {
            (200, json!({"kind": "VirtualMachine", "spec": {"a": "yes"}}))
        }
        _ if path.ends_with("/version") => (200, json!({"gitVersion": "v1.2.3"})),
        _ if path.starts_with(VM) || path.starts_with(VMI) => (202, Value::Null),
        _ if path.contains("/datavolumes/") => not_found("datavolumes.cdi.kubevirt.io", "data"),
        _ if path.contains("migrations?") => (
            200,
            json!({"items": [{"metadata": {"name": "m1"}, "status": {"phase": "Running"}}]}),
        ),
        _ if path.ends_with("/kubevirts") => (200, json!({"items": [{}]})),
        _ => {
            let interface = json!({"name": "default", "ports": [{"port": 80}]});
            let spec = json!({
                "networks": [{"name": "default", "pod": {}}],
                "domain": {"devices": {"interfaces": [interface]}},
                "selector": {"matchLabels": {"a": "b"}},
                "runStrategy": "Always",
            });
            let mut object = json!({"metadata": {"name": "a", "uid": "u"}, "spec": spec});
            object["spec"]["template"]["spec"] = object["spec"].clone();
            object["status"] = json!({"nodeName": "node1", "created": true});
            (200, object)
        }
    }
}

/// Runs a line, and checks its output and its last request.
pub(crate) async fn check(line: &str, method: &str, path: &str, body: Value, stdout: &str) {
    let endpoint = Endpoint::start(willing).await;
    let outcome = run_line(&endpoint, line).await;
    assert_eq!(outcome.stderr, "", "{line}");
    assert_eq!(outcome.stdout, stdout, "{line}");
    assert_eq!(outcome.code, Some(0), "{line}");
    let asked = endpoint.asked().pop().unwrap();
    assert_eq!(
        (asked.method.as_str(), asked.path.as_str()),
        (method, path),
        "{line}"
    );
    assert_eq!(asked.body, body, "{line}");
}

#[tokio::test]
async fn power_commands_put_their_options() {
    let put = async |line: &str, action: &str, body: Value| {
        let word = line.split(' ').next().unwrap();
        let stdout = format!("VM a was scheduled to {word}\n");
        check(line, "PUT", &format!("{VM}/a/{action}"), body, &stdout).await;
    };
    put("start a", "start", json!({})).await;
    put("start vm/a --paused=true", "start", json!({"paused": true})).await;
    put("stop a", "stop", json!({})).await;
    put(
        "stop a --force --grace-period=0",
        "stop",
        json!({"gracePeriod": 0}),
    )
    .await;
    put("restart a", "restart", json!({})).await;
    let body = json!({"gracePeriodSeconds": 0});
    put("restart a --force=true --grace-period 0", "restart", body).await;
    put("migrate a", "migrate", json!({})).await;
    let body = json!({"addedNodeSelector": {"a": "b", "c": "d"}});
    put("migrate a --addedNodeSelector=a=b,c=d", "migrate", body).await;
    let body = json!({"dryRun": ["All"]});
    let stdout = "Dry Run execution\nVM a was scheduled to start\n";
    check(
        "start a --dry-run",
        "PUT",
        &format!("{VM}/a/start"),
        body,
        stdout,
    )
    .await;
}

#[tokio::test]
async fn instance_commands_put_to_the_instance() {
    let put = async |line: &str, action: &str, word: &str| {
        let stdout = format!("VMI a was scheduled to {word}\n");
        check(
            line,
            "PUT",
            &format!("{VMI}/a/{action}"),
            json!({}),
            &stdout,
        )
        .await;
    };
    put("pause vm a", "pause", "pause").await;
    put("pause vmi a", "pause", "pause").await;
    put("unpause vm/a", "unpause", "unpause").await;
    put("reset a", "reset", "reset").await;
    put("soft-reboot vmi/a", "softreboot", "soft-reboot").await;
}

#[tokio::test]
async fn guests_are_asked_for_what_they_are() {
    let info = "{\n  \"guestAgentVersion\": \"9\"\n}\n";
    check(
        "guestosinfo a",
        "GET",
        &format!("{VMI}/a/guestosinfo"),
        Value::Null,
        info,
    )
    .await;
    let list = "{\n  \"items\": [\n    {\n      \"userName\": \"root\"\n    }\n  ]\n}\n";
    check(
        "userlist a",
        "GET",
        &format!("{VMI}/a/userlist"),
        Value::Null,
        list,
    )
    .await;
    check(
        "fslist a",
        "GET",
        &format!("{VMI}/a/filesystemlist"),
        Value::Null,
        list,
    )
    .await;
}

#[tokio::test]
async fn the_active_migration_is_deleted() {
    let path = format!("{OBJECTS}/virtualmachineinstancemigrations/m1");
    let body = json!({"kind": "DeleteOptions", "apiVersion": "v1", "dryRun": []});
    let stdout = "VM a was scheduled to migrate-cancel\n";
    check("migrate-cancel a", "DELETE", &path, body, stdout).await;
    let body = json!({"evacuationNodeName": "node1"});
    let stdout = "VM ns/a was canceled evacuation\n";
    check(
        "evacuate-cancel vm a",
        "PUT",
        &format!("{VM}/a/evacuate/cancel"),
        body,
        stdout,
    )
    .await;
}

#[tokio::test]
async fn services_select_the_pods_of_the_object() {
    let owner = |kind: &str| json!([{"apiVersion": "kubevirt.io/v1", "kind": kind, "name": "a", "uid": "u", "controller": true, "blockOwnerDeletion": false}]);
    let service = |kind: &str, spec: Value| {
        json!({
            "apiVersion": "v1", "kind": "Service", "spec": spec,
            "metadata": {"name": "s", "namespace": "ns", "ownerReferences": owner(kind)},
        })
    };
    let path = "/api/v1/namespaces/ns/services";
    let line = "expose vm a --name=s --port=22 --target-port=2222 --type=nodeport --protocol=udp --external-ip=10.0.0.1";
    let spec = json!({
        "ports": [{"port": 22, "protocol": "UDP", "targetPort": 2222}], "type": "NodePort",
        "selector": {"vmi.kubevirt.io/id": "a"}, "externalIPs": ["10.0.0.1"],
    });
    let stdout = "Service s successfully created for vm a\n";
    check(line, "POST", path, service("VirtualMachine", spec), stdout).await;

    let ports = json!([{"name": "port-1", "port": 80, "protocol": "TCP"}]);
    let spec =
        json!({"ports": ports, "type": "ClusterIP", "selector": {"vmi.kubevirt.io/id": "a"}});
    let stdout = "Service s successfully created for vmi a\n";
    let body = service("VirtualMachineInstance", spec);
    check("expose VMI a --name=s", "POST", path, body, stdout).await;

    let spec = json!({
        "ports": ports, "type": "ClusterIP", "selector": {"a": "b"},
        "ipFamilies": ["IPv6", "IPv4"], "ipFamilyPolicy": "PreferDualStack",
    });
    let stdout = "Service s successfully created for vmirs a\n";
    let body = service("VirtualMachineInstanceReplicaSet", spec);
    check(
        "expose vmirs a --name=s --ip-family=ipv6,ipv4",
        "POST",
        path,
        body,
        stdout,
    )
    .await;
}

#[tokio::test]
async fn volumes_are_plugged_as_what_they_are() {
    let disk = json!({"name": "data", "serial": "data", "disk": {"bus": "scsi"}});
    let source = json!({"persistentVolumeClaim": {"claimName": "data", "hotpluggable": true}});
    let body = json!({"name": "data", "disk": disk, "volumeSource": source});
    let stdout = "Successfully submitted add volume request to VM a for volume data\n";
    check(
        "addvolume a --volume-name=data",
        "PUT",
        &format!("{VM}/a/addvolume"),
        body,
        stdout,
    )
    .await;
    let stdout = "Successfully submitted remove volume request to VM a for volume data\n";
    let path = format!("{VM}/a/removevolume");
    let body = json!({"name": "data"});
    check(
        "removevolume a --volume-name=data --persist",
        "PUT",
        &path,
        body,
        stdout,
    )
    .await;
    let stdout = "Successfully submitted memory dump request of VM a\n";
    let body = json!({"claimName": "c", "phase": ""});
    let line = "memory-dump get a --claim-name=c";
    check(line, "PUT", &format!("{VM}/a/memorydump"), body, stdout).await;
}

#[tokio::test]
async fn machines_are_expanded_from_the_cluster_and_from_input() {
    let yaml = "kind: VirtualMachine\nspec:\n  a: \"yes\"\n";
    check(
        "expand --vm a",
        "GET",
        &format!("{VM}/a/expand-spec"),
        Value::Null,
        yaml,
    )
    .await;
    let endpoint = Endpoint::start(willing).await;
    let mut command = program_at(&endpoint);
    command.args(["expand", "--file=-", "--output=json"]);
    let outcome = run(command, "kind: VirtualMachine\nspec: {b: 1}\n").await;
    assert!(outcome.stdout.contains("\"a\": \"yes\""), "{outcome:?}");
    assert_eq!(
        endpoint.asked()[0].body,
        json!({"kind": "VirtualMachine", "spec": {"b": 1}})
    );
}

#[tokio::test]
async fn versions_have_the_form_that_scripts_look_for() {
    let endpoint = Endpoint::start(willing).await;
    let outcome = run_line(&endpoint, "version").await;
    assert!(
        outcome
            .stdout
            .contains("Client Version: version.Info{GitVersion:\"v")
    );
    assert!(
        outcome
            .stdout
            .contains("Server Version: version.Info{GitVersion:\"v1.2.3\"")
    );
    let mut command = program();
    command.args(["version", "--client"]);
    let outcome = run(command, "").await;
    assert_eq!((outcome.code, outcome.stdout.lines().count()), (Some(0), 1));
}

#[tokio::test]
async fn refusals_are_shown_with_cause_and_cure() {
    let check = async |line: &str, answer: (u16, Value), expected: &[&str]| {
        let endpoint = Endpoint::start(move |_, _| answer.clone()).await;
        let outcome = run_line(&endpoint, line).await;
        assert_eq!(
            (outcome.code, outcome.stdout.as_str()),
            (Some(1), ""),
            "{line}"
        );
        for expected in expected {
            assert!(
                outcome.stderr.contains(expected),
                "{line}: {}",
                outcome.stderr
            );
        }
    };
    let already =
        "Operation cannot be fulfilled on virtualmachine.kubevirt.io \"a\": VM is already running";
    let conflict = refusal(409, "Conflict", already);
    check(
        "start a",
        conflict,
        &[
            "Error starting VirtualMachine Operation cannot",
            "already running",
        ],
    )
    .await;
    let gone = || not_found("virtualmachine.kubevirt.io", "a");
    check(
        "stop a",
        gone(),
        &[
            "Error stopping VirtualMachine",
            "not found",
            "kubectl get vm,vmi -A",
        ],
    )
    .await;
    check("pause vm a", gone(), &["Error getting VirtualMachine a:"]).await;
    let forbidden = refusal(403, "Forbidden", "user cannot update virtualmachines/start");
    check("start a", forbidden, &["cannot update", "kubevirt.io:edit"]).await;
    let unknown = refusal(401, "Unauthorized", "Unauthorized");
    check("start a", unknown, &["Unauthorized", "--token"]).await;
    let unsupported = refusal(
        501,
        "NotImplemented",
        "dumps of guest memory are not supported",
    );
    check(
        "memory-dump get a",
        unsupported,
        &["dumps of guest memory are not supported"],
    )
    .await;
    check("start a", (502, json!("<html>")), &["502", "<html>"]).await;
    let no_display = refusal(400, "BadRequest", "No graphics devices are present.");
    check(
        "vnc a",
        no_display,
        &[
            "can't access VMI a: No graphics devices",
            "virtctl console a",
        ],
    )
    .await;
}

#[tokio::test]
async fn a_machine_that_is_off_is_not_paused() {
    let endpoint = Endpoint::start(|_, _| (200, json!({"spec": {"runStrategy": "Halted"}}))).await;
    let outcome = run_line(&endpoint, "pause vm a").await;
    assert_eq!(outcome.code, Some(1));
    assert!(
        outcome
            .stderr
            .contains("VirtualMachine a is not set to run"),
        "{outcome:?}"
    );
    assert_eq!(endpoint.asked().len(), 1);
}

#[tokio::test]
async fn without_an_answer_the_server_is_named() {
    let endpoint = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let mut command = program();
    command.args([&format!("--server=http://{endpoint}"), "start", "a"]);
    let outcome = run(command, "").await;
    assert_eq!(outcome.code, Some(1));
    let expected = format!("no answer from http://{endpoint}: ");
    assert!(outcome.stderr.contains(&expected), "{}", outcome.stderr);
    assert!(
        outcome.stderr.contains("--kubeconfig"),
        "{}",
        outcome.stderr
    );
}

#[tokio::test]
async fn lines_that_make_no_sense_end_with_one_and_ask_for_nothing() {
    let endpoint = Endpoint::start(willing).await;
    let lines = [
        ("start", "required"),
        ("start ../../pods/x", "unsupported resource type"),
        ("start ..", "no name"),
        ("start vm/a%2fb", "no name"),
        ("start vmi/a", "name its virtual machine"),
        ("strat a", "unrecognized"),
        ("stop a --force", "Must both use"),
        ("stop a --grace-period=3", "Must both use"),
        ("pause pod a", "unsupported resource type"),
        ("pause vm", "name the kind and the object"),
        ("expose vm a --name=s --port=0", "port"),
        ("ssh jdoe@pod/a", "unsupported resource type"),
        ("port-forward vm/a x", "no port"),
        ("port-forward --stdio vm/a 1 2", "only one port"),
        ("image-upload dv a --image-path=./x.qcow2", "./x.qcow2"),
        ("memory-dump download a", "kubectl cp"),
        ("create vm --volume-pvc=name:a", "src must be specified"),
    ];
    for (line, expected) in lines {
        let outcome = run_line(&endpoint, line).await;
        assert_eq!(
            (outcome.code, outcome.stdout.as_str()),
            (Some(1), ""),
            "{line}"
        );
        assert!(
            outcome.stderr.contains(expected),
            "{line}: {}",
            outcome.stderr
        );
    }
    assert_eq!(endpoint.asked(), []);
}

#[tokio::test]
async fn help_names_the_program_as_it_is_called() {
    let folder = tempfile::tempdir().unwrap();
    let plugin = folder.path().join("kubectl-virt");
    symlink(env!("CARGO_BIN_EXE_virtctl"), &plugin).unwrap();
    for (path, name, other) in [
        (
            std::path::Path::new(env!("CARGO_BIN_EXE_virtctl")),
            "virtctl",
            "kubectl virt",
        ),
        (&plugin, "kubectl virt", "virtctl"),
    ] {
        for line in [
            &["--help"][..],
            &["start", "--help"],
            &["help", "create", "vm"],
        ] {
            let mut command = tokio::process::Command::new(path);
            command.args(line);
            let outcome = run(command, "").await;
            assert_eq!(outcome.code, Some(0), "{outcome:?}");
            assert!(
                outcome.stdout.contains(&format!("{name} ")),
                "{}",
                outcome.stdout
            );
            assert!(
                !outcome.stdout.contains(other),
                "{line:?}: {}",
                outcome.stdout
            );
        }
        let mut command = tokio::process::Command::new(path);
        command.args(["start"]);
        let outcome = run(command, "").await;
        assert!(
            outcome.stderr.contains(&format!("Usage: {name} start")),
            "{}",
            outcome.stderr
        );
    }
}

#[tokio::test]
async fn only_who_asks_for_it_reads_of_requests() {
    let endpoint = Endpoint::start(|_, _| refusal(501, "NotImplemented", "no dumps")).await;
    let outcome = run_line(&endpoint, "memory-dump get a").await;
    assert_eq!(outcome.stderr, "error dumping vm memory, no dumps\n");
    let outcome = run_line(&endpoint, "memory-dump get a -v=4 --token=secret").await;
    assert!(outcome.stderr.contains("/memorydump"), "{outcome:?}");
    assert!(!outcome.stderr.contains("secret"), "{outcome:?}");
}

#[tokio::test]
async fn without_a_command_there_is_help() {
    let outcome = run(program(), "").await;
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""));
    assert!(outcome.stdout.contains("Usage: virtctl"), "{outcome:?}");
}

#[tokio::test]
async fn shells_get_completion_scripts() {
    for (shell, expected) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef virtctl"),
        ("fish", "complete -c virtctl"),
    ] {
        let mut command = program();
        command.args(["completion", shell]);
        let outcome = run(command, "").await;
        assert_eq!(outcome.code, Some(0));
        assert!(outcome.stdout.contains(expected) && outcome.stdout.contains("soft-reboot"));
    }
}

#[tokio::test]
async fn tls_and_tokens_of_a_kubeconfig_are_used() {
    let script = |method: &str, path: &str| match path.contains("/virtualmachineinstances/") {
        true => (200, json!({"status": {"phase": "Running"}})),
        false => willing(method, path),
    };
    let endpoint = Endpoint::start_tls(script).await;
    let folder = tempfile::tempdir().unwrap();
    let authority = folder.path().join("ca.crt");
    std::fs::write(&authority, endpoint.authority.as_ref().unwrap()).unwrap();
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": format!("https://{}", endpoint.address), "certificate-authority": "ca.crt"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "ns"}}],
        "users": [{"name": "u", "user": {"token": "secret"}}],
    });
    let path = folder.path().join("config");
    std::fs::write(&path, kubeconfig.to_string()).unwrap();
    let mut command = program();
    command.env("KUBECONFIG", &path).args(["start", "a"]);
    let outcome = run(command, "").await;
    assert_eq!((outcome.stderr.as_str(), outcome.code), ("", Some(0)));
    let asked = endpoint.asked();
    assert_eq!(asked[0].path, format!("{VM}/a/start"));
    assert_eq!(asked[0].authorization, "Bearer secret");

    let mut command = program();
    command
        .env("KUBECONFIG", &path)
        .args(["console", "a", "--linger=500ms"]);
    let outcome = run(command, "").await;
    assert_eq!(
        (outcome.stdout.as_str(), outcome.code),
        ("login: ", Some(0)),
        "{outcome:?}"
    );
    assert_eq!(
        endpoint.asked().last().unwrap().authorization,
        "Bearer secret"
    );
    let mut command = program();
    let server = format!("--server=https://{}", endpoint.address);
    command.args([&server, "start", "a"]);
    let outcome = run(command, "").await;
    assert_eq!(outcome.code, Some(1));
    assert!(outcome.stderr.contains("certificate"), "{}", outcome.stderr);
    let mut command = program();
    command.args([
        &server,
        "--insecure-skip-tls-verify",
        "-n",
        "ns",
        "--token=t",
        "start",
        "a",
    ]);
    assert_eq!(run(command, "").await.code, Some(0));
    assert_eq!(endpoint.asked().last().unwrap().authorization, "Bearer t");
}
