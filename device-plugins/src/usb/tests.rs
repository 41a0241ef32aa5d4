//! Discovery, from trees of sysfs to offers.

mod plugged;
mod shared;

use plugged::{ids, match_of, offer, only, plug, root_hub, selector, unplug, usb};

use crate::source::Source;
use crate::tree::{add, fixture, host, plant};
use crate::unit::{Health, LeftOut, VariablePrefix};

const XHCI: &str = "pci0000:00/0000:00:14.0";

fn left_out(resource_and_matches: &[(&str, &str)], tree: &tempfile::TempDir) -> Vec<LeftOut> {
    usb(resource_and_matches)
        .discover(&host(tree))
        .into_iter()
        .flat_map(|offer| offer.left_out)
        .collect()
}

#[test]
fn devices_of_a_recorded_node_are_found() {
    let tree = fixture("recorded-node");
    let asked = usb(&[
        ("kubevirt.io/serial", "0403:6001"),
        ("kubevirt.io/stick", "46f4:0001"),
        ("kubevirt.io/tablet", "0627:0001"),
    ]);
    let offers = asked.discover(&host(&tree));
    let found: Vec<String> = offers
        .iter()
        .flat_map(|offer| offer.units.iter().map(move |unit| (offer, unit)))
        .map(|(offer, unit)| {
            assert_eq!(unit.health, Health::Healthy);
            assert_eq!((unit.copies, unit.numa_node), (1, None));
            let node = &unit.nodes[0];
            assert!(node.is_owned && node.permissions == "mrw");
            format!(
                "{} {} {} {}",
                offer.resource,
                unit.id,
                node.path.display(),
                unit.addresses.join(",")
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            "kubevirt.io/serial usb-0000-00-02.0-2-1.2 /dev/bus/usb/001/004 1:4",
            "kubevirt.io/stick usb-0000-00-02.0-3-2 /dev/bus/usb/002/002 2:2",
            "kubevirt.io/stick usb-0000-00-02.0-3-3 /dev/bus/usb/002/003 2:3",
            "kubevirt.io/tablet usb-0000-00-02.0-2-4 /dev/bus/usb/001/003 1:3",
        ]
    );
    assert!(offers.iter().all(|offer| offer.left_out.is_empty()));
    assert_eq!(offers[0].variable, Some(VariablePrefix::Usb));
}

#[test]
fn three_dongles_of_one_make_are_three_units_however_often_they_are_asked_for() {
    let tree = fixture("usb-controllers");
    for times in [1, 2, 3] {
        let asked = vec![("kubevirt.io/wifi-dongle", "0bda:0811"); times];
        let offer = offer(&usb(&asked), &tree);
        assert_eq!(
            ids(&offer),
            [
                "usb-0000-00-14.0-2-1.4",
                "usb-0000-00-14.0-2-1.10",
                "usb-0000-65-00.0-2-2"
            ]
        );
        let nodes: Vec<Option<u32>> = offer.units.iter().map(|unit| unit.numa_node).collect();
        assert_eq!(nodes, [Some(0), Some(0), Some(1)]);
        assert_eq!(offer.units[1].addresses, ["1:9"]);
        assert_eq!(offer.units[1].parts, [offer.units[1].id.clone()]);
        assert_eq!(offer.left_out, []);
    }
}

#[test]
fn controllers_without_pci_are_known_by_the_name_that_stays() {
    let tree = fixture("usb-controllers");
    let found = offer(&usb(&[("kubevirt.io/gsm", "0bda:2838")]), &tree);
    assert_eq!(ids(&found), ["usb-4e00000.dwc3-2-1"]);
    let below_pci = plant("");
    let folder = "pci0000:00/0000:00:0d.0/dwc3.1.auto/xhci-hcd.2.auto";
    root_hub(&below_pci, folder, 1, 2);
    plug(&below_pci, folder, "1-3", 2, "0bda:2838");
    root_hub(&below_pci, "platform/vhci_hcd.0", 2, 2);
    plug(&below_pci, "platform/vhci_hcd.0", "2-1", 2, "0bda:2838");
    root_hub(&below_pci, "platform/xhci-hcd.7.auto", 3, 3);
    plug(
        &below_pci,
        "platform/xhci-hcd.7.auto",
        "3-1",
        2,
        "0bda:2838",
    );
    let found = offer(&usb(&[("kubevirt.io/gsm", "0bda:2838")]), &below_pci);
    assert_eq!(
        ids(&found),
        [
            "usb-0000-00-0d.0-2-3",
            "usb-vhci_hcd.0-2-1",
            "usb-xhci-hcd.7.auto-3-1"
        ]
    );
}

#[test]
fn a_device_that_is_plugged_into_the_same_port_again_keeps_its_name() {
    let tree = plant("");
    root_hub(&tree, XHCI, 1, 2);
    plug(&tree, XHCI, "1-4", 7, "0bda:0811");
    let asked = usb(&[("kubevirt.io/wifi-dongle", "0bda:0811")]);
    let before = offer(&asked, &tree);
    unplug(&tree, "1-4", 7);
    let without = offer(&asked, &tree);
    assert_eq!(without.units, []);
    assert_eq!(only(&without.left_out).device, "0bda:0811");
    plug(&tree, XHCI, "1-4", 8, "0bda:0811");
    let after = offer(&asked, &tree);
    assert_eq!(ids(&before), ids(&after));
    assert_eq!(before.units[0].parts, after.units[0].parts);
    assert_eq!(after.units[0].addresses, ["1:8"]);
    assert_eq!(
        after.units[0].nodes[0].path.to_str(),
        Some("/dev/bus/usb/001/008")
    );
}

#[test]
fn names_stay_when_buses_are_numbered_otherwise() {
    let other = "pci0000:60/0000:60:01.0/0000:65:00.0";
    let booted = |first: u16, second: u16| {
        let tree = plant("");
        for (folder, bus) in [(XHCI, first), (other, second)] {
            root_hub(&tree, folder, bus, 2);
            root_hub(&tree, folder, bus + 1, 3);
            plug(&tree, folder, &format!("{bus}-2.1"), 5, "0bda:0811");
            plug(&tree, folder, &format!("{}-2", bus + 1), 5, "0bda:0811");
        }
        offer(&usb(&[("kubevirt.io/wifi-dongle", "0bda:0811")]), &tree)
    };
    let (one, two) = (booted(1, 3), booted(9, 1));
    assert_eq!(ids(&one), ids(&two));
    assert_eq!(
        ids(&one),
        [
            "usb-0000-00-14.0-2-2.1",
            "usb-0000-00-14.0-3-2",
            "usb-0000-65-00.0-2-2.1",
            "usb-0000-65-00.0-3-2"
        ]
    );
    assert_eq!(two.units[0].addresses, ["9:5"]);
}

#[test]
fn root_hubs_of_one_controller_never_share_a_name() {
    let tree = plant("");
    for bus in [1, 2, 3] {
        root_hub(&tree, XHCI, bus, 2);
        plug(&tree, XHCI, &format!("{bus}-1"), 2, "0bda:0811");
    }
    let found = offer(&usb(&[("kubevirt.io/wifi-dongle", "0bda:0811")]), &tree);
    assert_eq!(
        ids(&found),
        [
            "usb-0000-00-14.0-2-1",
            "usb-0000-00-14.0-2.2-1",
            "usb-0000-00-14.0-2.3-1"
        ]
    );
}

#[test]
fn hubs_are_never_offered_and_the_reason_is_told() {
    let tree = fixture("usb-controllers");
    for (hub, name) in [("05e3:0610", "1-1"), ("0bda:5411", "1-3")] {
        let found = offer(&usb(&[("kubevirt.io/hub", hub)]), &tree);
        assert_eq!(found.units, []);
        let left_out = only(&found.left_out);
        assert_eq!(left_out.device, name);
        assert!(left_out.reason.starts_with("it is a hub"), "{left_out:?}");
    }
    let root = offer(&usb(&[("kubevirt.io/hub", "1d6b:0002")]), &tree);
    assert_eq!(root.units, []);
    assert!(only(&root.left_out).reason.contains("no such device"));
}

#[test]
fn a_device_of_several_interfaces_is_one_unit() {
    let tree = fixture("usb-controllers");
    let found = offer(&usb(&[("kubevirt.io/camera", "046d:085e")]), &tree);
    assert_eq!(ids(&found), ["usb-0000-00-14.0-2-1.2"]);
}

#[test]
fn a_device_that_the_host_does_not_allow_is_unhealthy_and_the_cure_is_told() {
    let tree = fixture("usb-controllers");
    let found = offer(&usb(&[("kubevirt.io/modem", "12d1:1506")]), &tree);
    let unit = only(&found.units);
    assert_eq!(unit.id, "usb-0000-00-1a.0-1-2");
    let Health::Unhealthy(reason) = &unit.health else {
        panic!("{unit:?}");
    };
    assert!(reason.contains("writing 1 to /sys/bus/usb/devices/7-2/authorized"));
}

#[test]
fn a_device_without_a_node_is_unhealthy() {
    let tree = fixture("usb-controllers");
    std::fs::remove_file(tree.path().join("dev/bus/usb/003/003")).unwrap();
    let found = offer(&usb(&[("kubevirt.io/wifi-dongle", "0bda:0811")]), &tree);
    let healthy: Vec<bool> = found
        .units
        .iter()
        .map(|unit| unit.health.is_healthy())
        .collect();
    assert_eq!(healthy, [true, true, false]);
    let reason = format!("{:?}", found.units[2].health);
    assert!(
        reason.contains("3-2 has no node /dev/bus/usb/003/003"),
        "{reason}"
    );
}

#[test]
fn serial_bus_and_port_tell_devices_of_one_make_apart() {
    let tree = fixture("usb-controllers");
    let make = match_of("0bda:0811");
    for (asked, expected) in [
        (
            make.clone().with_serial("00e04c000003"),
            &["usb-0000-65-00.0-2-2"][..],
        ),
        (
            make.clone().with_serial("00e04c000001"),
            &["usb-0000-00-14.0-2-1.4", "usb-0000-00-14.0-2-1.10"],
        ),
        (make.clone().with_bus("3"), &["usb-0000-65-00.0-2-2"]),
        (make.clone().with_port("1.10"), &["usb-0000-00-14.0-2-1.10"]),
        (make.clone().with_port("1"), &[]),
    ] {
        let asked = selector("kubevirt.io/wifi-dongle", vec![asked.unwrap()]);
        let found = offer(
            &super::UsbDevices {
                selectors: vec![asked],
            },
            &tree,
        );
        assert_eq!(ids(&found), expected);
    }
}

#[test]
fn a_serial_number_that_is_not_there_is_told_with_those_that_are() {
    let tree = fixture("usb-controllers");
    let asked = match_of("0bda:0811").with_serial("00E04C000009").unwrap();
    let asked = super::UsbDevices {
        selectors: vec![selector("kubevirt.io/wifi-dongle", vec![asked])],
    };
    let found = offer(&asked, &tree);
    let left_out = only(&found.left_out);
    assert_eq!(left_out.device, "0bda:0811 serial \"00E04C000009\"");
    assert!(
        left_out.reason.contains("3-2 (serial \"00e04c000003\")"),
        "{left_out:?}"
    );
}

#[test]
fn a_device_that_is_not_there_is_told_and_swapped_ids_are_pointed_out() {
    let tree = fixture("usb-controllers");
    let nothing = left_out(&[("kubevirt.io/x", "1234:5678")], &tree);
    assert_eq!(only(&nothing).device, "1234:5678");
    assert_eq!(only(&nothing).reason, "no such device is plugged in here");
    let hub = left_out(&[("kubevirt.io/x", "0610:05e3")], &tree);
    assert_eq!(only(&hub).reason, "no such device is plugged in here");
    let swapped = left_out(&[("kubevirt.io/wifi-dongle", "0811:0bda")], &tree);
    let LeftOut { device, reason } = only(&swapped);
    assert_eq!(device, "0811:0bda");
    assert!(
        reason.contains("0bda:0811 is (1-1.4, 1-1.10, 3-2)"),
        "{reason}"
    );
    assert!(
        reason.contains("the order is resource;vendor;product"),
        "{reason}"
    );
    assert!(
        reason.contains("write kubevirt.io/wifi-dongle;0bda;0811"),
        "{reason}"
    );
}

#[test]
fn attributes_that_make_no_sense_leave_one_device_out() {
    let tree = plant("");
    root_hub(&tree, XHCI, 1, 2);
    for port in ["1-1", "1-2", "1-3", "1-4", "1-5"] {
        plug(&tree, XHCI, port, 5, "0bda:0811");
    }
    let folder = format!("sys/devices/{XHCI}/usb1");
    let long = "9".repeat(5000);
    add(
        &tree,
        &format!(
            "f {folder}/1-1/devnum -1\nf {folder}/1-2/idVendor zz\nf {folder}/1-3/devnum {long}"
        ),
    );
    add(
        &tree,
        &format!(
            "f {folder}/1-4/serial \u{fffd}\u{1}\nf {folder}/1-4/bDeviceClass\nf {folder}/1-4/authorized x"
        ),
    );
    // Names that no device has, and a bus without a root hub.
    for name in [
        "1-",
        "-1",
        "1-0",
        "1-1.256",
        "1-1.1.1.1.1.1.1",
        "x-1",
        "99999999-1",
        "usb",
        "usbx",
        "7-1",
    ] {
        plug(&tree, XHCI, name, 6, "0bda:0811");
    }
    let found = offer(&usb(&[("kubevirt.io/wifi-dongle", "0bda:0811")]), &tree);
    assert_eq!(
        ids(&found),
        ["usb-0000-00-14.0-2-4", "usb-0000-00-14.0-2-5"]
    );
    let told: Vec<(&str, bool)> = found
        .left_out
        .iter()
        .map(|left_out| (&*left_out.device, left_out.reason.contains("devnum")))
        .collect();
    assert_eq!(told, [("1-1", true), ("1-3", true), ("7-1", false)]);
}

#[test]
fn a_host_without_usb_offers_nothing_and_says_so() {
    let tree = plant("");
    let found = offer(&usb(&[("kubevirt.io/wifi-dongle", "0bda:0811")]), &tree);
    assert_eq!(found.units, []);
    assert_eq!(
        only(&found.left_out).reason,
        "no such device is plugged in here"
    );
    assert_eq!(super::UsbDevices::default().discover(&host(&tree)), []);
}

#[test]
fn five_hundred_devices_are_as_many_units() {
    let tree = plant("");
    for controller in 0..4_u16 {
        let folder = format!("pci0000:00/0000:0{controller}:00.0");
        root_hub(&tree, &folder, controller + 1, 2);
        for device in 0..125_u16 {
            let name = format!("{}-{}.{}", controller + 1, device / 16 + 1, device % 16 + 1);
            plug(&tree, &folder, &name, device + 2, "0bda:0811");
        }
    }
    let asked = usb(&[
        ("kubevirt.io/a", "0bda:0811"),
        ("kubevirt.io/b", "0bda:0811"),
    ]);
    let offers = asked.discover(&host(&tree));
    let distinct: std::collections::BTreeSet<String> = ids(&offers[0]).into_iter().collect();
    assert_eq!((offers[0].units.len(), distinct.len()), (500, 500));
    assert_eq!(offers[1].units, []);
    // The reasons are bounded: 64 devices, and how many more.
    assert_eq!(offers[1].left_out.len(), 65);
    assert_eq!(offers[1].left_out[64].device, "436 more");
}
