use serde_json::json;

use super::{Filesystem, FilesystemList, GuestAgentInfo, GuestUserList, REQUIRED_COMMANDS};

#[test]
fn every_field_of_the_agents_report_keeps_its_name() {
    let json = json!({
        "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstanceGuestAgentInfo",
        "guestAgentVersion": "9.0.2",
        "supportedCommands": [{"name": "guest-ping", "enabled": true}, {"name": "guest-exec", "enabled": false}],
        "hostname": "vm", "os": {"name": "Debian GNU/Linux", "versionId": "12", "id": "debian"},
        "timezone": "UTC, 0",
        "userList": [{"userName": "root", "domain": "d", "loginTime": 1_700_000_000.25}],
        "fsInfo": {"disks": [{
            "diskName": "vda1", "mountPoint": "/", "fileSystemType": "ext4",
            "usedBytes": 0, "totalBytes": 10, "disk": [{"serial": "s", "busType": "virtio"}],
        }]},
        "fsFreezeStatus": "frozen",
    });
    let info: GuestAgentInfo = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(serde_json::to_value(&info).unwrap(), json);
    assert!(info.supports("guest-ping"));
    assert!(!info.supports("guest-exec"));
    assert_eq!(info.missing_commands(), REQUIRED_COMMANDS[1..]);
}

#[test]
fn lists_are_written_even_when_empty() {
    let users = serde_json::to_value(GuestUserList::default()).unwrap();
    assert_eq!(
        users,
        json!({
            "apiVersion": "kubevirt.io/v1", "kind": "VirtualMachineInstanceGuestOSUserList",
            "metadata": {}, "items": [],
        })
    );
    let disks = vec![Filesystem::default()];
    let filesystems = serde_json::to_value(FilesystemList::from(disks)).unwrap();
    assert_eq!(filesystems["kind"], "VirtualMachineInstanceFileSystemList");
    assert_eq!(
        filesystems["items"],
        json!([{"usedBytes": 0, "totalBytes": 0}])
    );
    let info = serde_json::to_value(GuestAgentInfo::new()).unwrap();
    assert_eq!(info["fsInfo"], json!({"disks": []}));
}

#[test]
fn lists_of_upstreams_launcher_are_read() {
    let json = json!({"metadata": {}, "items": null});
    let users: GuestUserList = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(users.items, []);
    let filesystems: FilesystemList = serde_json::from_value(json).unwrap();
    assert_eq!(filesystems.items, []);
    let info: GuestAgentInfo =
        serde_json::from_value(json!({"userList": null, "fsInfo": {"disks": null}, "os": {}}))
            .unwrap();
    assert_eq!(info, GuestAgentInfo::default());
}
