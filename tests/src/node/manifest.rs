//! Instances for tests.

use serde_json::{Value, json};

use super::{NAMESPACE, NODE};

/// An instance of 128 MiB that boots the stock kernel to a login shell on its serial console.
#[must_use]
pub fn vmi(name: &str) -> Value {
    json!({
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {
            "name": name, "namespace": NAMESPACE, "uid": uid(name, 1), "labels": {}, "annotations": {},
            "finalizers": ["kubevirt.io/foregroundDeleteVirtualMachine"],
        },
        "spec": {
            "terminationGracePeriodSeconds": 30,
            "domain": {
                "memory": {"guest": "128Mi"},
                "firmware": {"kernelBoot": {
                    "kernelArgs": "console=ttyS0 cryptomgr.notests",
                    "container": {"image": "registry.example/kernel", "kernelPath": "/vmlinuz", "initrdPath": "/initrd"},
                }},
                "devices": {"autoattachPodInterface": false, "autoattachGraphicsDevice": false, "disks": []},
            },
            "volumes": [],
        },
    })
}

/// Adds a disk and its volume to an instance.
pub fn add_disk(vmi: &mut Value, disk: Value, volume: Value) {
    let push = |list: &mut Value, item| {
        if let Some(list) = list.as_array_mut() {
            list.push(item);
        }
    };
    push(&mut vmi["spec"]["domain"]["devices"]["disks"], disk);
    push(&mut vmi["spec"]["volumes"], volume);
}

/// The uid of an instance's pod.
#[must_use]
pub fn pod_uid(vmi: &Value) -> String {
    uid(vmi["metadata"]["name"].as_str().unwrap_or_default(), 2)
}

/// An instance as the controller hands it to the node.
#[must_use]
pub fn scheduled(mut vmi: Value) -> Value {
    let now = "2026-01-01T00:00:00Z";
    let pod = pod_uid(&vmi);
    vmi["metadata"]["labels"]["kubevirt.io/nodeName"] = json!(NODE);
    vmi["status"] = json!({
        "phase": "Scheduled",
        "nodeName": NODE,
        "activePods": {pod: NODE},
        "migrationTransport": "Unix",
        "runtimeUser": 107,
        "phaseTransitionTimestamps": [
            {"phase": "Pending", "phaseTransitionTimestamp": now},
            {"phase": "Scheduling", "phaseTransitionTimestamp": now},
            {"phase": "Scheduled", "phaseTransitionTimestamp": now},
        ],
    });
    vmi
}

/// A uid that follows from a name.
fn uid(name: &str, role: u64) -> String {
    let mixed = name
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64 ^ role, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        });
    format!(
        "{:08x}-0000-4000-800{role}-{:012x}",
        mixed >> 32,
        mixed & 0xffff_ffff
    )
}

#[cfg(test)]
mod tests {
    use super::{pod_uid, scheduled, vmi};

    #[test]
    fn names_lead_to_different_uids() {
        let (a, b) = (vmi("a"), vmi("b"));
        assert_ne!(a["metadata"]["uid"], b["metadata"]["uid"]);
        assert_ne!(pod_uid(&a), pod_uid(&b));
        assert_eq!(scheduled(a)["status"]["phase"], "Scheduled");
    }
}
