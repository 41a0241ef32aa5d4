//! Volumes in a launcher pod: where each kind lies, and making what the pod does not bring.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use api::Vmi;
use block::Format;
use serde_json::{Value, json};
use vmm::config::DiskSource;
use vmm::error_chain;

use super::{changed_instance, contains};
use crate::pod::PodPaths;
use crate::state_dir::StateDir;
use crate::volumes::{
    ClaimImage, Place, ResolvedVolumes, VolumeError, VolumePlan, VolumeSource, plan_kernel,
    plan_volumes, prepare,
};

fn pod(image_volume: bool) -> Place {
    let paths = PodPaths::default();
    Place::Pod {
        paths,
        image_volume,
    }
}

fn planned(disk: Value, volume: Value, changes: Value, image_volume: bool) -> VolumePlan {
    let vmi = changed_instance(disk, volume, changes);
    plan_volumes(&vmi, &pod(image_volume)).unwrap().remove(0)
}

fn claim_status(mode: &str) -> Value {
    let capacity = json!({"storage": "1Gi"});
    let claim = json!({"claimName": "c", "volumeMode": mode, "capacity": capacity});
    json!({"status": {"volumeStatus": [
        {"name": "v", "target": "", "persistentVolumeClaimInfo": claim},
    ]}})
}

fn keys(method: &str) -> Value {
    let source = json!({"secret": {"secretName": "keys"}});
    json!({"spec": {"accessCredentials": [
        {"sshPublicKey": {"source": source, "propagationMethod": {method: {}}}},
    ]}})
}

#[test]
fn every_kind_of_volume_lies_where_the_pod_has_it() {
    let claim = json!({"claimName": "c"});
    let cloud_init = json!({
        "secretRef": {"name": "user"},
        "networkDataSecretRef": {"name": "network"},
    });
    let none = json!({});
    let disk = json!({});
    let image = json!({"containerDisk": {"image": "i", "path": "/d.img"}});
    let by_claim = json!({"persistentVolumeClaim": claim});
    let mut text = String::new();
    let mut show = |title: &str, disk: &Value, volume: Value, changes: Value, image_volume| {
        let plan = planned(disk.clone(), volume, changes, image_volume);
        write!(text, "{title} ({}):\n{:#?}\n\n", plan.field, plan.source).unwrap();
    };
    show("container disk", &disk, image.clone(), none.clone(), false);
    show(
        "container disk, image volume",
        &disk,
        image,
        none.clone(),
        true,
    );
    show(
        "claim, file",
        &disk,
        by_claim.clone(),
        claim_status("Filesystem"),
        false,
    );
    show(
        "claim, device",
        &disk,
        by_claim.clone(),
        claim_status("Block"),
        false,
    );
    show("claim, unknown", &disk, by_claim, none.clone(), false);
    let read_only = json!({"persistentVolumeClaim": {"claimName": "c", "readOnly": true}});
    show(
        "claim, read-only",
        &disk,
        read_only,
        claim_status("Filesystem"),
        false,
    );
    let plugged = json!({"persistentVolumeClaim": {"claimName": "c", "hotpluggable": true}});
    show("claim, plugged", &disk, plugged, none.clone(), false);
    show(
        "data volume",
        &disk,
        json!({"dataVolume": {"name": "c"}}),
        none.clone(),
        false,
    );
    let ephemeral = json!({"ephemeral": {"persistentVolumeClaim": claim}});
    show(
        "ephemeral",
        &disk,
        ephemeral,
        claim_status("Filesystem"),
        false,
    );
    let empty = json!({"emptyDisk": {"capacity": "1Gi"}});
    show("empty disk", &disk, empty, none.clone(), false);
    let host_disk = json!({"hostDisk": {"path": "/data/d.img", "type": "Disk"}});
    show("host disk", &disk, host_disk, none.clone(), false);
    let host_disk =
        json!({"hostDisk": {"path": "/data/d.img", "type": "DiskOrCreate", "capacity": "1Gi"}});
    show("host disk, made", &disk, host_disk, none.clone(), false);
    let instance_type =
        json!({"metadata": {"annotations": {"kubevirt.io/instancetype-name": "small"}}});
    let mut changes = keys("noCloud");
    super::merge(&mut changes, instance_type);
    let no_cloud = json!({"cloudInitNoCloud": cloud_init});
    show("cloud-init, NoCloud", &disk, no_cloud, changes, false);
    let drive = json!({"cloudInitConfigDrive": cloud_init});
    show(
        "cloud-init, ConfigDrive",
        &disk,
        drive,
        keys("configDrive"),
        false,
    );
    let config_map = json!({"configMap": {"name": "c"}});
    show("config map", &disk, config_map, none.clone(), false);
    let secret = json!({"secret": {"secretName": "s", "volumeLabel": "l", "optional": true}});
    show("secret", &disk, secret, none.clone(), false);
    let fields = json!({"downwardAPI": {"fields": [], "volumeLabel": "pod"}});
    show("downward API", &disk, fields, none.clone(), false);
    let account = json!({"serviceAccount": {"serviceAccountName": "a"}});
    show("service account", &disk, account, none.clone(), false);
    let sysprep = json!({"sysprep": {"secret": {"name": "s"}}});
    show("sysprep", &disk, sysprep, none.clone(), false);
    show(
        "downward metrics",
        &disk,
        json!({"downwardMetrics": {}}),
        none,
        false,
    );
    insta::assert_snapshot!("volumes_in_a_pod", text);
}

#[test]
fn a_kernel_lies_where_the_pod_has_it() {
    let container =
        json!({"image": "k", "kernelPath": "/boot/vmlinuz", "initrdPath": "/boot/initrd"});
    let changes =
        json!({"spec": {"domain": {"firmware": {"kernelBoot": {"container": container}}}}});
    let empty = json!({"emptyDisk": {"capacity": "1Gi"}});
    let vmi = changed_instance(json!({}), empty, changes);
    let plans = [false, true].map(|image_volume| plan_kernel(&vmi, &pod(image_volume)));
    insta::assert_debug_snapshot!("kernel_in_a_pod", plans);
}

#[test]
fn a_container_disk_counts_all_volumes() {
    let volumes = json!([
        {"name": "first", "emptyDisk": {"capacity": "1Gi"}},
        {"name": "v", "containerDisk": {"image": "i"}},
    ]);
    let disks = json!([{"name": "v"}, {"name": "first"}]);
    let changes = json!({"spec": {"volumes": volumes, "domain": {"devices": {"disks": disks}}}});
    let plan = planned(json!({}), json!({}), changes, false);
    assert!(format!("{plan:?}").contains("container-disks/disk_1.img"));
}

/// A pod below a temporary folder.
struct Pod {
    dir: tempfile::TempDir,
    paths: PodPaths,
    state: StateDir,
}

impl Pod {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let paths = PodPaths {
            share_dir: at("kubevirt"),
            private_dir: at("private"),
            ephemeral_disk_dir: at("ephemeral"),
            container_disk_dir: at("container-disks"),
            hotplug_disk_dir: at("hotplug"),
            libvirt_dir: at("libvirt"),
            image_volume_dir: at("image-volume"),
            kernel_boot_image_dir: at("kernel-boot"),
            service_account_dir: at("service-account"),
        };
        let state = StateDir::in_pod(&paths);
        Self { dir, paths, state }
    }

    fn put(&self, path: &str, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    fn prepare_vmi(
        &mut self,
        vmi: &Vmi,
        image_volume: bool,
    ) -> Result<ResolvedVolumes, VolumeError> {
        let place = Place::Pod {
            paths: self.paths.clone(),
            image_volume,
        };
        let plans = plan_volumes(vmi, &place).unwrap();
        prepare(
            &plans,
            plan_kernel(vmi, &place).as_ref(),
            &place,
            &mut self.state,
        )
    }

    fn prepare(&mut self, volume: Value, changes: Value) -> Result<ResolvedVolumes, VolumeError> {
        self.prepare_vmi(&changed_instance(json!({}), volume, changes), false)
    }

    fn file(&mut self, volume: Value, changes: Value) -> PathBuf {
        path_of(&self.prepare(volume, changes).unwrap())
    }

    fn error(&mut self, volume: Value, changes: Value) -> String {
        error_chain(&self.prepare(volume, changes).unwrap_err())
    }
}

fn path_of(volumes: &ResolvedVolumes) -> PathBuf {
    match &volumes.disks["v"].source {
        DiskSource::Image { path, .. } => path.clone(),
        DiskSource::Overlay { overlay, .. } => overlay.clone(),
        DiskSource::Empty => panic!("no medium"),
    }
}

fn sparse(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let metadata = fs::metadata(path).unwrap();
    metadata.blocks() * 512 < metadata.len()
}

#[test]
fn a_container_disk_gets_an_overlay_and_one_that_is_not_mounted_is_named() {
    let mut pod = Pod::new();
    let volume = json!({"containerDisk": {"image": "i"}});
    let error = pod.error(volume.clone(), json!({}));
    assert!(
        error.starts_with("spec.volumes[0].containerDisk.image: "),
        "{error}"
    );
    assert!(
        error.contains("disk_0.img does not exist: the node agent"),
        "{error}"
    );
    let base = pod.put("container-disks/disk_0.img", &[0; 4096]);
    let volumes = pod.prepare(volume.clone(), json!({})).unwrap();
    let expected = DiskSource::Overlay {
        base,
        base_format: None,
        overlay: pod.paths.ephemeral_disk_dir.join("disk-data/v/disk.qcow2"),
    };
    assert_eq!(volumes.disks["v"].source, expected);
    // What an attempt left that did not start a machine makes way.
    let overlay = pod.put("ephemeral/disk-data/v/disk.qcow2", b"left over");
    pod.prepare(volume, json!({})).unwrap();
    assert!(!overlay.exists());
}

#[test]
fn an_image_volume_holds_one_disk_or_the_named_one() {
    let mut pod = Pod::new();
    let vmi = |path: &str| {
        let volume = json!({"containerDisk": {"image": "i", "path": path}});
        changed_instance(json!({"disk": {"readonly": true}}), volume, json!({}))
    };
    let error = error_chain(&pod.prepare_vmi(&vmi(""), true).unwrap_err());
    assert!(
        error.contains("is not mounted at") && error.contains("image-volume/disk_0"),
        "{error}"
    );
    let first = pod.put("image-volume/disk_0/disk/a.img", &[0; 512]);
    let prepared = pod.prepare_vmi(&vmi(""), true).unwrap();
    assert_eq!(path_of(&prepared), first);
    let second = pod.put("image-volume/disk_0/disk/b.img", &[0; 512]);
    let error = error_chain(&pod.prepare_vmi(&vmi(""), true).unwrap_err());
    assert!(error.contains("a.img, b.img below /disk"), "{error}");
    let prepared = pod.prepare_vmi(&vmi("/disk/b.img"), true).unwrap();
    assert_eq!(path_of(&prepared), second);
    std::os::unix::fs::symlink(
        "/etc/passwd",
        pod.dir.path().join("image-volume/disk_0/link"),
    )
    .unwrap();
    let error = error_chain(&pod.prepare_vmi(&vmi("/link"), true).unwrap_err());
    assert!(error.contains("has no file /link"), "{error}");
}

#[test]
fn an_empty_claim_gets_an_image_of_its_size_and_keeps_it() {
    let mut pod = Pod::new();
    let volume = json!({"persistentVolumeClaim": {"claimName": "c"}});
    let status = || {
        let mut status = claim_status("Filesystem");
        let claim = &mut status["status"]["volumeStatus"][0]["persistentVolumeClaimInfo"];
        claim["capacity"]["storage"] = json!("3500Ki");
        status
    };
    let error = pod.error(volume.clone(), json!({}));
    assert!(
        error.contains("neither") && error.contains("/dev/v exists"),
        "{error}"
    );
    let file = pod.file(volume.clone(), status());
    assert!(file.ends_with("private/vmi-disks/v/disk.img"));
    assert_eq!(fs::metadata(&file).unwrap().len(), 3 << 20);
    assert!(sparse(&file));
    fs::write(&file, [7; 512]).unwrap();
    pod.file(volume.clone(), status());
    assert_eq!(fs::read(&file).unwrap(), [7; 512]);
    let error = pod.error(volume, claim_status("Block"));
    assert!(error.contains("/dev/v does not exist"), "{error}");
}

#[test]
fn a_claim_of_a_volume_without_room_is_told_in_figures() {
    let mut pod = Pod::new();
    let mut status = claim_status("Filesystem");
    let claim = &mut status["status"]["volumeStatus"][0]["persistentVolumeClaimInfo"];
    claim["capacity"]["storage"] = json!("4Ei");
    let error = pod.error(json!({"dataVolume": {"name": "c"}}), status);
    assert!(
        error.starts_with("spec.volumes[0].dataVolume: create "),
        "{error}"
    );
    assert!(
        error.contains("4611686018427387904 bytes are wanted"),
        "{error}"
    );
}

#[test]
fn an_image_that_was_made_for_nothing_goes_and_one_that_was_used_stays() {
    for started in [false, true] {
        let mut pod = Pod::new();
        let file = pod.file(
            json!({"dataVolume": {"name": "c"}}),
            claim_status("Filesystem"),
        );
        if started {
            pod.state.started();
        }
        drop(pod.state);
        assert_eq!(file.exists(), started);
    }
}

#[test]
fn the_format_of_a_claim_is_told_by_its_first_bytes_and_of_a_device_never() {
    let mut pod = Pod::new();
    let volume = json!({"persistentVolumeClaim": {"claimName": "c"}});
    pod.put("private/vmi-disks/v/disk.img", b"QFI\xfb");
    let volumes = pod.prepare(volume, claim_status("Filesystem")).unwrap();
    assert!(matches!(
        volumes.disks["v"].source,
        DiskSource::Image {
            format: None,
            follow_backing: false,
            ..
        }
    ));
    let plan = VolumePlan {
        name: "v".to_owned(),
        field: api::FieldPath::new("f"),
        source: VolumeSource::Claim {
            // Every file may stand for a device here.
            image: ClaimImage::FileOrDevice {
                file: PathBuf::from("/nonexistent"),
                device: pod.put("device", b"QFI\xfb"),
            },
            read_only: false,
            preallocated: false,
            overlay: None,
        },
    };
    let place = super::pod::pod(false);
    let volumes = prepare(&[plan], None, &place, &mut pod.state).unwrap();
    assert!(matches!(
        volumes.disks["v"].source,
        DiskSource::Image {
            format: Some(Format::Raw),
            ..
        }
    ));
}

#[test]
fn a_host_disk_lies_in_its_mounted_folder() {
    let mut pod = Pod::new();
    let source = json!({"path": "/data/d.img", "type": "DiskOrCreate", "capacity": "2Mi"});
    let file = pod.file(json!({"hostDisk": source}), json!({}));
    assert!(file.ends_with("private/vmi-disks/v/d.img"));
    assert_eq!(fs::metadata(&file).unwrap().len(), 2 << 20);
    let source = json!({"path": "/data/other.img", "type": "Disk"});
    let error = pod.error(json!({"hostDisk": source}), json!({}));
    assert!(
        error.contains("vmi-disks/v/other.img does not exist: make it, or use"),
        "{error}"
    );
}

#[test]
fn cloud_init_takes_secrets_and_keys_from_the_pod() {
    let mut pod = Pod::new();
    pod.put("private/secret/v/userData", b"#cloud-config from secret");
    // A kubelet makes an empty folder for a key that a secret lacks.
    fs::create_dir_all(pod.dir.path().join("private/secret/v/userdata")).unwrap();
    let key = "ssh-ed25519 AAAA somebody";
    pod.put(
        "private/secret/keys-access-cred/key1",
        format!("{key}\n\n").as_bytes(),
    );
    pod.put("private/secret/keys-access-cred/..data/key1", b"hidden");
    let source = json!({"secretRef": {"name": "s"}});
    let no_cloud = json!({"cloudInitNoCloud": source});
    let file = pod.file(no_cloud.clone(), keys("noCloud"));
    assert!(file.ends_with("ephemeral/cloud-init-data/default/m/noCloud.iso"));
    let bytes = fs::read(&file).unwrap();
    assert!(contains(&bytes, "#cloud-config from secret"));
    assert!(contains(
        &bytes,
        &format!(r#""public-keys":{{"0":"{key}"}}"#)
    ));
    let drive = json!({"cloudInitConfigDrive": source});
    let bytes = fs::read(pod.file(drive, keys("configDrive"))).unwrap();
    assert!(contains(
        &bytes,
        &format!(r#""public_keys":{{"0":"{key}"}}"#)
    ));
    fs::remove_dir_all(pod.dir.path().join("private/secret/keys-access-cred")).unwrap();
    let error = pod.error(no_cloud, keys("noCloud"));
    assert!(
        error.contains("keys-access-cred does not exist: mount the secret"),
        "{error}"
    );
}

#[test]
fn objects_become_disks_with_their_files() {
    let mut pod = Pod::new();
    for (path, volume, label, image) in [
        (
            "private/config-map/v/k",
            json!({"configMap": {"name": "c"}}),
            "cfgdata",
            "config-map-disks/v.iso",
        ),
        (
            "private/secret/v/k",
            json!({"secret": {"secretName": "c"}}),
            "cfgdata",
            "secret-disks/v.iso",
        ),
        (
            "private/downwardapi/v/k",
            json!({"downwardAPI": {"fields": []}}),
            "cfgdata",
            "downwardapi-disks/v.iso",
        ),
        (
            "service-account/k",
            json!({"serviceAccount": {"serviceAccountName": "a"}}),
            "cfgdata",
            "service-account-disk/service-account.iso",
        ),
        (
            "private/sysprep/v/k",
            json!({"sysprep": {"configMap": {"name": "c"}}}),
            "unattendCD",
            "sysprep-disks/v.iso",
        ),
    ] {
        let error = pod.error(volume.clone(), json!({}));
        assert!(error.contains("does not exist"), "{error}");
        pod.put(path, path.as_bytes());
        let file = pod.file(volume, json!({}));
        assert!(file.ends_with(Path::new("private").join(image)), "{file:?}");
        let bytes = fs::read(file).unwrap();
        assert!(contains(&bytes, path) && contains(&bytes, label), "{path}");
    }
}

#[test]
fn a_metrics_disk_is_one_at_once_and_is_read_past_no_cache() {
    let mut pod = Pod::new();
    let volumes = pod
        .prepare(json!({"downwardMetrics": {}}), json!({}))
        .unwrap();
    let disk = &volumes.disks["v"];
    assert!(disk.read_only && !disk.medium.direct_io);
    let file = path_of(&volumes);
    assert!(file.ends_with("private/downwardmetric-disk/vhostmd0"));
    let bytes = fs::read(file).unwrap();
    assert_eq!((&bytes[..4], bytes.len()), (&b"mvbd"[..], 256 << 10));
    assert!(contains(&bytes, "<metrics>"));
}

#[test]
fn a_kernel_is_found_or_named() {
    let mut pod = Pod::new();
    let container =
        json!({"image": "k", "kernelPath": "/boot/vmlinuz", "initrdPath": "/boot/initrd"});
    let changes =
        json!({"spec": {"domain": {"firmware": {"kernelBoot": {"container": container}}}}});
    let vmi = changed_instance(
        json!({}),
        json!({"emptyDisk": {"capacity": "1Gi"}}),
        changes,
    );
    let error = error_chain(&pod.prepare_vmi(&vmi, false).unwrap_err());
    assert!(
        error.contains("container.kernelPath: ")
            && error.contains("container-disks/kernel-boot/vmlinuz does not exist"),
        "{error}"
    );
    let error = error_chain(&pod.prepare_vmi(&vmi, true).unwrap_err());
    assert!(
        error.contains("container.image: ") && error.contains("is not mounted"),
        "{error}"
    );
    let kernel = pod.put("container-disks/kernel-boot/vmlinuz", b"k");
    let initrd = pod.put("container-disks/kernel-boot/initrd", b"i");
    let found = pod.prepare_vmi(&vmi, false).unwrap().kernel.unwrap();
    assert_eq!((found.kernel, found.initrd), (kernel, Some(initrd)));
    let kernel = pod.put("kernel-boot/boot/vmlinuz", b"k");
    pod.put("kernel-boot/boot/initrd", b"i");
    let found = pod.prepare_vmi(&vmi, true).unwrap().kernel.unwrap();
    assert_eq!(found.kernel, kernel);
}

#[test]
fn a_folder_where_an_image_should_be_is_named() {
    let mut pod = Pod::new();
    fs::create_dir_all(pod.paths.container_disk_dir.join("disk_0.img")).unwrap();
    let error = pod.error(json!({"containerDisk": {"image": "i"}}), json!({}));
    assert!(error.contains("disk_0.img is a folder"), "{error}");
}
