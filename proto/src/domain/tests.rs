use super::*;

/// A running domain as KubeVirt's launcher writes one, with keys that are not known here, `null`s, and
/// every key that KubeVirt's handler reads.
const RUNNING: &str = include_str!("running.json");

fn running() -> Domain {
    Domain::from_json(RUNNING.as_bytes())
        .unwrap()
        .expect("the sample is not empty")
}

#[test]
fn every_field_a_handler_reads_is_taken_from_a_running_domain() {
    let domain = running();
    assert_eq!(
        (domain.kind.as_str(), domain.api_version.as_str()),
        (KIND, API_VERSION)
    );
    assert_eq!(
        (domain.meta.name.as_str(), domain.meta.namespace.as_str()),
        ("testvm", "default")
    );
    assert_eq!(domain.meta.uid, "1ed85e19-2f83-4c1d-8d2f-4c7f6d1e1a01");
    assert_eq!(
        domain.meta.deletion_timestamp.as_deref(),
        Some("2026-01-02T03:04:05Z")
    );

    let status = &domain.status;
    assert_eq!(status.status, LifeCycle::Running);
    assert_eq!(status.reason, StateChangeReason::Unknown);
    assert_eq!(status.interfaces.len(), 1);
    assert_eq!(status.interfaces[0].mac, "02:00:00:00:00:01");
    assert_eq!(status.interfaces[0].ip, "10.0.2.2");
    assert_eq!(status.interfaces[0].ips, ["10.0.2.2", "fd10:0:2::2"]);
    assert_eq!(status.interfaces[0].interface_name, "eth0");
    assert_eq!(status.os_info.name, "Fedora Linux");
    assert_eq!(status.os_info.kernel_release, "6.11.4-301.fc41.x86_64");
    assert_eq!(status.os_info.version, "41 (Cloud Edition)");
    assert_eq!(
        status.os_info.pretty_name,
        "Fedora Linux 41 (Cloud Edition)"
    );
    assert_eq!(status.os_info.version_id, "41");
    assert_eq!(status.os_info.kernel_version, "#1 SMP");
    assert_eq!(status.os_info.machine, "x86_64");
    assert_eq!(status.os_info.id, "fedora");
    assert_eq!(status.fs_freeze_status.status, FsFreeze::THAWED);
    let panic = status.guest_panic_info.as_ref().unwrap();
    assert_eq!(
        (panic.type_.as_str(), panic.arg1, panic.arg5),
        ("hyper-v", 0x5a, 5)
    );
    assert_eq!(status.panic_count, 2);
}

#[test]
fn the_specification_is_taken_from_a_running_domain() {
    let spec = running().spec;
    assert_eq!(spec.type_, DomainSpec::KVM);
    assert_eq!(spec.name, "default_testvm");
    assert_eq!(spec.uuid, "5a9fc181-957e-5c32-9e5a-2de5e9673531");
    assert_eq!(
        spec.current_memory,
        Some(Memory {
            value: 1_048_576,
            unit: "KiB".to_owned()
        })
    );
    assert_eq!(spec.os.type_.machine, "pc-q35-rhel9.6.0");
    assert_eq!(spec.features.acpi, Some(Present {}));

    let disk = &spec.devices.disks[0];
    assert_eq!(
        (disk.target.device.as_str(), disk.target.bus.as_str()),
        ("vda", "virtio")
    );
    assert_eq!(disk.alias, Some(Alias::user_defined("containerdisk")));
    assert_eq!(
        disk.source.file,
        "/var/run/kubevirt-ephemeral-disks/disk-data/containerdisk/disk.qcow2"
    );
    assert_eq!(disk.capacity, Some(5_368_709_120));

    let nic = &spec.devices.interfaces[0];
    assert_eq!(nic.mac.as_ref().unwrap().mac, "02:00:00:00:00:01");
    assert_eq!(nic.alias, Some(Alias::user_defined("default")));
    assert_eq!(nic.target.as_ref().unwrap().device, "tap0");
    assert_eq!(nic.link_state.as_ref().unwrap().state, "up");
    assert_eq!(nic.driver.as_ref().unwrap().queues, Some(4));

    let host_device = &spec.devices.host_devices[0];
    assert_eq!(host_device.type_, "pci");
    assert_eq!(host_device.source.address.as_ref().unwrap().bus, "0x81");
    assert_eq!(host_device.alias, Some(Alias::user_defined("sriov-net")));
}

#[test]
fn the_metadata_is_taken_from_a_running_domain() {
    let metadata = running().spec.metadata.kubevirt;
    assert_eq!(metadata.uid, "1ed85e19-2f83-4c1d-8d2f-4c7f6d1e1a01");
    let grace = metadata.grace_period.unwrap();
    assert_eq!(grace.deletion_grace_period_seconds, 30);
    assert_eq!(
        grace.deletion_timestamp.as_deref(),
        Some("2026-01-02T03:04:00Z")
    );
    assert_eq!(grace.marked_for_graceful_shutdown, Some(true));
    let migration = metadata.migration.unwrap();
    assert_eq!(
        (migration.uid.as_str(), migration.mode.as_str()),
        ("m-1", "PreCopy")
    );
    assert_eq!(migration.end_timestamp, None);
    assert!(migration.failed);
    assert_eq!(
        (
            migration.failure_reason.as_str(),
            migration.abort_status.as_str()
        ),
        ("late", "Failed")
    );
    let credential = metadata.access_credential.unwrap();
    assert_eq!(
        (credential.succeeded, credential.message.as_str()),
        (false, "no agent")
    );
    let dump = metadata.memory_dump.unwrap();
    assert_eq!(dump.file_name, "testvm-dump.memory.dump");
    assert!(dump.completed && !dump.failed && dump.failure_reason.is_empty());
}

#[test]
fn a_domain_survives_its_json() {
    let domain = running();
    let json = serde_json::to_vec(&domain).unwrap();
    assert_eq!(Domain::from_json(&json).unwrap(), Some(domain));
    let empty = Domain::default();
    let json = serde_json::to_vec(&empty).unwrap();
    assert_eq!(Domain::from_json(&json).unwrap(), Some(empty));
}

/// Go drops a key that it does not know and refuses a value of another kind than its field: each key
/// written must be one of the sample's, with a value of the same kind.
fn check_keys(ours: &serde_json::Value, sample: &serde_json::Value, path: &str) {
    use serde_json::Value;
    match (ours, sample) {
        (Value::Object(ours), Value::Object(sample)) => {
            for (key, value) in ours {
                let theirs = sample
                    .get(key)
                    .unwrap_or_else(|| panic!("{path}.{key} is not Go's"));
                check_keys(value, theirs, &format!("{path}.{key}"));
            }
        }
        (Value::Array(ours), Value::Array(sample)) => {
            for value in ours {
                check_keys(value, &sample[0], &format!("{path}[]"));
            }
        }
        (ours, sample) => assert_eq!(
            std::mem::discriminant(ours),
            std::mem::discriminant(sample),
            "{path} is of another kind than Go's"
        ),
    }
}

#[test]
fn only_keys_of_the_go_structure_are_written() {
    let sample = serde_json::from_str(RUNNING).unwrap();
    check_keys(&serde_json::to_value(running()).unwrap(), &sample, "domain");
}

#[test]
fn what_is_not_there_is_left_out_or_empty_and_never_null() {
    let json = serde_json::to_string(&Domain::new("default", "testvm", "u-1")).unwrap();
    assert!(!json.contains("null"), "{json}");
    assert!(
        !json.contains("imestamp"),
        "Go refuses an empty timestamp: {json}"
    );
    assert!(json.contains(r#""Name":"default_testvm""#), "{json}");
    assert!(json.contains(r#""ObjectMeta":{"name":"testvm","namespace":"default","uid":"u-1"}"#));
}

#[test]
fn an_empty_text_means_no_domain() {
    assert_eq!(Domain::from_json(b"").unwrap(), None);
}

#[test]
fn a_half_written_domain_is_an_error_at_every_length() {
    let end = RUNNING.trim_end().len();
    for len in 1..end {
        assert!(
            Domain::from_json(&RUNNING.as_bytes()[..len]).is_err(),
            "length {len}"
        );
    }
}

#[test]
fn a_value_of_another_kind_is_an_error() {
    for json in [
        r#"{"Status":{"PanicCount":"many"}}"#,
        r#"{"Status":{"Status":7}}"#,
        r#"{"Spec":{"Devices":{"Disks":{}}}}"#,
        r#"{"Spec":{"CurrentMemory":{"Value":-1}}}"#,
        r#"{"Spec":{"CurrentMemory":{"Value":18446744073709551616}}}"#,
    ] {
        assert!(Domain::from_json(json.as_bytes()).is_err(), "{json}");
    }
}

#[test]
fn nesting_without_end_is_an_error() {
    let json = format!(r#"{{"Unknown":{}"#, "[".repeat(1_000_000));
    assert!(Domain::from_json(json.as_bytes()).is_err());
    let json = format!(
        r#"{{"Spec":{{"Metadata":{{"KubeVirt":{{"Backup":{}"#,
        "[".repeat(1_000_000)
    );
    assert!(Domain::from_json(json.as_bytes()).is_err());
}

#[test]
fn a_list_without_end_is_an_error() {
    for (before, entry, after) in [
        (r#"{"Spec":{"Devices":{"Disks":["#, "{}", "]}}}"),
        (r#"{"Spec":{"Devices":{"Interfaces":["#, "{}", "]}}}"),
        (r#"{"Spec":{"Devices":{"Channels":["#, "{}", "]}}}"),
        (r#"{"Spec":{"Devices":{"HostDevices":["#, "{}", "]}}}"),
        (r#"{"Status":{"Interfaces":["#, "{}", "]}}"),
        (r#"{"Status":{"Interfaces":[{"IPs":["#, r#""""#, "]}]}}"),
    ] {
        let json = |len: usize| [before, &vec![entry; len].join(","), after].concat();
        assert!(
            Domain::from_json(json(list::LIST_LEN_MAX).as_bytes()).is_ok(),
            "{before}"
        );
        assert!(
            Domain::from_json(json(list::LIST_LEN_MAX + 1).as_bytes()).is_err(),
            "{before}"
        );
    }
}

#[test]
fn lists_and_pointers_that_are_null_are_empty() {
    let json = br#"{"Spec":{"Features":null,"CurrentMemory":null,"Devices":{"Disks":null}},
        "Status":{"Interfaces":null,"GuestPanicInfo":null}}"#;
    assert_eq!(Domain::from_json(json).unwrap(), Some(Domain::default()));
}

#[test]
fn an_unknown_state_and_reason_are_kept() {
    let json = br#"{"Status":{"Status":"Dreaming","Reason":"Tired"}}"#;
    let domain = Domain::from_json(json).unwrap().unwrap();
    assert_eq!(
        domain.status.status,
        LifeCycle::Other("Dreaming".to_owned())
    );
    assert_eq!(
        domain.status.reason,
        StateChangeReason::Other("Tired".to_owned())
    );
    let again = serde_json::to_string(&domain).unwrap();
    assert!(
        again.contains(r#""Status":"Dreaming","Reason":"Tired""#),
        "{again}"
    );
}

#[test]
fn every_known_state_and_reason_survives_its_text() {
    for state in LifeCycle::KNOWN {
        assert_eq!(&LifeCycle::from(state.as_str().to_owned()), state);
    }
    for reason in StateChangeReason::KNOWN {
        assert_eq!(&StateChangeReason::from(reason.to_string()), reason);
    }
}

#[test]
fn the_agent_is_connected_when_its_channel_is() {
    let mut domain = running();
    assert!(domain.agent_connected());
    let channels = &mut domain.spec.devices.channels;
    channels[0].target.as_mut().unwrap().state = ChannelTarget::DISCONNECTED.to_owned();
    assert!(!domain.agent_connected());
    domain.spec.devices.channels.clear();
    assert!(!domain.agent_connected());
}
