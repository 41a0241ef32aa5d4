use std::collections::BTreeMap;

use device_plugins::report::{FILE_NAME, Holder, Report, ResourceReport, UnitReport};
use device_plugins::resource::ResourceName;
use device_plugins::runner::Registration;
use device_plugins::unit::{Health, LeftOut};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::complaints::{Complaints, complaints};
use super::condition::{CONDITION, condition, patch};
use super::show::{Format, show};
use super::table::{Look, table};
use crate::key::VmiKey;

fn unit(id: &str, copies: u32, health: Health) -> UnitReport {
    UnitReport {
        id: id.to_owned(),
        copies,
        nodes: vec![format!("/dev/{id}").into()],
        addresses: Vec::new(),
        health,
        numa_node: None,
        holders: Vec::new(),
    }
}

fn resource(name: &str, units: Vec<UnitReport>) -> ResourceReport {
    ResourceReport {
        resource: ResourceName::new(name).unwrap(),
        registration: Registration::Registered,
        units,
        left_out: Vec::new(),
    }
}

fn holder(pod_uid: &str) -> Holder {
    Holder {
        pod_uid: pod_uid.to_owned(),
        container: "compute".to_owned(),
    }
}

fn unhealthy(reason: &str) -> Health {
    Health::Unhealthy(reason.to_owned())
}

/// A node with a device of every kind of trouble.
fn report() -> Report {
    let mut kvm = resource(
        "devices.kubevirt.io/kvm",
        vec![unit("kvm", 1000, unhealthy("KVM is too slow"))],
    );
    kvm.units[0].holders = ["p1", "p2", "p3"].map(holder).into();
    let mut dongle = unit("usb-1-1.4", 1, Health::Healthy);
    dongle.addresses = vec!["1:7".to_owned()];
    dongle.numa_node = Some(1);
    dongle.holders = vec![holder("p1")];
    let mut dongles = resource("kubevirt.io/dongle", vec![dongle]);
    dongles.left_out.push(LeftOut {
        device: "1-2".to_owned(),
        reason: "held\u{1b}[2J by another".to_owned(),
    });
    let mut gpu = resource("example.com/gpu", Vec::new());
    gpu.registration = Registration::Failed("the kubelet does not answer".to_owned());
    Report {
        resources: vec![kvm, gpu, dongles],
        problems: vec!["--usb-list item 2: it has 2 of 3 parts".to_owned()],
    }
}

fn well() -> Report {
    Report {
        resources: vec![resource(
            "kubevirt.io/dongle",
            vec![unit("usb-1-1", 1, Health::Healthy)],
        )],
        problems: Vec::new(),
    }
}

fn shown(is_wide: bool) -> String {
    let pods = BTreeMap::from([("p1".to_owned(), VmiKey::new("default", "vm1"))]);
    let look = Look {
        is_wide,
        pods: &pods,
    };
    table(&report(), &look)
}

#[test]
fn the_table_says_what_there_is_who_has_it_and_why_something_is_missing() {
    let expected = "\
RESOURCE                  UNIT          NODES            HEALTH      NUMA   ALLOCATED TO          REASON
devices.kubevirt.io/kvm   kvm (x1000)   /dev/kvm         unhealthy   -      3 of 1000             KVM is too slow
example.com/gpu           -             -                none        -      -                     no such device is plugged in
kubevirt.io/dongle        usb-1-1.4     /dev/usb-1-1.4   healthy     1      default/vm1/compute   -
kubevirt.io/dongle        1-2           -                left out    -      -                     held?[2J by another

example.com/gpu is not registered: the kubelet does not answer
--usb-list item 2: it has 2 of 3 parts
";
    assert_eq!(shown(false), expected);
}

#[test]
fn the_wide_table_has_addresses_every_holder_and_the_kubelets_view() {
    let text = shown(true);
    let lines: Vec<&str> = text.lines().collect();
    assert!(
        lines[0].contains("ALLOCATED TO") && lines[0].ends_with("ADDRESSES   KUBELET      REASON")
    );
    assert!(lines[1].contains("default/vm1/compute,p2/compute,p3/compute"));
    assert!(lines[2].contains("failed"));
    assert!(lines[3].contains("1:7         registered"), "{text}");
}

#[test]
fn a_node_without_devices_says_so() {
    let look = Look {
        is_wide: false,
        pods: &BTreeMap::new(),
    };
    assert_eq!(
        table(&Report::default(), &look),
        "This node offers no devices.\n"
    );
}

#[test]
fn reports_are_shown_as_they_were_left() {
    let folder = tempfile::tempdir().unwrap();
    report().write(&folder.path().join(FILE_NAME)).unwrap();
    let ghosts = folder.path().join("ghost-records");
    std::fs::create_dir(&ghosts).unwrap();
    let socket = "/pods/p1/volumes/kubernetes.io~empty-dir/sockets/launcher-sock";
    let ghost = json!({"name": "vm1", "namespace": "default", "uid": "u1", "socketFile": socket});
    std::fs::write(ghosts.join("u1"), ghost.to_string()).unwrap();
    let table = show(folder.path(), Format::Table).unwrap();
    assert!(table.contains("default/vm1/compute"), "{table}");
    let json = show(folder.path(), Format::Json).unwrap();
    let json: Value = serde_json::from_str(&json).unwrap();
    let unit = &json["resources"][0]["units"][0];
    assert_eq!(unit["copies"], 1000);
    assert_eq!(unit["health"]["reason"], "KVM is too slow");
    assert_eq!(json["pods"], json!({"p1": "default/vm1"}));
}

#[test]
fn without_a_report_the_cure_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let error = show(folder.path(), Format::Table).unwrap_err().to_string();
    for wanted in [
        "devices.json",
        "start virt-handler",
        "--kubevirt-private-dir",
    ] {
        assert!(error.contains(wanted), "{error}");
    }
    std::fs::write(folder.path().join(FILE_NAME), "[").unwrap();
    let error = show(folder.path(), Format::Table).unwrap_err().to_string();
    assert!(error.contains("restarted"), "{error}");
}

#[test]
fn the_condition_names_the_worst_and_tells_all() {
    let told = condition(&report());
    assert!(!told.is_well);
    assert_eq!(told.reason, "WrongRequest");
    for wanted in [
        "--usb-list item 2: it has 2 of 3 parts",
        "example.com/gpu: the kubelet does not answer",
        "kubevirt.io/dongle 1-2: held?[2J by another",
        "devices.kubevirt.io/kvm kvm: KVM is too slow",
    ] {
        assert!(told.message.contains(wanted), "{}", told.message);
    }
    let mut report = report();
    report.problems.clear();
    assert_eq!(condition(&report).reason, "NotRegistered");
    report.resources.remove(1);
    let told = condition(&report);
    assert!(told.is_well);
    assert_eq!(told.reason, "DevicesLeftOut");
}

#[test]
fn shared_devices_that_a_node_has_not_are_told_and_are_nothing_wrong() {
    let mut report = report();
    report.problems.clear();
    report.resources.truncate(1);
    let told = condition(&report);
    assert!(told.is_well);
    assert!(told.message.contains("KVM is too slow"));
    assert_eq!(
        condition(&well()).message,
        "every device that was asked for is offered"
    );
}

#[test]
fn the_message_of_a_condition_has_a_bound() {
    let mut report = well();
    report.problems = (0..500).map(|at| format!("item {at} is wrong")).collect();
    let told = condition(&report);
    assert!(told.message.len() < 2200, "{}", told.message.len());
    assert!(told.message.contains("more: see `virt-handler devices`"));
}

#[test]
fn the_node_is_patched_only_when_something_changed() {
    let told = condition(&well());
    let first = patch(&json!({}), &told, Timestamp::UNIX_EPOCH).unwrap();
    let condition = &first["status"]["conditions"][0];
    assert_eq!(condition["type"], CONDITION);
    assert_eq!(condition["status"], "True");
    assert_eq!(condition["lastTransitionTime"], "1970-01-01T00:00:00Z");
    let later = Timestamp::from_second(86_400).unwrap();
    assert_eq!(patch(&first, &told, later), None);
    let mut other = told.clone();
    other.message = "another".to_owned();
    let second = patch(&first, &other, later).unwrap();
    let condition = &second["status"]["conditions"][0];
    assert_eq!(condition["lastTransitionTime"], "1970-01-01T00:00:00Z");
    assert_eq!(condition["lastHeartbeatTime"], "1970-01-02T00:00:00Z");
    other.is_well = false;
    let third = patch(&second, &other, later).unwrap();
    let condition = &third["status"]["conditions"][0];
    assert_eq!(condition["lastTransitionTime"], "1970-01-02T00:00:00Z");
}

#[test]
fn what_is_wrong_is_told_once_and_told_again_when_it_changes() {
    let mut teller = Complaints::default();
    assert_eq!(teller.tell(&report()), (1, 0));
    assert_eq!(teller.tell(&report()), (0, 0));
    let mut other = report();
    other.resources[0].units[0].health = unhealthy("there is no /dev/kvm");
    assert_eq!(teller.tell(&other), (1, 0));
    assert_eq!(teller.tell(&well()), (0, 1));
    assert_eq!(complaints(&report()).len(), 2, "with what is left out");
    assert!(complaints(&well()).is_empty());
}
