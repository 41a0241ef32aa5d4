//! Each row of KubeVirt's phases and conditions.

use std::collections::BTreeMap;
use std::time::Duration;

use api::Vmi;
use api::condition::{Condition, ConditionStatus, kind, reason};
use api::guest_agent::GuestAgentInfo;
use api::status::Phase;
use jiff::Timestamp;
use proto::domain::{
    AccessCredential, Domain, DomainSpec, FsFreeze, LifeCycle, Present, StateChangeReason,
};
use serde_json::json;

use super::{Emulation, Facts, SyncState, end_of, ended, next_status, rfc3339};
use crate::plan::Death;

fn at(seconds: u64) -> Timestamp {
    Timestamp::UNIX_EPOCH + Duration::from_millis(1_000_000_000_500 + seconds * 1000)
}

fn vmi(phase: Phase) -> Vmi {
    let mut vmi: Vmi = serde_json::from_value(json!({
        "metadata": {"name": "vm", "namespace": "default", "uid": "uid-1"},
        "spec": {
            "domain": {
                "memory": {"guest": "128Mi"},
                "devices": {
                    "disks": [{"name": "root", "disk": {}}, {"name": "init", "disk": {}}],
                    "interfaces": [{"name": "default", "masquerade": {}}, {"name": "blue", "bridge": {}}],
                },
            },
            "networks": [{"name": "default", "pod": {}}, {"name": "blue", "multus": {"networkName": "b"}}],
            "volumes": [
                {"name": "root", "containerDisk": {"image": "i"}},
                {"name": "init", "cloudInitNoCloud": {"userData": "x"}},
            ],
        },
    }))
    .unwrap();
    vmi.status.phase = phase;
    vmi
}

/// The domain of the proto crate's example: it runs, has an agent, a disk and an interface.
fn domain() -> Domain {
    let text = include_bytes!("../../../proto/src/domain/running.json");
    let mut domain = Domain::from_json(text).unwrap().unwrap();
    domain.meta.deletion_timestamp = None;
    domain.spec.devices.disks[0].alias.as_mut().unwrap().name = "root".to_owned();
    let mut init = domain.spec.devices.disks[0].clone();
    init.alias.as_mut().unwrap().name = "init".to_owned();
    init.target.device = "vdb".to_owned();
    init.capacity = Some(1_048_576);
    domain.spec.devices.disks.push(init);
    domain.spec.metadata.kubevirt.access_credential = None;
    domain
}

fn in_state(status: LifeCycle, reason: StateChangeReason) -> Domain {
    let mut domain = domain();
    domain.status.status = status;
    domain.status.reason = reason;
    domain
}

struct Known {
    death: Option<Death>,
    failure: Option<&'static str>,
    is_synced: bool,
    checksums: BTreeMap<String, u32>,
    agent: Option<GuestAgentInfo>,
    emulation: Emulation,
}

fn known() -> Known {
    Known {
        death: None,
        failure: None,
        is_synced: true,
        checksums: BTreeMap::new(),
        agent: None,
        emulation: Emulation::default(),
    }
}

impl Known {
    fn facts(&self) -> Facts<'_> {
        Facts {
            death: self.death.as_ref(),
            sync: match self.failure {
                Some(why) => SyncState::Failed(why),
                None if self.is_synced => SyncState::Done,
                None => SyncState::Untried,
            },
            checksums: &self.checksums,
            agent: self.agent.as_ref(),
            emulation: &self.emulation,
        }
    }
}

fn condition(vmi: &Vmi, domain: &Domain, known: &Known, kind: &str) -> Option<Condition> {
    let status = next_status(at(0), vmi, Some(domain), &known.facts());
    status.condition(kind).cloned()
}

#[test]
fn a_guest_that_begins_to_run_is_ready_unless_others_have_a_say_in_it() {
    let ready = |change: fn(&mut Vmi), state: LifeCycle| {
        let mut vmi = vmi(Phase::Scheduled);
        let waits = Condition::new(kind::READY, false, "");
        let waits = waits.because(reason::GUEST_NOT_RUNNING, "");
        api::condition::set(&mut vmi.status.conditions, waits);
        change(&mut vmi);
        let domain = in_state(state, StateChangeReason::User);
        let ready = condition(&vmi, &domain, &known(), kind::READY);
        ready.is_some_and(|ready| ready.is_true())
    };
    assert!(ready(|_| {}, LifeCycle::Running));
    assert!(!ready(|_| {}, LifeCycle::Paused));
    assert!(!ready(|_| {}, LifeCycle::NoState));
    assert!(!ready(
        |vmi| vmi.spec.readiness_probe = Some(api::probes::Probe::default()),
        LifeCycle::Running
    ));
    assert!(!ready(
        |vmi| vmi.status.phase = Phase::Running,
        LifeCycle::Running
    ));
    assert!(!ready(
        |vmi| vmi.status.conditions[0].reason = reason::POD_TERMINATING.to_owned(),
        LifeCycle::Running
    ));
}

#[test]
fn every_state_leads_to_its_phase() {
    use LifeCycle::{Blocked, Crashed, Paused, PmSuspended, Running, Shutoff, ShuttingDown};
    use StateChangeReason as Why;
    let rows = [
        (Phase::Scheduled, Running, Why::Unknown, Phase::Running, ""),
        (Phase::Scheduled, Blocked, Why::Unknown, Phase::Running, ""),
        (Phase::Scheduled, Paused, Why::User, Phase::Running, ""),
        (
            Phase::Scheduled,
            PmSuspended,
            Why::Unknown,
            Phase::Running,
            "",
        ),
        (
            Phase::Scheduled,
            ShuttingDown,
            Why::User,
            Phase::Scheduled,
            "",
        ),
        (
            Phase::Scheduled,
            Shutoff,
            Why::Unknown,
            Phase::Scheduled,
            "",
        ),
        (
            Phase::Scheduled,
            LifeCycle::NoState,
            Why::Unknown,
            Phase::Scheduled,
            "",
        ),
        (
            Phase::Scheduled,
            LifeCycle::Unknown,
            Why::Unknown,
            Phase::Scheduled,
            "",
        ),
        (
            Phase::Scheduled,
            Shutoff,
            Why::Failed,
            Phase::Failed,
            ended::NOT_STARTED,
        ),
        (Phase::Running, ShuttingDown, Why::User, Phase::Running, ""),
        (Phase::Running, Paused, Why::IoError, Phase::Running, ""),
        (
            Phase::Running,
            Paused,
            Why::PostcopyFailed,
            Phase::Failed,
            ended::POSTCOPY_FAILED,
        ),
        (Phase::Running, Shutoff, Why::Shutdown, Phase::Succeeded, ""),
        (Phase::Running, Shutoff, Why::Saved, Phase::Succeeded, ""),
        (
            Phase::Running,
            Shutoff,
            Why::FromSnapshot,
            Phase::Succeeded,
            "",
        ),
        (
            Phase::Running,
            Shutoff,
            Why::Destroyed,
            Phase::Failed,
            ended::KILLED,
        ),
        (
            Phase::Running,
            Shutoff,
            Why::Crashed,
            Phase::Failed,
            ended::CRASHED,
        ),
        (
            Phase::Running,
            Shutoff,
            Why::Panicked,
            Phase::Failed,
            ended::PANICKED,
        ),
        (
            Phase::Running,
            Crashed,
            Why::Panicked,
            Phase::Failed,
            ended::PANICKED,
        ),
        (
            Phase::Running,
            Crashed,
            Why::Unknown,
            Phase::Failed,
            ended::CRASHED,
        ),
        (Phase::Running, Shutoff, Why::Migrated, Phase::Running, ""),
        (Phase::Pending, Running, Why::Unknown, Phase::Pending, ""),
        (
            Phase::Succeeded,
            Crashed,
            Why::Crashed,
            Phase::Succeeded,
            "",
        ),
    ];
    for (from, state, why, to, reason) in rows {
        let domain = in_state(state, why);
        let status = next_status(at(0), &vmi(from), Some(&domain), &known().facts());
        let told = (status.phase, status.reason.as_str());
        assert_eq!(told, (to, reason), "{from} {:?}", domain.status.reason);
    }
}

#[test]
fn a_killed_machine_that_could_not_power_off_has_succeeded() {
    let mut domain = in_state(LifeCycle::Shutoff, StateChangeReason::Destroyed);
    let mut hurried = vmi(Phase::Running);
    hurried.spec.termination_grace_period_seconds = Some(0);
    let status = next_status(at(0), &hurried, Some(&domain), &known().facts());
    assert_eq!(status.phase, Phase::Succeeded);
    domain.spec.features.acpi = None;
    let status = next_status(at(0), &vmi(Phase::Running), Some(&domain), &known().facts());
    assert_eq!(status.phase, Phase::Succeeded);
    domain.spec.features.acpi = Some(Present {});
    let status = next_status(at(0), &vmi(Phase::Running), Some(&domain), &known().facts());
    assert_eq!(status.phase, Phase::Failed);
}

#[test]
fn an_instance_that_ends_is_no_longer_ready() {
    let mut known = known();
    let ready = |vmi: &Vmi, known: &Known| {
        let status = next_status(at(0), vmi, Some(&domain()), &known.facts());
        let ready = status.condition(kind::READY).cloned();
        ready.map(|ready| (ready.is_true(), ready.reason))
    };
    let mut vmi = vmi(Phase::Running);
    known.death = Some(Death::LauncherLost("killed".to_owned()));
    assert_eq!(ready(&vmi, &known), None);
    let was = Condition::new(kind::READY, true, "");
    api::condition::set(&mut vmi.status.conditions, was);
    let expected = Some((false, reason::GUEST_NOT_RUNNING.to_owned()));
    assert_eq!(ready(&vmi, &known), expected);
    known.death = None;
    assert_eq!(ready(&vmi, &known), Some((true, String::new())));
}

#[test]
fn a_death_fails_the_instance_and_says_why() {
    let mut known = known();
    known.death = Some(Death::LauncherLost("its process was killed".to_owned()));
    let domain = domain();
    for (phase, domain) in [(Phase::Running, Some(&domain)), (Phase::Scheduled, None)] {
        let vmi = vmi(phase);
        let status = next_status(at(0), &vmi, domain, &known.facts());
        assert_eq!(
            (status.phase, status.reason.as_str()),
            (Phase::Failed, "LauncherLost")
        );
        let synchronized = status.condition(kind::SYNCHRONIZED).unwrap();
        assert!(synchronized.message.contains("its process was killed"));
        assert!(!status.is_true(kind::AGENT_CONNECTED));
        let text = end_of(&vmi, domain, known.death.as_ref()).unwrap();
        assert!(
            text.starts_with("The VirtualMachineInstance crashed."),
            "{text}"
        );
        assert!(text.contains("its process was killed"), "{text}");
    }
}

#[test]
fn the_time_of_each_phase_is_noted_in_whole_seconds() {
    let status = next_status(
        at(0),
        &vmi(Phase::Scheduled),
        Some(&domain()),
        &known().facts(),
    );
    let noted = &status.phase_transition_timestamps;
    assert_eq!(noted.len(), 1);
    let time = noted[0].phase_transition_timestamp.as_deref();
    assert_eq!(
        (noted[0].phase, time),
        (Phase::Running, Some("2001-09-09T01:46:40Z"))
    );
    assert_eq!(rfc3339(at(0)), "2001-09-09T01:46:40Z");
}

#[test]
fn the_same_again_changes_nothing() {
    let mut known = known();
    known.failure = Some("no such bus");
    known.checksums.insert("root".to_owned(), 7);
    let domains = [
        domain(),
        in_state(LifeCycle::Paused, StateChangeReason::IoError),
        in_state(LifeCycle::Shutoff, StateChangeReason::Shutdown),
    ];
    for domain in domains {
        let mut vmi = vmi(Phase::Scheduled);
        vmi.status = next_status(at(0), &vmi, Some(&domain), &known.facts());
        let again = next_status(at(60), &vmi, Some(&domain), &known.facts());
        assert_eq!(again, vmi.status, "{:?}", domain.status.status);
    }
}

#[test]
fn pauses_are_told_apart() {
    let vmi = vmi(Phase::Running);
    for (why, expected) in [
        (StateChangeReason::User, Some(reason::PAUSED_BY_USER)),
        (StateChangeReason::IoError, Some(reason::PAUSED_IO_ERROR)),
        (
            StateChangeReason::Migration,
            Some(reason::PAUSED_BY_MIGRATION_MONITOR),
        ),
        (StateChangeReason::StartingUp, None),
    ] {
        let domain = in_state(LifeCycle::Paused, why);
        let paused = condition(&vmi, &domain, &known(), kind::PAUSED);
        let told = paused.as_ref().map(|condition| condition.reason.as_str());
        assert_eq!(told, expected);
    }
    let mut resumed = vmi;
    let paused = in_state(LifeCycle::Paused, StateChangeReason::User);
    resumed.status = next_status(at(0), &resumed, Some(&paused), &known().facts());
    assert_eq!(condition(&resumed, &domain(), &known(), kind::PAUSED), None);
}

#[test]
fn a_failed_sync_is_told_until_one_succeeds() {
    let (mut vmi, domain) = (vmi(Phase::Scheduled), domain());
    let mut known = known();
    let text = "spec.domain.devices.disks[0].disk.bus: usb is not supported: use virtio or scsi";
    known.failure = Some(text);
    vmi.status = next_status(at(0), &vmi, None, &known.facts());
    let told = vmi.status.condition(kind::SYNCHRONIZED).unwrap();
    assert_eq!(told.status, ConditionStatus::False);
    assert_eq!(told.reason, reason::SYNCHRONIZING_FAILED);
    assert_eq!(told.message, text);
    assert_eq!(vmi.status.phase, Phase::Scheduled);
    (known.failure, known.is_synced) = (None, false);
    assert!(condition(&vmi, &domain, &known, kind::SYNCHRONIZED).is_some());
    known.is_synced = true;
    assert_eq!(condition(&vmi, &domain, &known, kind::SYNCHRONIZED), None);
}

#[test]
fn emulation_is_told_with_what_was_measured() {
    let (vmi, mut domain, mut known) = (vmi(Phase::Running), domain(), known());
    assert_eq!(
        condition(&vmi, &domain, &known, kind::SOFTWARE_EMULATION),
        None
    );
    domain.spec.type_ = DomainSpec::SOFTWARE.to_owned();
    known.emulation.measured = Some("KVM runs 2 million instructions a second".to_owned());
    let told = condition(&vmi, &domain, &known, kind::SOFTWARE_EMULATION).unwrap();
    assert!(told.is_true());
    assert_eq!(told.reason, reason::KVM_UNUSABLE);
    assert_eq!(told.message, "KVM runs 2 million instructions a second");
    known.emulation.is_requested = true;
    let told = condition(&vmi, &domain, &known, kind::SOFTWARE_EMULATION).unwrap();
    assert_eq!(told.reason, reason::EMULATION_REQUESTED);
}

#[test]
fn agents_come_go_and_are_judged() {
    let (mut vmi, mut domain, mut known) = (vmi(Phase::Running), domain(), known());
    assert!(
        condition(&vmi, &domain, &known, kind::AGENT_CONNECTED)
            .unwrap()
            .is_true()
    );
    assert_eq!(
        condition(&vmi, &domain, &known, kind::AGENT_VERSION_NOT_SUPPORTED),
        None
    );
    known.agent = Some(GuestAgentInfo::new());
    let unfit = condition(&vmi, &domain, &known, kind::AGENT_VERSION_NOT_SUPPORTED).unwrap();
    assert!(unfit.reason.contains("basic commands"), "{unfit:?}");
    vmi.status = next_status(at(0), &vmi, Some(&domain), &known.facts());
    domain.spec.devices.channels.clear();
    let status = next_status(at(1), &vmi, Some(&domain), &known.facts());
    assert_eq!(status.condition(kind::AGENT_CONNECTED), None);
    assert_eq!(status.condition(kind::AGENT_VERSION_NOT_SUPPORTED), None);
}

#[test]
fn credentials_are_told_as_the_machine_tells() {
    let (vmi, mut domain) = (vmi(Phase::Running), domain());
    let kind = kind::ACCESS_CREDENTIALS_SYNCHRONIZED;
    assert_eq!(condition(&vmi, &domain, &known(), kind), None);
    domain.spec.metadata.kubevirt.access_credential = Some(AccessCredential {
        succeeded: false,
        message: "no\nagent".to_owned(),
    });
    let told = condition(&vmi, &domain, &known(), kind).unwrap();
    assert_eq!((told.is_true(), told.message.as_str()), (false, "no agent"));
}

#[test]
fn no_machine_says_that_it_could_move() {
    let obstacle = |vmi: &Vmi, kind: &str| {
        let condition = condition(vmi, &domain(), &known(), kind).unwrap();
        assert_eq!(condition.status, ConditionStatus::False);
        condition.reason
    };
    let mut vmi = vmi(Phase::Running);
    assert_eq!(
        obstacle(&vmi, kind::LIVE_MIGRATABLE),
        reason::NOT_MIGRATABLE
    );
    vmi.spec.volumes[0] = serde_json::from_value(json!({
        "name": "root", "persistentVolumeClaim": {"claimName": "c"},
    }))
    .unwrap();
    assert_eq!(
        obstacle(&vmi, kind::LIVE_MIGRATABLE),
        reason::DISKS_NOT_MIGRATABLE
    );
    assert_eq!(
        obstacle(&vmi, kind::STORAGE_LIVE_MIGRATABLE),
        reason::NOT_MIGRATABLE
    );
    vmi.status.volume_status = serde_json::from_value(json!([
        {"name": "root", "persistentVolumeClaimInfo": {"accessModes": ["ReadWriteMany"]}},
    ]))
    .unwrap();
    assert_eq!(
        obstacle(&vmi, kind::LIVE_MIGRATABLE),
        reason::NOT_MIGRATABLE
    );
    vmi.spec.networks[1] = serde_json::from_value(json!({"name": "blue", "pod": {}})).unwrap();
    assert_eq!(
        obstacle(&vmi, kind::LIVE_MIGRATABLE),
        reason::INTERFACE_NOT_MIGRATABLE
    );
    vmi.spec.domain.devices.host_devices =
        serde_json::from_value(json!([{"name": "nic", "deviceName": "d"}])).unwrap();
    assert_eq!(
        obstacle(&vmi, kind::STORAGE_LIVE_MIGRATABLE),
        reason::HOST_DEVICE_NOT_MIGRATABLE
    );
}

#[test]
fn disks_that_other_nodes_reach_stay_where_they_are() {
    let shared_claim =
        json!({"name": "c", "persistentVolumeClaimInfo": {"accessModes": ["ReadWriteMany"]}});
    let own_claim =
        json!({"name": "c", "persistentVolumeClaimInfo": {"accessModes": ["ReadWriteOnce"]}});
    let claim = json!({"name": "c", "persistentVolumeClaim": {"claimName": "c"}});
    let data = json!({"name": "c", "dataVolume": {"name": "c"}});
    let host_disk = |is_shared: bool| json!({"name": "h", "hostDisk": {"path": "/h", "type": "Disk", "shared": is_shared}});
    let local = json!({"name": "root", "containerDisk": {"image": "i"}});
    for (volumes, told, expected) in [
        (json!([]), &shared_claim, "LiveMigration"),
        (json!([claim]), &shared_claim, "LiveMigration"),
        (
            json!([data, host_disk(true)]),
            &shared_claim,
            "LiveMigration",
        ),
        (json!([claim]), &own_claim, "BlockMigration"),
        (json!([claim]), &json!({"name": "c"}), "BlockMigration"),
        (json!([claim, local]), &shared_claim, "BlockMigration"),
        (json!([host_disk(false)]), &shared_claim, "BlockMigration"),
    ] {
        let mut vmi = vmi(Phase::Running);
        vmi.spec.volumes = serde_json::from_value(volumes.clone()).unwrap();
        vmi.status.volume_status = serde_json::from_value(json!([told])).unwrap();
        let status = next_status(at(0), &vmi, Some(&domain()), &known().facts());
        assert_eq!(status.migration_method, expected, "{volumes} {told}");
    }
}

#[test]
fn a_shared_file_system_stays_where_it_is() {
    let mut vmi = vmi(Phase::Running);
    vmi.spec.volumes =
        serde_json::from_value(json!([{"name": "fs", "configMap": {"name": "m"}}])).unwrap();
    let method = |vmi: &Vmi| {
        let status = next_status(at(0), vmi, Some(&domain()), &known().facts());
        status.migration_method
    };
    assert_eq!(method(&vmi), "BlockMigration");
    vmi.spec.domain.devices.filesystems =
        serde_json::from_value(json!([{"name": "fs", "virtiofs": {}}])).unwrap();
    assert_eq!(method(&vmi), "LiveMigration");
}

#[test]
fn what_others_wrote_stays() {
    let mut vmi = vmi(Phase::Scheduled);
    let ready = Condition::new(kind::READY, true, "2026-01-02T03:04:05Z");
    vmi.status.conditions.push(ready.clone());
    vmi.status.node_name = "node1".to_owned();
    let status = next_status(at(0), &vmi, Some(&domain()), &known().facts());
    assert_eq!(status.condition(kind::READY), Some(&ready));
    assert_eq!(status.node_name, "node1");
}

#[test]
fn the_machine_and_its_memory_are_described() {
    let status = next_status(
        at(0),
        &vmi(Phase::Scheduled),
        Some(&domain()),
        &known().facts(),
    );
    assert_eq!(status.machine.unwrap().machine_type, "pc-q35-rhel9.6.0");
    let memory = serde_json::to_value(status.memory.unwrap()).unwrap();
    let expected =
        json!({"guestAtBoot": "128Mi", "guestCurrent": "1048576Ki", "guestRequested": "128Mi"});
    assert_eq!(memory, expected);
    assert_eq!(status.selinux_context, "none");
    assert_eq!(status.guest_os_info.id, "fedora");
}

#[test]
fn memory_that_is_as_wanted_is_written_as_wanted() {
    let mut domain = domain();
    let memory = domain.spec.current_memory.as_mut().unwrap();
    (memory.value, memory.unit) = (131_072, "KiB".to_owned());
    let status = next_status(
        at(0),
        &vmi(Phase::Scheduled),
        Some(&domain),
        &known().facts(),
    );
    assert_eq!(
        status.memory.unwrap().guest_current.unwrap().as_str(),
        "128Mi"
    );
    let memory = domain.spec.current_memory.as_mut().unwrap();
    (memory.value, memory.unit) = (u64::MAX, "GiB".to_owned());
    let status = next_status(
        at(0),
        &vmi(Phase::Scheduled),
        Some(&domain),
        &known().facts(),
    );
    assert_eq!(status.memory.unwrap().guest_current, None);
}

#[test]
fn volumes_are_described_by_their_disks() {
    let mut known = known();
    known.checksums.insert("root".to_owned(), 42);
    known
        .checksums
        .insert(super::kernel_file::KERNEL.to_owned(), 43);
    let mut vmi = vmi(Phase::Scheduled);
    vmi.status.volume_status = serde_json::from_value(json!([{"name": "root"}])).unwrap();
    let status = next_status(at(0), &vmi, Some(&domain()), &known.facts());
    let volumes = serde_json::to_value(&status.volume_status).unwrap();
    let expected = json!([
        {"name": "init", "target": "vdb", "phase": "Ready", "size": 1_048_576},
        {"name": "root", "target": "vda", "phase": "Ready", "containerDiskVolume": {"checksum": 42}},
    ]);
    assert_eq!(volumes, expected);
    let boot = serde_json::to_value(status.kernel_boot_status).unwrap();
    assert_eq!(boot, json!({"kernelInfo": {"checksum": 43}}));
}

#[test]
fn interfaces_are_described_by_machine_and_agent() {
    let mut vmi = vmi(Phase::Running);
    vmi.status.interfaces = serde_json::from_value(json!([
        {"name": "default", "ipAddress": "10.1.1.1", "ipAddresses": ["10.1.1.1"],
         "podInterfaceName": "eth0", "infoSource": "multus-status"},
    ]))
    .unwrap();
    let mut domain = domain();
    let mut blue = domain.spec.devices.interfaces[0].clone();
    blue.alias.as_mut().unwrap().name = "blue".to_owned();
    blue.mac.as_mut().unwrap().mac = "02:00:00:00:00:02".to_owned();
    blue.link_state.as_mut().unwrap().state = "down".to_owned();
    domain.spec.devices.interfaces.insert(0, blue);
    let told: Vec<proto::domain::InterfaceStatus> = serde_json::from_value(json!([
        {"Mac": "02:00:00:00:00:01", "Ip": "10.0.2.2", "IPs": ["10.0.2.2"], "InterfaceName": "eth0"},
        {"Mac": "02:00:00:00:00:02", "Ip": "192.168.1.5", "IPs": ["192.168.1.5", "fe80::1", "bad"], "InterfaceName": "eth1"},
        {"Mac": "02:00:00:00:00:09", "Ip": "172.17.0.1", "InterfaceName": "docker0"},
        {"Mac": "00:00:00:00:00:00", "Ip": "127.0.0.1", "InterfaceName": "lo"},
    ]))
    .unwrap();
    domain.status.interfaces = told;
    let status = next_status(at(0), &vmi, Some(&domain), &known().facts());
    let interfaces = serde_json::to_value(&status.interfaces).unwrap();
    let expected = json!([
        {"name": "default", "mac": "02:00:00:00:00:01", "ipAddress": "10.1.1.1", "ipAddresses": ["10.1.1.1"],
         "podInterfaceName": "eth0", "interfaceName": "eth0", "queueCount": 4, "linkState": "up",
         "infoSource": "multus-status, domain, guest-agent"},
        {"name": "blue", "mac": "02:00:00:00:00:02", "ipAddress": "192.168.1.5",
         "ipAddresses": ["192.168.1.5", "fe80::1"], "interfaceName": "eth1", "queueCount": 4,
         "linkState": "down", "infoSource": "domain, guest-agent"},
        {"mac": "02:00:00:00:00:09", "ipAddress": "172.17.0.1", "ipAddresses": ["172.17.0.1"],
         "interfaceName": "docker0", "infoSource": "guest-agent"},
    ]);
    assert_eq!(interfaces, expected);
    vmi.status = status;
    let again = next_status(at(9), &vmi, Some(&domain), &known().facts());
    assert_eq!(again, vmi.status);
    domain.status.interfaces.clear();
    let silent = next_status(at(9), &vmi, Some(&domain), &known().facts());
    assert_eq!(silent.interfaces.len(), 2);
    assert_eq!(silent.interfaces[0].info_source, "multus-status, domain");
}

#[test]
fn what_a_launcher_tells_is_bounded() {
    let mut domain = domain();
    domain.status.os_info.pretty_name = "x".repeat(100_000);
    domain.spec.os.type_.machine = "q".repeat(100_000);
    domain.spec.devices.disks[0].target.device = "v".repeat(100_000);
    let told = domain.status.interfaces[0].clone();
    for number in 0..4000_u32 {
        let mut told = told.clone();
        told.mac = format!("02:00:00:01:{:02x}:{:02x}", number / 256, number % 256);
        told.interface_name = "e".repeat(10_000);
        told.ips = (0..300).map(|n| format!("fd00::{n:x}")).collect();
        domain.status.interfaces.push(told);
    }
    let status = next_status(at(0), &vmi(Phase::Running), Some(&domain), &known().facts());
    let len = serde_json::to_vec(&status).unwrap().len();
    assert!(len < 64 * 1024, "{len} bytes");
}

#[test]
fn frozen_file_systems_are_told_until_they_thaw() {
    let (mut vmi, mut domain) = (vmi(Phase::Running), domain());
    for (told, expected) in [
        (FsFreeze::THAWED, ""),
        (FsFreeze::FROZEN, "frozen"),
        ("", "frozen"),
        ("odd", "frozen"),
        (FsFreeze::THAWED, ""),
    ] {
        told.clone_into(&mut domain.status.fs_freeze_status.status);
        vmi.status = next_status(at(0), &vmi, Some(&domain), &known().facts());
        assert_eq!(vmi.status.fs_freeze_status, expected, "{told}");
    }
}
