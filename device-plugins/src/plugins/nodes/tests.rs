use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use tempfile::TempDir;

use super::reach;
use crate::source::Host;
use crate::tree;

const LAUNCHER: u32 = 107;

/// Makes a device node in a tree, or says why this user cannot.
pub(crate) fn plant_device(dir: &TempDir, path: &str, mode: u32) -> bool {
    let path = dir.path().join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mode = Mode::from_bits_truncate(mode);
    // The device is /dev/null.
    match mknod(&path, SFlag::S_IFCHR, mode, makedev(1, 3)) {
        Ok(()) => true,
        Err(error) => {
            eprintln!("skipped: make a device node: {error}");
            false
        }
    }
}

/// User, group and mode of a file.
pub(crate) fn owner(path: &Path) -> (u32, u32, u32) {
    let found = fs::symlink_metadata(path).unwrap();
    (found.uid(), found.gid(), found.mode() & 0o7777)
}

fn node() -> Option<(TempDir, Host)> {
    let dir = tree::plant("d dev/vfio\n");
    let host = tree::host(&dir);
    plant_device(&dir, "dev/vfio/17", 0o440).then_some((dir, host))
}

#[test]
fn a_node_becomes_the_launchers_own_and_then_what_it_was() {
    let Some((_dir, host)) = node() else { return };
    let path = host.dev_dir.join("vfio/17");
    let before = owner(&path);
    let reached = reach(&host, Path::new("/dev/vfio/17")).unwrap();
    let original = reached.owned.unwrap();
    reached.give(LAUNCHER).unwrap();
    assert_eq!(owner(&path), (LAUNCHER, LAUNCHER, before.2 | 0o600));
    let reached = reach(&host, Path::new("/dev/vfio/17")).unwrap();
    reached.give_back(&original, LAUNCHER).unwrap();
    assert_eq!(owner(&path), before);
}

#[test]
fn a_node_that_was_made_anew_or_given_to_others_is_left_alone() {
    let Some((dir, host)) = node() else { return };
    let path = host.dev_dir.join("vfio/17");
    let mut original = reach(&host, Path::new("/dev/vfio/17"))
        .unwrap()
        .owned
        .unwrap();
    original.uid = 12;
    let others = reach(&host, Path::new("/dev/vfio/17")).unwrap();
    others.give_back(&original, LAUNCHER).unwrap();
    assert_eq!(owner(&path).0, 0, "the launcher did not have it");
    fs::rename(&path, dir.path().join("before")).unwrap();
    plant_device(&dir, "dev/vfio/17", 0o440);
    let anew = reach(&host, Path::new("/dev/vfio/17")).unwrap();
    anew.give(LAUNCHER).unwrap();
    let anew = reach(&host, Path::new("/dev/vfio/17")).unwrap();
    anew.give_back(&original, LAUNCHER).unwrap();
    assert_eq!(owner(&path).0, LAUNCHER, "it is another node");
}

#[test]
fn links_are_not_followed_wherever_they_are() {
    let dir = tree::plant(
        "f etc/shadow x\nd dev/bus\nl dev/usb -> bus\nf dev/bus/real x\nl dev/vfio -> ../etc/shadow\n",
    );
    let host = tree::host(&dir);
    for path in [
        "/dev/vfio",
        "/dev/usb/real",
        "/dev/../etc/shadow",
        "/etc/shadow",
        "/dev/bus",
        "/dev",
    ] {
        let error = reach(&host, Path::new(path)).unwrap_err();
        assert_ne!(error.kind(), ErrorKind::NotFound, "{path}: {error}");
    }
    let error = reach(&host, Path::new("/dev/bus/gone")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}

#[test]
fn a_plain_file_keeps_its_owner() {
    let dir = tree::plant("f dev/kvm\n");
    let host = tree::host(&dir);
    let before = owner(&host.dev_dir.join("kvm"));
    let reached = reach(&host, Path::new("/dev/kvm")).unwrap();
    assert_eq!(reached.owned, None);
    reached.give(LAUNCHER).unwrap();
    assert_eq!(owner(&host.dev_dir.join("kvm")), before);
}
