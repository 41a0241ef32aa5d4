use std::collections::BTreeSet;
use std::sync::Arc;

use proptest::prelude::{Strategy, any, prop, prop_assert, prop_assert_eq, proptest};

use super::{Held, Offers, held, plan};
use crate::plugins::checkpoint::InUse;
use crate::report::Holder;
use crate::resource::ResourceName;
use crate::unit::{Health, LeftOut, Node, Offer, Unit, VariablePrefix};

fn resource(name: &str) -> ResourceName {
    ResourceName::new(&format!("x.io/{name}")).unwrap()
}

fn unit(id: &str, parts: &[&str]) -> Unit {
    Unit {
        id: id.to_owned(),
        copies: 1,
        parts: parts.iter().map(|part| (*part).to_owned()).collect(),
        health: Health::Healthy,
        numa_node: Some(0),
        nodes: vec![Node {
            path: format!("/dev/{id}").into(),
            permissions: "rw".to_owned(),
            is_owned: true,
        }],
        addresses: vec![format!("1:{id}")],
    }
}

fn offer(name: &str, units: &[Unit]) -> Offer {
    Offer {
        resource: resource(name),
        variable: Some(VariablePrefix::Usb),
        units: units.to_vec(),
        left_out: Vec::new(),
    }
}

fn holding(name: &str, id: &str, parts: &[&str]) -> Held {
    Held {
        resource: resource(name),
        id: id.to_owned(),
        parts: parts.iter().map(|part| (*part).to_owned()).collect(),
        holders: vec![Holder {
            pod_uid: "b8c7".to_owned(),
            container: "compute".to_owned(),
        }],
    }
}

/// The offers in short, a line each: `resource: id id, without device (reason)`; a unit that is ill has a `!`.
fn text(offers: &Offers) -> String {
    let line = |(resource, offer): (&ResourceName, &Arc<Offer>)| {
        let units = offer.units.iter().map(|unit| {
            let mark = if unit.health.is_healthy() { "" } else { "!" };
            format!(" {}{mark}", unit.id)
        });
        let left_out = offer.left_out.iter();
        let left_out = left_out.map(|left| format!(", without {} ({})", left.device, left.reason));
        let words: String = units.chain(left_out).collect();
        format!(
            "{}:{words}\n",
            resource.as_str().trim_start_matches("x.io/")
        )
    };
    offers.iter().map(line).collect()
}

fn check(found: &[Vec<Offer>], held: &[Held], expected: &str) {
    assert_eq!(text(&plan(found, held, &Offers::new())), expected);
}

#[test]
fn a_device_that_several_ask_for_is_the_firsts() {
    let pci = vec![offer("b", &[unit("1", &["p"])])];
    let usb = vec![
        offer("a", &[unit("2", &["p", "q"]), unit("3", &["r"])]),
        offer("c", &[unit("4", &["q"])]),
    ];
    check(
        &[pci, usb],
        &[],
        "a: 3, without p, q (already offered as 1 of x.io/b, which asks for it first)\nb: 1\nc: 4\n",
    );
}

#[test]
fn who_has_a_device_keeps_it_whoever_asks_first() {
    let found = [
        vec![offer("a", &[unit("1", &["p"])])],
        vec![offer("b", &[unit("2", &["p"])])],
    ];
    check(
        &found,
        &[holding("b", "2", &["p"])],
        "a:, without p (in use as 2 of x.io/b by container compute of pod b8c7; offered here when it is free)\nb: 2\n",
    );
    check(&found[..1], &[holding("a", "1", &["p"])], "a: 1\n");
}

#[test]
fn a_unit_with_a_device_that_is_had_under_another_name_waits() {
    let found = [vec![offer("a", &[unit("1+3", &["p", "r"])])]];
    let mut start = holding("a", "1+2", &["p", "q"]);
    start.holders.clear();
    check(
        &found,
        &[start],
        "a: 1+2!, without p, r (in use as 1+2 of x.io/a by a container that is just starting; offered here when it is free)\n",
    );
}

#[test]
fn a_unit_in_use_stays_listed_when_its_device_is_gone() {
    let there = [vec![offer("a", &[unit("1", &["p"])])]];
    let gone = [vec![offer("a", &[])]];
    let has = [holding("a", "1", &["p"])];
    let before = plan(&there, &has, &Offers::new());
    let offers = plan(&gone, &has, &before);
    let listed = &offers[&resource("a")].units[0];
    let Health::Unhealthy(reason) = &listed.health else {
        panic!("{listed:?}")
    };
    assert!(
        reason.contains("while container compute of pod b8c7 has it"),
        "{reason}"
    );
    assert_eq!(listed.addresses, ["1:1"], "what it was is still shown");
    assert_eq!(plan(&gone, &has, &offers), offers);
    assert_eq!(text(&plan(&there, &has, &offers)), "a: 1\n");
    assert_eq!(text(&plan(&gone, &[], &offers)), "a:\n");
    assert_eq!(text(&plan(&[], &has, &offers)), "");
}

#[test]
fn a_unit_in_use_that_no_longer_fits_says_why() {
    let mut offer = offer("a", &[]);
    offer.left_out = vec![LeftOut {
        device: "p".to_owned(),
        reason: "is bound to iavf".to_owned(),
    }];
    let offers = plan(&[vec![offer]], &[holding("a", "1", &["p"])], &Offers::new());
    assert_eq!(text(&offers), "a: 1!\n");
    let reason = "is bound to iavf (container compute of pod b8c7 has it)".to_owned();
    assert_eq!(
        offers[&resource("a")].units[0].health,
        Health::Unhealthy(reason)
    );
}

#[test]
fn sources_share_a_resource_only_for_devices_of_one_kind() {
    let mut other = offer("a", &[unit("2", &["q"])]);
    other.variable = Some(VariablePrefix::Pci);
    check(
        &[vec![offer("a", &[unit("1", &["p"])])], vec![other]],
        &[],
        "a: 1, without q (x.io/a already stands for devices of another kind; give each kind a resource of its own)\n",
    );
    check(
        &[
            vec![offer("a", &[unit("1", &["p"])])],
            vec![offer("a", &[unit("1", &["q"]), unit("2", &["r"])])],
        ],
        &[],
        "a: 1 2, without q (x.io/a already has a unit 1)\n",
    );
}

#[test]
fn an_offer_that_did_not_change_is_the_same_value() {
    let found = [vec![offer("a", &[unit("1", &["p"])]), offer("b", &[])]];
    let before = plan(&found, &[], &Offers::new());
    let found = [vec![
        offer("a", &[unit("1", &["p"])]),
        offer("b", &[unit("2", &[])]),
    ]];
    let after = plan(&found, &[], &before);
    assert!(Arc::ptr_eq(&before[&resource("a")], &after[&resource("a")]));
    assert!(!Arc::ptr_eq(
        &before[&resource("b")],
        &after[&resource("b")]
    ));
}

fn in_use(name: &str, id: &str) -> InUse {
    InUse {
        resource: ResourceName::new(name).unwrap(),
        id: id.to_owned(),
        holder: holding("a", "1", &[]).holders[0].clone(),
    }
}

#[test]
fn the_kubelets_record_holds_what_was_found_and_what_others_name_for_their_devices() {
    let mut kvm = unit("kvm", &[]);
    kvm.copies = 1000;
    let found = [vec![offer("kvm", &[kvm]), offer("a", &[unit("1", &["p"])])]];
    let in_use = [
        in_use("x.io/kvm", "kvm17"),
        in_use("x.io/a", "1"),
        in_use("x.io/a", "2"),
        in_use("intel.com/sriov", "0000:65:00.2"),
    ];
    let held = held(&in_use, &[], &found, &Offers::new());
    let found: Vec<_> = held
        .iter()
        .map(|one| (one.resource.as_str(), one.id.as_str(), one.parts.concat()))
        .collect();
    assert_eq!(
        found,
        [
            ("intel.com/sriov", "0000:65:00.2", "0000:65:00.2".to_owned()),
            ("x.io/a", "1", "p".to_owned()),
            ("x.io/a", "2", String::new()),
        ]
    );
}

#[test]
fn five_hundred_devices_are_planned_in_no_time() {
    let units: Vec<Unit> = (0..500)
        .map(|index| unit(&format!("1-{index}"), &[&format!("p{index}")]))
        .collect();
    let held: Vec<Held> = (0..500)
        .map(|index| holding("b", &format!("1-{index}"), &[&format!("p{index}")]))
        .collect();
    let found = [vec![offer("a", &units)], vec![offer("b", &units)]];
    let begin = std::time::Instant::now();
    let offers = plan(&found, &held, &Offers::new());
    assert_eq!(offers[&resource("a")].left_out.len(), 500);
    assert_eq!(offers[&resource("b")].units.len(), 500);
    assert!(begin.elapsed().as_secs() < 1, "{:?}", begin.elapsed());
}

const NAMES: [&str; 3] = ["a", "b", "c"];

/// A name, an identifier and parts out of few, so that they meet.
fn few() -> impl Strategy<Value = (usize, u8, Vec<u8>)> {
    (
        0..NAMES.len(),
        0..4_u8,
        prop::collection::vec(0..6_u8, 0..3),
    )
}

fn words(parts: &[u8]) -> Vec<String> {
    parts.iter().map(|part| format!("p{part}")).collect()
}

proptest! {
    #[test]
    fn no_device_is_offered_twice(
        asked in prop::collection::vec((few(), any::<bool>()), 0..12),
        has in prop::collection::vec(few(), 0..6),
    ) {
        let found: Vec<Vec<Offer>> = asked.iter().map(|((name, id, parts), is_usb)| {
            let mut unit = unit(&id.to_string(), &[]);
            unit.parts = words(parts);
            let mut offer = offer(NAMES[*name], &[unit]);
            offer.variable = is_usb.then_some(VariablePrefix::Usb);
            vec![offer]
        }).collect();
        let held: Vec<Held> = has.iter().map(|(name, id, parts)| {
            let mut one = holding(NAMES[*name], &id.to_string(), &[]);
            one.parts = words(parts);
            one
        }).collect();
        let offers = plan(&found, &held, &Offers::new());
        let mut seen = BTreeSet::new();
        for offer in offers.values() {
            let mut ids = BTreeSet::new();
            for unit in &offer.units {
                prop_assert!(ids.insert(&unit.id), "two units have one name");
                let parts: BTreeSet<_> = unit.parts.iter().collect();
                for part in parts.into_iter().filter(|_| unit.health.is_healthy()) {
                    prop_assert!(seen.insert(part), "{part} is offered twice");
                }
            }
            for one in held.iter().filter(|one| one.resource == offer.resource) {
                prop_assert!(ids.contains(&one.id), "a unit in use is not listed");
            }
        }
        prop_assert_eq!(&plan(&found, &held, &offers), &offers, "a second look changes nothing");
    }
}
