//! Volumes of each kind, as containers see them.

use std::fs;
use std::os::unix::fs::symlink;

use serde_json::{Value, json};

use crate::node::{Node, pod};

/// Runs a script with volumes mounted under `/v`, and returns what it wrote.
async fn run(node: &Node, name: &str, script: &str, volumes: &[(Value, Value)]) -> (Value, String) {
    let mut wanted = pod(name, script);
    wanted["spec"]["volumes"] = json!(volumes.iter().map(|(volume, _)| volume).collect::<Vec<_>>());
    wanted["spec"]["containers"][0]["volumeMounts"] =
        json!(volumes.iter().map(|(_, mount)| mount).collect::<Vec<_>>());
    node.memory.put_pod(wanted);
    let ended = node
        .wait_for(name, "over", |pod| {
            pod["status"]["phase"] == "Succeeded" || pod["status"]["phase"] == "Failed"
        })
        .await;
    (ended, node.log(name, "main"))
}

fn mount(name: &str) -> Value {
    json!({"name": name, "mountPath": format!("/v/{name}")})
}

#[tokio::test]
async fn folders_in_memory_and_on_disk() {
    let Some(node) = Node::new() else { return };
    let volumes = [
        (json!({"name": "disk", "emptyDir": {}}), mount("disk")),
        (
            json!({"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}),
            mount("memory"),
        ),
        (
            json!({"name": "fixed", "emptyDir": {}}),
            json!({"name": "fixed", "mountPath": "/v/fixed", "readOnly": true}),
        ),
    ];
    let script = "stat -c %a /v/disk; echo x > /v/disk/x && cat /v/disk/x; grep ' /v/memory ' /proc/mounts | cut -d' ' -f1; \
        head -c 2000000 /dev/zero > /v/memory/big 2>/dev/null || echo full; touch /v/fixed/x 2>/dev/null || echo fixed";
    let (ended, log) = run(&node, "folders", script, &volumes).await;
    assert_eq!(log, "777\nx\ntmpfs\nfull\nfixed\n", "{ended:#}");
    node.memory.delete_pod("folders", 5);
    node.wait_until_gone("folders").await;
    assert_eq!(node.leftovers(), Vec::<String>::new());
}

#[tokio::test]
async fn files_of_objects() {
    let Some(node) = Node::new() else { return };
    node.memory.put(
        "ConfigMap",
        json!({"metadata": {"name": "map"}, "data": {"a": "1", "b": "2"}}),
    );
    node.memory.put(
        "Secret",
        json!({"metadata": {"name": "hush"}, "data": {"key": "c2VjcmV0"}}),
    );
    let projected = json!({"name": "all", "projected": {"sources": [
        {"configMap": {"name": "map", "items": [{"key": "a", "path": "deep/a"}]}},
        {"secret": {"name": "hush"}},
        {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"serviceAccountToken": {"path": "token", "audience": "me"}},
    ]}});
    let volumes = [
        (
            json!({"name": "map", "configMap": {"name": "map"}}),
            mount("map"),
        ),
        (
            json!({"name": "hush", "secret": {"secretName": "hush", "defaultMode": 256}}),
            mount("hush"),
        ),
        (
            json!({"name": "none", "secret": {"secretName": "none", "optional": true}}),
            mount("none"),
        ),
        (projected, mount("all")),
    ];
    let script = "cd /v; cat map/a map/b; ls none; echo; cat hush/key; stat -L -c ' %a' hush/key; \
        cat all/deep/a all/key; echo; cat all/labels; echo; cat all/token; echo; touch map/x 2>/dev/null || echo fixed";
    let (ended, log) = run(&node, "files", script, &volumes).await;
    assert_eq!(
        log, "12\nsecret 400\n1secret\ncolor=\"blue\"\ntoken of default for me\nfixed\n",
        "{ended:#}"
    );
}

#[tokio::test]
async fn labels_that_change_are_seen() {
    let Some(node) = Node::new() else { return };
    let mut wanted = pod(
        "changed",
        "until grep -q red /v/info/labels; do sleep 0.05; done",
    );
    let items = json!([{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]);
    wanted["spec"]["volumes"] = json!([{"name": "info", "downwardAPI": {"items": items}}]);
    wanted["spec"]["containers"][0]["volumeMounts"] = json!([mount("info")]);
    node.memory.put_pod(wanted);
    node.wait_for_phase("changed", "Running").await;
    node.memory.change("changed", |pod| {
        pod["metadata"]["labels"]["color"] = json!("red");
    });
    node.wait_for_phase("changed", "Succeeded").await;
}

#[tokio::test]
async fn folders_of_the_host_and_paths_in_them() {
    let Some(node) = Node::new() else { return };
    let host = node.path("host");
    fs::create_dir_all(host.join("sub")).unwrap();
    fs::write(host.join("sub/file"), "of the host\n").unwrap();
    let path = host.to_str().unwrap();
    let volumes = [
        (
            json!({"name": "host", "hostPath": {"path": path, "type": "Directory"}}),
            json!({"name": "host", "mountPath": "/v/sub", "subPath": "sub"}),
        ),
        (
            json!({"name": "file", "hostPath": {"path": format!("{path}/sub/file"), "type": "File"}}),
            mount("file"),
        ),
        (
            json!({"name": "made", "hostPath": {"path": format!("{path}/made"), "type": "DirectoryOrCreate"}}),
            json!({"name": "made", "mountPath": "/v/made", "subPath": "new/er"}),
        ),
    ];
    let (ended, log) = run(
        &node,
        "host",
        "cat /v/sub/file /v/file; echo x > /v/made/x; ls /v",
        &volumes,
    )
    .await;
    assert_eq!(
        log, "of the host\nof the host\nfile\nmade\nsub\n",
        "{ended:#}"
    );
    assert!(host.join("made/new/er/x").exists());
    node.memory.delete_pod("host", 5);
    node.wait_until_gone("host").await;
    assert!(host.join("sub/file").exists());
}

#[tokio::test]
async fn no_path_leads_out_of_a_volume() {
    let Some(node) = Node::new() else { return };
    let host = node.path("host");
    fs::create_dir_all(&host).unwrap();
    symlink("/etc", host.join("link")).unwrap();
    for (name, sub_path) in [("link", "link"), ("up", "../x"), ("root", "/etc")] {
        let volume = json!({"name": "host", "hostPath": {"path": host.to_str().unwrap()}});
        let mount = json!({"name": "host", "mountPath": "/v", "subPath": sub_path});
        let (ended, _) = run(&node, name, "ls /v", &[(volume, mount)]).await;
        let terminated = &ended["status"]["containerStatuses"][0]["state"]["terminated"];
        assert_eq!(terminated["reason"], "StartError", "{ended:#}");
        assert!(
            terminated["message"].as_str().unwrap().contains("subPath"),
            "{terminated}"
        );
    }
    assert!(!node.path("x").exists());
}

#[tokio::test]
async fn claims_and_images() {
    let Some(node) = Node::new() else { return };
    let [claimed, image] = ["claimed", "images/disk"].map(|name| node.path(name));
    fs::create_dir_all(&claimed).unwrap();
    fs::create_dir_all(image.join("disk")).unwrap();
    fs::write(image.join("disk/image.raw"), "a disk\n").unwrap();
    node.memory.put("PersistentVolumeClaim", json!({"metadata": {"name": "claim"}, "spec": {"volumeName": "pv"}, "status": {"phase": "Bound"}}));
    node.memory.put("PersistentVolume", json!({"metadata": {"name": "pv"}, "spec": {"hostPath": {"path": claimed.to_str().unwrap()}}}));
    let volumes = [
        (
            json!({"name": "claim", "persistentVolumeClaim": {"claimName": "claim"}}),
            mount("claim"),
        ),
        (
            json!({"name": "image", "image": {"reference": "disk", "pullPolicy": "IfNotPresent"}}),
            mount("image"),
        ),
    ];
    let script = "echo x > /v/claim/x; cat /v/image/disk/image.raw; touch /v/image/y 2>/dev/null || echo fixed";
    let (ended, log) = run(&node, "claims", script, &volumes).await;
    assert_eq!(log, "a disk\nfixed\n", "{ended:#}");
    assert!(claimed.join("x").exists());
}

#[tokio::test]
async fn images_are_roots_that_stay_as_they_are() {
    let Some(node) = Node::new() else { return };
    let Ok(busybox) = fs::metadata("/usr/bin/busybox").or_else(|_| fs::metadata("/bin/busybox"))
    else {
        println!("skipped: there is no busybox to make an image of");
        return;
    };
    assert!(busybox.is_file());
    let image = node.path("images/box");
    fs::create_dir_all(image.join("bin")).unwrap();
    fs::copy("/bin/busybox", image.join("bin/sh")).unwrap();
    let mut wanted = pod(
        "rooted",
        "echo new > /new; echo $0; read line < /new; echo $line",
    );
    wanted["spec"]["containers"][0]["image"] = json!("box");
    node.memory.put_pod(wanted.clone());
    let ended = node
        .wait_for("rooted", "over", |pod| {
            pod["status"]["phase"] == "Succeeded" || pod["status"]["phase"] == "Failed"
        })
        .await;
    assert_eq!(node.log("rooted", "main"), "/bin/sh\nnew\n", "{ended:#}");
    assert_eq!(fs::read_dir(&image).unwrap().count(), 1);
    wanted["metadata"] = json!({"name": "fixed", "namespace": "default", "uid": "uid-fixed"});
    wanted["spec"]["containers"][0]["securityContext"] = json!({"readOnlyRootFilesystem": true});
    node.memory.put_pod(wanted);
    let ended = node.wait_for_phase("fixed", "Succeeded").await;
    assert!(node.log("fixed", "main").contains("Read-only"), "{ended:#}");
}

#[tokio::test]
async fn what_the_host_mounts_later_is_seen_where_wanted() {
    let Some(node) = Node::new() else { return };
    let mut wanted = pod(
        "follows",
        "until [ -e /v/late/x ]; do sleep 0.05; done; ls /w/late",
    );
    wanted["spec"]["volumes"] = json!([{"name": "disks", "emptyDir": {}}]);
    wanted["spec"]["containers"][0]["volumeMounts"] = json!([
        {"name": "disks", "mountPath": "/v", "mountPropagation": "HostToContainer"}, {"name": "disks", "mountPath": "/w"}]);
    node.memory.put_pod(wanted);
    node.wait_for_phase("follows", "Running").await;
    let late = node
        .state()
        .join("kubelet/pods/uid-follows/volumes/kubernetes.io~empty-dir/disks/late");
    fs::create_dir(&late).unwrap();
    rustix::mount::mount(
        "late",
        &late,
        "tmpfs",
        rustix::mount::MountFlags::empty(),
        None,
    )
    .unwrap();
    fs::write(late.join("x"), "").unwrap();
    node.wait_for_phase("follows", "Succeeded").await;
    assert_eq!(node.log("follows", "main"), "");
    node.memory.delete_pod("follows", 5);
    node.wait_until_gone("follows").await;
    assert_eq!(node.leftovers(), Vec::<String>::new());
}
