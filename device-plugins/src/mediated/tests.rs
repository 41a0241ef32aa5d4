use proptest::prelude::{any, prop_assert, proptest};

use super::{MediatedDevices, MediatedSelector, is_uuid};
use crate::source::Source;
use crate::tree::{fixture, host, plant};
use crate::unit::{Offer, Unit, VariablePrefix};

fn asking(selectors: &[(&str, &str)]) -> MediatedDevices {
    MediatedDevices {
        selectors: selectors
            .iter()
            .map(|(resource, name)| MediatedSelector::new(resource, name).unwrap())
            .collect(),
    }
}

/// A line for each resource, unit (with its nodes below `/dev/vfio`) and device that is left out.
fn lines(offers: &[Offer]) -> Vec<String> {
    let mut lines = Vec::new();
    for offer in offers {
        assert_eq!(offer.variable, Some(VariablePrefix::Mediated));
        lines.push(offer.resource.to_string());
        lines.extend(offer.units.iter().map(unit_line));
        let left_out = offer.left_out.iter();
        lines.extend(left_out.map(|one| format!("- {} {}", &one.device[..8], one.reason)));
    }
    lines
}

fn unit_line(unit: &Unit) -> String {
    assert!(unit.health.is_healthy() && unit.copies == 1);
    assert_eq!(
        (&unit.addresses, &unit.parts),
        (&vec![unit.id.clone()], &unit.addresses)
    );
    let nodes = unit.nodes.iter().map(|node| {
        let path = node.path.strip_prefix("/dev/vfio").unwrap().display();
        format!("{path}{}", if node.is_owned { "*" } else { "" })
    });
    let nodes = nodes.collect::<Vec<_>>().join(" ");
    format!("{} {:?} {nodes}", &unit.id[..8], unit.numa_node)
}

#[test]
fn devices_are_found_by_the_name_of_their_type() {
    let tree = fixture("mediated");
    for name in ["GRID T4-1B", "GRID_T4-1B", " GRID T4-1B "] {
        let offers = asking(&[("nvidia.com/t4", name)]).discover(&host(&tree));
        assert_eq!(
            lines(&offers),
            [
                "nvidia.com/t4",
                "0d9e5a4f Some(1) vfio 71*",
                "4b20d080 Some(1) vfio 70* devices/vfio0*",
                "- 9f1bd8b2 has no driver: load that of its parent device, or modprobe vfio_mdev on kernels before 5.16",
                "- aaaaaaaa has the driver nvidia-vgpu-vfio and no IOMMU group: switch the IOMMU on in the firmware and in the kernel (intel_iommu=on), then remove the device and make it again",
            ],
            "{name}"
        );
    }
}

#[test]
fn a_type_without_a_name_goes_by_what_its_driver_calls_it() {
    let asked = asking(&[
        ("intel.com/gvt", "i915-GVTg_V5_4"),
        ("n.io/id", "nvidia-222"),
    ]);
    assert_eq!(
        lines(&asked.discover(&host(&fixture("mediated")))),
        ["intel.com/gvt", "d1d1d1d1 None vfio 73*", "n.io/id"]
    );
}

#[test]
fn what_two_resources_ask_for_goes_to_the_first() {
    let asked = asking(&[
        ("a.io/x", "GRID T4-2B"),
        ("b.io/x", "GRID_T4-2B"),
        ("a.io/x", "none"),
    ]);
    assert_eq!(
        lines(&asked.discover(&host(&fixture("mediated")))),
        [
            "a.io/x",
            "c0ffee00 Some(1) vfio 72*",
            "b.io/x",
            "- c0ffee00 belongs to a.io/x, whose selector for it comes first",
        ]
    );
}

#[test]
fn devices_that_make_no_sense_are_passed_over() {
    let asked = asking(&[("a.io/x", "GRID T4-1B")]);
    let offers = asked.discover(&host(&fixture("malformed-pci")));
    assert_eq!(offers[0].units, []);
    assert_eq!(offers[0].left_out.len(), 1);
    assert_eq!(lines(&asked.discover(&host(&plant("")))), ["a.io/x"]);
}

#[test]
fn names_that_are_none_are_refused() {
    for name in ["", "  ", &"x".repeat(129)] {
        let error = MediatedSelector::new("a.io/x", name)
            .unwrap_err()
            .to_string();
        assert!(error.contains("such as GRID T4-1Q"), "{error}");
    }
    let error = MediatedSelector::new("x", "GRID T4-1Q")
        .unwrap_err()
        .to_string();
    assert!(error.contains("\"x\""), "{error}");
}

proptest! {
    #[test]
    fn a_uuid_is_a_short_name_of_hexadecimal_digits(text in any::<String>(), good in "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}") {
        prop_assert!(is_uuid(&good));
        prop_assert!(!is_uuid(&text) || text.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit()));
    }
}
