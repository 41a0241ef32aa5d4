use api::kubevirt::Configuration;
use device_plugins::wanted::Wanted;
use proto::node::NodeFacts;
use serde_json::{Value, json};

use super::{DeviceFlags, kvm_refusal, wanted};
use crate::cli::Accel;

fn asked(configuration: Value, flags: &DeviceFlags) -> Wanted {
    let configuration: Configuration = serde_json::from_value(configuration).unwrap();
    wanted(&configuration, flags, None)
}

fn permitted(devices: &Value) -> Wanted {
    asked(
        json!({"permittedHostDevices": devices}),
        &DeviceFlags::default(),
    )
}

fn fields(wanted: &Wanted) -> Vec<&str> {
    wanted.problems.iter().map(|it| it.field.as_str()).collect()
}

#[test]
fn every_kind_of_device_is_asked_for() {
    let wanted = permitted(&json!({
        "pciHostDevices": [{"pciVendorSelector": "10de:1EB8", "resourceName": "nvidia.com/t4"}],
        "mediatedDevices": [{"mdevNameSelector": "GRID T4-1Q", "resourceName": "nvidia.com/grid"}],
        "usb": [{"resourceName": "kubevirt.io/kit", "selectors": [
            {"vendor": "0BDA", "product": "0811"}, {"vendor": "46f4", "product": "1"},
        ]}],
    }));
    assert!(wanted.problems.is_empty(), "{:?}", wanted.problems);
    assert_eq!(
        (wanted.pci[0].vendor, wanted.pci[0].device),
        (0x10de, 0x1eb8)
    );
    assert_eq!(wanted.pci[0].resource.as_str(), "nvidia.com/t4");
    assert_eq!(wanted.mediated[0].resource.as_str(), "nvidia.com/grid");
    let products: Vec<u16> = wanted.usb[0].matches.iter().map(|it| it.product).collect();
    assert_eq!(products, [0x0811, 1]);
}

#[test]
fn what_others_offer_is_left_to_them() {
    let wanted = permitted(&json!({
        "pciHostDevices": [{"pciVendorSelector": "x", "resourceName": "", "externalResourceProvider": true}],
        "mediatedDevices": [{"mdevNameSelector": "", "resourceName": "a.io/m", "externalResourceProvider": true}],
        "usb": [{"resourceName": "a.io/u", "selectors": [], "externalResourceProvider": true}],
    }));
    assert_eq!(wanted, Wanted::default());
}

#[test]
fn wrong_items_are_named_and_the_others_count() {
    let wanted = permitted(&json!({
        "pciHostDevices": [
            {"pciVendorSelector": "10de", "resourceName": "a.io/pci"},
            {"pciVendorSelector": "10de:1eb8", "resourceName": "no name"},
            {"pciVendorSelector": "10de:1eb8", "resourceName": "a.io/pci"},
        ],
        "mediatedDevices": [
            {"mdevNameSelector": "", "resourceName": "a.io/mdev"},
            {"mdevNameSelector": "t", "resourceName": "a.io/pci"},
            {"mdevNameSelector": "t", "resourceName": "devices.kubevirt.io/kvm"},
        ],
        "usb": [
            {"resourceName": "a.io/none", "selectors": []},
            {"resourceName": "a.io/half", "selectors": [
                {"vendor": "0bda", "product": "0811"}, {"vendor": "zz", "product": "1"},
            ]},
            {"resourceName": "a.io/usb", "selectors": [{"vendor": "0bda", "product": "0811"}]},
        ],
    }));
    assert_eq!(
        fields(&wanted),
        [
            "permittedHostDevices.pciHostDevices[0].pciVendorSelector",
            "permittedHostDevices.pciHostDevices[1].resourceName",
            "permittedHostDevices.mediatedDevices[0].mdevNameSelector",
            "permittedHostDevices.mediatedDevices[1].resourceName",
            "permittedHostDevices.mediatedDevices[2].resourceName",
            "permittedHostDevices.usb[0].selectors",
            "permittedHostDevices.usb[1].selectors[1]",
        ]
    );
    assert_eq!((wanted.pci.len(), wanted.mediated.len()), (1, 0));
    assert_eq!(wanted.usb.len(), 1);
    assert_eq!(wanted.usb[0].resource.as_str(), "a.io/usb");
}

#[test]
fn the_usb_list_comes_after_the_kubevirt_object() {
    let flags = DeviceFlags {
        usb_list: "kubevirt.io/a;0bda;0811, kubevirt.io/b;0x0bda;2838,oops,a.io/pci;1;2".to_owned(),
        bind_vfio: true,
        ..DeviceFlags::default()
    };
    let permitted = json!({"permittedHostDevices": {
        "pciHostDevices": [{"pciVendorSelector": "8086:1", "resourceName": "a.io/pci"}],
        "usb": [{"resourceName": "kubevirt.io/b", "selectors": [{"vendor": "1", "product": "2"}]}],
    }});
    let wanted = asked(permitted, &flags);
    let names: Vec<&str> = wanted.usb.iter().map(|it| it.resource.as_str()).collect();
    assert_eq!(names, ["kubevirt.io/b", "kubevirt.io/a", "kubevirt.io/b"]);
    assert!(wanted.bind_vfio);
    assert_eq!(wanted.problems.len(), 2, "{:?}", wanted.problems);
    assert!(wanted.problems[0].field.contains("usb-list"));
    assert!(wanted.problems[1].text.contains("a.io/pci"));
}

#[test]
fn the_kubevirt_object_says_how_many_machines_a_node_has() {
    let flags = DeviceFlags {
        max_devices: 7,
        ..DeviceFlags::default()
    };
    let count = |configuration: Value| asked(configuration, &flags).char_devices.count;
    assert_eq!(count(json!({})), 7);
    assert_eq!(count(json!({"virtualMachineInstancesPerNode": 110})), 110);
    for odd in [-1, 1_000_000] {
        let wanted = asked(json!({"virtualMachineInstancesPerNode": odd}), &flags);
        assert_eq!(wanted.char_devices.count, 7);
        assert_eq!(fields(&wanted), ["virtualMachineInstancesPerNode"]);
    }
}

#[test]
fn kvm_is_refused_where_it_was_measured_to_be_of_no_use() {
    let facts = |backend: &str, reason: &str| NodeFacts {
        backend: backend.to_owned(),
        backend_reason: reason.to_owned(),
        kvm_mips: Some(2),
        ..NodeFacts::default()
    };
    let slow = facts("soft", "KVM is too slow");
    assert_eq!(
        kvm_refusal(Accel::Auto, Some(&slow)).unwrap(),
        "KVM is too slow (KVM ran 2 million instructions a second)"
    );
    assert!(kvm_refusal(Accel::Soft, Some(&facts("soft", ""))).is_some());
    assert_eq!(kvm_refusal(Accel::Kvm, Some(&slow)), None);
    assert_eq!(kvm_refusal(Accel::Auto, Some(&facts("kvm", ""))), None);
    assert_eq!(kvm_refusal(Accel::Auto, None), None);
}
