//! Processors and memory.

use super::{Cluster, gate_text};
use crate::domain::{Cpu, DomainSpec};
use crate::features::gate;
use crate::field::FieldPath;
use crate::quantity::Quantity;
use crate::validate::Findings;

/// Least memory request, bytes.
const MIN_MEMORY_REQUEST: u64 = 1_000_000;

pub(super) fn check(domain: &DomainSpec, cluster: &Cluster<'_>, findings: &mut Findings) {
    let resources = FieldPath::new("spec.domain.resources");
    let requested = domain.resources.requests.get("cpu");
    let limit = domain.resources.limits.get("cpu");
    if let (Some(requested), Some(limit)) = (requested, limit)
        && requested > limit
        && limit.units() != Some(0)
    {
        let text =
            format!("{requested} is above limits.cpu ({limit}): lower one or raise the other");
        findings.add(resources.child("requests.cpu"), text);
    }
    check_machine_type(domain, cluster, findings);
    let Some(cpu) = &domain.cpu else { return };
    let path = FieldPath::new("spec.domain.cpu");
    let is_dedicated = cpu.dedicated_cpu_placement == Some(true);
    if is_dedicated {
        check_dedicated(domain, cpu, findings);
    } else if cpu.isolate_emulator_thread == Some(true) {
        findings.add(
            path.child("isolateEmulatorThread"),
            "needs dedicatedCpuPlacement: true: set it or remove this field",
        );
    }
    let passes_numa = cpu
        .numa
        .as_ref()
        .is_some_and(|numa| numa.guest_mapping_passthrough.is_some());
    if passes_numa {
        check_numa(domain, is_dedicated, &path, findings);
    }
    if cpu.realtime.is_some() {
        if !is_dedicated {
            findings.required(
                path.child("dedicatedCpuPlacement"),
                "required with realtime: set it to true",
            );
        }
        if !passes_numa {
            findings.required(
                path.child("numa.guestMappingPassthrough"),
                "required with realtime: set it to {}",
            );
        }
    }
}

/// The machine types that the cluster allows, as patterns with `*`.
fn check_machine_type(domain: &DomainSpec, cluster: &Cluster<'_>, findings: &mut Findings) {
    let of_architecture = cluster.config.architecture_configuration.as_ref();
    let of_architecture = of_architecture
        .and_then(|of| of.amd64.as_ref())
        .map(|of| &of.emulated_machines)
        .filter(|patterns| !patterns.is_empty());
    let patterns = of_architecture.unwrap_or(&cluster.config.emulated_machines);
    let Some(machine) = &domain.machine else {
        return;
    };
    let name = machine.machine_type.as_str();
    let fits = |pattern: &String| match pattern.split_once('*') {
        Some((start, end)) => {
            name.len() >= start.len() + end.len() && name.starts_with(start) && name.ends_with(end)
        }
        None => name == pattern,
    };
    if !name.is_empty() && !patterns.is_empty() && !patterns.iter().any(fits) {
        let text = format!(
            "the cluster doesn't allow {name:?}: use one of {}",
            patterns.join(", ")
        );
        findings.one_of_text(FieldPath::new("spec.domain.machine.type"), text);
    }
}

fn check_dedicated(domain: &DomainSpec, cpu: &Cpu, findings: &mut Findings) {
    let resources = FieldPath::new("spec.domain.resources");
    let (requests, limits) = (&domain.resources.requests, &domain.resources.limits);
    for (field, amount) in [
        ("requests.cpu", requests.get("cpu")),
        ("limits.cpu", limits.get("cpu")),
    ] {
        if let Some(amount) = amount.filter(|amount| !is_whole(amount)) {
            let text = format!("{amount} is no whole number, which dedicated CPUs need: round it");
            findings.add(resources.child(field), text);
        }
    }
    for resource in ["memory", "cpu"] {
        if let (Some(request), Some(limit)) = (requests.get(resource), limits.get(resource))
            && request != limit
            && request.units() != Some(0)
        {
            let text = format!(
                "{request} differs from limits.{resource} ({limit}): dedicated CPUs need both alike"
            );
            findings.add(resources.child("requests").child(resource), text);
        }
    }
    check_dedicated_count(domain, cpu, findings);
    if cpu.threads.is_some_and(|threads| threads > 2) {
        findings.add(
            FieldPath::new("spec.domain.cpu.threads"),
            "dedicated CPUs have at most two threads a core: use 1 or 2",
        );
    }
}

/// Processors that are given in both ways must be as many.
fn check_dedicated_count(domain: &DomainSpec, cpu: &Cpu, findings: &mut Findings) {
    let levels = [cpu.sockets, cpu.cores, cpu.threads];
    let vcpus = levels
        .iter()
        .map(|count| u64::from(count.unwrap_or(1)))
        .try_fold(1_u64, u64::checked_mul);
    let given = [&domain.resources.requests, &domain.resources.limits]
        .map(|amounts| amounts.get("cpu").and_then(Quantity::units))
        .into_iter()
        .flatten()
        .filter(|count| *count > 0);
    let mut given = given.peekable();
    if given.peek().is_some() && given.all(|count| Some(count) != vcpus) {
        findings.add(
            FieldPath::new("spec.domain.cpu.dedicatedCpuPlacement"),
            "sockets * cores * threads differs from the requested CPUs: give one of them only",
        );
    }
}

/// Whether an amount is a whole number: rounding it up to thousandths of units changes nothing.
fn is_whole(amount: &Quantity) -> bool {
    amount
        .units()
        .is_some_and(|units| Quantity::from_units(units) == *amount)
}

fn check_numa(domain: &DomainSpec, is_dedicated: bool, cpu: &FieldPath, findings: &mut Findings) {
    let path = cpu.child("numa.guestMappingPassthrough");
    if !is_dedicated {
        findings.add(path.clone(), "needs dedicatedCpuPlacement: true: set it");
    }
    let memory = domain.memory.as_ref();
    if memory.is_none_or(|memory| memory.hugepages.is_none()) {
        findings.add(path, "needs memory.hugepages: set a page size");
    }
}

pub(super) fn check_memory(domain: &DomainSpec, cluster: &Cluster<'_>, findings: &mut Findings) {
    if let Some(request) = domain.resources.requests.get("memory")
        && let Some(bytes @ 1..) = request.units()
        && bytes < MIN_MEMORY_REQUEST
    {
        let path = FieldPath::new("spec.domain.resources.requests.memory");
        findings.add(path, format!("{request} is below 1M: give at least 1M"));
    }
    let memory = FieldPath::new("spec.domain.memory");
    let Some(given) = &domain.memory else { return };
    if given.reserved_overhead.is_some() && !cluster.is_on(gate::RESERVED_OVERHEAD_MEMLOCK) {
        let text = gate_text(gate::RESERVED_OVERHEAD_MEMLOCK);
        findings.forbidden(memory.child("reservedOverhead"), text);
    }
    if let (Some(guest), Some(max)) = (&given.guest, &given.max_guest)
        && guest > max
    {
        let text = format!("{max} is below the guest's memory ({guest}): raise it");
        findings.add(memory.child("maxGuest"), text);
    }
}
