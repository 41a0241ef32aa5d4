//! Tests of lists, and of what is preferred.

use proptest::collection::vec;
use proptest::prelude::{Strategy, any};
use proptest::{prop_assert, prop_assert_eq, proptest};

use super::list::{DEVICES_MAX, is_same, list};
use super::preferred;
use crate::resource::ResourceName;
use crate::unit::{Health, Offer, Unit};

fn unit(id: &str, copies: u32, numa_node: Option<u32>) -> Unit {
    Unit {
        id: id.to_owned(),
        copies,
        parts: Vec::new(),
        health: Health::Healthy,
        numa_node,
        nodes: Vec::new(),
        addresses: Vec::new(),
    }
}

fn offer(units: Vec<Unit>) -> Offer {
    Offer {
        resource: ResourceName::new("kubevirt.io/device").unwrap(),
        variable: None,
        units,
        left_out: Vec::new(),
    }
}

fn owned(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

fn check(offer: &Offer, available: &[&str], must: &[&str], size: i32, expected: &[&str]) {
    let chosen = preferred(offer, &owned(available), &owned(must), size);
    assert_eq!(chosen, owned(expected), "{available:?} {must:?} {size}");
}

#[test]
fn a_thousand_copies_are_listed_in_less_than_a_hundred_kilobytes() {
    let offer = offer(vec![unit("kvm", 1000, None)]);
    let list = list(&offer);
    assert_eq!(list.devices.len(), 1000);
    assert_eq!(list.devices[0].id, "kvm0");
    assert_eq!(list.devices[999].id, "kvm999");
    assert!(list.devices.iter().all(|device| device.health == "Healthy"));
    // Each field has a byte of tag and a byte of length, and so has the device.
    let device_len = |id: &str, health: &str| 2 + (2 + id.len()) + (2 + health.len());
    let sizes = list.devices.iter();
    let len: usize = sizes
        .map(|device| device_len(&device.id, &device.health))
        .sum();
    assert!(len < 100_000, "{len}");
}

#[test]
fn a_list_tells_health_and_numa_node() {
    let mut sick = unit("1-1", 1, None);
    sick.health = Health::Unhealthy("unplugged".into());
    let list = list(&offer(vec![unit("1-2", 1, Some(1)), sick]));
    let [near, sick] = list.devices.as_slice() else {
        panic!("{list:?}");
    };
    assert_eq!((near.id.as_str(), near.health.as_str()), ("1-2", "Healthy"));
    assert_eq!(near.topology.as_ref().unwrap().nodes[0].id, 1);
    assert_eq!(
        (sick.id.as_str(), sick.health.as_str()),
        ("1-1", "Unhealthy")
    );
    assert_eq!(sick.topology, None);
}

#[test]
fn a_list_is_no_longer_than_the_kubelet_takes() {
    let listed = list(&offer(vec![
        unit("kvm", u32::MAX, None),
        unit("x", u32::MAX, None),
    ]));
    assert_eq!(listed.devices.len(), DEVICES_MAX);
    assert!(list(&offer(vec![unit("none", 0, None)])).devices.is_empty());
}

#[test]
fn lists_differ_by_what_the_kubelet_sees_only() {
    let one = offer(vec![unit("a", 1, None), unit("b", 1, None)]);
    let mut other = one.clone();
    other.units[0].addresses.push("1:7".into());
    assert!(is_same(&one, &other));
    other.units[0].health = Health::Unhealthy("gone".into());
    assert!(!is_same(&one, &other));
    assert!(!is_same(&one, &offer(vec![unit("a", 1, None)])));
    assert!(!is_same(
        &one,
        &offer(vec![unit("a", 1, None), unit("c", 1, None)])
    ));
}

#[test]
fn devices_are_preferred_in_the_order_of_the_offer() {
    let offer = offer(vec![
        unit("c", 1, None),
        unit("a", 1, None),
        unit("b", 1, None),
    ]);
    check(&offer, &["a", "b", "c"], &[], 2, &["c", "a"]);
    check(&offer, &["a", "b", "c"], &["b"], 2, &["b", "c"]);
    check(&offer, &["a", "b"], &[], 5, &["a", "b"]);
}

#[test]
fn one_numa_node_is_preferred_where_it_has_enough() {
    let near = [("a", 0), ("b", 1), ("c", 1), ("d", 0), ("e", 1)];
    let offer = offer(near.map(|(id, node)| unit(id, 1, Some(node))).into());
    let all = ["a", "b", "c", "d", "e"];
    check(&offer, &all, &[], 2, &["a", "d"]);
    check(&offer, &all, &[], 3, &["b", "c", "e"]);
    check(&offer, &all, &[], 4, &["a", "b", "c", "d"]);
    check(&offer, &["a", "b", "c"], &[], 2, &["b", "c"]);
    // Where a device must be of node 1, the others are best of it too.
    check(&offer, &all, &["c"], 2, &["c", "b"]);
    check(&offer, &all, &["c"], 4, &["c", "a", "b", "d"]);
}

#[test]
fn what_is_unknown_sick_or_negative_is_handled() {
    let mut sick = unit("sick", 1, None);
    sick.health = Health::Unhealthy("gone".into());
    let offer = offer(vec![sick, unit("a", 1, None), unit("kvm", 12, None)]);
    check(&offer, &["a", "x", "sick"], &[], 3, &["a"]);
    check(&offer, &["a"], &["x"], 2, &["x", "a"]);
    check(&offer, &["a", "a"], &["a", "a"], 2, &["a"]);
    check(&offer, &["a"], &["a"], 0, &[]);
    check(&offer, &["a"], &["a"], -1, &[]);
    check(&offer, &["a"], &[], i32::MIN, &[]);
    check(&offer, &["a"], &[], i32::MAX, &["a"]);
    check(
        &offer,
        &["kvm", "kvm12", "kvm01", "kvm-1", "kvm+2"],
        &[],
        9,
        &[],
    );
    check(
        &offer,
        &["kvm10", "kvm9", "kvm2"],
        &[],
        2,
        &["kvm2", "kvm9"],
    );
}

fn ids() -> impl Strategy<Value = Vec<String>> {
    vec("(a|b|c|kvm)[0-9]{0,2}", 0..20)
}

proptest! {
    #[test]
    fn advice_is_of_what_was_asked_about(
        available in ids(), must in ids(), size in any::<i32>(), nodes in vec(any::<Option<u32>>(), 4)
    ) {
        let names = ["a", "b", "c", "kvm"];
        let copies = [1, 1, 3, 20];
        let units = (0..4).map(|place| unit(names[place], copies[place], nodes[place]));
        let chosen = preferred(&offer(units.collect()), &available, &must, size);
        prop_assert!(chosen.len() <= usize::try_from(size).unwrap_or(0));
        prop_assert!(chosen.iter().all(|id| available.contains(id) || must.contains(id)));
        let distinct: std::collections::BTreeSet<&String> = chosen.iter().collect();
        prop_assert_eq!(distinct.len(), chosen.len());
    }
}
