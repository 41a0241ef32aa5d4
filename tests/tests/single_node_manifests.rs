//! The manifests and commands of the documents that the product must satisfy, on a node of one process.

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use serde_json::{Value, json};
    use tests::demo::BOOT;
    use tests::guests::repository;
    use tests::single_node::SingleNode;

    /// Time for what needs no guest to boot.
    const SOON: Duration = Duration::from_secs(60);

    /// A node with the demo's root disk under the names of the documents' images. `None` where it cannot be had.
    fn node_with_images(names: &[&str]) -> Option<SingleNode> {
        let mut node = SingleNode::new("soft")?;
        node.start().unwrap_or_else(|error| panic!("{error}"));
        let layout = node.guests.images().join("demo-disk");
        for name in names {
            let layout = layout.to_string_lossy().into_owned();
            node.ferrovirt(&["image", "import", &layout, "--name", name])
                .expect("import the image");
        }
        Some(node)
    }

    fn manifest(name: &str) -> PathBuf {
        repository().join("launcher/tests/fixtures").join(name)
    }

    fn apply(node: &SingleNode, name: &str) -> Result<String, String> {
        let path = manifest(name).to_string_lossy().into_owned();
        node.kubectl(&["apply", "-f", &path])
            .map_err(|error| error.to_string())
    }

    fn is_running(vmi: &Value) -> bool {
        vmi["status"]["phase"] == "Running"
    }

    fn condition(object: &Value, kind: &str) -> Value {
        let conditions = object["status"]["conditions"]
            .as_array()
            .into_iter()
            .flatten();
        conditions
            .into_iter()
            .find(|it| it["type"] == kind)
            .cloned()
            .unwrap_or_default()
    }

    #[test]
    fn a_stateless_machine_of_the_old_version_is_started_by_virtctl_and_by_a_patch() {
        let names = [
            "kubevirt/cirros-registry-disk-demo",
            "kubevirt/cirros-container-disk-demo:latest",
        ];
        let Some(node) = node_with_images(&names) else {
            return;
        };
        apply(&node, "vm-cirros-stateless.yaml").unwrap();
        let vm = node.wait_for("vm", "cirros-stateless-vm", "stopped", SOON, |vm| {
            vm["status"]["printableStatus"] == "Stopped"
        });
        assert_eq!(vm["spec"]["running"], false);
        node.virtctl(&["start", "cirros-stateless-vm"]).unwrap();
        node.wait_for("vmi", "cirros-stateless-vm", "running", BOOT, is_running);
        let pods = node.kubectl(&["get", "pods"]).unwrap();
        assert!(
            pods.contains("virt-launcher-cirros-stateless-vm-"),
            "{pods}"
        );
        node.virtctl(&["stop", "cirros-stateless-vm", "--grace-period=0", "--force"])
            .unwrap();
        node.wait_for("vmi", "cirros-stateless-vm", "gone", SOON, Value::is_null);
        apply(&node, "vm-cirros.yaml").unwrap();
        if !node.has_kubectl() {
            eprintln!("skipped: kubectl patch: kubectl is not installed");
            return;
        }
        node.kubectl(&[
            "patch",
            "vm",
            "vm-cirros",
            "--type",
            "merge",
            "-p",
            r#"{"spec":{"running":true}}"#,
        ])
        .unwrap();
        node.wait_for("vmi", "vm-cirros", "running", BOOT, is_running);
        let virtual_machines = node.kubectl(&["get", "vms"]).unwrap();
        assert!(virtual_machines.contains("Running"), "{virtual_machines}");
    }

    #[test]
    fn disks_from_a_claim_empty_disks_and_cloud_init_run() {
        let names = ["kubevirt/fedora-cloud-container-disk-demo:latest"];
        let Some(node) = node_with_images(&names) else {
            return;
        };
        apply(&node, "vmi-claim-disk.yaml").unwrap();
        let waiting = node.wait_for("vmi", "testvmi-disk", "waiting", SOON, |vmi| {
            condition(vmi, "Synchronized")["status"] == "False"
                || condition(vmi, "PodScheduled")["status"] == "False"
        });
        assert!(
            waiting["status"]["conditions"]
                .to_string()
                .contains("mypvc"),
            "{:#}",
            waiting["status"]
        );
        let claim = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "mypvc"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "64Mi"}}},
        });
        let file = node.state().join("claim.json");
        std::fs::write(&file, claim.to_string()).unwrap();
        node.kubectl(&["apply", "-f", &file.to_string_lossy()])
            .unwrap();
        node.wait_for("vmi", "testvmi-disk", "running", BOOT, is_running);
        let claim = node.get("pvc", "mypvc");
        assert_eq!(claim["status"]["phase"], "Bound");
        assert_eq!(claim["spec"]["storageClassName"], "ferrovirt-local");
        apply(&node, "vmi-fedora-nocloud.yaml").unwrap();
        node.wait_for("vmi", "testvmi-nocloud", "running", BOOT, is_running);
    }

    #[test]
    fn a_disk_of_the_host_needs_its_feature_gate() {
        let Some(node) = node_with_images(&[]) else {
            return;
        };
        let refused = apply(&node, "vmi-sles-host-disk.yaml").unwrap_err();
        assert!(refused.contains("HostDisk"), "{refused}");
        let gate = json!({
            "apiVersion": "kubevirt.io/v1", "kind": "KubeVirt", "metadata": {"name": "kubevirt", "namespace": "kubevirt"},
            "spec": {"configuration": {"developerConfiguration": {"useEmulation": true, "featureGates": ["ImageVolume", "HostDisk"]}}},
        });
        let file = node.state().join("gate.json");
        std::fs::write(&file, gate.to_string()).unwrap();
        node.kubectl(&["apply", "-f", &file.to_string_lossy()])
            .unwrap();
        let disk = node.state().join("disk.raw");
        std::fs::copy(node.guests.root_raw(), &disk).unwrap();
        let text = std::fs::read_to_string(manifest("vmi-sles-host-disk.yaml")).unwrap();
        let file = node.state().join("host-disk.yaml");
        std::fs::write(
            &file,
            text.replace("/hostDisks/sles15sp2/disk.raw", &disk.to_string_lossy()),
        )
        .unwrap();
        node.kubectl(&["apply", "-f", &file.to_string_lossy()])
            .unwrap();
        node.wait_for("vmi", "sles15sp2", "running", BOOT, is_running);
    }

    #[test]
    fn what_needs_more_than_the_node_has_says_what_it_waits_for() {
        let Some(node) = node_with_images(&[]) else {
            return;
        };
        apply(&node, "vm-centos-claim.yaml").unwrap();
        node.virtctl(&["start", "centos-vm"]).unwrap();
        node.wait_for("vm", "centos-vm", "without its claim", SOON, |vm| {
            vm["status"]["printableStatus"] == "ErrorPvcNotFound"
        });
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "smartedge-apps"}});
        let file = node.state().join("namespace.json");
        std::fs::write(&file, namespace.to_string()).unwrap();
        node.kubectl(&["apply", "-f", &file.to_string_lossy()])
            .unwrap();
        apply(&node, "vm-ubuntu-sriov.yaml").unwrap();
        let unknown = apply(&node, "unknown-kind.yaml").unwrap_err();
        let wanted = "no matches for kind \"VirtualBoxInstance\" in version";
        assert!(unknown.contains(wanted), "{unknown}");
    }
}
