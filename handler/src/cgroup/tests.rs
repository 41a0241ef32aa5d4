//! Tests of rules, and of a control group that is made for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{
    CgroupError, DeviceGroup, DeviceKind, DeviceNode, DeviceRule, allow_devices, allow_present,
    rules,
};
use crate::config::HostPaths;
use crate::key::VmiKey;
use crate::launchers::Launcher;

const KVM: DeviceNode = DeviceNode {
    kind: DeviceKind::Character,
    major: 10,
    minor: 232,
};
const DISK: DeviceNode = DeviceNode {
    kind: DeviceKind::Block,
    major: 253,
    minor: 4,
};

fn launcher(paths: &HostPaths, pid: u32) -> Launcher {
    let pid = i32::try_from(pid).unwrap();
    Launcher::at(paths, VmiKey::new("default", "vm"), "u", "p", pid)
}

#[test]
fn the_list_of_rules_is_whole_and_has_nothing_twice() {
    let text: Vec<_> = rules(&[KVM, DISK, KVM])
        .iter()
        .map(DeviceRule::to_string)
        .collect();
    let expected = [
        "c 5:2 rwm",
        "c 1:3 rwm",
        "c 10:200 rwm",
        "c 10:238 rwm",
        "c 136:* rwm",
        "c 10:232 rwm",
        "b 253:4 rwm",
    ];
    assert_eq!(text, expected);
}

#[test]
fn the_group_is_found_in_both_versions() {
    let find = |groups: &str| DeviceGroup::find(Path::new("/cg"), groups);
    let v1 = |path: &str| DeviceGroup::V1(path.into());
    let hybrid = "9:memory:/a\n4:devices:/kubepods/pod1/c1\n0::/b\n";
    assert_eq!(find(hybrid).unwrap(), v1("/cg/devices/kubepods/pod1/c1"));
    let joint = "4:cpu,devices:/x:y\n";
    assert_eq!(find(joint).unwrap(), v1("/cg/devices/x:y"));
    let v2 = DeviceGroup::V2("/cg/kubepods/c1".into());
    assert_eq!(find("0::/kubepods/c1\n").unwrap(), v2);
    for wrong in [
        "",
        "nonsense",
        "1:cpu:/a\n",
        "0::/../../kubepods\n",
        "4:devices:/a/../..\n",
    ] {
        assert!(find(wrong).is_err(), "{wrong:?}");
    }
}

#[test]
fn version_2_is_left_to_the_runtime_for_what_it_gave() {
    let folder = tempfile::tempdir().unwrap();
    let process = folder.path().join("7");
    fs::create_dir(&process).unwrap();
    fs::write(process.join("cgroup"), "0::/kubepods/c1\n").unwrap();
    let paths = HostPaths {
        proc_dir: folder.path().to_owned(),
        cgroup_dir: "/cg".into(),
        ..HostPaths::default()
    };
    let launcher = launcher(&paths, 7);
    allow_present(&paths, &api::Vmi::default(), &launcher).unwrap();
    let error = allow_devices(&paths, &launcher, &rules(&[])).unwrap_err();
    assert!(matches!(error, CgroupError::Find { .. }), "{error}");
    assert!(error.to_string().contains("/cg/kubepods/c1"), "{error}");
}

/// A group of version 1 with a process in it, which may use no device.
struct Group {
    folder: PathBuf,
    process: Child,
}

impl Group {
    fn new() -> Option<Self> {
        let name = format!("handler-test-{}", std::process::id());
        let folder = Path::new("/sys/fs/cgroup/devices").join(name);
        if let Err(error) = fs::create_dir(&folder) {
            println!("skipped: no control group of version 1 can be made: {error}");
            return None;
        }
        let spawned = Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn();
        let group = Self {
            process: spawned.unwrap(),
            folder,
        };
        fs::write(group.folder.join("devices.deny"), "a").unwrap();
        let pid = group.process.id().to_string();
        fs::write(group.folder.join("cgroup.procs"), pid).unwrap();
        Some(group)
    }

    fn list(&self) -> Vec<String> {
        let list = fs::read_to_string(self.folder.join("devices.list")).unwrap();
        list.lines().map(str::to_owned).collect()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.process.kill().ok();
        self.process.wait().ok();
        fs::remove_dir(&self.folder).ok();
    }
}

#[test]
fn a_group_of_version_1_gets_the_rules() {
    let Some(group) = Group::new() else { return };
    let paths = HostPaths::default();
    let launcher = launcher(&paths, group.process.id());
    assert_eq!(group.list(), [] as [String; 0]);
    allow_present(&paths, &api::Vmi::default(), &launcher).unwrap();
    let list = group.list();
    assert!(list.contains(&"c 10:200 rwm".to_owned()), "{list:?}");
    allow_devices(&paths, &launcher, &[DeviceRule::allow(DISK)]).unwrap();
    assert!(group.list().contains(&"b 253:4 rwm".to_owned()));
    let denied = DeviceRule {
        is_allowed: false,
        ..DeviceRule::allow(DISK)
    };
    allow_devices(&paths, &launcher, &[denied]).unwrap();
    assert!(!group.list().contains(&"b 253:4 rwm".to_owned()));
}
