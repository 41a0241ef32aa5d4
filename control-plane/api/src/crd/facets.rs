//! What schemas say beyond the types: fields that must be there, fields that may be `null`, how lists
//! merge in server-side apply, and closed sets of words.
//!
//! Facts are upstream's. Objects that may be empty (`domain`, `devices`) are not required: nothing is lost
//! when they are left out.

use serde_json::{Map, Value, json};

/// What a schema says beyond one type.
pub(super) struct Facets {
    /// Name of the type.
    of: &'static str,
    required: &'static [&'static str],
    nullable: &'static [&'static str],
}

const fn required(of: &'static str, fields: &'static [&'static str]) -> Facets {
    Facets {
        of,
        required: fields,
        nullable: &[],
    }
}

const FACETS: &[Facets] = &[
    required("VirtualMachine", &["spec"]),
    required("VirtualMachineSpec", &["template"]),
    required("Vmi", &["spec"]),
    required("ReplicaSet", &["spec"]),
    required("ReplicaSetSpec", &["selector", "template"]),
    required("Migration", &["spec"]),
    required("MigrationDestination", &["migrationID", "connectURL"]),
    required("MigrationOrigin", &["migrationID"]),
    required("PresetSpec", &["selector"]),
    required("KubeVirt", &["spec"]),
    required("Condition", &["type", "status"]),
    required("LabelRequirement", &["key", "operator"]),
    required("AddVolumeOptions", &["name", "disk", "volumeSource"]),
    required("RemoveVolumeOptions", &["name"]),
    required("StateChangeRequest", &["action"]),
    required("VolumeSnapshotStatus", &["name", "enabled"]),
    required("VolumeStatus", &["name", "target"]),
    required("MigratedVolume", &["volumeName"]),
    required("MemoryDumpRequest", &["claimName", "phase"]),
    required("CpuFeature", &["name"]),
    required("KernelBootContainer", &["image"]),
    required("Volume", &["name"]),
    required("UtilityVolume", &["name", "claimName"]),
    required("ResourceClaim", &["name"]),
    required("ContainerDiskSource", &["image"]),
    required("ContainerPathSource", &["path"]),
    required("DataVolumeSource", &["name"]),
    required("PersistentVolumeClaimSource", &["claimName"]),
    required("EmptyDiskSource", &["capacity"]),
    required("HostDisk", &["path"]),
    required("Network", &["name"]),
    required("MultusNetwork", &["networkName"]),
    required("Disk", &["name"]),
    required("Filesystem", &["name", "virtiofs"]),
    required("Gpu", &["name"]),
    required("HostDevice", &["name"]),
    required("Input", &["name", "type"]),
    required("Interface", &["name"]),
    required("PluginBinding", &["name"]),
    required("DhcpPrivateOption", &["option", "value"]),
    required("Port", &["port"]),
    required("PortRange", &["protocol", "start", "end"]),
    required("Sound", &["name"]),
    required("Watchdog", &["name"]),
    required("HttpGetAction", &["port"]),
    required("HttpHeader", &["name", "value"]),
    required("TcpSocketAction", &["port"]),
    required("TokenBucketRateLimiter", &["qps", "burst"]),
    required("PciHostDevice", &["pciVendorSelector", "resourceName"]),
    required("MediatedHostDevice", &["mdevNameSelector", "resourceName"]),
    required("UsbHostDevice", &["resourceName"]),
    required("UsbSelector", &["vendor", "product"]),
    required("NodeMediatedDevices", &["nodeSelector"]),
    required("SupportContainerResources", &["type", "resources"]),
    required(
        "ComponentPatch",
        &["patch", "resourceName", "resourceType", "type"],
    ),
    required("DiskVerification", &["memoryLimit"]),
    Facets {
        of: "DataVolumeTemplate",
        required: &["spec"],
        nullable: &["status"],
    },
    Facets {
        of: "VirtualMachineStatus",
        required: &[],
        nullable: &[
            "startFailure",
            "memoryDumpRequest",
            "changedBlockTracking",
            "instancetypeRef",
            "preferenceRef",
        ],
    },
    Facets {
        of: "ChangedBlockTrackingStatus",
        required: &["state"],
        nullable: &["backupStatus"],
    },
];

/// Lists that server-side apply merges item by item, by the keys of the items; all others are atomic.
const KEYED_LISTS: [(&str, &str, &[&str]); 4] = [
    (
        "VmiSpec",
        "topologySpreadConstraints",
        &["topologyKey", "whenUnsatisfiable"],
    ),
    ("VmiSpec", "resourceClaims", &["name"]),
    ("VmiSpec", "utilityVolumes", &["name"]),
    ("Configuration", "supportContainerResources", &["type"]),
];

/// Lists whose length is bounded.
const BOUNDED_LISTS: [(&str, &str); 6] = [
    ("VmiSpec", "volumes"),
    ("VmiSpec", "networks"),
    ("VmiSpec", "utilityVolumes"),
    ("VmiSpec", "accessCredentials"),
    ("Devices", "disks"),
    ("Devices", "interfaces"),
];
/// Most items of them.
const MAX_ITEMS: u64 = 256;

const CHOICES: [(&str, &str, &[&str]); 6] = [
    ("DomainSpec", "rebootPolicy", &["Reboot", "Terminate"]),
    ("ReservedOverhead", "memLock", &["NotRequired", "Required"]),
    (
        "Configuration",
        "vmRolloutStrategy",
        &["Stage", "LiveUpdate"],
    ),
    (
        "Configuration",
        "roleAggregationStrategy",
        &["AggregateToDefault", "Manual"],
    ),
    (
        "InstancetypeConfiguration",
        "referencePolicy",
        &["reference", "expand", "expandAll"],
    ),
    (
        "TlsConfiguration",
        "minTLSVersion",
        &[
            "VersionTLS10",
            "VersionTLS11",
            "VersionTLS12",
            "VersionTLS13",
        ],
    ),
];

/// Adds to the structural schema of a type what is said beyond it.
pub(super) fn add(of: &str, schema: &mut Map<String, Value>) {
    for facets in FACETS.iter().filter(|facets| facets.of == of) {
        if !facets.required.is_empty() {
            schema.insert("required".to_owned(), json!(facets.required));
        }
        for field in facets.nullable {
            set(schema, field, "nullable", true.into());
        }
    }
    for (_, field, keys) in KEYED_LISTS.iter().filter(|(owner, _, _)| *owner == of) {
        set(schema, field, "x-kubernetes-list-type", "map".into());
        set(schema, field, "x-kubernetes-list-map-keys", json!(keys));
    }
    for (_, field) in BOUNDED_LISTS.iter().filter(|(owner, _)| *owner == of) {
        set(schema, field, "maxItems", MAX_ITEMS.into());
    }
    for (_, field, words) in CHOICES.iter().filter(|(owner, _, _)| *owner == of) {
        set(schema, field, "enum", json!(words));
    }
    if let Some(Value::Object(properties)) = schema.get_mut("properties") {
        add_times(properties);
    }
}

/// Points in time are texts of a form, or `null`.
fn add_times(properties: &mut Map<String, Value>) {
    for (name, schema) in properties {
        let is_time = name.ends_with("Timestamp") || name.ends_with("Time");
        if is_time && schema["type"] == "string" {
            schema["format"] = "date-time".into();
            schema["nullable"] = true.into();
        }
    }
}

fn set(schema: &mut Map<String, Value>, field: &str, key: &str, value: Value) {
    if let Some(Value::Object(property)) = schema
        .get_mut("properties")
        .and_then(|properties| properties.get_mut(field))
    {
        property.insert(key.to_owned(), value);
    }
}

/// Returns every type and field that is named above, for the test that they exist.
#[cfg(test)]
pub(super) fn named() -> Vec<(&'static str, &'static str)> {
    let plain = FACETS.iter().flat_map(|facets| {
        let fields = facets.required.iter().chain(facets.nullable);
        fields.map(|field| (facets.of, *field))
    });
    plain
        .chain(KEYED_LISTS.iter().map(|(of, field, _)| (*of, *field)))
        .chain(BOUNDED_LISTS)
        .chain(CHOICES.iter().map(|(of, field, _)| (*of, *field)))
        .collect()
}
