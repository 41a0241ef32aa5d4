use std::fs;

use tempfile::TempDir;
use tokio::time::Instant;

use super::{FILE_NAME, Ledger, UNSEEN_FOR_MAX};
use crate::plugins::checkpoint::InUse;
use crate::plugins::nodes::tests::{owner, plant_device};
use crate::report::Holder;
use crate::resource::ResourceName;
use crate::runner::AllocateError;
use crate::source::Host;
use crate::tree;
use crate::unit::{Health, Node, Unit};

const LAUNCHER: u32 = 107;

fn resource() -> ResourceName {
    ResourceName::new("kubevirt.io/wifi").unwrap()
}

fn unit(id: &str, nodes: &[&str]) -> (String, Unit) {
    let node = |path: &&str| Node {
        path: path.into(),
        permissions: "rw".to_owned(),
        is_owned: true,
    };
    let unit = Unit {
        id: id.to_owned(),
        copies: 1,
        parts: vec![format!("part of {id}")],
        health: Health::Healthy,
        numa_node: None,
        nodes: nodes.iter().map(node).collect(),
        addresses: Vec::new(),
    };
    (id.to_owned(), unit)
}

fn in_use(id: &str, pod_uid: &str) -> InUse {
    InUse {
        resource: resource(),
        id: id.to_owned(),
        holder: Holder {
            pod_uid: pod_uid.to_owned(),
            container: "compute".to_owned(),
        },
    }
}

/// A ledger in a tree with plain files for nodes.
struct Desk {
    _dir: TempDir,
    host: Host,
    ledger: Ledger,
    now: Instant,
}

impl Desk {
    fn new(tree: &str) -> Self {
        let dir = tree::plant(tree);
        let host = tree::host(&dir);
        let now = Instant::now();
        let (ledger, fault) = Ledger::open(&host, LAUNCHER, now);
        assert_eq!(fault, None);
        Self {
            _dir: dir,
            host,
            ledger,
            now,
        }
    }

    fn give(&mut self, units: &[(String, Unit)]) {
        assert_eq!(self.ledger.give(&resource(), units, self.now), Ok(None));
    }

    /// Settles, and returns what is still given.
    fn settle(&mut self, in_use: Option<&[InUse]>, pods: &[&str]) -> Vec<String> {
        let is_there = |pod_uid: &str| pods.contains(&pod_uid);
        assert_eq!(self.ledger.settle(in_use, is_there, self.now), None);
        self.given()
    }

    fn given(&self) -> Vec<String> {
        let entries = self.ledger.entries().into_iter();
        entries.map(|entry| entry.id).collect()
    }

    fn restart(&mut self) {
        let (ledger, fault) = Ledger::open(&self.host, LAUNCHER, self.now);
        assert_eq!(fault, None);
        self.ledger = ledger;
    }
}

#[test]
fn what_the_kubelet_names_is_kept_until_it_names_it_no_more() {
    let mut desk = Desk::new("f dev/a\nf dev/b\n");
    desk.give(&[unit("a", &["/dev/a"]), unit("b", &["/dev/b"])]);
    let both = [in_use("a", "p"), in_use("b", "p")];
    assert_eq!(desk.settle(Some(&both), &["p"]), ["a", "b"]);
    assert_eq!(desk.ledger.next_end(), None);
    assert_eq!(desk.settle(Some(&both[1..]), &["p"]), ["b"]);
    assert_eq!(desk.settle(Some(&[]), &[]), [""; 0]);
}

#[test]
fn what_the_kubelet_never_named_is_kept_for_a_while() {
    let mut desk = Desk::new("f dev/a\n");
    desk.give(&[unit("a", &["/dev/a"])]);
    assert_eq!(desk.settle(Some(&[]), &[]), ["a"]);
    assert_eq!(desk.ledger.next_end(), Some(desk.now + UNSEEN_FOR_MAX));
    desk.now += UNSEEN_FOR_MAX;
    assert_eq!(desk.settle(Some(&[]), &[]), [""; 0]);
}

#[test]
fn without_the_kubelets_record_only_the_end_of_pods_counts() {
    let mut desk = Desk::new("f dev/a\nf dev/b\n");
    desk.give(&[unit("a", &["/dev/a"]), unit("b", &["/dev/b"])]);
    desk.settle(Some(&[in_use("a", "p")]), &["p"]);
    desk.now += UNSEEN_FOR_MAX * 2;
    assert_eq!(desk.settle(None, &["p"]), ["a", "b"]);
    assert_eq!(desk.settle(None, &[]), ["b"], "nobody knows who has b");
}

#[test]
fn a_unit_given_again_does_not_go_with_who_had_it_before() {
    let mut desk = Desk::new("f dev/a\n");
    desk.give(&[unit("a", &["/dev/a"])]);
    desk.settle(Some(&[in_use("a", "old")]), &["old"]);
    desk.give(&[unit("a", &["/dev/a"])]);
    assert_eq!(desk.settle(Some(&[in_use("a", "old")]), &["old"]), ["a"]);
    desk.restart();
    assert_eq!(
        desk.settle(Some(&[]), &[]),
        ["a"],
        "the new one is not seen yet"
    );
    assert_eq!(desk.settle(Some(&[in_use("a", "new")]), &["new"]), ["a"]);
    assert_eq!(desk.settle(Some(&[]), &[]), [""; 0]);
}

#[test]
fn what_was_given_is_known_after_a_restart_but_not_after_a_reboot() {
    let mut desk = Desk::new("f dev/a\n");
    desk.give(&[unit("a", &["/dev/a"])]);
    desk.settle(Some(&[in_use("a", "p")]), &["p"]);
    desk.restart();
    assert_eq!(desk.given(), ["a"]);
    assert_eq!(desk.ledger.entries()[0].parts, ["part of a"]);
    let path = desk.host.private_dir.join(FILE_NAME);
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace(&super::boot(), "another")).unwrap();
    desk.restart();
    assert_eq!(desk.given(), [""; 0]);
}

#[test]
fn a_record_that_makes_no_sense_is_told_and_begun_anew() {
    let dir = tree::plant(&format!(
        "f private/{FILE_NAME} {{\"version\":1,\nf dev/a\n"
    ));
    let host = tree::host(&dir);
    let now = Instant::now();
    let (mut ledger, fault) = Ledger::open(&host, LAUNCHER, now);
    assert!(fault.unwrap().contains("begins anew"));
    assert_eq!(
        ledger.give(&resource(), &[unit("a", &["/dev/a"])], now),
        Ok(None)
    );
    let (ledger, fault) = Ledger::open(&host, LAUNCHER, now);
    assert_eq!((ledger.entries().len(), fault), (1, None));
}

#[test]
fn a_record_that_cannot_be_written_is_told_and_devices_are_given() {
    let mut desk = Desk::new("f dev/a\n");
    fs::write(&desk.host.private_dir, "in the way").unwrap();
    let fault = desk
        .ledger
        .give(&resource(), &[unit("a", &["/dev/a"])], desk.now);
    assert!(fault.unwrap().unwrap().contains("after a restart"));
    assert_eq!(desk.given(), ["a"]);
}

#[test]
fn all_units_are_given_or_none() {
    let mut desk = Desk::new("f dev/a\nd dev/folder\n");
    let units = [unit("a", &["/dev/a"]), unit("b", &["/dev/gone"])];
    let error = desk.ledger.give(&resource(), &units, desk.now).unwrap_err();
    assert!(
        matches!(&error, AllocateError::Gone { id, .. } if id == "b"),
        "{error}"
    );
    assert!(error.to_string().contains("/dev/gone is gone"), "{error}");
    let units = [unit("a", &["/dev/a"]), unit("b", &["/dev/folder"])];
    let error = desk.ledger.give(&resource(), &units, desk.now).unwrap_err();
    assert!(matches!(&error, AllocateError::Refused { .. }), "{error}");
    assert_eq!(desk.given(), [""; 0]);
}

#[test]
fn a_node_of_several_units_goes_back_with_the_last() {
    let mut desk = Desk::new("d dev\n");
    if !plant_device(&desk._dir, "dev/shared", 0o600) {
        return;
    }
    let path = desk.host.dev_dir.join("shared");
    let before = owner(&path);
    desk.give(&[unit("a", &["/dev/shared"])]);
    desk.give(&[unit("b", &["/dev/shared"])]);
    assert_eq!(owner(&path).0, LAUNCHER);
    desk.settle(Some(&[in_use("a", "p"), in_use("b", "p")]), &["p"]);
    desk.restart();
    desk.settle(Some(&[in_use("b", "p")]), &["p"]);
    assert_eq!(owner(&path).0, LAUNCHER);
    desk.settle(Some(&[]), &["p"]);
    assert_eq!(owner(&path), before);
}

#[test]
fn what_can_be_shared_and_stays_whose_it_is_is_not_noted() {
    let mut desk = Desk::new("f dev/kvm\n");
    let (_, mut kvm) = unit("kvm", &["/dev/kvm"]);
    kvm.parts.clear();
    kvm.copies = 1000;
    kvm.nodes[0].is_owned = false;
    desk.give(&[("kvm17".to_owned(), kvm)]);
    assert_eq!(desk.given(), [""; 0]);
    assert!(!desk.host.private_dir.join(FILE_NAME).exists());
}
