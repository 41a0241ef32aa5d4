//! Columns of kinds that are about storage.

use jiff::Timestamp;
use serde_json::Value;

use super::{AGE, NAME, column, count, size, wide};
use crate::table::Native;
use crate::table::cells::{access_modes, list, text, value_or};

pub(super) const CLAIMS: &[Native] = &[
    NAME,
    column("Status", phase),
    column("Volume", |it, _| text(it, "/spec/volumeName").into()),
    column("Capacity", |it, _| {
        if is_bound(it) {
            value_or(it, "/status/capacity/storage", "")
        } else {
            "".into()
        }
    }),
    column("Access Modes", |it, _| {
        if is_bound(it) {
            access_modes(list(it, "/status/accessModes")).into()
        } else {
            "".into()
        }
    }),
    column("StorageClass", |it, _| {
        text(it, "/spec/storageClassName").into()
    }),
    column("VolumeAttributesClass", |it, _| {
        value_or(it, "/spec/volumeAttributesClassName", "<unset>")
    }),
    AGE,
    wide("VolumeMode", |it, _| {
        value_or(it, "/spec/volumeMode", "<unset>")
    }),
];

pub(super) const VOLUMES: &[Native] = &[
    NAME,
    column("Capacity", |it, _| {
        value_or(it, "/spec/capacity/storage", "")
    }),
    column("Access Modes", |it, _| {
        access_modes(list(it, "/spec/accessModes")).into()
    }),
    column("Reclaim Policy", |it, _| {
        text(it, "/spec/persistentVolumeReclaimPolicy").into()
    }),
    column("Status", phase),
    column("Claim", |it, _| {
        let claim = &it["spec"]["claimRef"];
        if claim.is_object() {
            format!("{}/{}", text(claim, "/namespace"), text(claim, "/name")).into()
        } else {
            "".into()
        }
    }),
    column("StorageClass", |it, _| {
        text(it, "/spec/storageClassName").into()
    }),
    column("VolumeAttributesClass", |it, _| {
        value_or(it, "/spec/volumeAttributesClassName", "<unset>")
    }),
    column("Reason", |it, _| text(it, "/status/reason").into()),
    AGE,
    wide("VolumeMode", |it, _| {
        value_or(it, "/spec/volumeMode", "<unset>")
    }),
];

pub(super) const STORAGE_CLASSES: &[Native] = &[
    column("Name", |it, _| {
        let annotations = &it["metadata"]["annotations"];
        let is_default = annotations["storageclass.kubernetes.io/is-default-class"] == "true";
        format!(
            "{}{}",
            text(it, "/metadata/name"),
            if is_default { " (default)" } else { "" }
        )
        .into()
    }),
    column("Provisioner", |it, _| text(it, "/provisioner").into()),
    column("ReclaimPolicy", |it, _| {
        value_or(it, "/reclaimPolicy", "Delete")
    }),
    column("VolumeBindingMode", |it, _| {
        value_or(it, "/volumeBindingMode", "Immediate")
    }),
    Native {
        kind: "boolean",
        ..column("AllowVolumeExpansion", |it, _| {
            (it["allowVolumeExpansion"] == true).into()
        })
    },
    AGE,
];

pub(super) const ATTACHMENTS: &[Native] = &[
    NAME,
    column("Attacher", |it, _| text(it, "/spec/attacher").into()),
    column("PV", |it, _| {
        text(it, "/spec/source/persistentVolumeName").into()
    }),
    column("Node", |it, _| text(it, "/spec/nodeName").into()),
    Native {
        kind: "boolean",
        ..column("Attached", |it, _| {
            (it["status"]["attached"] == true).into()
        })
    },
    AGE,
];

pub(super) const CSI_NODES: &[Native] = &[
    NAME,
    count("Drivers", |it, _| size(&it["spec"]["drivers"]).into()),
    AGE,
];

fn phase(object: &Value, _: Timestamp) -> Value {
    let is_deleted = !object["metadata"]["deletionTimestamp"].is_null();
    if is_deleted {
        "Terminating"
    } else {
        text(object, "/status/phase")
    }
    .into()
}

fn is_bound(claim: &Value) -> bool {
    !text(claim, "/spec/volumeName").is_empty()
}
