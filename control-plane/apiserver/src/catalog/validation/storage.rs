//! Rules of kinds that hold data, or say where it is.

use serde_json::Value;

use super::names::is_data_key;
use super::{needs, one_of, same, text};
use crate::failure::Cause;

/// Most bytes of a config map or secret.
const MAX_DATA: usize = 1 << 20;

const ACCESS_MODES: [&str; 4] = [
    "ReadOnlyMany",
    "ReadWriteMany",
    "ReadWriteOnce",
    "ReadWriteOncePod",
];

/// Adds what is wrong with a config map or secret.
pub(super) fn data(old: Option<&Value>, new: &Value, found: &mut Vec<Cause>) {
    let mut size = 0;
    for list in ["data", "binaryData"] {
        for (key, value) in new[list].as_object().into_iter().flatten() {
            size += key.len() + value.as_str().unwrap_or_default().len();
            let field = format!("{list}[{key}]");
            if !is_data_key(key) {
                let why = "must be at most 253 letters, digits, '-', '_' and '.', and no path (a valid config key)";
                found.push(Cause::invalid(&field, &Value::from(key.as_str()), why));
            }
            if list == "binaryData" && !new["data"][key].is_null() {
                let why = "duplicate of key present in data";
                found.push(Cause::invalid(&field, &Value::from(key.as_str()), why));
            }
        }
    }
    if size > MAX_DATA {
        found.push(Cause {
            reason: "FieldValueTooLong",
            message: format!("Too long: may not be more than {MAX_DATA} bytes"),
            field: "data".to_owned(),
        });
    }
    if let Some(before) = old.filter(|it| it["immutable"] == true) {
        if new["immutable"] != true {
            found.push(Cause::forbidden(
                "immutable",
                "field is immutable when `immutable` is set",
            ));
        }
        for field in ["data", "binaryData"] {
            if before[field] != new[field] {
                found.push(Cause::forbidden(
                    field,
                    "field is immutable when `immutable` is set",
                ));
            }
        }
    }
    if new["kind"] == "Secret" {
        same(old, new, "/type", found);
    }
}

/// Adds what is wrong with a claim.
pub(super) fn claim(old: Option<&Value>, new: &Value, found: &mut Vec<Cause>) {
    let spec = &new["spec"];
    modes(spec, found);
    let size = &spec["resources"]["requests"]["storage"];
    if size.is_null() {
        found.push(Cause::required("spec.resources[storage]", ""));
    } else if !is_positive(size) {
        let why = "must be greater than zero";
        found.push(Cause::invalid("spec.resources[storage]", size, why));
    }
    one_of(spec, "spec", "volumeMode", &["Block", "Filesystem"], found);
    let Some(old) = old.map(|it| &it["spec"]) else {
        return;
    };
    let (mut before, mut after) = (old.clone(), spec.clone());
    for spec in [&mut before, &mut after]
        .into_iter()
        .filter_map(Value::as_object_mut)
    {
        spec.remove("resources");
        spec.remove("volumeAttributesClassName");
        if text(old, "volumeName").is_empty() {
            spec.remove("volumeName");
        }
        // A default class may be set later.
        if old["storageClassName"].is_null() {
            spec.remove("storageClassName");
        }
    }
    if before != after {
        let why = "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims";
        found.push(Cause::forbidden("spec", why));
    }
}

/// Adds what is wrong with a volume.
pub(super) fn volume(volume: &Value, found: &mut Vec<Cause>) {
    let spec = &volume["spec"];
    modes(spec, found);
    let size = &spec["capacity"]["storage"];
    if size.is_null() {
        found.push(Cause::required("spec.capacity", "must specify storage"));
    } else if !is_positive(size) {
        let why = "must be greater than zero";
        found.push(Cause::invalid("spec.capacity[storage]", size, why));
    }
    one_of(
        spec,
        "spec",
        "persistentVolumeReclaimPolicy",
        &["Delete", "Recycle", "Retain"],
        found,
    );
    one_of(spec, "spec", "volumeMode", &["Block", "Filesystem"], found);
    let sources = [
        "hostPath",
        "local",
        "csi",
        "nfs",
        "iscsi",
        "fc",
        "rbd",
        "cephfs",
        "glusterfs",
        "gcePersistentDisk",
        "awsElasticBlockStore",
        "azureDisk",
        "azureFile",
        "cinder",
        "flexVolume",
        "flocker",
        "photonPersistentDisk",
        "portworxVolume",
        "quobyte",
        "scaleIO",
        "storageos",
        "vsphereVolume",
    ];
    match sources.iter().filter(|it| spec[**it].is_object()).count() {
        0 => found.push(Cause::required("spec", "must specify a volume type")),
        1 => {}
        _ => found.push(Cause::forbidden(
            "spec",
            "may not specify more than 1 volume type",
        )),
    }
    if spec["hostPath"].is_object() {
        needs(&spec["hostPath"], "spec.hostPath", "path", found);
    }
}

/// Adds what is wrong with a storage class.
pub(super) fn class(old: Option<&Value>, new: &Value, found: &mut Vec<Cause>) {
    if text(new, "provisioner").is_empty() {
        found.push(Cause::required("provisioner", ""));
    }
    for (field, choices) in [
        ("reclaimPolicy", ["Delete", "Retain"]),
        ("volumeBindingMode", ["Immediate", "WaitForFirstConsumer"]),
    ] {
        if !choices.contains(&text(new, field)) {
            found.push(Cause::not_supported(field, &new[field], &choices));
        }
    }
    for field in [
        "/parameters",
        "/provisioner",
        "/reclaimPolicy",
        "/volumeBindingMode",
    ] {
        same(old, new, field, found);
    }
}

fn modes(spec: &Value, found: &mut Vec<Cause>) {
    let modes = spec["accessModes"].as_array();
    if modes.is_none_or(Vec::is_empty) {
        found.push(Cause::required(
            "spec.accessModes",
            "at least 1 access mode is required",
        ));
    }
    for mode in modes.into_iter().flatten() {
        if !mode.as_str().is_some_and(|it| ACCESS_MODES.contains(&it)) {
            found.push(Cause::not_supported(
                "spec.accessModes",
                mode,
                &ACCESS_MODES,
            ));
        }
    }
}

fn is_positive(size: &Value) -> bool {
    let text = size
        .as_str()
        .map_or_else(|| size.to_string(), str::to_owned);
    let units = text.parse::<api::Quantity>().ok().and_then(|it| it.units());
    units.is_none_or(|it| it > 0)
}
