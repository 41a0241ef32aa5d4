//! From what is known of a domain to what the node agent is told of it (KubeVirt's Domain JSON).

use api::Vmi;
use proto::domain::{
    AccessCredential, ChannelTarget, Devices, Domain, DomainSpec, FsFreeze, GracePeriod,
    GuestOsInfo, GuestPanicInfo, InterfaceStatus, LifeCycle, Memory, MemoryDump, Present,
    StateChangeReason,
};
use uuid::Uuid;
use vmm::config::MachineConfig;

use super::Wish;
use super::state::{Activity, Dump, Ended, Facts, Paused};
use crate::agent::{AgentReport, FreezeStatus, Interface};
use crate::convert::domain_devices;

/// What libvirt calls guests that need no changes, and our architecture.
const OS: (&str, &str) = ("hvm", "x86_64");
/// Machine type of an instance that names none.
const DEFAULT_MACHINE_TYPE: &str = "q35";

impl Facts {
    /// Returns the facts of a machine that is about to start.
    pub(super) fn new(wish: &Wish, vmi: Vmi, config: &MachineConfig) -> Self {
        let uuid = Uuid::from_bytes(config.smbios.uuid.unwrap_or_default());
        Self {
            uuid: uuid.to_string(),
            is_kvm: false,
            memory_bytes: config.memory.len_bytes,
            devices: domain_devices(&vmi, config),
            activity: if config.start_paused {
                Activity::Paused(Paused::User)
            } else {
                Activity::Running
            },
            ended_at: None,
            shutdown_at: None,
            marked_for_shutdown: false,
            dump: None,
            panics: 0,
            is_deleted: false,
            credentials: None,
            wanted: wish.vmi.clone(),
            vmi,
        }
    }
}

/// Returns the domain as the node agent is to see it.
pub(super) fn domain(facts: &Facts, agent: &AgentReport) -> Domain {
    let metadata = &facts.vmi.metadata;
    let namespace = metadata.namespace_or_default();
    let mut domain = Domain::new(namespace, &metadata.name, &metadata.uid);
    domain.meta.deletion_timestamp.clone_from(&facts.ended_at);
    describe(&mut domain.spec, facts, agent);
    let status = &mut domain.status;
    (status.status, status.reason) = state(facts.activity);
    status.interfaces = agent.interfaces.iter().filter_map(interface).collect();
    status.os_info = os_info(agent);
    status.fs_freeze_status.status = match agent.fs_freeze {
        Some(FreezeStatus::Frozen) => FsFreeze::FROZEN.to_owned(),
        Some(FreezeStatus::Thawed) => FsFreeze::THAWED.to_owned(),
        None => String::new(),
    };
    status.panic_count = i64::from(facts.panics);
    status.guest_panic_info = (facts.panics > 0).then(|| GuestPanicInfo {
        type_: "pvpanic".to_owned(),
        ..GuestPanicInfo::default()
    });
    domain
}

fn describe(spec: &mut DomainSpec, facts: &Facts, agent: &AgentReport) {
    let accelerated = if facts.is_kvm {
        DomainSpec::KVM
    } else {
        DomainSpec::SOFTWARE
    };
    spec.type_ = accelerated.to_owned();
    spec.uuid.clone_from(&facts.uuid);
    spec.memory = Memory {
        value: facts.memory_bytes / 1024,
        unit: "KiB".to_owned(),
    };
    spec.current_memory = Some(spec.memory.clone());
    let machine = facts.vmi.spec.domain.machine.as_ref();
    let machine = machine.map(|machine| machine.machine_type.as_str());
    let os = &mut spec.os.type_;
    (os.os, os.arch) = (OS.0.to_owned(), OS.1.to_owned());
    os.machine = machine
        .filter(|name| !name.is_empty())
        .unwrap_or(DEFAULT_MACHINE_TYPE)
        .to_owned();
    spec.features.acpi = Some(Present {});
    spec.devices = facts.devices.clone();
    if agent.connected {
        connect(&mut spec.devices);
    }
    let known = &mut spec.metadata.kubevirt;
    let grace_seconds = facts.vmi.spec.grace_period_seconds();
    known.grace_period = Some(GracePeriod {
        deletion_grace_period_seconds: i64::try_from(grace_seconds).unwrap_or(i64::MAX),
        deletion_timestamp: facts.shutdown_at.clone(),
        marked_for_graceful_shutdown: facts.marked_for_shutdown.then_some(true),
    });
    known.memory_dump = facts.dump.as_ref().map(dump);
    known.access_credential = facts.credentials.as_ref().map(|outcome| AccessCredential {
        succeeded: outcome.is_ok(),
        message: outcome.as_ref().err().cloned().unwrap_or_default(),
    });
}

fn state(activity: Activity) -> (LifeCycle, StateChangeReason) {
    match activity {
        Activity::Running => (LifeCycle::Running, StateChangeReason::Unknown),
        Activity::Paused(Paused::User) => (LifeCycle::Paused, StateChangeReason::User),
        Activity::Paused(Paused::IoError) => (LifeCycle::Paused, StateChangeReason::IoError),
        Activity::Ended(Ended::Shutdown) => (LifeCycle::Shutoff, StateChangeReason::Shutdown),
        Activity::Ended(Ended::Destroyed) => (LifeCycle::Shutoff, StateChangeReason::Destroyed),
        Activity::Ended(Ended::Failed) => (LifeCycle::Crashed, StateChangeReason::Crashed),
        Activity::Ended(Ended::Panicked) => (LifeCycle::Crashed, StateChangeReason::Panicked),
    }
}

/// Shows the agent's port as open.
fn connect(devices: &mut Devices) {
    let targets = devices.channels.iter_mut();
    for target in targets.filter_map(|channel| channel.target.as_mut()) {
        if target.name == ChannelTarget::GUEST_AGENT {
            target.state = ChannelTarget::CONNECTED.to_owned();
        }
    }
}

/// Interfaces of the guest that the outside could reach.
fn interface(interface: &Interface) -> Option<InterfaceStatus> {
    if interface.name == "lo" {
        return None;
    }
    let ips: Vec<String> = interface
        .addresses
        .iter()
        .map(|address| address.ip.clone())
        .collect();
    Some(InterfaceStatus {
        mac: interface.mac.clone().unwrap_or_default(),
        ip: ips.first().cloned().unwrap_or_default(),
        ips,
        interface_name: interface.name.clone(),
    })
}

fn os_info(agent: &AgentReport) -> GuestOsInfo {
    let Some(os) = agent.os.clone() else {
        return GuestOsInfo::default();
    };
    GuestOsInfo {
        name: os.name,
        kernel_release: os.kernel_release,
        version: os.version,
        pretty_name: os.pretty_name,
        version_id: os.version_id,
        kernel_version: os.kernel_version,
        machine: os.machine,
        id: os.id,
    }
}

fn dump(dump: &Dump) -> MemoryDump {
    MemoryDump {
        file_name: dump.file_name.clone(),
        start_timestamp: Some(dump.began.clone()),
        end_timestamp: dump.ended.clone(),
        completed: dump.ended.is_some(),
        failed: dump.failure.is_some(),
        failure_reason: dump.failure.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use api::Vmi;
    use proto::domain::{Domain, LifeCycle, StateChangeReason};
    use serde_json::json;
    use vmm::config::{
        Accel, BootSource, ConsolePortConfig, CpuConfig, MachineConfig, MemoryConfig, SmbiosConfig,
    };

    use super::domain;
    use crate::agent::{Address, AgentReport, FreezeStatus, Interface, OsInfo};
    use crate::domain::state::{Activity, Dump, Ended, Facts, Paused};
    use crate::domain::{Stage, Wish};

    fn facts() -> Facts {
        let vmi: Vmi = serde_json::from_value(json!({
            "metadata": {"name": "vm", "namespace": "ns", "uid": "1-2"},
            "spec": {"terminationGracePeriodSeconds": 7},
        }))
        .unwrap();
        let config = MachineConfig {
            name: "ns_vm".to_owned(),
            cpus: CpuConfig {
                sockets: 1,
                cores: 1,
                threads: 1,
                model: None,
                features: Vec::new(),
            },
            memory: MemoryConfig {
                len_bytes: 64 << 20,
                hugepage_bytes: None,
                prefault: false,
                shared: false,
            },
            boot: BootSource::Firmware {
                image: PathBuf::new(),
            },
            disks: Vec::new(),
            console_ports: vec![ConsolePortConfig {
                name: "org.qemu.guest_agent.0".to_owned(),
                socket: PathBuf::from("/agent"),
            }],
            rng: false,
            pvpanic: false,
            smbios: SmbiosConfig::default(),
            accel: Accel::Soft,
            start_paused: true,
        };
        let wish = Wish {
            vmi: Box::new(vmi.clone()),
            ..Wish::default()
        };
        Facts::new(&wish, vmi, &config)
    }

    fn shown(facts: &Facts) -> Domain {
        domain(facts, &AgentReport::default())
    }

    #[test]
    fn a_domain_tells_whose_it_is_and_how_it_may_end() {
        let shown = shown(&facts());
        assert_eq!(shown.spec.name, "ns_vm");
        assert_eq!(shown.spec.os.type_.machine, "q35");
        assert_eq!(shown.spec.current_memory.unwrap().value, 64 << 10);
        let known = &shown.spec.metadata.kubevirt;
        assert_eq!(known.uid, "1-2");
        let grace = known.grace_period.clone().unwrap();
        assert_eq!(grace.deletion_grace_period_seconds, 7);
        assert_eq!(grace.marked_for_graceful_shutdown, None);
        assert_eq!(shown.meta.deletion_timestamp, None);
    }

    #[test]
    fn states_have_the_reasons_that_phases_are_made_of() {
        for (activity, expected, stage) in [
            (
                Activity::Running,
                (LifeCycle::Running, StateChangeReason::Unknown),
                Stage::Alive,
            ),
            (
                Activity::Paused(Paused::User),
                (LifeCycle::Paused, StateChangeReason::User),
                Stage::Alive,
            ),
            (
                Activity::Paused(Paused::IoError),
                (LifeCycle::Paused, StateChangeReason::IoError),
                Stage::Alive,
            ),
            (
                Activity::Ended(Ended::Shutdown),
                (LifeCycle::Shutoff, StateChangeReason::Shutdown),
                Stage::Ended,
            ),
            (
                Activity::Ended(Ended::Destroyed),
                (LifeCycle::Shutoff, StateChangeReason::Destroyed),
                Stage::Ended,
            ),
            (
                Activity::Ended(Ended::Failed),
                (LifeCycle::Crashed, StateChangeReason::Crashed),
                Stage::Ended,
            ),
            (
                Activity::Ended(Ended::Panicked),
                (LifeCycle::Crashed, StateChangeReason::Panicked),
                Stage::Ended,
            ),
        ] {
            let mut facts = facts();
            facts.activity = activity;
            let status = shown(&facts).status;
            assert_eq!((status.status, status.reason), expected);
            assert_eq!(facts.stage(), stage);
            facts.is_deleted = true;
            assert_eq!(facts.stage(), Stage::Deleted);
        }
    }

    #[test]
    fn a_failed_dump_and_refused_credentials_are_told() {
        let mut facts = facts();
        facts.dump = Some(Dump {
            file_name: "x".to_owned(),
            ended: Some("2026-01-01T00:00:00Z".to_owned()),
            failure: Some("disk full".to_owned()),
            ..Dump::default()
        });
        facts.credentials = Some(Err("no user".to_owned()));
        let known = shown(&facts).spec.metadata.kubevirt;
        let dump = known.memory_dump.unwrap();
        assert!(dump.completed && dump.failed);
        assert_eq!(dump.failure_reason, "disk full");
        let credential = known.access_credential.unwrap();
        assert!(!credential.succeeded);
        assert_eq!(credential.message, "no user");
    }

    #[test]
    fn what_the_agent_says_is_told() {
        let interface = |name: &str, ip: &str| Interface {
            name: name.to_owned(),
            mac: Some("02:00:00:00:00:01".to_owned()),
            addresses: vec![Address {
                ip: ip.to_owned(),
                ..Address::default()
            }],
        };
        let report = AgentReport {
            connected: true,
            os: Some(OsInfo {
                id: "debian".to_owned(),
                ..OsInfo::default()
            }),
            fs_freeze: Some(FreezeStatus::Frozen),
            interfaces: vec![interface("lo", "127.0.0.1"), interface("eth0", "10.0.2.2")],
            ..AgentReport::default()
        };
        assert!(!shown(&facts()).agent_connected());
        let shown = domain(&facts(), &report);
        assert!(shown.agent_connected());
        assert_eq!(shown.status.os_info.id, "debian");
        assert_eq!(shown.status.fs_freeze_status.status, "frozen");
        assert_eq!(shown.status.interfaces.len(), 1);
        assert_eq!(shown.status.interfaces[0].ip, "10.0.2.2");
    }
}
