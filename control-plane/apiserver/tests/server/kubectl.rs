//! kubectl, where it is installed.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::wire::serve;

struct Kubectl {
    address: SocketAddr,
    home: std::path::PathBuf,
}

impl Kubectl {
    /// Runs kubectl and returns what it prints; its words must succeed.
    async fn run(&self, words: &[&str], input: &str) -> String {
        let mut child = Command::new("kubectl")
            .arg(format!("--server=http://{}", self.address))
            .arg("--request-timeout=20s")
            .args(words)
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
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let (printed, said) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "kubectl {words:?}: {said}");
        printed
    }

    async fn json(&self, words: &[&str]) -> Value {
        serde_json::from_str(&self.run(words, "").await).unwrap()
    }
}

async fn is_installed() -> bool {
    let probe = Command::new("kubectl")
        .args(["version", "--client"])
        .output()
        .await;
    probe.is_ok_and(|it| it.status.success())
}

fn manifest(text: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  text: {text}\n")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_applies_shows_labels_and_deletes() {
    if !is_installed().await {
        println!("skipped: kubectl is not installed");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (_server, address) = serve(&directory.path().join("state")).await;
    let kubectl = Kubectl {
        address,
        home: directory.path().to_owned(),
    };
    assert_eq!(
        kubectl.run(&["apply", "-f", "-"], &manifest("one")).await,
        "configmap/a created\n"
    );
    assert_eq!(
        kubectl.run(&["apply", "-f", "-"], &manifest("two")).await,
        "configmap/a configured\n"
    );
    assert_eq!(
        kubectl.run(&["apply", "-f", "-"], &manifest("two")).await,
        "configmap/a unchanged\n"
    );
    assert_eq!(
        kubectl.json(&["get", "configmap", "a", "-o", "json"]).await["data"]["text"],
        "two"
    );
    kubectl.run(&["label", "cm", "a", "tier=front"], "").await;
    let selected = kubectl
        .run(&["get", "cm", "-l", "tier=front", "-o", "name"], "")
        .await;
    assert_eq!(selected, "configmap/a\n");
    let table = kubectl.run(&["get", "cm"], "").await;
    assert!(table.starts_with("NAME"), "{table}");
    let applied = kubectl
        .run(
            &["apply", "--server-side", "--force-conflicts", "-f", "-"],
            &manifest("three"),
        )
        .await;
    assert_eq!(applied, "configmap/a serverside-applied\n");
    kubectl.run(&["delete", "cm", "a"], "").await;
    assert_eq!(kubectl.run(&["get", "cm", "-o", "name"], "").await, "");
    assert_home_is_ours(&kubectl.home);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_creates_what_it_sends_as_protobuf() {
    if !is_installed().await {
        println!("skipped: kubectl is not installed");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (_server, address) = serve(&directory.path().join("state")).await;
    let kubectl = Kubectl {
        address,
        home: directory.path().to_owned(),
    };
    for words in [
        "create namespace other",
        "create configmap c --from-literal=a=1",
        "create secret generic s --from-literal=password=secret",
        "create serviceaccount robot",
        "create role reader --verb=get --resource=pods",
        "create rolebinding readers --role=reader --serviceaccount=default:robot",
        "create clusterrole all --verb=* --resource=nodes",
        "create clusterrolebinding alls --clusterrole=all --group=people",
        "create deployment web --image=example.org/web:1 --replicas=0 --port=80",
        "create job once --image=example.org/once:1 -- sh -c exit",
        "create quota few --hard=pods=3",
        "create poddisruptionbudget calm --selector=app=web --min-available=1",
        "create priorityclass high --value=1000",
    ] {
        kubectl.run(&words.split(' ').collect::<Vec<_>>(), "").await;
    }
    let shown = |words: &'static str| async {
        let words: Vec<_> = words.split(' ').chain(["-o", "json"]).collect();
        kubectl.json(&words).await
    };
    assert_eq!(shown("get configmap c").await["data"]["a"], "1");
    assert_eq!(shown("get secret s").await["data"]["password"], "c2VjcmV0");
    let deployment = shown("get deployment web").await;
    assert_eq!(deployment["spec"]["replicas"], 0);
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(
        (&container["image"], &container["ports"][0]["containerPort"]),
        (&json!("example.org/web:1"), &json!(80))
    );
    assert_eq!(shown("get quota few").await["spec"]["hard"]["pods"], "3");
    assert_eq!(shown("get pdb calm").await["spec"]["minAvailable"], 1);
    assert_eq!(
        kubectl.run(&["auth", "can-i", "get", "pods"], "").await,
        "yes\n"
    );
    assert!(
        kubectl
            .run(&["create", "token", "robot"], "")
            .await
            .starts_with("ey")
    );
}

/// kubectl caches discovery where the test says, so nothing is left elsewhere.
fn assert_home_is_ours(home: &Path) {
    assert!(home.join(".kube/cache").is_dir());
}
