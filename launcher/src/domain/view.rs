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
