use serde_json::{Value, json};

use super::{
    INFO_SOURCE_DOMAIN, INFO_SOURCE_GUEST_AGENT, InterfaceStatus, Phase, VmiStatus, VolumeStatus,
};

/// A status as a busy cluster writes it, every field set.
fn full() -> Value {
    let claim = json!({
        "claimName": "pvc", "accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem",
        "capacity": {"storage": "10Gi"}, "requests": {"storage": "10Gi"},
        "preallocated": true, "filesystemOverhead": "0.055",
    });
    let source = json!({
        "node": "n1", "pod": "p1", "migrationUID": "u", "domainName": "vm", "domainNamespace": "ns",
        "syncAddress": "a:1", "persistentStatePVCName": "s", "selinuxContext": "none",
        "virtualMachineInstanceUID": "v", "nodeSelectors": {"a": "b"},
    });
    let target = json!({
        "node": "n2", "pod": "p2", "migrationUID": "u", "domainName": "vm", "domainNamespace": "ns",
        "domainReadyTimestamp": "2026-01-01T00:00:01Z", "domainDetected": true, "nodeAddress": "10.0.0.2",
        "directMigrationNodePorts": {"38000": 49152}, "attachmentPodUID": "x", "cpuSet": [1, 2],
        "nodeTopology": "{}",
    });
    json!({
        "nodeName": "n1", "reason": "because",
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        "phase": "Running",
        "phaseTransitionTimestamps": [
            {"phase": "Pending", "phaseTransitionTimestamp": "2026-01-01T00:00:00Z"},
        ],
        "interfaces": [{
            "ipAddress": "10.0.0.1", "mac": "02:00:00:00:00:01", "name": "default",
            "ipAddresses": ["10.0.0.1"], "podInterfaceName": "eth0", "interfaceName": "enp1s0",
            "infoSource": "domain, guest-agent", "queueCount": 1, "linkState": "up",
        }],
        "guestOSInfo": {
            "name": "Debian GNU/Linux", "kernelRelease": "6.1", "version": "12 (bookworm)",
            "prettyName": "Debian GNU/Linux 12", "versionId": "12", "kernelVersion": "#1 SMP",
            "machine": "x86_64", "id": "debian",
        },
        "migrationState": {
            "startTimestamp": "2026-01-01T00:00:00Z", "endTimestamp": "2026-01-01T00:00:02Z",
            "targetNodeDomainReadyTimestamp": "2026-01-01T00:00:01Z", "targetNodeDomainDetected": true,
            "targetNodeAddress": "10.0.0.2", "targetDirectMigrationNodePorts": {"38000": 49152},
            "targetNode": "n2", "targetPod": "p2", "targetAttachmentPodUID": "x",
            "sourceNode": "n1", "sourcePod": "p1", "completed": true, "failed": false,
            "abortRequested": true, "abortStatus": "Aborting", "failureReason": "none",
            "migrationUid": "u", "mode": "PreCopy", "migrationPolicyName": "policy",
            "migrationConfiguration": {
                "bandwidthPerMigration": "0", "completionTimeoutPerGiB": 150, "disableTLS": false,
                "matchSELinuxLevelOnMigration": true, "maxDowntimeMs": 900,
            },
            "targetCPUSet": [1, 2], "targetNodeTopology": "{}",
            "sourcePersistentStatePVCName": "s", "targetPersistentStatePVCName": "t",
            "sourceState": source, "targetState": target,
            "migrationNetworkType": "pod", "targetMemoryOverhead": "240Mi",
        },
        "migrationMethod": "LiveMigration", "migrationTransport": "Unix", "qosClass": "Burstable",
        "launcherContainerImageVersion": "image", "evacuationNodeName": "n1",
        "activePods": {"uid": "n1"},
        "volumeStatus": [{
            "name": "root", "target": "vda", "phase": "Ready", "reason": "VolumeReady", "message": "m",
            "persistentVolumeClaimInfo": claim,
            "hotplugVolume": {"attachPodName": "hp", "attachPodUID": "x"}, "size": 1048576,
            "memoryDumpVolume": {
                "startTimestamp": "2026-01-01T00:00:00Z", "endTimestamp": "2026-01-01T00:00:02Z",
                "claimName": "pvc", "targetFileName": "vm.memory.dump",
            },
            "containerDiskVolume": {"checksum": 4_294_967_288_u32},
        }],
        "kernelBootStatus": {"kernelInfo": {"checksum": 1}, "initrdInfo": {"checksum": 2}},
        "fsFreezeStatus": "frozen", "topologyHints": {"tscFrequency": 2_000_000_000_i64},
        "virtualMachineRevisionName": "r", "runtimeUser": 107, "VSOCKCID": 3,
        "selinuxContext": "none", "machine": {"type": "q35"},
        "currentCPUTopology": {"cores": 1, "sockets": 2, "threads": 1},
        "memory": {"guestAtBoot": "1Gi", "guestCurrent": "1Gi", "guestRequested": "1Gi", "memoryOverhead": "64Mi"},
        "migratedVolumes": [{"volumeName": "root", "sourcePVCInfo": claim, "destinationPVCInfo": claim}],
        "changedBlockTracking": {"state": "Enabled"},
    })
}

/// `value` with every member of an object at any depth set to null, one object level at a time.
fn with_nulls(value: &Value) -> Value {
    match value {
        Value::Object(fields) => fields
            .keys()
            .map(|key| (key.clone(), Value::Null))
            .collect(),
        other => other.clone(),
    }
}

#[test]
fn every_field_of_a_status_keeps_its_name() {
    let status: VmiStatus = serde_json::from_value(full()).unwrap();
    assert_eq!(serde_json::to_value(&status).unwrap(), full());
}

#[test]
fn null_is_read_as_absent_everywhere() {
    let status: VmiStatus = serde_json::from_value(with_nulls(&full())).unwrap();
    assert_eq!(status, VmiStatus::default());
    for (pointer, element) in [("/volumeStatus", 0), ("/interfaces", 0), ("/conditions", 0)] {
        let mut json = full();
        let list = json.pointer_mut(pointer).unwrap();
        list[element] = with_nulls(&list[element]);
        serde_json::from_value::<VmiStatus>(json).unwrap();
    }
    for object in ["/migrationState", "/memory", "/machine", "/guestOSInfo"] {
        let mut json = full();
        let place = json.pointer_mut(object).unwrap();
        *place = with_nulls(place);
        serde_json::from_value::<VmiStatus>(json).unwrap();
    }
}

#[test]
fn nothing_is_written_for_an_empty_status() {
    assert_eq!(
        serde_json::to_value(VmiStatus::default()).unwrap(),
        json!({})
    );
}

#[test]
fn what_the_schema_demands_of_a_volume_is_written_even_when_empty() {
    let volume = VolumeStatus {
        name: "dump".to_owned(),
        ..VolumeStatus::default()
    };
    let json = serde_json::to_value(&volume).unwrap();
    assert_eq!(json, json!({"name": "dump", "target": ""}));
}

#[test]
fn phases_have_their_names_and_two_of_them_are_final() {
    use Phase::{
        Failed, Pending, Running, Scheduled, Scheduling, Succeeded, Unknown, Unset, WaitingForSync,
    };
    let all = [
        Unset,
        Pending,
        Scheduling,
        Scheduled,
        WaitingForSync,
        Running,
        Succeeded,
        Failed,
        Unknown,
    ];
    for phase in all {
        assert_eq!(serde_json::to_value(phase).unwrap(), phase.as_str());
        assert_eq!(
            serde_json::from_value::<Phase>(json!(phase.as_str())).unwrap(),
            phase
        );
        assert_eq!(phase.is_final(), phase == Succeeded || phase == Failed);
    }
    assert_eq!(
        serde_json::from_value::<Phase>(json!("Dreaming")).unwrap(),
        Unknown
    );
}

#[test]
fn the_beginning_of_a_phase_is_noted_once() {
    let mut status = VmiStatus::default();
    assert!(status.enter_phase(Phase::Running, "2026-01-01T00:00:00Z"));
    assert!(!status.enter_phase(Phase::Running, "2026-01-01T00:00:01Z"));
    assert_eq!(status.phase, Phase::Running);
    let noted: Vec<_> = status
        .phase_transition_timestamps
        .iter()
        .map(|t| t.phase_transition_timestamp.as_deref())
        .collect();
    assert_eq!(noted, [Some("2026-01-01T00:00:00Z")]);
}

#[test]
fn sources_of_an_interface_are_joined_as_upstream_does() {
    let mut interface = InterfaceStatus::default();
    for source in [
        INFO_SOURCE_DOMAIN,
        INFO_SOURCE_GUEST_AGENT,
        INFO_SOURCE_DOMAIN,
    ] {
        interface.add_source(source);
    }
    assert_eq!(interface.info_source, "domain, guest-agent");
    assert!(interface.has_source(INFO_SOURCE_GUEST_AGENT));
    assert!(!interface.has_source("guest"));
}
