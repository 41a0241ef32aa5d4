//! Who gets which device.

use std::collections::BTreeSet;

use proptest::prelude::*;
use tempfile::TempDir;

use super::plugged::{
    ids, match_of, offer, offer_beside, only, plug, root_hub, selector, unplug, usb,
};
use crate::resource::ResourceName;
use crate::source::{HeldUnit, Source};
use crate::tree::{host, plant};
use crate::unit::{Health, Offer, UNIT_ID_LEN_MAX};
use crate::usb::bus::Device;
use crate::usb::offer::offers;
use crate::usb::place::{Place, unit_id};
use crate::usb::share::share;
use crate::usb::{UsbDevices, UsbSelector};

const XHCI: &str = "pci0000:00/0000:00:14.0";
const WIFI: &str = "0bda:0811";
const GSM: &str = "0bda:2838";

/// A node with devices in ports 1, 2, 3 and so on.
fn node(makes: &[&str]) -> TempDir {
    let tree = plant("");
    root_hub(&tree, XHCI, 1, 2);
    for (number, make) in (1..).zip(makes) {
        plug(&tree, XHCI, &format!("1-{number}"), number + 1, make);
    }
    tree
}

/// The ports of each unit: `1+4`.
fn ports(offer: &Offer) -> Vec<String> {
    let port = |part: &String| part.rsplit('-').next().unwrap().to_owned();
    let unit_ports = |parts: &[String]| parts.iter().map(port).collect::<Vec<_>>().join("+");
    offer
        .units
        .iter()
        .map(|unit| unit_ports(&unit.parts))
        .collect()
}

fn held(resource: &str, ports: &[u8]) -> HeldUnit {
    HeldUnit {
        resource: ResourceName::new(resource).unwrap(),
        parts: ports
            .iter()
            .map(|port| format!("usb-0000-00-14.0-2-{port}"))
            .collect(),
    }
}

#[test]
fn a_unit_has_a_device_for_every_selector() {
    let tree = node(&[WIFI, WIFI, WIFI, GSM, GSM]);
    let found = offer(
        &usb(&[("kubevirt.io/kit", "0bda:2838 with 0bda:0811")]),
        &tree,
    );
    assert_eq!(ports(&found), ["4+1", "5+2"]);
    let unit = &found.units[0];
    assert_eq!(unit.id, "usb-0000-00-14.0-2-4+usb-0000-00-14.0-2-1");
    assert_eq!(unit.addresses, ["1:5", "1:2"]);
    assert_eq!(unit.nodes.len(), 2);
    let left_out = only(&found.left_out);
    assert_eq!(left_out.device, "1-3");
    assert_eq!(
        left_out.reason,
        "a unit of kubevirt.io/kit is 0bda:2838 with 0bda:0811, and for one more 0bda:2838 is missing: plug it in"
    );
}

#[test]
fn two_of_a_kind_can_be_one_unit() {
    let tree = node(&[WIFI, WIFI, WIFI]);
    let found = offer(
        &usb(&[("kubevirt.io/pair", "0bda:0811 with 0bda:0811")]),
        &tree,
    );
    assert_eq!(ports(&found), ["1+2"]);
    let reason = &only(&found.left_out).reason;
    assert!(reason.contains("enough of them is missing"), "{reason}");
}

#[test]
fn the_first_in_order_gets_a_device_and_the_other_is_told_who_has_it() {
    let tree = node(&[WIFI, WIFI, GSM]);
    let asked = usb(&[
        ("kubevirt.io/kit", "0bda:0811 with 0bda:2838"),
        ("kubevirt.io/wifi", WIFI),
        ("kubevirt.io/late", WIFI),
    ]);
    let offers = asked.discover(&host(&tree));
    assert_eq!(ports(&offers[0]), ["1+3"]);
    assert_eq!(ports(&offers[1]), ["2"]);
    assert_eq!(ports(&offers[2]), [""; 0]);
    let told = |offer: &Offer| -> Vec<String> {
        let line = |left_out: &crate::unit::LeftOut| {
            format!(
                "{} {}",
                left_out.device,
                left_out.reason.split(" has it").next().unwrap()
            )
        };
        offer.left_out.iter().map(line).collect()
    };
    assert_eq!(told(&offers[1]), ["1-1 kubevirt.io/kit"]);
    assert_eq!(
        told(&offers[2]),
        ["1-1 kubevirt.io/kit", "1-2 kubevirt.io/wifi"]
    );
}

#[test]
fn selectors_of_one_resource_add_up_in_one_offer() {
    let tree = node(&[WIFI, GSM, WIFI]);
    let asked = usb(&[
        ("kubevirt.io/radio", WIFI),
        ("kubevirt.io/other", "1234:5678"),
        ("kubevirt.io/radio", GSM),
        ("kubevirt.io/radio", WIFI),
    ]);
    let offers = asked.discover(&host(&tree));
    let names: Vec<&str> = offers.iter().map(|offer| offer.resource.as_str()).collect();
    assert_eq!(names, ["kubevirt.io/radio", "kubevirt.io/other"]);
    assert_eq!(ports(&offers[0]), ["1", "3", "2"]);
    assert_eq!(offers[0].left_out, []);
}

#[test]
fn a_match_with_a_serial_chooses_before_one_that_takes_any() {
    let tree = node(&[WIFI, WIFI]);
    crate::tree::add(&tree, &format!("f sys/devices/{XHCI}/usb1/1-1/serial A1"));
    let exact = match_of(WIFI).with_serial("A1").unwrap();
    let asked = UsbDevices {
        selectors: vec![selector("kubevirt.io/pair", vec![match_of(WIFI), exact])],
    };
    assert_eq!(ports(&offer(&asked, &tree)), ["2+1"]);
}

#[test]
fn what_a_container_has_stays_together_whatever_comes_and_goes() {
    let tree = node(&[WIFI, WIFI, WIFI, GSM, GSM, GSM]);
    let asked = usb(&[("kubevirt.io/kit", "0bda:0811 with 0bda:2838")]);
    assert_eq!(ports(&offer(&asked, &tree)), ["1+4", "2+5", "3+6"]);
    let held = [held("kubevirt.io/kit", &[2, 5])];
    unplug(&tree, "1-1", 2);
    assert_eq!(ports(&offer_beside(&asked, &tree, &held)), ["2+5", "3+4"]);
    // One of the two is pulled out: the other is kept for it.
    unplug(&tree, "1-5", 6);
    assert_eq!(ports(&offer_beside(&asked, &tree, &held)), ["3+4"]);
    plug(&tree, XHCI, "1-5", 9, GSM);
    let again = offer_beside(&asked, &tree, &held);
    assert_eq!(ports(&again), ["2+5", "3+4"]);
    assert_eq!(again.units[0].addresses, ["1:3", "1:9"]);
}

#[test]
fn what_a_container_has_is_not_given_to_whom_it_would_now_belong() {
    let tree = node(&[WIFI, GSM]);
    let asked = usb(&[
        ("kubevirt.io/kit", "0bda:0811 with 0bda:2838"),
        ("kubevirt.io/wifi", WIFI),
    ]);
    let held = [held("kubevirt.io/wifi", &[1])];
    let offers = asked.discover_beside(&host(&tree), &held);
    assert_eq!(ports(&offers[0]), [""; 0]);
    assert_eq!(ports(&offers[1]), ["1"]);
    let told: Vec<&str> = offers[0]
        .left_out
        .iter()
        .map(|left_out| &*left_out.device)
        .collect();
    assert_eq!(told, ["1-1", "1-2"]);
    let reason = &offers[0].left_out[0].reason;
    assert!(
        reason.starts_with("a container has it through kubevirt.io/wifi"),
        "{reason}"
    );
    // Another make in the port is another device.
    unplug(&tree, "1-1", 2);
    plug(&tree, XHCI, "1-1", 5, GSM);
    let offers = asked.discover_beside(&host(&tree), &held);
    assert_eq!(ports(&offers[1]), [""; 0]);
}

#[test]
fn a_unit_near_to_two_numa_nodes_is_near_to_none() {
    let tree = crate::tree::fixture("usb-controllers");
    let one = match_of(WIFI).with_port("1.4").unwrap();
    let two = match_of(WIFI).with_port("2").unwrap();
    let asked = UsbDevices {
        selectors: vec![selector("kubevirt.io/pair", vec![one, two])],
    };
    let found = offer(&asked, &tree);
    assert_eq!(only(&found.units).numa_node, None);
}

#[test]
fn an_unhealthy_part_makes_the_unit_unhealthy() {
    let tree = node(&[WIFI, GSM]);
    std::fs::remove_file(tree.path().join("dev/bus/usb/001/003")).unwrap();
    let found = offer(
        &usb(&[("kubevirt.io/kit", "0bda:0811 with 0bda:2838")]),
        &tree,
    );
    let health = format!("{:?}", only(&found.units).health);
    assert!(health.contains("1-2 has no node"), "{health}");
}

#[test]
fn a_selector_without_matches_offers_nothing() {
    let asked = UsbDevices {
        selectors: vec![selector("kubevirt.io/none", Vec::new())],
    };
    let found = offer(&asked, &node(&[WIFI]));
    assert_eq!((found.units.len(), found.left_out.len()), (0, 0));
}

#[test]
fn names_of_units_fit_and_stay() {
    let parts = |count: u8| -> Vec<String> {
        let place = |port| Place {
            controller: "0000-00-14.0".to_owned(),
            hub: "2".to_owned(),
            ports: vec![1, port],
        };
        (1..=count).map(|port| place(port).part()).collect()
    };
    assert_eq!(unit_id(&parts(1)), "usb-0000-00-14.0-2-1.1");
    assert_eq!(unit_id(&parts(2)).len(), 45);
    // Written down, since the kubelet keeps names over an update of the node agent.
    let three = unit_id(&parts(3));
    assert_eq!(three.len(), UNIT_ID_LEN_MAX);
    assert_eq!(
        three,
        "usb-0000-00-14.0-2-1.1+usb-0000-00-14.0-2-1.2+-216854b973faecde"
    );
    let mut other = parts(3);
    other.swap(1, 2);
    assert_ne!(unit_id(&other), three);
}

/// A device in a port of a hub, as it would be read.
fn device(port: u8, make: &str) -> Device {
    let asked = match_of(make);
    Device {
        name: format!("1-{port}"),
        make: (asked.vendor, asked.product),
        serial: None,
        bus: 1,
        number: u16::from(port) + 1,
        place: Place {
            controller: "0000-00-14.0".to_owned(),
            hub: "2".to_owned(),
            ports: vec![port],
        },
        health: Health::Healthy,
        numa_node: None,
        lack: None,
    }
}

proptest! {
    #[test]
    fn no_device_is_in_two_units_and_none_is_left_that_could_make_one(
        makes in prop::collection::vec(prop::sample::select(vec![WIFI, GSM, "1234:0001"]), 0..12),
        asked in prop::collection::vec(
            (0..3_usize, prop::collection::vec(prop::sample::select(vec![WIFI, GSM]), 1..4)), 1..6),
        kept in prop::collection::vec((0..3_usize, prop::collection::vec(1..12_u8, 1..4)), 0..3),
    ) {
        let resources = ["a.io/a", "a.io/b", "a.io/c"];
        let devices: Vec<Device> = (1..).zip(&makes).map(|(port, make)| device(port, make)).collect();
        let selectors: Vec<UsbSelector> = asked.iter().map(|(resource, makes)| {
            selector(resources[*resource], makes.iter().map(|make| match_of(make)).collect())
        }).collect();
        let held: Vec<HeldUnit> =
            kept.iter().map(|(resource, ports)| held(resources[*resource], ports)).collect();
        let shares = share(&selectors, &held, &devices);
        let offers = offers(&selectors, &devices, &shares);
        let units = || offers.iter().flat_map(|offer| &offer.units);

        let parts: Vec<&String> = units().flat_map(|unit| &unit.parts).collect();
        prop_assert_eq!(parts.len(), parts.iter().collect::<BTreeSet<_>>().len());
        let names: Vec<String> = offers.iter().flat_map(ids).collect();
        prop_assert_eq!(names.len(), names.iter().collect::<BTreeSet<_>>().len());
        prop_assert!(names.iter().all(|name| name.len() <= UNIT_ID_LEN_MAX));
        for (selector, units) in selectors.iter().zip(&shares.units) {
            for unit in units {
                prop_assert_eq!(unit.len(), selector.matches.len());
                prop_assert!(unit.iter().zip(&selector.matches).all(|(&index, asked)| devices[index].fits(asked)));
            }
        }
        let free = |make: &str| (0..makes.len())
            .filter(|&index| makes[index] == make && shares.owners[index].is_none())
            .count();
        let could_be = |wanted: &[&str]| wanted.iter()
            .all(|make| wanted.iter().filter(|other| *other == make).count() <= free(make));
        prop_assert!(!asked.iter().any(|(_, wanted)| could_be(wanted)));
    }
}
