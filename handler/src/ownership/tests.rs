//! Tests of what is given, with a folder as the launcher's root.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

use api::Vmi;
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, openat};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::wanted::{Disk, disks};
use super::{ImageRule, LAUNCHER_ID, Root, effective_user, is_root};

fn vmi(volumes: &Value) -> Vmi {
    serde_json::from_value(json!({"spec": {"domain": {}, "volumes": volumes}})).unwrap()
}

fn root() -> Option<(TempDir, Root)> {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: giving files to others needs root");
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("run/kubevirt-private/vmi-disks/data")).unwrap();
    fs::create_dir_all(folder.path().join("var")).unwrap();
    // As in container images.
    symlink("/run", folder.path().join("var/run")).unwrap();
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let opened = openat(CWD, folder.path(), flags, Mode::empty()).unwrap();
    Some((folder, Root(opened)))
}

fn owner(path: &Path) -> (u32, u32) {
    let file = fs::symlink_metadata(path).unwrap();
    (file.uid(), file.gid())
}

const LAUNCHER: (u32, u32) = (LAUNCHER_ID, LAUNCHER_ID);
const DATA: &str = "kubevirt-private/vmi-disks/data";

fn give(root: &Root, rule: ImageRule) -> std::io::Result<()> {
    root.give_image(DATA.as_ref(), "disk.img".as_ref(), rule)
}

#[test]
fn claims_and_host_disks_are_wanted_where_launchers_have_them() {
    let vmi = vmi(&json!([
        {"name": "claim", "persistentVolumeClaim": {"claimName": "c"}},
        {"name": "base", "ephemeral": {"persistentVolumeClaim": {"claimName": "b"}}},
        {"name": "host", "hostDisk": {"path": "/srv/vm/root.img", "type": "DiskOrCreate"}},
        {"name": "old", "hostDisk": {"path": "/srv/vm/old.img", "type": "Disk"}},
        {"name": "made", "emptyDisk": {"capacity": "1Gi"}},
        {"name": "..", "dataVolume": {"name": "d"}},
    ]));
    let device = |name: &str| Disk::Device {
        path: format!("dev/{name}").into(),
    };
    let image = |volume: &str, name: &str, rule| Disk::Image {
        folder: format!("kubevirt-private/vmi-disks/{volume}").into(),
        name: name.into(),
        rule,
    };
    let expected = [
        device("claim"),
        image("claim", "disk.img", ImageRule::OwnFolder),
        device("base"),
        image("base", "disk.img", ImageRule::Existing),
        image("host", "root.img", ImageRule::NodeFolder),
        image("old", "old.img", ImageRule::Existing),
    ];
    assert_eq!(disks(&vmi), expected);
}

#[test]
fn devices_are_given_and_absent_ones_skipped() {
    let Some((folder, root)) = root() else { return };
    let dev = folder.path().join("dev");
    fs::create_dir(&dev).unwrap();
    root.give_device("dev/kvm".as_ref()).unwrap();
    mknodat(
        CWD,
        dev.join("kvm"),
        FileType::CharacterDevice,
        Mode::RUSR,
        0x103,
    )
    .unwrap();
    root.give_device("dev/kvm".as_ref()).unwrap();
    root.give_device("dev/kvm".as_ref()).unwrap();
    assert_eq!(owner(&dev.join("kvm")), LAUNCHER);
}

#[test]
fn what_is_no_device_is_not_given_as_one() {
    let Some((folder, root)) = root() else { return };
    let dev = folder.path().join("dev");
    fs::create_dir_all(dev.join("net")).unwrap();
    File::create(dev.join("kvm")).unwrap();
    root.give_device("dev/kvm".as_ref()).unwrap();
    root.give_device("dev/net".as_ref()).unwrap();
    assert_eq!(owner(&dev.join("kvm")), (0, 0));
    assert_eq!(owner(&dev.join("net")), (0, 0));
}

#[test]
fn links_are_not_followed() {
    let Some((folder, root)) = root() else { return };
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("disk.img");
    File::create(&secret).unwrap();
    File::create(folder.path().join("passwd")).unwrap();
    let data = folder.path().join("run").join(DATA);
    for target in [
        secret.as_path(),
        Path::new("/passwd"),
        Path::new("../../../../passwd"),
    ] {
        symlink(target, data.join("disk.img")).unwrap();
        let error = give(&root, ImageRule::OwnFolder).unwrap_err();
        assert_eq!(error.to_string(), "a link is in the way");
        fs::remove_file(data.join("disk.img")).unwrap();
    }
    fs::remove_dir(&data).unwrap();
    symlink(outside.path(), &data).unwrap();
    give(&root, ImageRule::OwnFolder).unwrap_err();
    symlink(outside.path(), folder.path().join("dev")).unwrap();
    root.give_device("dev/disk.img".as_ref()).unwrap_err();
    assert_eq!(owner(&secret), (0, 0));
    assert_eq!(owner(outside.path()), (0, 0));
    assert_eq!(owner(&folder.path().join("passwd")), (0, 0));
}

#[test]
fn an_image_is_given_and_its_folder_kept() {
    let Some((folder, root)) = root() else { return };
    let data = folder.path().join("run").join(DATA);
    File::create(data.join("disk.img")).unwrap();
    for rule in [
        ImageRule::Existing,
        ImageRule::OwnFolder,
        ImageRule::NodeFolder,
    ] {
        give(&root, rule).unwrap();
        assert_eq!(owner(&data.join("disk.img")), LAUNCHER);
        assert_eq!(owner(&data), (0, 0));
    }
}

#[test]
fn a_folder_is_given_only_where_an_image_is_to_be_made() {
    let Some((folder, root)) = root() else { return };
    let data = folder.path().join("run").join(DATA);
    give(&root, ImageRule::Existing).unwrap();
    assert_eq!(owner(&data), (0, 0));
    give(&root, ImageRule::NodeFolder).unwrap();
    assert_eq!(owner(&data), LAUNCHER);
}

#[test]
fn a_folder_of_the_node_that_others_use_is_not_given() {
    let Some((folder, root)) = root() else { return };
    let data = folder.path().join("run").join(DATA);
    File::create(data.join("other")).unwrap();
    let error = give(&root, ImageRule::NodeFolder).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);
    assert_eq!(owner(&data), (0, 0));
    fs::set_permissions(&data, fs::Permissions::from_mode(0o777)).unwrap();
    give(&root, ImageRule::NodeFolder).unwrap();
    assert_eq!(owner(&data), (0, 0));
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
    give(&root, ImageRule::OwnFolder).unwrap();
    assert_eq!(owner(&data), LAUNCHER);
}

#[test]
fn a_folder_in_the_place_of_an_image_is_refused() {
    let Some((folder, root)) = root() else { return };
    let image = folder.path().join("run").join(DATA).join("disk.img");
    fs::create_dir(&image).unwrap();
    let error = give(&root, ImageRule::OwnFolder).unwrap_err();
    assert_eq!(error.to_string(), "this is no disk image");
    assert_eq!(owner(&image), (0, 0));
}

#[test]
fn the_effective_user_counts() {
    assert_eq!(effective_user("Name:\tx\nUid:\t0\t107\t0\t0\n"), Some(107));
    assert_eq!(effective_user("Uid:\t107\n"), None);
    assert_eq!(effective_user(""), None);
    let is_effective_root = rustix::process::geteuid().is_root();
    assert_eq!(is_root("/proc/self".as_ref()).unwrap(), is_effective_root);
}
