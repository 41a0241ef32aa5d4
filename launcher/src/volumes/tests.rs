use std::fs;
use std::path::{Path, PathBuf};

use api::{FieldError, Vmi};
use serde_json::{Value, json};
use vmm::config::DiskSource;
use vmm::error_chain;

use super::{
    CloudInitKind, Data, Place, ResolvedVolumes, Standalone, VolumeError, VolumeSource,
    plan_volumes, prepare,
};
use crate::convert::checked;
use crate::images::ImageStore;
use crate::state_dir::StateDir;

mod pod;

/// An instance with one disk on one volume, and a firmware that needs nothing.
fn instance(disk: Value, volume: Value) -> Vmi {
    changed_instance(disk, volume, json!({}))
}

/// The same, with other fields on top.
fn changed_instance(disk: Value, volume: Value, changes: Value) -> Vmi {
    let named = |value: Value| {
        let mut named = json!({"name": "v"});
        merge(&mut named, value);
        named
    };
    let mut object = json!({
        "metadata": {"name": "m", "uid": "u"},
        "spec": {
            "domain": {"memory": {"guest": "64Mi"}, "devices": {"disks": [named(disk)]}},
            "volumes": [named(volume)],
        },
    });
    merge(&mut object, changes);
    let (vmi, unknown) = api::manifest::parse_vmi_json(object.to_string().as_bytes()).unwrap();
    assert!(unknown.is_empty(), "{unknown:?}");
    checked(&vmi).unwrap()
}

fn merge(into: &mut Value, changes: Value) {
    match (into, changes) {
        (Value::Object(fields), Value::Object(changes)) => {
            for (name, change) in changes {
                merge(fields.entry(name).or_insert(Value::Null), change);
            }
        }
        (into, change) => *into = change,
    }
}

fn standalone(root: &Path, volume_dir: Option<PathBuf>, images: PathBuf) -> Place {
    Place::Standalone(Standalone {
        root: root.to_owned(),
        volume_dir,
        images: ImageStore::new(Some(images), root.join("cache")),
    })
}

fn plan(disk: Value, volume: Value) -> Result<VolumeSource, FieldError> {
    let vmi = instance(disk, volume);
    let objects = Some(PathBuf::from("/objects"));
    let place = standalone(Path::new("/var/run"), objects, PathBuf::new());
    Ok(plan_volumes(&vmi, &place)?.remove(0).source)
}

/// A host with a state folder and folders for objects and images.
struct Host {
    dir: tempfile::TempDir,
    state: StateDir,
}

impl Host {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::acquire(Some(&dir.path().join("state"))).unwrap();
        Self { dir, state }
    }

    fn put(&self, path: &str, bytes: &[u8]) -> PathBuf {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    fn prepare(&mut self, disk: Value, volume: Value) -> Result<ResolvedVolumes, VolumeError> {
        let vmi = instance(disk, volume);
        let objects = self.dir.path().join("objects");
        let images = self.dir.path().join("images");
        let place = standalone(self.state.root(), Some(objects), images);
        let plans = plan_volumes(&vmi, &place).unwrap();
        prepare(&plans, None, &place, &mut self.state)
    }

    /// The file that a prepared volume is in.
    fn file(&mut self, disk: Value, volume: Value) -> PathBuf {
        match &self.prepare(disk, volume).unwrap().disks["v"].source {
            DiskSource::Image { path, .. } => path.clone(),
            DiskSource::Overlay { overlay, .. } => overlay.clone(),
            DiskSource::Empty => panic!("the volume has no file"),
        }
    }

    fn error(&mut self, volume: Value) -> String {
        error_chain(&self.prepare(json!({}), volume).unwrap_err())
    }
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes
        .windows(text.len())
        .any(|window| window == text.as_bytes())
}

#[test]
fn a_container_disk_has_an_overlay_unless_it_is_read_only() {
    let volume = json!({"containerDisk": {"image": "i", "path": "/disk/d"}});
    let overlay = |disk| match plan(disk, volume.clone()).unwrap() {
        VolumeSource::ContainerDisk { overlay, .. } => overlay,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        overlay(json!({"disk": {}})),
        Some(PathBuf::from(
            "/var/run/kubevirt-ephemeral-disks/disk-data/v/disk.qcow2"
        ))
    );
    assert_eq!(overlay(json!({"disk": {"readonly": true}})), None);
    assert_eq!(overlay(json!({"cdrom": {}})), None);
    assert!(overlay(json!({"cdrom": {"readonly": false}})).is_some());
}

#[test]
fn volumes_of_other_kinds_are_refused_by_field() {
    let error = plan(json!({}), json!({"containerPath": {"path": "/x"}})).unwrap_err();
    assert_eq!(error.path.as_str(), "spec.volumes[0].containerPath");
    assert!(error.message.contains("not supported yet"));
}

#[test]
fn names_of_objects_never_leave_the_volume_folder() {
    for name in ["../x", ".", "a/b", "/etc"] {
        let error = plan(json!({}), json!({"configMap": {"name": name}})).unwrap_err();
        assert_eq!(error.path.as_str(), "spec.volumes[0].configMap.name");
    }
}

#[test]
fn a_cluster_object_without_a_volume_folder_names_the_flag() {
    let vmi = instance(
        json!({}),
        json!({"persistentVolumeClaim": {"claimName": "c"}}),
    );
    let place = standalone(Path::new("/var/run"), None, PathBuf::new());
    let error = plan_volumes(&vmi, &place).unwrap_err();
    assert_eq!(
        error.path.as_str(),
        "spec.volumes[0].persistentVolumeClaim.claimName"
    );
    assert!(error.message.contains("--volume-dir"));
}

#[test]
fn cloud_init_data_come_as_text_base64_or_secret() {
    let user = |source: Value| match plan(json!({}), json!({"cloudInitNoCloud": source})).unwrap() {
        VolumeSource::CloudInit { data, .. } => data.user.unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(user(json!({"userData": "x"})), Data::Bytes(b"x".to_vec()));
    assert_eq!(
        user(json!({"userDataBase64": "SGkuXG4="})),
        Data::Bytes(b"Hi.\\n".to_vec())
    );
    let folder = PathBuf::from("/objects/s");
    let keys = ["userdata", "userData"];
    assert_eq!(
        user(json!({"secretRef": {"name": "s"}})),
        Data::Secret { folder, keys }
    );
}

#[test]
fn no_cloud_files_name_identity_and_host() {
    let source = json!({"userData": "#cloud-config", "networkData": "version: 2"});
    let VolumeSource::CloudInit { file, data } =
        plan(json!({}), json!({"cloudInitNoCloud": source})).unwrap()
    else {
        panic!()
    };
    assert_eq!(
        file,
        Path::new("/var/run/kubevirt-ephemeral-disks/cloud-init-data/default/m/noCloud.iso")
    );
    let files = data.files().unwrap();
    let names: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["meta-data", "user-data", "network-config"]);
    let metadata: Value = serde_json::from_slice(&files[0].1).unwrap();
    assert_eq!(metadata["local-hostname"], "m");
    assert_eq!(
        metadata["instance-id"],
        api::defaulting::system_uuid("m").to_string()
    );
}

#[test]
fn config_drive_files_follow_openstack() {
    let VolumeSource::CloudInit { data, .. } = plan(
        json!({}),
        json!({"cloudInitConfigDrive": {"userData": "x"}}),
    )
    .unwrap() else {
        panic!()
    };
    assert_eq!(data.kind, CloudInitKind::ConfigDrive);
    let files = data.files().unwrap();
    let names: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
    assert_eq!(
        names,
        [
            "openstack/latest/meta_data.json",
            "openstack/latest/user_data"
        ]
    );
    let metadata: Value = serde_json::from_slice(&files[0].1).unwrap();
    assert_eq!(metadata["instance_id"], "m.default");
    assert_eq!(metadata["hostname"], "m");
}

#[test]
fn disks_of_data_are_written_with_their_labels() {
    let mut host = Host::new();
    host.put("objects/cm/key", b"value of key");
    host.put("objects/cm/..data/key", b"hidden");
    host.put("objects/s/userdata", b"#!from-secret");
    let config_map = host.file(json!({}), json!({"configMap": {"name": "cm"}}));
    let bytes = fs::read(&config_map).unwrap();
    assert!(contains(&bytes, "cfgdata") && contains(&bytes, "value of key"));
    assert!(bytes.len() > 300 << 10, "padding is missing");
    assert!(!contains(&bytes, "hidden"));
    let labelled = json!({"secret": {"secretName": "s", "volumeLabel": "mine"}});
    let secret = host.file(json!({}), labelled);
    assert!(contains(&fs::read(secret).unwrap(), "mine"));
    let cloud_init = json!({"cloudInitNoCloud": {"secretRef": {"name": "s"}}});
    let cloud_init = host.file(json!({}), cloud_init);
    let bytes = fs::read(&cloud_init).unwrap();
    assert!(contains(&bytes, "cidata") && contains(&bytes, "#!from-secret"));
    drop(host.state);
    assert!(!config_map.exists() && !cloud_init.exists());
}

#[test]
fn absent_objects_are_named_unless_optional() {
    let mut host = Host::new();
    let error = host.error(json!({"configMap": {"name": "cm"}}));
    assert!(
        error.starts_with("spec.volumes[0].configMap: ") && error.contains("does not exist"),
        "{error}"
    );
    let error = host.error(json!({"cloudInitNoCloud": {"secretRef": {"name": "s"}}}));
    assert!(
        error.contains("objects/s/userdata does not exist"),
        "{error}"
    );
    let error = host.error(json!({"persistentVolumeClaim": {"claimName": "c"}}));
    assert!(
        error.contains("objects/c/disk.img does not exist"),
        "{error}"
    );
    host.file(
        json!({}),
        json!({"secret": {"secretName": "s", "optional": true}}),
    );
}

#[test]
fn an_object_that_is_too_large_is_refused() {
    let mut host = Host::new();
    let path = host.put("objects/cm/key", b"");
    fs::File::create(path).unwrap().set_len(17 << 20).unwrap();
    assert!(
        host.error(json!({"configMap": {"name": "cm"}}))
            .contains("more than 16 MiB")
    );
}

#[test]
fn an_empty_disk_is_sparse_and_goes_in_the_end() {
    let mut host = Host::new();
    let volume = json!({"emptyDisk": {"capacity": "1Gi"}});
    let file = host.file(json!({}), volume.clone());
    assert!(file.ends_with("libvirt/empty-disks/v.qcow2"));
    assert!(fs::metadata(&file).unwrap().len() < 1 << 20);
    // A left-over of an earlier run is replaced.
    assert_eq!(host.file(json!({}), volume), file);
    drop(host.state);
    assert!(!file.exists());
}

#[test]
fn a_host_disk_must_exist_or_is_made_with_its_capacity() {
    let mut host = Host::new();
    let file = host.dir.path().join("disks/d.raw");
    let volume = |kind: &str| {
        let mut source = json!({"path": file.to_str().unwrap(), "type": kind});
        if kind == "DiskOrCreate" {
            source["capacity"] = json!("1Mi");
        }
        json!({"hostDisk": source})
    };
    let error = host.error(volume("Disk"));
    assert!(
        error.starts_with("spec.volumes[0].hostDisk.path: ") && error.contains("DiskOrCreate"),
        "{error}"
    );
    assert_eq!(host.file(json!({}), volume("DiskOrCreate")), file);
    assert_eq!(fs::metadata(&file).unwrap().len(), 1 << 20);
    assert_eq!(host.file(json!({}), volume("Disk")), file);
    host.state.started();
    drop(host.state);
    assert!(file.exists());
}

#[test]
fn a_host_disk_made_for_a_machine_that_did_not_start_is_removed() {
    let mut host = Host::new();
    let file = host.dir.path().join("d.raw");
    let source = json!({"path": file.to_str().unwrap(), "type": "DiskOrCreate", "capacity": "1Mi"});
    host.file(json!({}), json!({"hostDisk": source}));
    drop(host.state);
    assert!(!file.exists());
}

#[test]
fn claims_are_images_in_folders() {
    let mut host = Host::new();
    let image = host.put("objects/c/disk.img", &[0; 512]);
    let claim = json!({"claimName": "c"});
    let volumes = host
        .prepare(json!({}), json!({"persistentVolumeClaim": claim}))
        .unwrap();
    let DiskSource::Image { path, .. } = &volumes.disks["v"].source else {
        panic!()
    };
    assert_eq!((path, volumes.disks["v"].read_only), (&image, false));
    let ephemeral = json!({"ephemeral": {"persistentVolumeClaim": claim}});
    let volumes = host.prepare(json!({}), ephemeral).unwrap();
    let DiskSource::Overlay { base, .. } = &volumes.disks["v"].source else {
        panic!()
    };
    assert_eq!(base, &image);
}

#[test]
fn a_missing_container_image_is_named_by_field_and_folder() {
    let mut host = Host::new();
    fs::create_dir_all(host.dir.path().join("images")).unwrap();
    let error = host.error(json!({"containerDisk": {"image": "registry.example/x:1"}}));
    assert!(
        error.starts_with(
            "spec.volumes[0].containerDisk.image: image registry.example/x:1 is not in"
        ),
        "{error}"
    );
    assert!(error.contains("--image-dir") && !error.contains('\n'));
}
