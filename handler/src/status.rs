//! What the status of an instance is to be, from what is seen of its machine.
//!
//! Pure: the same input gives the same status, and a status that says what it should stays as it is, times included.
//! [`patch`] turns the difference into a JSON patch.

use std::collections::BTreeMap;

use api::condition::{self, kind, reason};
use api::guest_agent::GuestAgentInfo;
use api::status::{Phase, SELINUX_NONE, VmiStatus};
use api::{Quantity, Vmi};
use jiff::Timestamp;
use proto::domain::{Domain, FsFreeze, GuestOsInfo};

use crate::plan::{Death, Machine};

mod conditions;
mod interfaces;
mod migratable;
pub mod patch;
mod phase;
mod text;
mod volumes;

pub use text::{MESSAGE_CHARS_MAX, bounded};

/// What is known beside the instance and its domain.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Why the instance has failed although its machine didn't say so.
    pub death: Option<&'a Death>,
    /// Whether the machine is as the instance wants it.
    pub sync: SyncState<'a>,
    /// Checksums of container disks and of the kernel boot container's files, by volume or file name.
    pub checksums: &'a BTreeMap<String, u32>,
    /// What the guest agent can do, when it was asked.
    pub agent: Option<&'a GuestAgentInfo>,
    /// Why machines of this node are emulated in software.
    pub emulation: &'a Emulation,
}

/// Whether the machine is as the instance wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncState<'a> {
    /// Nothing was tried; what the status says stays.
    Untried,
    /// It is.
    Done,
    /// It isn't; the text says why.
    Failed(&'a str),
}

/// Why machines of a node are emulated in software.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Emulation {
    /// Whether the cluster or an operator wants it so.
    pub is_requested: bool,
    /// What was measured, for people: why hardware isn't used, and how fast it would have been.
    pub measured: Option<String>,
}

/// Names under which [`Facts::checksums`] has the files of a kernel boot container. No volume has such names.
pub mod kernel_file {
    /// The kernel.
    pub const KERNEL: &str = "kernel-boot/kernel";
    /// The initial RAM disk.
    pub const INITRD: &str = "kernel-boot/initrd";
}

/// Returns the status of an instance at `now` (§2.5, §2.6).
///
/// `domain` is the instance's own, never one of an earlier instance of the same name. A final instance keeps its status.
#[must_use]
pub fn next_status(
    now: Timestamp,
    vmi: &Vmi,
    domain: Option<&Domain>,
    facts: &Facts<'_>,
) -> VmiStatus {
    let mut status = vmi.status.clone();
    if status.phase.is_final() {
        return status;
    }
    let now = rfc3339(now);
    if let Some(domain) = domain {
        describe(&mut status, vmi, domain, facts);
    }
    conditions::set_all(&mut status, vmi, domain, facts, &now);
    let (next, why) = phase::next(vmi, domain, facts.death);
    if next == Phase::Running && status.phase != next {
        conditions::runs(&mut status.conditions, vmi, &now);
    }
    status.enter_phase(next, &now);
    if let Some(why) = why {
        why.clone_into(&mut status.reason);
    }
    if next.is_final() {
        forget_what_ended(&mut status);
        conditions::ends(&mut status.conditions, &now);
    }
    status
}

/// Returns a time as Kubernetes writes it, in whole seconds.
#[must_use]
pub fn rfc3339(at: Timestamp) -> String {
    Timestamp::from_second(at.as_second())
        .unwrap_or(at)
        .to_string()
}

/// Copies what the domain tells.
fn describe(status: &mut VmiStatus, vmi: &Vmi, domain: &Domain, facts: &Facts<'_>) {
    if status.selinux_context.is_empty() {
        SELINUX_NONE.clone_into(&mut status.selinux_context);
    }
    let machine = bounded(&domain.spec.os.type_.machine, text::NAME_CHARS_MAX);
    if !machine.is_empty() {
        status.machine.get_or_insert_default().machine_type = machine;
    }
    describe_memory(status, vmi, domain);
    describe_guest(status, domain);
    interfaces::describe(status, vmi, domain);
    volumes::describe(status, vmi, domain, facts.checksums);
}

fn describe_memory(status: &mut VmiStatus, vmi: &Vmi, domain: &Domain) {
    let requested = guest_memory(vmi);
    let current = domain.spec.current_memory.as_ref();
    let current = current.and_then(|memory| bytes(memory.value, &memory.unit));
    if requested.is_none() && current.is_none() {
        return;
    }
    let memory = status.memory.get_or_insert_default();
    if memory.guest_at_boot.is_none() {
        memory.guest_at_boot.clone_from(&requested);
    }
    if let Some(current) = current
        && memory.guest_current.as_ref().and_then(Quantity::units) != Some(current)
    {
        let same_as_wanted = requested
            .as_ref()
            .filter(|wanted| wanted.units() == Some(current));
        let current = same_as_wanted.cloned();
        memory.guest_current = Some(current.unwrap_or_else(|| binary(domain)));
    }
    if requested.is_some() && memory.guest_requested != requested {
        memory.guest_requested = requested;
    }
}

/// Returns the memory that an instance wants its guest to have.
fn guest_memory(vmi: &Vmi) -> Option<Quantity> {
    let domain = &vmi.spec.domain;
    let asked = domain
        .memory
        .as_ref()
        .and_then(|memory| memory.guest.as_ref());
    let resources = &domain.resources;
    asked
        .or_else(|| resources.requests.get("memory"))
        .or_else(|| resources.limits.get("memory"))
        .cloned()
}

/// Returns the memory of a domain as a quantity of Ki or of bytes.
fn binary(domain: &Domain) -> Quantity {
    let memory = domain.spec.current_memory.clone().unwrap_or_default();
    let text = match memory.unit.as_str() {
        "KiB" => format!("{}Ki", memory.value),
        unit => bytes(memory.value, unit).unwrap_or_default().to_string(),
    };
    text.parse().unwrap_or_else(|_| Quantity::from_units(0))
}

/// Returns an amount of libvirt's units in bytes, unless it is absurd.
fn bytes(value: u64, unit: &str) -> Option<u64> {
    let unit: u64 = match unit {
        "b" | "bytes" | "B" => 1,
        "KiB" | "k" | "" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        _ => return None,
    };
    value.checked_mul(unit).filter(|bytes| *bytes < 1 << 62)
}

fn describe_guest(status: &mut VmiStatus, domain: &Domain) {
    let told = &domain.status.os_info;
    if *told != GuestOsInfo::default() {
        let os = &mut status.guest_os_info;
        for (field, value) in [
            (&mut os.name, &told.name),
            (&mut os.kernel_release, &told.kernel_release),
            (&mut os.version, &told.version),
            (&mut os.pretty_name, &told.pretty_name),
            (&mut os.version_id, &told.version_id),
            (&mut os.kernel_version, &told.kernel_version),
            (&mut os.machine, &told.machine),
            (&mut os.id, &told.id),
        ] {
            *field = bounded(value, text::NAME_CHARS_MAX);
        }
    }
    match domain.status.fs_freeze_status.status.as_str() {
        FsFreeze::FROZEN => api::status::FS_FROZEN.clone_into(&mut status.fs_freeze_status),
        FsFreeze::THAWED => status.fs_freeze_status.clear(),
        _ => {}
    }
}

/// Removes what was true of a machine only while it ran.
fn forget_what_ended(status: &mut VmiStatus) {
    condition::remove(&mut status.conditions, kind::PAUSED);
    condition::remove(&mut status.conditions, kind::AGENT_CONNECTED);
    condition::remove(&mut status.conditions, kind::AGENT_VERSION_NOT_SUPPORTED);
    status.fs_freeze_status.clear();
}

/// Returns the text of an event about the end of an instance.
#[must_use]
pub fn end_of(vmi: &Vmi, domain: Option<&Domain>, death: Option<&Death>) -> Option<String> {
    match (phase::next(vmi, domain, death).0, death) {
        (Phase::Succeeded, _) => Some(api::events::message::SHUT_DOWN.to_owned()),
        (Phase::Failed, Some(death)) => {
            let text = format!("{} ({death})", api::events::message::CRASHED);
            Some(bounded(&text, MESSAGE_CHARS_MAX))
        }
        (Phase::Failed, None) => Some(api::events::message::CRASHED.to_owned()),
        _ => None,
    }
}

/// Whether the domain can be asked about its guest.
fn is_alive(domain: Option<&Domain>) -> bool {
    domain.is_some_and(|domain| Machine::of(domain) == Machine::Alive)
}

/// Reasons of `status.reason` that are ours, beside [`Death::reason`].
pub mod ended {
    /// The guest crashed, or its processors cannot go on.
    pub const CRASHED: &str = "GuestCrashed";
    /// The guest panicked.
    pub const PANICKED: &str = "GuestPanicked";
    /// The machine didn't start.
    pub const NOT_STARTED: &str = "MachineNotStarted";
    /// The guest didn't power off when it was asked to.
    pub const KILLED: &str = "Killed";
    /// The rest of memory was lost on the way here.
    pub const POSTCOPY_FAILED: &str = "PostcopyFailed";
}

/// The reason of the condition `SoftwareEmulation`.
fn emulation_reason(emulation: &Emulation) -> &'static str {
    if emulation.is_requested {
        reason::EMULATION_REQUESTED
    } else {
        reason::KVM_UNUSABLE
    }
}

#[cfg(test)]
mod tests;
