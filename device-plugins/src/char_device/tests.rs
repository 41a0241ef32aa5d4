use std::fs;

use super::{CharDevices, MAX_DEVICES};
use crate::source::Source;
use crate::tree::{add, fixture, host, plant};
use crate::unit::{Health, Unit};

/// Each unit in a line: `vhost-net x1000 /dev/vhost-net rw ok`.
fn lines(devices: &CharDevices, tree: &tempfile::TempDir) -> Vec<String> {
    let offers = devices.discover(&host(tree));
    let line = |unit: &Unit| {
        let node = &unit.nodes[0];
        let health = match &unit.health {
            Health::Healthy => "ok",
            Health::Unhealthy(reason) => reason,
        };
        let path = node.path.display();
        format!(
            "{} x{} {path} {} {health}",
            unit.id, unit.copies, node.permissions
        )
    };
    offers
        .iter()
        .flat_map(|offer| offer.units.iter().map(line))
        .collect()
}

#[test]
fn health_follows_the_node_and_names_the_cure() {
    let tree = fixture("char-devices");
    add(&tree, "f sys/class/misc/vhost-net/dev 10:238");
    assert_eq!(
        lines(&CharDevices::default(), &tree),
        [
            "kvm x1000 /dev/kvm rwm ok",
            "tun x1000 /dev/net/tun rwm ok",
            "vhost-net x1000 /dev/vhost-net rwm ok",
            "vhost-vsock x1000 /dev/vhost-vsock rwm there is no /dev/vhost-vsock: modprobe vhost_vsock",
        ]
    );
    fs::remove_file(tree.path().join("dev/vhost-net")).unwrap();
    let vanished = &lines(&CharDevices::default(), &tree)[2];
    assert!(
        vanished.ends_with("no /dev/vhost-net: modprobe vhost_net"),
        "{vanished}"
    );
}

#[test]
fn a_node_without_a_driver_is_unhealthy_where_the_kernel_lists_its_drivers() {
    let tree = fixture("char-devices");
    let line = &lines(&CharDevices::default(), &tree)[2];
    assert!(
        line.ends_with("/dev/vhost-net has no driver behind it: modprobe vhost_net"),
        "{line}"
    );
    let unlisted = plant("f dev/vhost-net");
    let line = &lines(&CharDevices::default(), &unlisted)[2];
    assert_eq!(line, "vhost-net x1000 /dev/vhost-net rw ok");
}

#[test]
fn kvm_that_was_refused_is_unhealthy_with_the_reason() {
    let refused = CharDevices {
        count: 7,
        kvm_refusal: Some("an exit takes 900 us".to_owned()),
    };
    let tree = plant("f dev/kvm\nf dev/net/tun");
    let lines = lines(&refused, &tree);
    assert_eq!(lines[0], "kvm x7 /dev/kvm rw an exit takes 900 us");
    assert_eq!(lines[1], "tun x7 /dev/net/tun rw ok");
}

#[test]
fn every_resource_is_offered_even_with_nothing_there() {
    let nothing = CharDevices {
        count: 0,
        kvm_refusal: None,
    };
    let offers = nothing.discover(&host(&plant("")));
    let names: Vec<&str> = offers.iter().map(|offer| offer.resource.as_str()).collect();
    assert_eq!(
        names,
        ["kvm", "tun", "vhost-net", "vhost-vsock"]
            .map(|name| format!("devices.kubevirt.io/{name}"))
    );
    assert!(offers.iter().all(|offer| offer.units.is_empty()));
    assert_eq!(CharDevices::default().count, MAX_DEVICES);
}

#[test]
fn modules_are_loaded_by_opening_and_a_failure_is_told() {
    let tree = fixture("char-devices");
    assert_eq!(CharDevices::default().prepare(&host(&tree)), []);
    // A folder cannot be opened for writing, whoever asks. That of tun is not opened, since its driver is there.
    let refusing = plant("f sys/class/misc/tun/dev 10:200\nd dev/vhost-net\nd dev/net/tun");
    let told = CharDevices::default().prepare(&host(&refusing));
    assert_eq!(told.len(), 1);
    assert_eq!(told[0].device, "/dev/vhost-net");
    assert!(
        told[0].reason.contains("modprobe vhost_net"),
        "{}",
        told[0].reason
    );
}
