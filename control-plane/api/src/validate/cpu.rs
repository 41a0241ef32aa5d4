//! Processors.

use super::{Findings, MAX_VCPUS};
use crate::domain::{Cpu, DomainSpec};
use crate::field::FieldPath;

const POLICIES: [&str; 5] = ["force", "require", "optional", "disable", "forbid"];

pub(super) fn check(domain: &DomainSpec, findings: &mut Findings) {
    let Some(cpu) = &domain.cpu else { return };
    let path = FieldPath::new("spec.domain.cpu");
    check_topology(cpu, domain, &path, findings);
    if let (Some(max), Some(sockets)) = (cpu.max_sockets, cpu.sockets)
        && max < sockets
    {
        findings.add(
            path.child("maxSockets"),
            format!("{max} is below sockets ({sockets}): raise it or leave it out"),
        );
    }
    for (index, feature) in cpu.features.iter().enumerate() {
        let path = path.child("features").index(index);
        if feature.name.is_empty() {
            findings.required(
                path.child("name"),
                "required: name a CPU feature such as avx2",
            );
        }
        findings.one_of(path.child("policy"), &feature.policy, &POLICIES);
    }
}

fn check_topology(cpu: &Cpu, domain: &DomainSpec, path: &FieldPath, findings: &mut Findings) {
    let levels = [
        ("sockets", cpu.sockets),
        ("cores", cpu.cores),
        ("threads", cpu.threads),
    ];
    let zero = levels.iter().find(|(_, count)| *count == Some(0));
    if let Some((level, _)) = zero {
        let path = if *level == "sockets" && requests_no_cpu(domain) {
            FieldPath::new("spec.domain.resources.requests.cpu")
        } else {
            path.child(level)
        };
        return findings.add(
            path,
            "a machine with 0 CPUs cannot run: use at least 1, or leave the field out",
        );
    }
    let vcpus = levels
        .iter()
        .map(|(_, count)| u64::from(count.unwrap_or(1)))
        .try_fold(1_u64, u64::checked_mul);
    if vcpus.is_none_or(|vcpus| vcpus > MAX_VCPUS) {
        findings.add(
            path.clone(),
            format!("sockets * cores * threads is above {MAX_VCPUS}: lower one of them"),
        );
    }
}

/// Whether the zero came from the pod's resources by defaulting.
fn requests_no_cpu(domain: &DomainSpec) -> bool {
    domain
        .resources
        .limit_or_request("cpu")
        .is_some_and(|cpus| cpus.units() == Some(0))
}
