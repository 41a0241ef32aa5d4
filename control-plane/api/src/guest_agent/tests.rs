use serde_json::json;

use super::{
    AgentShortcoming, BASIC_COMMANDS, FILE_COMMANDS, Filesystem, FilesystemList, GuestAgentCommand,
    GuestAgentInfo, GuestUserList, KEY_COMMANDS, PASSWORD_COMMAND,
};
use crate::access_credentials::AccessCredential;

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

#[test]
fn an_agent_must_be_able_to_do_what_the_instance_asks_for() {
    let agent = |commands: &[&str]| {
        let mut info = GuestAgentInfo::new();
        info.supported_commands
            .extend(commands.iter().map(|name| GuestAgentCommand {
                name: (*name).to_owned(),
                enabled: true,
            }));
        info
    };
    let credentials = |json| -> Vec<AccessCredential> { serde_json::from_value(json).unwrap() };
    let method = |method| json!({"propagationMethod": method});
    let keys =
        credentials(json!([{"sshPublicKey": method(json!({"qemuGuestAgent": {"users": ["u"]}}))}]));
    let keys_by_cloud_init = credentials(json!([{"sshPublicKey": method(json!({"noCloud": {}}))}]));
    let passwords = credentials(json!([{"userPassword": method(json!({"qemuGuestAgent": {}}))}]));

    assert_eq!(
        agent(&["guest-ping"]).shortcoming(&[]),
        Some(AgentShortcoming::Basic)
    );
    let basic = agent(BASIC_COMMANDS);
    assert_eq!(basic.shortcoming(&[]), None);
    assert_eq!(basic.shortcoming(&keys_by_cloud_init), None);
    assert_eq!(basic.shortcoming(&keys), Some(AgentShortcoming::PublicKeys));
    assert_eq!(
        basic.shortcoming(&passwords),
        Some(AgentShortcoming::Passwords)
    );
    for commands in [KEY_COMMANDS, FILE_COMMANDS] {
        assert_eq!(
            agent(&[BASIC_COMMANDS, commands].concat()).shortcoming(&keys),
            None
        );
    }
    let able = agent(&[BASIC_COMMANDS, &[PASSWORD_COMMAND]].concat());
    assert_eq!(able.shortcoming(&passwords), None);
}
