//! A launcher's pod as the controller renders it, with the real launcher.

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::net::sockopt::socket_peercred;
use serde_json::{Value, json};

use crate::node::{Node, uid};
use crate::place::FERROVIRT;

/// Volumes of a launcher's pod and where they are in it.
const EMPTY_DIRS: [(&str, &str); 7] = [
    ("private", "/var/run/kubevirt-private"),
    ("public", "/var/run/kubevirt"),
    ("sockets", "/var/run/kubevirt/sockets"),
    ("ephemeral-disks", "/var/run/kubevirt-ephemeral-disks"),
    ("container-disks", "/var/run/kubevirt/container-disks"),
    ("libvirt-runtime", "/var/run/libvirt"),
    ("hotplug-disks", "/var/run/kubevirt/hotplug-disks"),
];

fn launcher_pod(name: &str) -> Value {
    let volumes: Vec<_> = EMPTY_DIRS
        .iter()
        .map(|(name, _)| json!({"name": name, "emptyDir": {}}))
        .collect();
    let mounts: Vec<_> = EMPTY_DIRS
        .iter()
        .map(|(name, path)| {
            let follows = name.ends_with("-disks").then_some("HostToContainer");
            json!({"name": name, "mountPath": path, "mountPropagation": follows})
        })
        .collect();
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": uid(name)},
        "spec": {
            "nodeName": "node01", "restartPolicy": "Never", "terminationGracePeriodSeconds": 60,
            "enableServiceLinks": false, "automountServiceAccountToken": false, "hostname": "testvmi",
            "securityContext": {"runAsUser": 107, "runAsGroup": 107, "runAsNonRoot": true, "fsGroup": 107},
            "volumes": volumes,
            "containers": [{
                "name": "compute", "image": "registry.example/ferrovirt/virt-launcher:v1", "imagePullPolicy": "IfNotPresent",
                "command": ["/usr/bin/virt-launcher-monitor", "--qemu-timeout", "240s", "--name", "testvmi",
                    "--uid", "11111111-2222-3333-4444-555555555555", "--namespace", "default",
                    "--kubevirt-share-dir", "/var/run/kubevirt", "--ephemeral-disk-dir", "/var/run/kubevirt-ephemeral-disks",
                    "--container-disk-dir", "/var/run/kubevirt/container-disks", "--grace-period-seconds", "45",
                    "--hook-sidecars", "0", "--ovmf-path", "/usr/share/OVMF", "--run-as-nonroot", "--image-volume"],
                "env": [{"name": "XDG_CACHE_HOME", "value": "/var/run/kubevirt-private"},
                    {"name": "POD_NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                "resources": {"requests": {"cpu": "100m", "memory": "100Mi"}},
                "securityContext": {"allowPrivilegeEscalation": false, "runAsUser": 107, "runAsNonRoot": true,
                    "capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]}},
                "volumeMounts": mounts,
            }],
        },
        "status": {"phase": "Pending"},
    })
}

fn has_launcher() -> bool {
    let is_there = Path::new(FERROVIRT)
        .with_file_name("virt-launcher")
        .exists();
    if !is_there {
        println!("skipped: virt-launcher is not built: cargo build -p launcher");
    }
    is_there
}

fn socket(node: &Node, name: &str) -> std::path::PathBuf {
    let pods = node.runner.options().pods_dir();
    pods.join(uid(name))
        .join("volumes/kubernetes.io~empty-dir/sockets/launcher-sock")
}

#[tokio::test]
async fn a_launcher_is_reached_as_the_handler_does() {
    if !has_launcher() {
        return;
    }
    let Some(node) = Node::new() else { return };
    let began = Instant::now();
    node.memory.put_pod(launcher_pod("vmi"));
    node.wait_for_phase("vmi", "Running").await;
    println!("the launcher's process runs after {:?}", began.elapsed());
    assert_eq!(node.memory.writes("vmi"), 1);
    let socket = socket(&node, "vmi");
    node.wait_for("vmi", "ready", |_| {
        socket.exists() || panicked(&node, "vmi")
    })
    .await;
    println!("its socket is there after {:?}", began.elapsed());
    let handle = node.runner.container("default", "vmi", "compute").unwrap();
    let stream = UnixStream::connect(&socket).unwrap();
    let peer = socket_peercred(&stream).unwrap();
    let pid = peer.pid.as_raw_nonzero().get();
    assert_eq!((Some(pid), peer.uid.as_raw()), (handle.pid, 107));
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(
        status.contains("CapEff:\t0000000000000400") && status.contains("NoNewPrivs:\t1"),
        "{status}"
    );
    assert!(
        Path::new(&format!(
            "/proc/{pid}/root/var/run/kubevirt/sockets/launcher-sock"
        ))
        .exists()
    );
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    println!("{groups}");
    node.memory.delete_pod("vmi", 60);
    node.wait_until_gone("vmi").await;
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

fn panicked(node: &Node, name: &str) -> bool {
    let has_ended = node
        .memory
        .pod(name)
        .is_some_and(|pod| pod["status"]["phase"] == "Failed");
    assert!(!has_ended, "{}", node.log(name, "compute"));
    false
}

#[tokio::test]
async fn many_launchers_start_soon() {
    const PODS: usize = 20;
    if !has_launcher() {
        return;
    }
    let Some(node) = Node::new() else { return };
    let mut took = Vec::new();
    let began = Instant::now();
    for number in 0..PODS {
        node.memory.put_pod(launcher_pod(&format!("vmi{number}")));
    }
    for number in 0..PODS {
        node.wait_for_phase(&format!("vmi{number}"), "Running")
            .await;
        took.push(began.elapsed());
    }
    println!("{PODS} launchers at once run after {:?}", took.last());
    let keepers = (0..PODS).filter_map(|number| {
        let observed = node.runner.observed(&uid(&format!("vmi{number}")))?;
        let keeper = observed.runs("compute").started()?.keeper.pid;
        let text = std::fs::read_to_string(format!("/proc/{keeper}/smaps_rollup")).ok()?;
        let line = text
            .lines()
            .find(|line| line.starts_with("Private_Dirty:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok()
    });
    let private: Vec<_> = keepers.collect();
    println!("keepers have {private:?} KiB of their own");
    for number in 0..PODS {
        node.memory.delete_pod(&format!("vmi{number}"), 0);
    }
    let began = Instant::now();
    for number in 0..PODS {
        node.wait_until_gone(&format!("vmi{number}")).await;
    }
    println!("and are gone after {:?}", began.elapsed());
    assert!(
        took.last()
            .is_some_and(|last| *last < Duration::from_secs(15)),
        "{took:?}"
    );
    assert_eq!(node.leftovers(), Vec::<String>::new());
}
