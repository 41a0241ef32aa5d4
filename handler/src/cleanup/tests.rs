//! Tests of what is left over, and of looking and removing with files.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use serde_json::json;
use tempfile::TempDir;

use super::{Leftover, Observed, Pod, Record, end_image_containers, leftovers, observe, remove};
use crate::config::HostPaths;

fn known(uids: &[&str]) -> BTreeSet<String> {
    uids.iter().map(|uid| (*uid).to_owned()).collect()
}

fn record(pod: &str) -> Record {
    Record {
        paths: [path(pod)].into(),
        pods: [pod.to_owned()].into(),
    }
}

fn path(pod: &str) -> PathBuf {
    let volume = "volumes/kubernetes.io~empty-dir/container-disks/disk_0.img";
    Path::new("/pods").join(pod).join(volume)
}

fn used(is_alive: bool, pod: &str) -> Pod {
    Pod {
        is_alive,
        has_mark: true,
        has_pipe: true,
        mounts: [path(pod)].into(),
    }
}

fn one(is_alive: bool) -> Observed {
    Observed {
        ghosts: [].into(),
        finals: ["u".to_owned()].into(),
        mounts: [("u".to_owned(), record("p"))].into(),
        pods: [("p".to_owned(), used(is_alive, "p"))].into(),
    }
}

fn uid() -> String {
    "u".to_owned()
}

#[test]
fn what_belongs_to_a_known_instance_is_not_left_over() {
    assert_eq!(leftovers(&one(false), &known(&["u"])), []);
    assert_eq!(leftovers(&one(true), &known(&["u"])), []);
}

#[test]
fn records_of_an_unknown_instance_are_left_over_and_the_pod_waits_for_them() {
    let expected = [
        Leftover::Mounts { uid: uid() },
        Leftover::FinalDomain { uid: uid() },
    ];
    assert_eq!(leftovers(&one(false), &known(&["other"])), expected);
}

#[test]
fn a_launcher_that_listens_keeps_its_mounts() {
    let expected = [Leftover::FinalDomain { uid: uid() }];
    assert_eq!(leftovers(&one(true), &known(&[])), expected);
}

#[test]
fn what_a_ghost_record_stands_for_is_left_to_who_tells_its_end() {
    let mut observed = one(false);
    observed.ghosts.insert(uid(), "p".to_owned());
    assert_eq!(leftovers(&observed, &known(&[])), []);
}

#[test]
fn a_pod_on_no_record_is_tidied_unless_it_is_alive() {
    let mut observed = Observed::default();
    observed.pods.insert("p".to_owned(), used(false, "p"));
    observed.pods.insert("q".to_owned(), used(true, "q"));
    let pod_uid = || "p".to_owned();
    let expected = [
        Leftover::Mount { path: path("p") },
        Leftover::Mark { pod_uid: pod_uid() },
        Leftover::Pipe { pod_uid: pod_uid() },
    ];
    assert_eq!(leftovers(&observed, &known(&["u"])), expected);
}

/// A node of files.
struct Node {
    _folder: TempDir,
    paths: HostPaths,
}

impl Node {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let paths = HostPaths {
            pods_dir: at("pods"),
            private_dir: at("private"),
            kubelet_dir: at("kubelet"),
            ..HostPaths::default()
        };
        Self {
            _folder: folder,
            paths,
        }
    }

    fn write(&self, folder: &Path, path: &str, content: &str) -> PathBuf {
        let path = folder.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    fn pod(&self, pod: &str) -> (PathBuf, PathBuf) {
        let at = |path: &str| format!("{pod}/volumes/kubernetes.io~empty-dir/{path}");
        let pods = &self.paths.pods_dir;
        let mark = self.write(pods, &at("sockets/launcher-unresponsive"), "");
        (
            mark,
            self.write(pods, &at("public/domain-notify-pipe.sock"), ""),
        )
    }
}

#[test]
fn leftovers_are_seen_and_removed_and_the_rest_is_kept() {
    let node = Node::new();
    let private = &node.paths.private_dir;
    let target = |pod: &str| {
        let volume = "volumes/kubernetes.io~empty-dir/container-disks/disk_0.img";
        node.paths.pods_dir.join(pod).join(volume)
    };
    let state = |pod: &str| {
        json!({"mountTargetEntries": [{"targetFile": target(pod), "socketFile": ""}]}).to_string()
    };
    let folder = "container-disk-mount-state";
    let kept = [
        node.write(private, &format!("{folder}/known"), &state("p-known")),
        node.write(private, "final-domains/known", "{}"),
        node.pod("p-known").0,
        node.pod("p-known").1,
        node.pod("p-alive").0,
        node.pod("p-alive").1,
    ];
    let dead = [
        node.write(private, &format!("{folder}/gone"), &state("p-gone")),
        node.write(private, "final-domains/gone", "{}"),
        node.pod("p-dead").0,
        node.pod("p-dead").1,
    ];
    let sockets = "p-alive/volumes/kubernetes.io~empty-dir/sockets/launcher-sock";
    let _launcher = UnixListener::bind(node.paths.pods_dir.join(sockets)).unwrap();
    let stale = "p-dead/volumes/kubernetes.io~empty-dir/sockets/launcher-sock";
    drop(UnixListener::bind(node.paths.pods_dir.join(stale)).unwrap());
    let found = leftovers(&observe(&node.paths), &known(&["known"]));
    assert_eq!(found.len(), dead.len(), "{found:?}");
    for leftover in &found {
        remove(&node.paths, leftover).unwrap();
        // Another may have been faster.
        remove(&node.paths, leftover).unwrap();
    }
    assert!(kept.iter().all(|path| path.exists()));
    assert!(!dead.iter().any(|path| path.exists()));
    assert_eq!(leftovers(&observe(&node.paths), &known(&["known"])), []);
}

#[test]
fn nothing_is_removed_through_links_or_odd_names() {
    let node = Node::new();
    let outside = node.write(&node.paths.kubelet_dir, "launcher-unresponsive", "");
    let pod = node
        .paths
        .pods_dir
        .join("p/volumes/kubernetes.io~empty-dir");
    fs::create_dir_all(&pod).unwrap();
    std::os::unix::fs::symlink(&node.paths.kubelet_dir, pod.join("sockets")).unwrap();
    for leftover in [
        Leftover::Mark {
            pod_uid: "p".to_owned(),
        },
        Leftover::Mount {
            path: outside.clone(),
        },
        Leftover::FinalDomain {
            uid: "../../kubelet/launcher-unresponsive".to_owned(),
        },
        Leftover::Mounts {
            uid: "../x".to_owned(),
        },
    ] {
        remove(&node.paths, &leftover).unwrap_err();
    }
    assert_eq!(leftovers(&observe(&node.paths), &known(&[])), []);
    assert!(outside.exists());
}

#[test]
fn containers_of_disk_images_are_ended_and_nothing_else_is_touched() {
    let node = TempDir::new().unwrap();
    let paths = HostPaths {
        pods_dir: node.path().join("pods"),
        ..HostPaths::default()
    };
    end_image_containers(&paths, "p").unwrap();
    let volume = paths
        .pods_dir
        .join("p/volumes/kubernetes.io~empty-dir/container-disks");
    fs::create_dir_all(&volume).unwrap();
    let elsewhere = node.path().join("elsewhere.sock");
    let _held = [
        UnixListener::bind(volume.join("disk_0.sock")).unwrap(),
        UnixListener::bind(volume.join("kernel-boot.sock")).unwrap(),
        UnixListener::bind(volume.join("other")).unwrap(),
        UnixListener::bind(&elsewhere).unwrap(),
    ];
    fs::write(volume.join("file.sock"), "").unwrap();
    std::os::unix::fs::symlink(&elsewhere, volume.join("link.sock")).unwrap();
    end_image_containers(&paths, "p").unwrap();
    let mut left: Vec<_> = fs::read_dir(&volume)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    left.sort();
    assert_eq!(left, ["file.sock", "link.sock", "other"]);
    assert!(elsewhere.exists());
}
