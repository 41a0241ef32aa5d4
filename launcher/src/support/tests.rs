#![expect(
    clippy::needless_pass_by_value,
    reason = "json! literals read best as arguments"
)]

use serde_json::json;

use super::{Remarks, VM_FIELDS, VMI_FIELDS, remarks};

/// Paths of warnings, notes and refusals.
fn remarks_of(spec: serde_json::Value) -> (Vec<String>, Vec<String>, Vec<String>) {
    let object = json!({"metadata": {"name": "m"}, "spec": spec});
    let (vmi, _) = api::manifest::parse_vmi_json(object.to_string().as_bytes()).unwrap();
    let Remarks {
        warnings,
        notes,
        refusals,
    } = remarks(&vmi);
    let paths = |list: Vec<api::FieldError>| list.iter().map(|e| e.path.to_string()).collect();
    (paths(warnings), paths(notes), paths(refusals))
}

#[test]
fn devices_that_are_missing_are_named_one_by_one() {
    let (warnings, _, refusals) = remarks_of(json!({"domain": {"devices": {
        "hostDevices": [{"name": "a", "deviceName": "x/a"}, {"name": "b", "deviceName": "x/b"}],
        "interfaces": [{"name": "n", "bridge": {}}],
        "watchdog": {"name": "w"},
    }}}));
    assert_eq!(
        warnings,
        [
            "spec.domain.devices.interfaces[0]",
            "spec.domain.devices.watchdog",
        ]
    );
    assert_eq!(
        refusals,
        [
            "spec.domain.devices.hostDevices[0]",
            "spec.domain.devices.hostDevices[1]",
        ]
    );
}

#[test]
fn fields_of_disks_are_told_apart() {
    let disk = json!({"name": "d", "tag": "t", "io": "native", "cache": "none", "disk": {"bus": "virtio", "pciAddress": "0000:00:05.0"}});
    let (warnings, _, _) = remarks_of(json!({"domain": {"devices": {"disks": [disk]}}}));
    assert_eq!(
        warnings,
        [
            "spec.domain.devices.disks[0].disk.pciAddress",
            "spec.domain.devices.disks[0].tag",
        ]
    );
}

#[test]
fn what_is_switched_off_asks_for_nothing_and_what_is_always_on_says_so() {
    let (warnings, notes, _) = remarks_of(json!({
        "nodeSelector": {"a": "b"},
        "domain": {
            "features": {"acpi": {"enabled": false}, "apic": {"enabled": true}, "smm": {"enabled": true}},
            "devices": {"autoattachGraphicsDevice": false, "autoattachVSOCK": false, "autoattachPodInterface": false, "tpm": {"enabled": false}},
        },
    }));
    assert_eq!(
        warnings,
        [
            "spec.domain.features.acpi.enabled",
            "spec.domain.features.smm"
        ]
    );
    assert_eq!(notes, ["spec.nodeSelector"]);
}

#[test]
fn no_row_is_hidden_by_another() {
    for table in [VMI_FIELDS, VM_FIELDS] {
        for (row, _) in table {
            let hidden = table.iter().any(|(other, _)| {
                row.strip_prefix(other)
                    .is_some_and(|rest| rest.starts_with(['.', '[']))
            });
            assert!(!hidden, "{row}");
        }
    }
}
