//! What is to be done about claims and volumes, decided without doing it.

use std::path::PathBuf;

use api::Quantity;
use serde_json::{Value, json};

use super::{CLASS, PROVISIONER};

/// Keeps a claim while pods use it.
const PROTECTION: &str = "kubernetes.io/pvc-protection";
/// Annotation that makes a class the one of claims that name none.
const DEFAULT_CLASS: &str = "storageclass.kubernetes.io/is-default-class";
/// Annotation of volumes that this provisioner made.
const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";

/// Something to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Set the finalizers of the claim at a path.
    Protect {
        /// Path of the claim.
        claim: String,
        /// What they are to be.
        finalizers: Vec<String>,
    },
    /// Make a volume for a claim.
    Make {
        /// The claim.
        claim: Value,
        /// Name of the volume.
        name: String,
    },
    /// Bind a claim to a volume.
    Bind {
        /// The claim.
        claim: Value,
        /// The volume.
        volume: Value,
        /// Storage class that the claim goes by.
        class: String,
    },
    /// A volume's claim is gone; it stays.
    Release {
        /// Name of the volume.
        volume: String,
    },
    /// A volume's claim is gone; so are the volume and its folder.
    Remove {
        /// Name of the volume.
        volume: String,
        /// Its folder.
        path: PathBuf,
    },
    /// Tell a claim why it waits.
    Tell {
        /// The claim.
        claim: Value,
        /// Its uid.
        uid: String,
        /// Why.
        reason: String,
    },
}

/// Returns what is to be done. Pods decide about claims that are being deleted and about no others.
#[must_use]
pub fn plan(claims: &[Value], volumes: &[Value], pods: &[Value], classes: &[Value]) -> Vec<Action> {
    let mut actions: Vec<_> = claims
        .iter()
        .filter_map(|claim| protection(claim, pods))
        .collect();
    let mut taken: Vec<String> = Vec::new();
    for claim in claims.iter().filter(|it| is_waiting(it)) {
        actions.extend(for_claim(claim, volumes, classes, &mut taken));
    }
    actions.extend(
        volumes
            .iter()
            .filter_map(|volume| without_claim(volume, claims)),
    );
    actions
}

fn is_waiting(claim: &Value) -> bool {
    claim["status"]["phase"] != "Bound" && !is_going(claim)
}

/// Whether a claim is being deleted, so that it matters whether pods use it.
pub(super) fn is_going(claim: &Value) -> bool {
    !claim["metadata"]["deletionTimestamp"].is_null()
}

fn protection(claim: &Value, pods: &[Value]) -> Option<Action> {
    let finalizers: Vec<String> = texts(&claim["metadata"]["finalizers"]);
    let is_protected = finalizers.iter().any(|it| it == PROTECTION);
    let wanted = match (is_going(claim), is_protected) {
        (false, false) => finalizers
            .into_iter()
            .chain([PROTECTION.to_owned()])
            .collect(),
        (true, true) if !pods.iter().any(|pod| uses(pod, claim)) => finalizers
            .into_iter()
            .filter(|it| it != PROTECTION)
            .collect(),
        _ => return None,
    };
    Some(Action::Protect {
        claim: claim_path(claim),
        finalizers: wanted,
    })
}

fn uses(pod: &Value, claim: &Value) -> bool {
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    let is_it = |it: &Value| it["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"];
    pod["metadata"]["namespace"] == claim["metadata"]["namespace"]
        && !crate::scheduler::is_finished(pod)
        && volumes.into_iter().any(is_it)
}

fn for_claim(
    claim: &Value,
    volumes: &[Value],
    classes: &[Value],
    taken: &mut Vec<String>,
) -> Option<Action> {
    let class = class_of(claim, classes);
    let fitting = volumes.iter().find(|it| {
        !taken.contains(&name(it)) && (is_for(it, claim) || is_free(it) && fits(it, claim, &class))
    });
    if let Some(volume) = fitting {
        taken.push(name(volume));
        return Some(Action::Bind {
            claim: claim.clone(),
            volume: volume.clone(),
            class,
        });
    }
    let tell = |reason: String| {
        Some(Action::Tell {
            claim: claim.clone(),
            uid: text(&claim["metadata"]["uid"]),
            reason,
        })
    };
    if !text(&claim["spec"]["volumeName"]).is_empty() {
        return tell(format!(
            "volume {} is not there, or not free",
            claim["spec"]["volumeName"]
        ));
    }
    let Some(found) = classes.iter().find(|it| name(it) == class) else {
        return tell(if class.is_empty() {
            format!("no volume is free for this claim, and it names no storage class: name {CLASS}")
        } else {
            format!("storage class {class:?} does not exist on this node: use {CLASS}")
        });
    };
    if found["provisioner"] != PROVISIONER {
        return tell(format!(
            "nobody provisions volumes of storage class {class:?} on this node: use {CLASS}"
        ));
    }
    if claim["spec"]["volumeMode"] == "Block" {
        return tell(format!(
            "{CLASS} makes volumes of volumeMode Filesystem only, not Block"
        ));
    }
    if !claim["spec"]["dataSource"].is_null() || !claim["spec"]["dataSourceRef"].is_null() {
        return tell(format!(
            "{CLASS} makes empty volumes: it takes no dataSource"
        ));
    }
    Some(Action::Make {
        claim: claim.clone(),
        name: format!("pvc-{}", text(&claim["metadata"]["uid"])),
    })
}

/// Returns the class of a claim: the one that it names, which may be none (`""`), or the default one.
fn class_of(claim: &Value, classes: &[Value]) -> String {
    if let Some(class) = claim["spec"]["storageClassName"].as_str() {
        return class.to_owned();
    }
    let is_default = |it: &&Value| it["metadata"]["annotations"][DEFAULT_CLASS] == "true";
    classes
        .iter()
        .find(is_default)
        .map(name)
        .unwrap_or_default()
}

fn is_for(volume: &Value, claim: &Value) -> bool {
    let reference = &volume["spec"]["claimRef"];
    reference["namespace"] == claim["metadata"]["namespace"]
        && reference["name"] == claim["metadata"]["name"]
        && (reference["uid"].is_null() || reference["uid"] == claim["metadata"]["uid"])
}

fn is_free(volume: &Value) -> bool {
    volume["spec"]["claimRef"].is_null() && volume["metadata"]["deletionTimestamp"].is_null()
}

fn fits(volume: &Value, claim: &Value, class: &str) -> bool {
    let mode = |spec: &Value| {
        spec["volumeMode"]
            .as_str()
            .unwrap_or("Filesystem")
            .to_owned()
    };
    let named = text(&claim["spec"]["volumeName"]);
    let wanted = size(&claim["spec"]["resources"]["requests"]["storage"]);
    let modes = texts(&volume["spec"]["accessModes"]);
    (named.is_empty() || named == name(volume))
        && text(&volume["spec"]["storageClassName"]) == class
        && mode(&volume["spec"]) == mode(&claim["spec"])
        && size(&volume["spec"]["capacity"]["storage"]) >= wanted
        && texts(&claim["spec"]["accessModes"])
            .iter()
            .all(|it| modes.contains(it))
        && selects(&claim["spec"]["selector"], volume)
}

fn selects(selector: &Value, volume: &Value) -> bool {
    let labels = selector["matchLabels"].as_object();
    labels
        .into_iter()
        .flatten()
        .all(|(key, value)| volume["metadata"]["labels"][key] == *value)
}

fn size(value: &Value) -> u64 {
    let parsed = value
        .as_str()
        .and_then(|text| text.parse::<Quantity>().ok());
    parsed.and_then(|it| it.units()).unwrap_or(0)
}

fn without_claim(volume: &Value, claims: &[Value]) -> Option<Action> {
    let reference = &volume["spec"]["claimRef"];
    let is_bound = volume["status"]["phase"] == "Bound";
    if reference["uid"].is_null() || claims.iter().any(|claim| is_for(volume, claim)) {
        return None;
    }
    let is_ours = volume["metadata"]["annotations"][PROVISIONED_BY] == PROVISIONER;
    let keeps = volume["spec"]["persistentVolumeReclaimPolicy"] != "Delete";
    match volume["spec"]["hostPath"]["path"].as_str() {
        Some(path) if is_ours && !keeps => Some(Action::Remove {
            volume: name(volume),
            path: path.into(),
        }),
        _ => is_bound.then(|| Action::Release {
            volume: name(volume),
        }),
    }
}

/// Returns a volume for a claim: a folder of a node.
pub(super) fn volume(claim: &Value, name: &str, path: &str, node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": name, "annotations": {PROVISIONED_BY: PROVISIONER}},
        "spec": {
            "capacity": {"storage": claim["spec"]["resources"]["requests"]["storage"]},
            "accessModes": claim["spec"]["accessModes"],
            "volumeMode": "Filesystem",
            "persistentVolumeReclaimPolicy": "Delete",
            "storageClassName": CLASS,
            "claimRef": reference(claim),
            "hostPath": {"path": path, "type": "DirectoryOrCreate"},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}]}},
        },
    })
}

pub(super) fn reference(claim: &Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim",
        "namespace": claim["metadata"]["namespace"], "name": claim["metadata"]["name"],
        "uid": claim["metadata"]["uid"],
    })
}

pub(super) fn claim_path(claim: &Value) -> String {
    let namespace = text(&claim["metadata"]["namespace"]);
    format!(
        "/api/v1/namespaces/{namespace}/persistentvolumeclaims/{}",
        name(claim)
    )
}

pub(super) fn name(object: &Value) -> String {
    text(&object["metadata"]["name"])
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().map(text).collect()
}

#[cfg(test)]
mod tests;
