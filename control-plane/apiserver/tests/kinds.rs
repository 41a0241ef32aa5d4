//! What kubectl makes of the kinds that a server has: help, tables, checks of manifests.

#![expect(
    clippy::print_stdout,
    clippy::tests_outside_test_module,
    clippy::unwrap_used,
    reason = "an integration test is a test module as a whole, and says why it is skipped"
)]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use apiserver::access::User;
use apiserver::{ApiServer, Options, Security};
use serde_json::json;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio::process::Command;

struct Kubectl {
    address: SocketAddr,
    home: PathBuf,
    _server: ApiServer,
}

impl Kubectl {
    /// Returns whether it succeeded, and all that it said.
    async fn run(&self, words: &str, input: &str) -> (bool, String) {
        let mut child = Command::new("kubectl")
            .arg(format!("--server=http://{}", self.address))
            .arg("--request-timeout=20s")
            .args(words.split(' '))
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &self.home)
            .env("KUBECONFIG", self.home.join("none"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).await.unwrap();
        drop(stdin);
        let output = child.wait_with_output().await.unwrap();
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    }

    /// Runs words that must succeed.
    #[track_caller]
    fn good(&self, words: &str, input: &str) -> impl Future<Output = String> {
        let caller = std::panic::Location::caller();
        async move {
            let (is_good, said) = self.run(words, input).await;
            assert!(is_good, "{caller}: kubectl {words}: {said}");
            said
        }
    }
}

/// Returns kubectl and a server that knows our custom kinds; nothing where there is no kubectl.
async fn kubectl(home: &Path) -> Option<Kubectl> {
    let probe = Command::new("kubectl")
        .args(["version", "--client"])
        .output()
        .await;
    if !probe.is_ok_and(|it| it.status.success()) {
        println!("skipped: kubectl is not installed");
        return None;
    }
    let server = ApiServer::open(Options::new(&home.join("state"), vec![7; 32])).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = server.clone();
    let security = Security::Plain(User::master("tests"));
    tokio::spawn(async move { served.serve(listener, security).await });
    let kubectl = Kubectl {
        address,
        home: home.to_owned(),
        _server: server,
    };
    kubectl
        .good(
            "create -f -",
            "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: default\n",
        )
        .await;
    let definitions =
        json!({"apiVersion": "v1", "kind": "List", "items": api::crd::all().collect::<Vec<_>>()});
    kubectl.good("create -f -", &definitions.to_string()).await;
    // kubectl believes for ten minutes that there is nothing else than it saw at first.
    std::fs::remove_dir_all(home.join(".kube")).unwrap();
    Some(kubectl)
}

const POD: &str = "
apiVersion: v1
kind: Pod
metadata:
  name: p
spec:
  nodeName: here
  containers:
  - name: c
    image: i:1
    ports:
    - containerPort: 80
";

const MACHINE: &str = "
apiVersion: kubevirt.io/v1
kind: VirtualMachine
metadata:
  name: m
spec:
  runStrategy: Halted
  template:
    spec:
      domain:
        devices: {}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_explains_built_in_and_custom_kinds() {
    let directory = tempfile::tempdir().unwrap();
    let Some(kubectl) = kubectl(directory.path()).await else {
        return;
    };
    let pod = kubectl.good("explain pod.spec.containers", "").await;
    assert!(pod.contains("FIELD: containers <[]Container>"), "{pod}");
    assert!(pod.contains("image\t<string>"), "{pod}");
    let limits = kubectl
        .good("explain pod.spec.containers.resources.limits", "")
        .await;
    assert!(limits.contains("<map[string]Quantity>"), "{limits}");
    let machine = kubectl
        .good("explain vm.spec.template --recursive", "")
        .await;
    for part in [
        "GROUP:      kubevirt.io\n",
        "KIND:       VirtualMachine\n",
        "VERSION:    v1\n",
    ] {
        assert!(machine.contains(part), "{machine}");
    }
    let fields = machine.replace('\t', "");
    assert!(
        fields.contains("terminationGracePeriodSeconds<integer>"),
        "{machine}"
    );
    let old = kubectl
        .good(
            "explain --api-version=kubevirt.io/v1alpha3 vm.metadata.labels",
            "",
        )
        .await;
    assert!(old.contains("<map[string]string>"), "{old}");
    let (is_good, said) = kubectl.run("explain pod.spec.nothing", "").await;
    assert!(!is_good && said.contains("does not exist"), "{said}");
    let crd = kubectl
        .good(
            "explain crd.spec.versions.schema.openAPIV3Schema --recursive",
            "",
        )
        .await;
    assert!(crd.contains("additionalProperties"), "{crd}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_shows_tables_under_any_name_of_a_kind() {
    let directory = tempfile::tempdir().unwrap();
    let Some(kubectl) = kubectl(directory.path()).await else {
        return;
    };
    kubectl.good("create -f -", POD).await;
    kubectl.good("create -f -", MACHINE).await;
    let wide = kubectl.good("get po -o wide", "").await;
    let head = wide.lines().next().unwrap();
    let columns: Vec<_> = head.split_whitespace().collect();
    assert_eq!(
        columns.join(" "),
        "NAME READY STATUS RESTARTS AGE IP NODE NOMINATED NODE READINESS GATES"
    );
    assert!(
        wide.contains("0/1") && wide.contains("Pending") && wide.contains("here"),
        "{wide}"
    );
    let short = kubectl.good("get pods.v1. p --no-headers", "").await;
    assert_eq!(
        short.split_whitespace().take(4).collect::<Vec<_>>(),
        ["p", "0/1", "Pending", "0"]
    );
    let all = kubectl.good("get all", "").await;
    assert!(all.contains("pod/p"), "{all}");
    for name in [
        "vm",
        "vms",
        "virtualmachine",
        "virtualmachines.kubevirt.io",
        "virtualmachines.v1alpha3.kubevirt.io",
    ] {
        let machines = kubectl.good(&format!("get {name}"), "").await;
        assert!(
            machines.starts_with("NAME") && machines.contains("\nm "),
            "{name}: {machines}"
        );
    }
    let sorted = kubectl
        .good("get pods --sort-by=.metadata.name -o name", "")
        .await;
    assert_eq!(sorted, "pod/p\n");
    let kinds = kubectl.good("api-resources --no-headers", "").await;
    for line in [
        "pods po v1 true Pod",
        "virtualmachines vm,vms kubevirt.io/v1 true VirtualMachine",
    ] {
        let lines: Vec<_> = kinds
            .lines()
            .map(|it| it.split_whitespace().collect::<Vec<_>>().join(" "))
            .collect();
        assert!(lines.contains(&line.to_owned()), "{line}: {lines:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_is_told_of_all_that_is_wrong_with_a_manifest() {
    let directory = tempfile::tempdir().unwrap();
    let Some(kubectl) = kubectl(directory.path()).await else {
        return;
    };
    for (manifest, from, to, expected) in [
        (
            POD,
            "image: i:1",
            "imag: i:1",
            "unknown field \"spec.containers[0].imag\"",
        ),
        (
            MACHINE,
            "devices: {}",
            "devices: {}\n        typo: 1",
            "unknown field \"spec.template.spec.domain.typo\"",
        ),
        (
            POD,
            "containerPort: 80",
            "containerPort: 99999",
            "spec.containers[0].ports[0].containerPort: Invalid value: 99999",
        ),
        (
            POD,
            "name: p",
            "name: P",
            "metadata.name: Invalid value: \"P\"",
        ),
        (
            MACHINE,
            "template:",
            "running: 5\n  template:",
            "spec.running in body must be of type boolean",
        ),
    ] {
        let (is_good, said) = kubectl
            .run("create -f -", &manifest.replacen(from, to, 1))
            .await;
        assert!(!is_good && said.contains(expected), "{said}");
    }
    let warned = kubectl
        .good(
            "create --validate=warn -f -",
            &POD.replace("nodeName: here", "typo: 1"),
        )
        .await;
    assert!(
        warned.contains("Warning: unknown field \"spec.typo\""),
        "{warned}"
    );
    let quiet = kubectl
        .good(
            "create --validate=ignore -f -",
            &MACHINE.replace("runStrategy", "typo: 1\n  runStrategy"),
        )
        .await;
    assert_eq!(quiet, "virtualmachine.kubevirt.io/m created\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_applies_lists_of_built_in_kinds_item_by_item() {
    let directory = tempfile::tempdir().unwrap();
    let Some(kubectl) = kubectl(directory.path()).await else {
        return;
    };
    let deployment = |image: &str, extra: &str| {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: d\nspec:\n  selector:\n    matchLabels: {{a: b}}\n  \
             template:\n    metadata:\n      labels: {{a: b}}\n    spec:\n      containers:\n      - name: c\n        \
             image: {image}\n{extra}"
        )
    };
    let two = deployment("i:1", "      - name: e\n        image: j:1\n");
    assert_eq!(
        kubectl.good("apply -f -", &two).await,
        "deployment.apps/d created\n"
    );
    let patch = r#"set image deployment/d e=j:2"#;
    assert_eq!(
        kubectl.good(patch, "").await,
        "deployment.apps/d image updated\n"
    );
    let one = deployment("i:2", "");
    assert_eq!(
        kubectl.good("apply -f -", &one).await,
        "deployment.apps/d configured\n"
    );
    let images = "get deployment d -o jsonpath={.spec.template.spec.containers[*].image}";
    assert_eq!(kubectl.good(images, "").await, "i:2");
    let shown = kubectl.good("get deploy d -o wide --no-headers", "").await;
    assert_eq!(
        shown.split_whitespace().skip(1).take(3).collect::<Vec<_>>(),
        ["0/1", "0", "0"],
        "{shown}"
    );
    assert_eq!(
        kubectl.good("scale deployment d --replicas=3", "").await,
        "deployment.apps/d scaled\n"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kinds_come_and_go_with_their_definitions() {
    const DEFINITION: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata:
  name: network-attachment-definitions.k8s.cni.cncf.io
spec:
  group: k8s.cni.cncf.io
  scope: Namespaced
  names:
    plural: network-attachment-definitions
    kind: NetworkAttachmentDefinition
    shortNames: [nad, net-attach-def]
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            properties:
              config:
                type: string
";
    const NETWORK: &str = "
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata:
  name: net
spec:
  config: one
";
    let directory = tempfile::tempdir().unwrap();
    let Some(kubectl) = kubectl(directory.path()).await else {
        return;
    };
    let (is_good, said) = kubectl.run("apply -f -", NETWORK).await;
    assert!(
        !is_good && said.contains("no matches for kind \"NetworkAttachmentDefinition\""),
        "{said}"
    );
    let broken = DEFINITION.replace("type: string", "type: strng\n                default: {}");
    let (is_good, said) = kubectl
        .run("create -f -", &broken.replace("[nad, ", "[NAD, "))
        .await;
    assert!(
        !is_good && said.contains("spec.names.shortNames[0]: Invalid value: \"NAD\""),
        "{said}"
    );
    kubectl.good("create -f -", DEFINITION).await;
    let created = kubectl.good("apply -f -", NETWORK).await;
    assert_eq!(
        created,
        "networkattachmentdefinition.k8s.cni.cncf.io/net created\n"
    );
    let changed = kubectl
        .good("apply -f -", &NETWORK.replace("one", "two"))
        .await;
    assert_eq!(
        changed,
        "networkattachmentdefinition.k8s.cni.cncf.io/net configured\n"
    );
    let shown = kubectl.good("get net-attach-def", "").await;
    assert!(shown.starts_with("NAME   AGE\nnet "), "{shown}");
    kubectl
        .good(
            "delete crd network-attachment-definitions.k8s.cni.cncf.io",
            "",
        )
        .await;
    let (is_good, said) = kubectl.run("get --raw /apis/k8s.cni.cncf.io/v1", "").await;
    assert!(!is_good && said.contains("NotFound"), "{said}");
}
