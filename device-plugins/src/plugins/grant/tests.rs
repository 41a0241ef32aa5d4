use super::{choose, response};
use crate::plugins::plan::Held;
use crate::resource::ResourceName;
use crate::runner::AllocateError;
use crate::unit::{Health, LeftOut, Node, Offer, Unit, VariablePrefix};

fn resource(name: &str) -> ResourceName {
    ResourceName::new(name).unwrap()
}

fn unit(id: &str) -> Unit {
    let node = |path: String| Node {
        path: path.into(),
        permissions: "rw".to_owned(),
        is_owned: true,
    };
    Unit {
        id: id.to_owned(),
        copies: 1,
        parts: vec![format!("0000:65:00.{id}")],
        health: Health::Healthy,
        numa_node: None,
        nodes: vec![
            node("/dev/vfio/vfio".to_owned()),
            node(format!("/dev/vfio/{id}")),
        ],
        addresses: vec![format!("0000:65:00.{id}")],
    }
}

fn offer(units: Vec<Unit>) -> Offer {
    Offer {
        resource: resource("intel.com/vf-4.x"),
        variable: Some(VariablePrefix::Pci),
        units,
        left_out: vec![LeftOut {
            device: "3".to_owned(),
            reason: "it is bound to iavf".to_owned(),
        }],
    }
}

fn ids(ids: &[&str]) -> Vec<String> {
    ids.iter().map(|id| (*id).to_owned()).collect()
}

/// The error of asking for units while one is held by another resource.
fn error(asked: &[&str]) -> AllocateError {
    let mut ill = unit("2");
    ill.health = Health::Unhealthy("its node is gone".to_owned());
    let offer = offer(vec![unit("1"), ill, unit("4")]);
    let held = [Held {
        resource: resource("intel.com/other"),
        id: "x".to_owned(),
        parts: vec!["0000:65:00.4".to_owned()],
        holders: Vec::new(),
    }];
    choose(&offer.resource, &ids(asked), Some(&offer), &held).unwrap_err()
}

#[test]
fn the_container_gets_each_node_once_and_all_addresses() {
    let offer = offer(vec![unit("1"), unit("2")]);
    let units = choose(&offer.resource, &ids(&["2", "1", "2"]), Some(&offer), &[]).unwrap();
    let response = response(&offer, &units);
    let nodes: Vec<&str> = response
        .devices
        .iter()
        .map(|one| one.host_path.as_str())
        .collect();
    assert_eq!(nodes, ["/dev/vfio/vfio", "/dev/vfio/2", "/dev/vfio/1"]);
    assert!(
        response
            .devices
            .iter()
            .all(|one| one.container_path == one.host_path)
    );
    assert!(response.devices.iter().all(|one| one.permissions == "rw"));
    let variables: Vec<_> = response.envs.into_iter().collect();
    let (name, value) = ("PCI_RESOURCE_INTEL_COM_VF-4_X", "0000:65:00.2,0000:65:00.1");
    assert_eq!(variables, [(name.to_owned(), value.to_owned())]);
}

#[test]
fn copies_are_given_by_their_numbers_without_a_variable() {
    let mut kvm = unit("kvm");
    (kvm.copies, kvm.parts, kvm.addresses) = (1000, Vec::new(), Vec::new());
    let offer = Offer {
        variable: None,
        ..offer(vec![kvm])
    };
    for id in ["kvm0", "kvm999"] {
        let units = choose(&offer.resource, &ids(&[id]), Some(&offer), &[]).unwrap();
        assert!(response(&offer, &units).envs.is_empty());
    }
    for id in ["kvm", "kvm1000", "kvm01", "kvm+1", "kvm-1", "tun0", ""] {
        let error = choose(&offer.resource, &ids(&[id]), Some(&offer), &[]).unwrap_err();
        assert!(matches!(error, AllocateError::Gone { .. }), "{id}: {error}");
    }
}

#[test]
fn what_is_gone_ill_or_had_by_others_is_an_error_with_its_reason() {
    for (asked, reason) in [
        (&["1", "5"][..], "no such device is there any more"),
        (&["1", "2"], "its node is gone"),
        (&["3"], "it is bound to iavf"),
        (
            &["4"],
            "a container that is just starting has its device as x of intel.com/other",
        ),
    ] {
        let error = error(asked).to_string();
        assert!(error.contains(reason), "{error}");
    }
    let error = choose(&resource("a.b/c"), &ids(&["1"]), None, &[]).unwrap_err();
    assert!(error.to_string().contains("no longer offered"), "{error}");
}
