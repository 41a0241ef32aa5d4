//! A node process that is killed at any moment.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use single_node::sandbox::container::{Container, Life};

use crate::node::{Node, pod, uid};
use crate::place::{Place, end_of, until};

const PODS: usize = 6;
/// Tells the process that is to be killed where its node is.
const STATE: &str = "FERROVIRT_TEST_PLACE";

fn wanted() -> Vec<Value> {
    let pods = (0..PODS).map(|number| pod(&format!("p{number}"), "exec sleep 1000"));
    pods.map(|mut pod| {
        pod["spec"]["restartPolicy"] = json!("Always");
        pod["spec"]["volumes"] = json!([{"name": "memory", "emptyDir": {"medium": "Memory"}}]);
        pod["spec"]["containers"][0]["volumeMounts"] =
            json!([{"name": "memory", "mountPath": "/m"}]);
        pod
    })
    .collect()
}

/// The process that is killed; run as a test of its own it does nothing.
#[tokio::test]
async fn node_process() {
    let Some(folder) = std::env::var_os(STATE) else {
        return;
    };
    let node = std::mem::ManuallyDrop::new(Node::at(Path::new(&folder)));
    for pod in wanted() {
        node.memory.put_pod(pod);
    }
    std::future::pending::<()>().await;
}

fn start(place: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "crashes::node_process", "--nocapture"])
        .env(STATE, place);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn no_pod_runs_twice_however_often_the_node_is_killed() {
    let Some(place) = Place::new() else { return };
    for milliseconds in [10, 25, 40, 60, 80, 120, 35, 50] {
        let mut process = start(place.folder.path());
        tokio::time::sleep(Duration::from_millis(milliseconds)).await;
        process.kill().unwrap();
        process.wait().unwrap();
    }
    let node = Node::at(place.folder.path());
    for pod in wanted() {
        node.memory.put_pod(pod);
    }
    for number in 0..PODS {
        let name = format!("p{number}");
        node.wait_for(&name, "running", |pod| {
            pod["status"]["containerStatuses"][0]["state"]["running"].is_object()
        })
        .await;
    }
    for number in 0..PODS {
        let uid = uid(&format!("p{number}"));
        let sleepers = || processes(&format!("/pod{uid}/main"));
        until("one process", || (sleepers().len() == 1).then_some(()));
    }
    single_node::pods::runner::remove_all(node.runner.options()).unwrap();
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

/// Processes in a control group whose name ends so.
fn processes(group: &str) -> Vec<String> {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let is_there = |path: &Path| {
        let groups = fs::read_to_string(path.join("cgroup")).unwrap_or_default();
        groups.lines().any(|line| line.ends_with(group))
    };
    let found = entries
        .map(|entry| entry.path())
        .filter(|path| is_there(path));
    found.map(|path| path.display().to_string()).collect()
}

#[test]
fn a_start_that_was_interrupted_has_ended_for_good() {
    let Some(place) = Place::new() else { return };
    let (container, spec) = place.script("c", "echo ran");
    assert_eq!(container.life().unwrap(), Life::None);
    fs::create_dir_all(container.folder()).unwrap();
    fs::write(
        container.folder().join("spec.json"),
        serde_json::to_vec(&spec).unwrap(),
    )
    .unwrap();
    let keeper = single_node::sandbox::record::hold(container.folder())
        .unwrap()
        .unwrap();
    assert_eq!(container.life().unwrap(), Life::Starting);
    drop(keeper);
    assert_eq!(end_of(&container).code, 128);
    // A keeper that comes too late does not run it.
    let folder = container.folder().to_owned();
    let late = Command::new(crate::place::FERROVIRT)
        .arg("sandbox-shim")
        .arg(&folder)
        .status()
        .unwrap();
    assert!(late.success());
    assert_eq!(place.log("c"), "");
    assert_eq!(
        Container::at(folder).life().unwrap(),
        container.life().unwrap()
    );
}
