//! Which fields of an instance do something here. What is set and not listed is reported, so that
//! nothing is dropped in silence.

use api::vm::VirtualMachine;
use api::{FieldError, FieldPath, Vmi};
use serde_json::Value;

/// What we make of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Support {
    /// It is honoured, or reported where it is read.
    Used,
    /// Only a cluster could honour it.
    Cluster,
    /// The machine has it always; only switching it off is worth a word.
    AlwaysOn,
    /// It is not honoured, which means what the text says.
    Missing(&'static str),
}

use Support::{AlwaysOn, Cluster, Missing, Used};

const NO_GUEST_DEVICE: &str = "not supported yet: the guest does not get this device";

/// Fields by path, `[]` for every list element. A row speaks for all that is below it.
const VMI_FIELDS: &[(&str, Support)] = &[
    ("apiVersion", Used),
    ("kind", Used),
    ("metadata", Used),
    ("status", Used),
    ("spec.architecture", Used),
    ("spec.hostname", Used),
    ("spec.networks", Used),
    ("spec.terminationGracePeriodSeconds", Used),
    (
        "spec.startStrategy",
        Missing("not supported yet: the machine starts at once"),
    ),
    ("spec.affinity", Cluster),
    ("spec.dnsConfig", Cluster),
    ("spec.dnsPolicy", Cluster),
    ("spec.evictionStrategy", Cluster),
    ("spec.nodeSelector", Cluster),
    ("spec.priorityClassName", Cluster),
    ("spec.schedulerName", Cluster),
    ("spec.serviceAccountName", Cluster),
    ("spec.tolerations", Cluster),
    ("spec.topologySpreadConstraints", Cluster),
    (
        "spec.accessCredentials",
        Missing("not supported yet: give keys by cloud-init user data"),
    ),
    ("spec.domain.chassis", Used),
    ("spec.domain.cpu.cores", Used),
    ("spec.domain.cpu.features", Used),
    ("spec.domain.cpu.model", Used),
    ("spec.domain.cpu.sockets", Used),
    ("spec.domain.cpu.threads", Used),
    ("spec.domain.features.acpi.enabled", AlwaysOn),
    ("spec.domain.features.apic.enabled", AlwaysOn),
    ("spec.domain.firmware.bootloader.bios", Used),
    ("spec.domain.firmware.bootloader.efi", Used),
    ("spec.domain.firmware.kernelBoot.container.image", Used),
    (
        "spec.domain.firmware.kernelBoot.container.imagePullPolicy",
        Cluster,
    ),
    (
        "spec.domain.firmware.kernelBoot.container.imagePullSecret",
        Cluster,
    ),
    ("spec.domain.firmware.kernelBoot.container.initrdPath", Used),
    ("spec.domain.firmware.kernelBoot.container.kernelPath", Used),
    ("spec.domain.firmware.kernelBoot.kernelArgs", Used),
    ("spec.domain.firmware.serial", Used),
    ("spec.domain.firmware.uuid", Used),
    ("spec.domain.machine", Used),
    ("spec.domain.memory.guest", Used),
    ("spec.domain.memory.hugepages", Used),
    ("spec.domain.resources", Used),
    ("spec.domain.devices.autoattachSerialConsole", Used),
    (
        "spec.domain.devices.autoattachPodInterface",
        Missing("not supported yet: the guest gets no network interface"),
    ),
    ("spec.domain.devices.blockMultiQueue", Used),
    ("spec.domain.devices.panicDevices", Used),
    ("spec.domain.devices.rng", Used),
    ("spec.domain.devices.disks[].blockSize.custom.logical", Used),
    (
        "spec.domain.devices.disks[].blockSize.custom.physical",
        Used,
    ),
    ("spec.domain.devices.disks[].bootOrder", Used),
    ("spec.domain.devices.disks[].cache", Used),
    ("spec.domain.devices.disks[].cdrom", Used),
    ("spec.domain.devices.disks[].disk.bus", Used),
    ("spec.domain.devices.disks[].disk.readonly", Used),
    ("spec.domain.devices.disks[].lun", Used),
    ("spec.domain.devices.disks[].name", Used),
    ("spec.domain.devices.disks[].serial", Used),
    (
        "spec.domain.devices.filesystems[]",
        Missing(NO_GUEST_DEVICE),
    ),
    ("spec.domain.devices.gpus[]", Missing(NO_GUEST_DEVICE)),
    (
        "spec.domain.devices.hostDevices[]",
        Missing(NO_GUEST_DEVICE),
    ),
    ("spec.domain.devices.inputs[]", Missing(NO_GUEST_DEVICE)),
    ("spec.domain.devices.interfaces[]", Missing(NO_GUEST_DEVICE)),
    ("spec.volumes[].cloudInitConfigDrive", Used),
    ("spec.volumes[].cloudInitNoCloud", Used),
    ("spec.volumes[].configMap", Used),
    ("spec.volumes[].containerDisk.image", Used),
    ("spec.volumes[].containerDisk.imagePullPolicy", Cluster),
    ("spec.volumes[].containerDisk.imagePullSecret", Cluster),
    ("spec.volumes[].containerDisk.path", Used),
    ("spec.volumes[].containerPath", Used),
    ("spec.volumes[].dataVolume.hotpluggable", Cluster),
    ("spec.volumes[].dataVolume.name", Used),
    ("spec.volumes[].downwardAPI", Used),
    ("spec.volumes[].downwardMetrics", Used),
    ("spec.volumes[].emptyDisk", Used),
    ("spec.volumes[].ephemeral", Used),
    ("spec.volumes[].hostDisk.capacity", Used),
    ("spec.volumes[].hostDisk.path", Used),
    (
        "spec.volumes[].hostDisk.shared",
        Missing("not supported yet: one machine at a time writes to the file"),
    ),
    ("spec.volumes[].hostDisk.type", Used),
    ("spec.volumes[].memoryDump", Used),
    ("spec.volumes[].name", Used),
    ("spec.volumes[].persistentVolumeClaim.claimName", Used),
    ("spec.volumes[].persistentVolumeClaim.hotpluggable", Cluster),
    ("spec.volumes[].persistentVolumeClaim.readOnly", Used),
    ("spec.volumes[].secret", Used),
    ("spec.volumes[].serviceAccount", Used),
    ("spec.volumes[].sysprep", Used),
];

const VM_FIELDS: &[(&str, Support)] = &[
    ("apiVersion", Used),
    ("kind", Used),
    ("metadata", Used),
    ("status", Used),
    ("spec.template", Used),
    ("spec.running", Cluster),
    ("spec.runStrategy", Cluster),
    ("spec.updateVolumesStrategy", Cluster),
    (
        "spec.dataVolumeTemplates",
        Missing("not supported yet: put each volume's disk.img into --volume-dir"),
    ),
    (
        "spec.instancetype",
        Missing("not supported yet: set cpu and memory in the template"),
    ),
    (
        "spec.preference",
        Missing("not supported yet: set the fields in the template"),
    ),
];

/// What is to be said about the fields of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remarks {
    /// Fields that would do something elsewhere and do nothing here.
    pub warnings: Vec<FieldError>,
    /// Fields that mean something to a cluster only.
    pub notes: Vec<FieldError>,
}

/// Returns what is to be said about the fields that are set in an instance.
pub fn remarks(vmi: &Vmi) -> Remarks {
    walk_all(&serde_json::to_value(vmi).unwrap_or_default(), VMI_FIELDS)
}

/// Returns what is to be said about the fields of a virtual machine beside its template.
pub fn vm_remarks(vm: &VirtualMachine) -> Remarks {
    walk_all(&serde_json::to_value(vm).unwrap_or_default(), VM_FIELDS)
}

fn walk_all(value: &Value, table: &[(&str, Support)]) -> Remarks {
    let mut remarks = Remarks::default();
    walk(value, &FieldPath::new(""), "", table, &mut remarks);
    remarks
}

/// Descends to the fields that a row of the table speaks for. `pattern` is the path as the table
/// writes it.
fn walk(
    value: &Value,
    path: &FieldPath,
    pattern: &str,
    table: &[(&str, Support)],
    remarks: &mut Remarks,
) {
    if let Some((_, support)) = table.iter().find(|(row, _)| *row == pattern) {
        return remark(*support, value, path, remarks);
    }
    let leads_on = table.iter().any(|(row, _)| {
        row.strip_prefix(pattern)
            .is_some_and(|rest| pattern.is_empty() || rest.starts_with(['.', '[']))
    });
    match value {
        Value::Object(fields) if leads_on => {
            for (field, value) in fields {
                let deeper = if pattern.is_empty() {
                    field.clone()
                } else {
                    format!("{pattern}.{field}")
                };
                walk(value, &path.child(field), &deeper, table, remarks);
            }
        }
        Value::Array(elements) if leads_on => {
            for (index, value) in elements.iter().enumerate() {
                walk(
                    value,
                    &path.index(index),
                    &format!("{pattern}[]"),
                    table,
                    remarks,
                );
            }
        }
        _ => remark(
            Missing("not supported yet: it has no effect"),
            value,
            path,
            remarks,
        ),
    }
}

fn remark(support: Support, value: &Value, path: &FieldPath, remarks: &mut Remarks) {
    match support {
        Used => {}
        Cluster => remarks.notes.push(FieldError::new(
            path.clone(),
            "has no effect without a cluster",
        )),
        AlwaysOn if *value == Value::Bool(false) => remarks.warnings.push(FieldError::new(
            path.clone(),
            "cannot be switched off yet: the machine has it",
        )),
        // What is switched off asks for nothing.
        AlwaysOn => {}
        Missing(_) if *value == Value::Bool(false) => {}
        Missing(text) => remarks.warnings.push(FieldError::new(path.clone(), text)),
    }
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::needless_pass_by_value,
        reason = "json! literals read best as arguments"
    )]

    use serde_json::json;

    use super::{Remarks, VM_FIELDS, VMI_FIELDS, remarks};

    fn remarks_of(spec: serde_json::Value) -> (Vec<String>, Vec<String>) {
        let object = json!({"metadata": {"name": "m"}, "spec": spec});
        let (vmi, _) = api::manifest::parse_vmi_json(object.to_string().as_bytes()).unwrap();
        let Remarks { warnings, notes } = remarks(&vmi);
        let paths = |list: Vec<api::FieldError>| list.iter().map(|e| e.path.to_string()).collect();
        (paths(warnings), paths(notes))
    }

    #[test]
    fn devices_that_are_missing_are_named_one_by_one() {
        let (warnings, _) = remarks_of(json!({"domain": {"devices": {
            "hostDevices": [{"name": "a", "deviceName": "x/a"}, {"name": "b", "deviceName": "x/b"}],
            "interfaces": [{"name": "n", "bridge": {}}],
            "watchdog": {"name": "w"},
        }}}));
        assert_eq!(
            warnings,
            [
                "spec.domain.devices.hostDevices[0]",
                "spec.domain.devices.hostDevices[1]",
                "spec.domain.devices.interfaces[0]",
                "spec.domain.devices.watchdog",
            ]
        );
    }

    #[test]
    fn fields_of_disks_are_told_apart() {
        let disk = json!({"name": "d", "io": "native", "cache": "none", "disk": {"bus": "virtio", "pciAddress": "0000:00:05.0"}});
        let (warnings, _) = remarks_of(json!({"domain": {"devices": {"disks": [disk]}}}));
        assert_eq!(
            warnings,
            [
                "spec.domain.devices.disks[0].disk.pciAddress",
                "spec.domain.devices.disks[0].io"
            ]
        );
    }

    #[test]
    fn what_is_switched_off_asks_for_nothing_and_what_is_always_on_says_so() {
        let (warnings, notes) = remarks_of(json!({
            "nodeSelector": {"a": "b"},
            "domain": {
                "features": {"acpi": {"enabled": false}, "apic": {"enabled": true}, "smm": {"enabled": true}},
                "devices": {"autoattachGraphicsDevice": false, "autoattachVSOCK": false, "autoattachPodInterface": false},
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
}
