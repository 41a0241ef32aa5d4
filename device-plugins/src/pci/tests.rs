use std::fmt::Write as _;
use std::fs;

use proptest::prelude::{any, prop_assert, prop_assert_eq, proptest};

use super::{PciDevices, PciSelector};
use crate::source::Source;
use crate::tree::{add, fixture, host, plant};
use crate::unit::{Health, Offer, UNIT_ID_LEN_MAX, Unit, VariablePrefix};

/// Asks for `a.io/x=8086:1889` and so on.
fn asking(selectors: &[&str]) -> PciDevices {
    let selector = |text: &&str| {
        let (resource, ids) = text.split_once('=').unwrap();
        PciSelector::parse(resource, ids).unwrap()
    };
    PciDevices {
        selectors: selectors.iter().map(selector).collect(),
        bind_vfio: false,
    }
}

/// Offers in words: a line for each resource, each unit and each device that is left out.
fn words(offers: &[Offer]) -> String {
    let mut words = String::new();
    for offer in offers {
        assert_eq!(offer.variable, Some(VariablePrefix::Pci));
        writeln!(words, "{}", offer.resource).unwrap();
        for unit in &offer.units {
            writeln!(words, "  {}", unit_words(unit)).unwrap();
        }
        for left_out in &offer.left_out {
            writeln!(words, "  - {} {}", left_out.device, left_out.reason).unwrap();
        }
    }
    words
}

/// `pci-0000-65-01.0 = 0000:65:01.0 of 2 numa 1: vfio, 100*` with a star at nodes that become the launcher's.
fn unit_words(unit: &Unit) -> String {
    assert_eq!(unit.copies, 1);
    let nodes = unit.nodes.iter().map(|node| {
        assert_eq!(node.permissions, "rwm");
        let path = node.path.strip_prefix("/dev/vfio").unwrap().display();
        format!("{path}{}", if node.is_owned { "*" } else { "" })
    });
    let nodes = nodes.collect::<Vec<_>>().join(", ");
    let addresses = unit.addresses.join(" ");
    let numa = unit.numa_node.map(|node| format!(" numa {node}"));
    let numa = numa.unwrap_or_default();
    let health = match &unit.health {
        Health::Healthy => String::new(),
        Health::Unhealthy(reason) => format!(" ({reason})"),
    };
    let parts = unit.parts.len();
    format!(
        "{} = {addresses} of {parts}{numa}: {nodes}{health}",
        unit.id
    )
}

/// Compares what is offered in a fixture with lines of the form above.
fn check(name: &str, selectors: &[&str], expected: &str) {
    let tree = fixture(name);
    let found = words(&asking(selectors).discover(&host(&tree)));
    let expected: Vec<&str> = expected.lines().map(str::trim).collect();
    let found: Vec<&str> = found.lines().map(str::trim).collect();
    assert_eq!(
        found,
        expected,
        "{name} {selectors:?}:\n{}",
        found.join("\n")
    );
}

#[test]
fn virtual_functions_on_vfio_are_units_and_the_others_are_explained() {
    check(
        "sriov",
        &["i.io/vf=8086:1889", "m.io/vf=15b3:101e", "i.io/port=8086:1592"],
        "i.io/vf
         pci-0000-65-01.0 = 0000:65:01.0 of 1 numa 0: vfio, 100*, devices/vfio0*
         pci-0000-65-01.1 = 0000:65:01.1 of 1 numa 0: vfio, 101*, devices/vfio1*
         pci-0000-65-01.2 = 0000:65:01.2 of 1 numa 0: vfio, 102*
         pci-0000-65-01.3 = 0000:65:01.3 of 1 numa 0: vfio, 103*
         pci-0000-65-01.4 = 0000:65:01.4 of 1 numa 0: vfio, 104*
         pci-0000-65-01.5 = 0000:65:01.5 of 1 numa 0: vfio, 105*
         - 0000:65:01.6 has the driver iavf: bind it to vfio-pci (driverctl set-override 0000:65:01.6 vfio-pci), or start the node agent with --bind-vfio
         - 0000:65:01.7 has no driver: bind it to vfio-pci (driverctl set-override 0000:65:01.7 vfio-pci), or start the node agent with --bind-vfio
         m.io/vf
         pci-10000-81-00.2 = 10000:81:00.2 of 1 numa 1: vfio, 22*, devices/vfio6*
         pci-10000-81-00.3 = 10000:81:00.3 of 1 numa 1: vfio, 23*, devices/vfio7*
         i.io/port
         - 0000:65:00.0 has virtual functions (8): ask for those, or remove them to offer it as a whole (write 0 to its sriov_numvfs)
         - 0000:65:00.1 has the driver ice: bind it to vfio-pci (driverctl set-override 0000:65:00.1 vfio-pci)",
    );
}

#[test]
fn what_a_real_node_recorded_is_offered() {
    check(
        "recorded-node-mixed",
        &["q.io/nvme=1b36:0010", "q.io/edu=1234:11e8"],
        "q.io/nvme
         pci-0000-41-00.1 = 0000:41:00.1 of 1 numa 1: vfio, 9*
         pci-0000-41-00.2 = 0000:41:00.2 of 1 numa 1: vfio, 10*
         pci-0000-41-00.3 = 0000:41:00.3 of 1 numa 1: vfio, 11*
         pci-0000-41-00.4 = 0000:41:00.4 of 1 numa 1: vfio, 12*
         - 0000:41:00.0 has virtual functions (8): ask for those, or remove them to offer it as a whole (write 0 to its sriov_numvfs)
         - 0000:41:00.5 has the driver pci-stub: bind it to vfio-pci (driverctl set-override 0000:41:00.5 vfio-pci), or start the node agent with --bind-vfio
         - 0000:41:00.6 has no driver: bind it to vfio-pci (driverctl set-override 0000:41:00.6 vfio-pci), or start the node agent with --bind-vfio
         - 0000:41:00.7 has no driver: bind it to vfio-pci (driverctl set-override 0000:41:00.7 vfio-pci), or start the node agent with --bind-vfio
         - 0000:41:01.0 has no driver: bind it to vfio-pci (driverctl set-override 0000:41:01.0 vfio-pci), or start the node agent with --bind-vfio
         q.io/edu
         - 0000:00:10.0 has no driver: bind it to vfio-pci (driverctl set-override 0000:00:10.0 vfio-pci)
         - 0000:01:01.0 shares IOMMU group 5 with 0000:01:02.0 (driver xhci_hcd): a group is given as a whole, so bind what else is in it to vfio-pci too, or leave it without a driver",
    );
    check(
        "recorded-node",
        &["q.io/edu=1234:11e8"],
        "q.io/edu
         pci-0000-00-10.0 = 0000:00:10.0 of 1: vfio, 4*
         pci-0000-01-01.0 = 0000:01:01.0 of 2: vfio, 5*",
    );
}

#[test]
fn a_group_is_offered_where_no_driver_of_the_host_has_part_of_it() {
    check(
        "groups",
        &["n.io/gpu=10de:1eb8"],
        "n.io/gpu
         pci-0000-01-00.0 = 0000:01:00.0 of 2 numa 0: vfio, 1*
         pci-0000-03-00.0 = 0000:03:00.0 of 3 numa 0: vfio, 13*
         pci-0000-04-00.0 = 0000:04:00.0 of 2: vfio, 14*
         - 0000:00:10.0 has no IOMMU group: switch the IOMMU on in the firmware (VT-d, AMD-Vi) and in the kernel (intel_iommu=on)
         - 0000:00:11.0 is in IOMMU group 16, which keeps nothing from the host's memory (enable_unsafe_noiommu_mode): switch a real IOMMU on in the firmware and in the kernel (intel_iommu=on)
         - 0000:00:12.0 is not listed in its IOMMU group 17: see /sys/kernel/iommu_groups/17/devices
         - 0000:02:00.0 shares IOMMU group 12 with 0000:02:00.1 (driver snd_hda_intel): a group is given as a whole, so bind what else is in it to vfio-pci too, or leave it without a driver
         - 0000:05:00.0 shares IOMMU group 15 with 0000:05:01.0 (driver igb), 0000:05:02.0 (driver igb), 0000:05:03.0 (driver igb), 0000:05:04.0 (driver igb) and 2 more: a group is given as a whole, so bind what else is in it to vfio-pci too, or leave it without a driver",
    );
}

#[test]
fn functions_that_no_machine_can_have_are_explained() {
    check(
        "groups",
        &["s.io/disk=144d:a824", "s.io/disk=144d:a825", "n.io/old=10de:2235"],
        "s.io/disk
         - 0000:00:13.0 has virtual functions (1): ask for those, or remove them to offer it as a whole (write 0 to its sriov_numvfs)
         - 0000:00:13.1 is a virtual function of 0000:00:13.0, which is bound to VFIO itself and would ask for a token: give 0000:00:13.0 its own driver back
         n.io/old
         pci-0000-00-14.0 = 0000:00:14.0 of 1 numa 0: vfio, 30* (there is no /dev/vfio/30 although its devices are bound: see whether the kernel has CONFIG_VFIO_GROUP and whether /dev is the host's)",
    );
    let bridges = asking(&["b.io/bridge=8086:4c01"]).discover(&host(&fixture("groups")));
    assert_eq!(bridges[0].left_out.len(), 5);
    assert!(bridges[0].left_out[0].reason.contains("behind it"));
}

#[test]
fn functions_of_one_resource_in_a_group_are_one_unit_with_all_addresses() {
    let offers = asking(&["n.io/all=10de:10f8", "n.io/all=10de:1eb8"]);
    let offers = offers.discover(&host(&fixture("groups")));
    assert_eq!(offers.len(), 1);
    let unit = &offers[0].units[0];
    assert_eq!(unit.id, "pci-0000-01-00.0");
    assert_eq!(unit.addresses, ["0000:01:00.0", "0000:01:00.1"]);
    assert_eq!(unit.parts, unit.addresses);
}

#[test]
fn what_two_resources_ask_for_goes_to_the_first() {
    check(
        "groups",
        &["r.io/nvme=1b36:0010", "n.io/gpu=10de:2235", "x.io/same=1B36:10", "n.io/gpu=10de:1eb8"],
        "r.io/nvme
         pci-0000-04-01.0 = 0000:04:01.0 of 2 numa 1: vfio, 14*
         n.io/gpu
         pci-0000-00-14.0 = 0000:00:14.0 of 1 numa 0: vfio, 30* (there is no /dev/vfio/30 although its devices are bound: see whether the kernel has CONFIG_VFIO_GROUP and whether /dev is the host's)
         pci-0000-01-00.0 = 0000:01:00.0 of 2 numa 0: vfio, 1*
         pci-0000-03-00.0 = 0000:03:00.0 of 3 numa 0: vfio, 13*
         - 0000:00:10.0 has no IOMMU group: switch the IOMMU on in the firmware (VT-d, AMD-Vi) and in the kernel (intel_iommu=on)
         - 0000:00:11.0 is in IOMMU group 16, which keeps nothing from the host's memory (enable_unsafe_noiommu_mode): switch a real IOMMU on in the firmware and in the kernel (intel_iommu=on)
         - 0000:00:12.0 is not listed in its IOMMU group 17: see /sys/kernel/iommu_groups/17/devices
         - 0000:02:00.0 shares IOMMU group 12 with 0000:02:00.1 (driver snd_hda_intel): a group is given as a whole, so bind what else is in it to vfio-pci too, or leave it without a driver
         - 0000:04:00.0 shares IOMMU group 14 with 0000:04:01.0, which r.io/nvme asked for first and offers: a group is given as a whole
         - 0000:05:00.0 shares IOMMU group 15 with 0000:05:01.0 (driver igb), 0000:05:02.0 (driver igb), 0000:05:03.0 (driver igb), 0000:05:04.0 (driver igb) and 2 more: a group is given as a whole, so bind what else is in it to vfio-pci too, or leave it without a driver
         x.io/same
         - 0000:04:01.0 belongs to r.io/nvme, whose selector for it comes first",
    );
}

#[test]
fn files_that_make_no_sense_disturb_no_other_device() {
    check(
        "malformed-pci",
        &["n.io/gpu=10de:1eb8"],
        "n.io/gpu
         pci-0000-00-1f.7 = 0000:00:1f.7 of 1: vfio, 3*
         - 0000:00:06.0 has no IOMMU group: switch the IOMMU on in the firmware (VT-d, AMD-Vi) and in the kernel (intel_iommu=on)
         - 0000:00:07.0 has no IOMMU group: switch the IOMMU on in the firmware (VT-d, AMD-Vi) and in the kernel (intel_iommu=on)
         - 0000:00:08.0 has no driver: bind it to vfio-pci (driverctl set-override 0000:00:08.0 vfio-pci), or start the node agent with --bind-vfio",
    );
}

#[test]
fn a_resource_is_offered_without_devices_and_without_sysfs() {
    let asked = asking(&["b.io/x=1:2", "a.io/x=1:2", "b.io/x=3:4"]);
    for tree in [fixture("sriov"), plant("")] {
        assert_eq!(words(&asked.discover(&host(&tree))), "b.io/x\na.io/x\n");
    }
    assert_eq!(asking(&[]).discover(&host(&fixture("sriov"))), []);
    assert_eq!(asking(&[]).prepare(&host(&fixture("sriov"))), []);
}

#[test]
fn a_unit_has_the_same_name_after_a_reboot_that_numbers_groups_anew() {
    let asked = asking(&["i.io/vf=8086:1889"]);
    let tree = fixture("sriov");
    let before = asked.discover(&host(&tree));
    let function = "sys/devices/pci0000:64/0000:64:00.0/0000:65:01.0";
    let listed = "sys/kernel/iommu_groups/7/devices/0000:65:01.0";
    add(
        &tree,
        &format!(
            "l {function}/iommu_group -> ../../../../kernel/iommu_groups/7\nl {listed} -> ../../../../../{function}\nf dev/vfio/7"
        ),
    );
    let after = asked.discover(&host(&tree));
    let names = |offers: &[Offer]| -> Vec<String> {
        offers[0].units.iter().map(|unit| unit.id.clone()).collect()
    };
    assert_eq!(names(&before), names(&after));
    assert!(after[0].units[0].nodes[1].path.ends_with("vfio/7"));
}

#[test]
fn a_node_that_vanishes_makes_its_unit_unhealthy_with_the_cure() {
    let asked = asking(&["i.io/vf=8086:1889"]);
    let tree = fixture("sriov");
    for (path, cure) in [
        ("dev/vfio/100", "/dev/vfio/100"),
        ("dev/vfio/vfio", "modprobe vfio"),
    ] {
        fs::remove_file(tree.path().join(path)).unwrap();
        let unit = asked.discover(&host(&tree)).remove(0).units.remove(0);
        assert!(
            matches!(&unit.health, Health::Unhealthy(reason) if reason.contains(cure)),
            "{:?}",
            unit.health
        );
    }
}

#[test]
fn five_hundred_devices_are_five_hundred_units() {
    let mut text = "f dev/vfio/vfio".to_owned();
    for number in 0..500 {
        let address = format!(
            "0000:{:02x}:{:02x}.{}",
            number / 256,
            number / 8 % 32,
            number % 8
        );
        let folder = format!("sys/bus/pci/devices/{address}");
        writeln!(
            text,
            "\nf {folder}/vendor 0x8086\nf {folder}/device 0x1889\nl {folder}/driver -> ../../drivers/vfio-pci\n\
             l {folder}/iommu_group -> ../../../../kernel/iommu_groups/{number}\n\
             l sys/kernel/iommu_groups/{number}/devices/{address} -> ../../../../bus/pci/devices/{address}\nf dev/vfio/{number}"
        )
        .unwrap();
    }
    let offers = asking(&["i.io/vf=8086:1889"]).discover(&host(&plant(&text)));
    let units = &offers[0].units;
    assert_eq!((units.len(), offers[0].left_out.len()), (500, 0));
    assert!(units.iter().all(|unit| unit.health.is_healthy()));
    assert!(
        units
            .windows(2)
            .all(|pair| pair[0].addresses < pair[1].addresses)
    );
}

#[test]
fn selectors_are_taken_in_any_case_and_refused_with_the_form_that_is_expected() {
    for text in ["10DE:1EB8", "10de:1eb8", "0x10dE:0X1eb8", " 10de : 1eb8 "] {
        let selector = PciSelector::parse("n.io/gpu", text).unwrap();
        assert_eq!(
            (selector.vendor, selector.device),
            (0x10de, 0x1eb8),
            "{text}"
        );
    }
    let short = PciSelector::parse("n.io/gpu", "8:0").unwrap();
    assert_eq!((short.vendor, short.device), (8, 0));
    for text in [
        "",
        ":",
        "10de",
        "10de:",
        ":1eb8",
        "10de:1eb8:0",
        "10de:1eb8 ff",
        "010de:1eb8",
        "+1:2",
        "0x:0x",
        "10dg:1eb8",
        "0000:01:00.0",
        "10de;1eb8",
        "１0de:1eb8",
    ] {
        let error = PciSelector::parse("n.io/gpu", text)
            .unwrap_err()
            .to_string();
        assert!(error.contains(&format!("{text:?}")), "{error}");
        assert!(error.contains("such as 10DE:1EB8"), "{error}");
    }
    let error = PciSelector::parse("gpu", "10de:1eb8").unwrap_err();
    assert!(error.to_string().contains("\"gpu\""), "{error}");
    let long = PciSelector::parse("n.io/gpu", &"1".repeat(5000)).unwrap_err();
    assert!(long.to_string().len() < 300);
}

proptest! {
    #[test]
    fn any_selector_is_its_numbers_or_an_error(text in any::<String>(), vendor: u16, device: u16) {
        if let Ok(selector) = PciSelector::parse("n.io/gpu", &text) {
            prop_assert!(selector.fits((selector.vendor, selector.device)));
        }
        let selector = PciSelector::parse("n.io/gpu", &format!("0x{vendor:X}:{device:04x}")).unwrap();
        prop_assert_eq!((selector.vendor, selector.device), (vendor, device));
    }

    #[test]
    fn any_attributes_are_offered_or_left_out_at_most_once(
        driver in "[a-z-]{0,8}|vfio-pci", group in "[0-9a-z]{1,12}", class in "[0-9a-fx]{0,9}", numa in "[-0-9a-z]{0,5}",
    ) {
        let folder = "sys/bus/pci/devices/0000:01:00.0";
        let tree = plant(&format!(
            "f {folder}/vendor 0x10de\nf {folder}/device 0x1eb8\nf {folder}/class {class}\nf {folder}/numa_node {numa}\n\
             l {folder}/driver -> ../{driver}.\nl {folder}/iommu_group -> ../{group}"
        ));
        let offers = asking(&["n.io/gpu=10de:1eb8"]).discover(&host(&tree));
        prop_assert_eq!(offers[0].units.len() + offers[0].left_out.len(), 1);
        prop_assert!(offers[0].units.iter().all(|unit| unit.id.len() <= UNIT_ID_LEN_MAX));
    }
}
