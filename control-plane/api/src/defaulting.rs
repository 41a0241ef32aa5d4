//! What an instance means where it says nothing.

use uuid::Uuid;

pub mod admission;
mod patch;

pub use patch::patch;

use crate::domain::{Cpu, Firmware, Machine, Memory};
use crate::vmi::Vmi;

/// Namespace from which KubeVirt derives a machine's system UUID by name (RFC 4122 version 5), so that
/// a machine keeps its identity over restarts and over a change of implementation.
const FIRMWARE_UUID_NAMESPACE: Uuid = Uuid::from_u128(0x6a1a_24a1_4061_4607_8bf4_a396_3d0c_5895);

/// Returns the instance with its defaults filled in: CPU topology and guest memory from the pod's
/// resources, machine type, architecture, grace period, and a system UUID that follows from the name.
///
/// What cannot be derived stays empty for validation to report.
#[must_use]
pub fn default_vmi(vmi: &Vmi) -> Vmi {
    let mut vmi = vmi.clone();
    let spec = &mut vmi.spec;
    let grace_period_seconds = spec.grace_period_seconds();
    spec.termination_grace_period_seconds = Some(grace_period_seconds);
    if spec.architecture.is_empty() {
        "amd64".clone_into(&mut spec.architecture);
    }
    let domain = &mut spec.domain;
    let machine = domain.machine.get_or_insert_with(Machine::default);
    if machine.machine_type.is_empty() {
        "q35".clone_into(&mut machine.machine_type);
    }
    let firmware = domain.firmware.get_or_insert_with(Firmware::default);
    if firmware.uuid.is_empty() {
        firmware.uuid = system_uuid(&vmi.metadata.name).to_string();
    }
    let cpu_count = domain
        .resources
        .limit_or_request("cpu")
        .and_then(|cpus| cpus.units());
    default_cpu(domain.cpu.get_or_insert_with(Cpu::default), cpu_count);
    let memory = domain.memory.get_or_insert_with(Memory::default);
    if memory.guest.is_none() {
        let resources = &domain.resources;
        memory.guest = resources
            .requests
            .get("memory")
            .or_else(|| resources.limits.get("memory"))
            .cloned();
    }
    vmi
}

/// Returns the system UUID that follows from a machine's name.
pub fn system_uuid(name: &str) -> Uuid {
    Uuid::new_v5(&FIRMWARE_UUID_NAMESPACE, name.as_bytes())
}

/// Sockets follow the pod's CPU limit or request unless some part of the topology is given.
fn default_cpu(cpu: &mut Cpu, cpu_count: Option<u64>) {
    if cpu.sockets.is_none() && cpu.cores.is_none() && cpu.threads.is_none() {
        cpu.sockets = cpu_count.map(|count| u32::try_from(count).unwrap_or(u32::MAX));
    }
    cpu.sockets.get_or_insert(1);
    cpu.cores.get_or_insert(1);
    cpu.threads.get_or_insert(1);
}

#[cfg(test)]
mod tests;
