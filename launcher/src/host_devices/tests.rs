use api::Vmi;
use serde_json::{Value, json};

use super::{Assigned, Variables, assign, variables};

const WIFI: &str = "kubevirt.io/wifi-dongle";

fn devices(
    hosts: &Value,
    gpus: &Value,
    set: &[(&str, &str)],
) -> Result<Vec<Assigned>, Vec<String>> {
    let vmi: Vmi = serde_json::from_value(json!({"spec": {"domain": {"devices": {
        "hostDevices": hosts, "gpus": gpus,
    }}}}))
    .unwrap();
    let devices = &vmi.spec.domain.devices;
    let set: Variables = set
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    assign(&devices.host_devices, &devices.gpus, &set)
        .map_err(|errors| errors.iter().map(ToString::to_string).collect())
}

/// Entries of a resource with these names.
fn entries(resource: &str, names: &[&str]) -> Value {
    let entry = |name| json!({"name": name, "deviceName": resource});
    names.iter().map(entry).collect()
}

/// What each entry got, in one line.
fn told(assigned: &[Assigned]) -> Vec<String> {
    let told = assigned.iter().map(|of| {
        let addresses: Vec<String> = of.addresses.iter().map(ToString::to_string).collect();
        format!("{} {}: {}", of.field, of.alias, addresses.join(", "))
    });
    told.collect()
}

#[test]
fn every_entry_gets_the_next_device_of_its_resource() {
    let hosts = json!([
        {"name": "a", "deviceName": WIFI},
        {"name": "nic", "deviceName": "intel.com/nic"},
        {"name": "b", "deviceName": WIFI},
    ]);
    let gpus = entries("nvidia.com/T4", &["gpu"]);
    let uuid = "6a5bd3a3-0a2f-4a6a-9ca4-f0c2d0d8a9a1";
    let assigned = devices(
        &hosts,
        &gpus,
        &[
            ("USB_RESOURCE_KUBEVIRT_IO_WIFI-DONGLE", "1:7, 2:9,"),
            ("PCI_RESOURCE_INTEL_COM_NIC", "0000:65:00.2"),
            ("MDEV_PCI_RESOURCE_NVIDIA_COM_T4", uuid),
        ],
    )
    .unwrap();
    assert_eq!(
        told(&assigned),
        [
            "spec.domain.devices.hostDevices[0] usb-host-a: USB device 1:7",
            "spec.domain.devices.hostDevices[1] hostdevice-nic: PCI function 0000:65:00.2",
            "spec.domain.devices.hostDevices[2] usb-host-b: USB device 2:9",
            &format!("spec.domain.devices.gpus[0] gpu-gpu: mediated device {uuid}"),
        ]
    );
}

#[test]
fn all_devices_of_a_unit_go_to_one_entry() {
    let hosts = entries(WIFI, &["a", "b"]);
    let set = [("USB_RESOURCE_KUBEVIRT_IO_WIFI-DONGLE", "1:7,1:8,2:1,2:2")];
    let assigned = devices(&hosts, &json!([]), &set).unwrap();
    assert_eq!(
        told(&assigned),
        [
            "spec.domain.devices.hostDevices[0] usb-host-a: USB device 1:7, USB device 1:8",
            "spec.domain.devices.hostDevices[1] usb-host-b: USB device 2:1, USB device 2:2",
        ]
    );
    assert_eq!(
        assigned[0].unsupported(),
        "attaching a (of kubevirt.io/wifi-dongle: USB device 1:7, USB device 1:8) is not supported yet, remove it"
    );
}

#[test]
fn entries_take_from_pci_then_mediated_then_usb_and_share_between_both_lists() {
    let uuid = "6a5bd3a3-0a2f-4a6a-9ca4-f0c2d0d8a9a1";
    let assigned = devices(
        &entries("v/x", &["a", "b"]),
        &entries("v/x", &["c"]),
        &[
            ("USB_RESOURCE_V_X", "1:7"),
            ("MDEV_PCI_RESOURCE_V_X", uuid),
            ("PCI_RESOURCE_V_X", "0000:01:00.0"),
        ],
    )
    .unwrap();
    assert_eq!(
        told(&assigned),
        [
            "spec.domain.devices.hostDevices[0] hostdevice-a: PCI function 0000:01:00.0",
            &format!("spec.domain.devices.hostDevices[1] hostdevice-b: mediated device {uuid}"),
            "spec.domain.devices.gpus[0] usb-host-c: USB device 1:7",
        ]
    );
}

#[test]
fn addresses_that_do_not_fit_the_entries_are_told_with_their_variable() {
    let check = |names: &[&str], value: &str, expected: &str| {
        let set = [("USB_RESOURCE_KUBEVIRT_IO_WIFI-DONGLE", value)];
        let errors = devices(&entries(WIFI, names), &json!([]), &set).unwrap_err();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert!(errors[0].starts_with(expected), "{}", errors[0]);
    };
    let variable = "USB_RESOURCE_KUBEVIRT_IO_WIFI-DONGLE";
    check(
        &["a", "b"],
        "1:7",
        &format!(
            "spec.domain.devices.hostDevices[1]: {variable} has 1 addresses for 2 entries of {WIFI}"
        ),
    );
    check(
        &["a", "b"],
        "1:7,1:8,1:9",
        &format!("spec.domain.devices.hostDevices[0]: {variable} has 3 addresses for 2 entries"),
    );
    check(
        &["a"],
        " , ",
        &format!("spec.domain.devices.hostDevices[0]: {variable} has 0 addresses for 1 entry"),
    );
    check(
        &["a"],
        "1:7,1-8",
        &format!(
            "spec.domain.devices.hostDevices[0]: {variable} holds \"1-8\", which is no bus and device number"
        ),
    );
    check(
        &["a", "b"],
        "1:7,01:007",
        &format!(
            "spec.domain.devices.hostDevices[1]: the pod was given USB device 1:7 of {WIFI} twice"
        ),
    );
}

#[test]
fn without_a_variable_all_three_names_are_told() {
    let errors = devices(&entries("v/x", &["a"]), &json!([]), &[]).unwrap_err();
    let expected = "spec.domain.devices.hostDevices[0]: the pod was given no address of v/x: none of \
                    PCI_RESOURCE_V_X, MDEV_PCI_RESOURCE_V_X, USB_RESOURCE_V_X is set";
    assert!(errors[0].starts_with(expected), "{}", errors[0]);
}

#[test]
fn every_resource_is_told_of_and_names_are_unique() {
    let hosts = json!([
        {"name": "a", "deviceName": "v/x"},
        {"name": "a", "deviceName": "v/y"},
        {"name": "c", "claimName": "claim"},
    ]);
    let errors = devices(&hosts, &json!([]), &[("PCI_RESOURCE_V_Y", "x")]).unwrap_err();
    let starts = [
        "spec.domain.devices.hostDevices[1].name: ",
        "spec.domain.devices.hostDevices[2].deviceName: ",
        "spec.domain.devices.hostDevices[0]: the pod was given no address",
        "spec.domain.devices.hostDevices[1]: PCI_RESOURCE_V_Y holds \"x\"",
    ];
    assert_eq!(errors.len(), starts.len(), "{errors:?}");
    for (error, start) in errors.iter().zip(starts) {
        assert!(error.starts_with(start), "{error}");
    }
}

#[test]
fn a_device_under_two_resources_is_told() {
    let hosts = json!([{"name": "a", "deviceName": "v/x"}, {"name": "b", "deviceName": "v/y"}]);
    let set = [("USB_RESOURCE_V_X", "1:7"), ("USB_RESOURCE_V_Y", "1:7")];
    let errors = devices(&hosts, &json!([]), &set).unwrap_err();
    assert!(
        errors[0].contains("twice, spec.domain.devices.hostDevices[0] gets it too"),
        "{errors:?}"
    );
}

#[test]
fn leftover_variables_and_no_entries_are_fine() {
    let set = [("USB_RESOURCE_V_X", "rubbish")];
    assert_eq!(devices(&json!([]), &json!([]), &set), Ok(Vec::new()));
}

#[test]
fn only_variables_with_addresses_are_kept() {
    let all = [
        ("PATH", "/bin"),
        ("PCI_RESOURCE_A", "1"),
        ("MDEV_PCI_RESOURCE_B", "2"),
        ("USB_RESOURCE_C-D", "3"),
        ("MY_USB_RESOURCE_E", "4"),
    ];
    let kept = variables(all.map(|(name, value)| (name.into(), value.into())));
    let names: Vec<&str> = kept.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        ["MDEV_PCI_RESOURCE_B", "PCI_RESOURCE_A", "USB_RESOURCE_C-D"]
    );
}
