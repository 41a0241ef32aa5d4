//! Guest memory and the pod's resources.

use super::Findings;
use crate::domain::{DomainSpec, Hugepages};
use crate::field::FieldPath;

/// Least guest memory; a kernel and its initial RAM disk don't fit in less.
pub const MIN_GUEST_MEMORY_BYTES: u64 = 16 << 20;
/// Most guest memory, the reach of the board's address map.
pub const MAX_GUEST_MEMORY_BYTES: u64 = 1 << 40;

pub(super) fn check(domain: &DomainSpec, findings: &mut Findings) {
    let path = guest_memory_path(domain);
    let guest = domain
        .memory
        .as_ref()
        .and_then(|memory| memory.guest.as_ref());
    let Some(guest) = guest else {
        return findings.required(
            path,
            "required: give the size of guest memory, such as 256Mi",
        );
    };
    let Some(bytes) = guest.units() else {
        return findings.add(
            path,
            format!("{guest} is negative: give a size such as 256Mi"),
        );
    };
    if bytes < MIN_GUEST_MEMORY_BYTES {
        findings.add(
            path,
            format!("{guest} is below the minimum of 16Mi: give at least 16Mi"),
        );
    } else if bytes > MAX_GUEST_MEMORY_BYTES {
        findings.add(
            path,
            format!("{guest} is above the maximum of 1Ti: give at most 1Ti"),
        );
    } else if let Some(hugepages) = domain
        .memory
        .as_ref()
        .and_then(|memory| memory.hugepages.as_ref())
    {
        check_hugepages(hugepages, bytes, findings);
    }
    check_resources(domain, bytes, findings);
}

/// Returns the field that guest memory was taken from by defaulting, for messages about its size.
pub fn guest_memory_path(domain: &DomainSpec) -> FieldPath {
    let guest = domain
        .memory
        .as_ref()
        .and_then(|memory| memory.guest.as_ref());
    let resources = &domain.resources;
    for (field, amount) in [
        ("requests", resources.requests.get("memory")),
        ("limits", resources.limits.get("memory")),
    ] {
        // Defaulting copies the amount, text and all; a user's own text seldom is the same.
        if amount.is_some() && amount.map(|a| a.as_str()) == guest.map(|g| g.as_str()) {
            return FieldPath::new("spec.domain.resources")
                .child(field)
                .child("memory");
        }
    }
    FieldPath::new("spec.domain.memory.guest")
}

fn check_hugepages(hugepages: &Hugepages, guest_bytes: u64, findings: &mut Findings) {
    let path = FieldPath::new("spec.domain.memory.hugepages.pageSize");
    let page_bytes = hugepages.page_size.as_ref().and_then(|size| size.units());
    match page_bytes {
        Some(page_bytes @ (0x20_0000 | 0x4000_0000)) => {
            if !guest_bytes.is_multiple_of(page_bytes) {
                findings.add(
                    path,
                    "guest memory is no multiple of the page size: round it up",
                );
            }
        }
        _ => findings.add(path, "use 2Mi or 1Gi"),
    }
}

fn check_resources(domain: &DomainSpec, guest_bytes: u64, findings: &mut Findings) {
    let resources = FieldPath::new("spec.domain.resources");
    for (field, amounts) in [
        ("requests", &domain.resources.requests),
        ("limits", &domain.resources.limits),
    ] {
        for (name, amount) in amounts {
            if amount.units().is_none() {
                let path = resources.child(field).child(name);
                findings.add(path, format!("{amount} is negative: give zero or more"));
            }
        }
    }
    let limit = domain.resources.limits.get("memory");
    if let (Some(limit), Some(request)) = (limit, domain.resources.requests.get("memory"))
        && request > limit
    {
        let path = resources.child("requests").child("memory");
        findings.add(
            path,
            format!("{request} is above limits.memory ({limit}): lower one or raise the other"),
        );
    }
    if let Some(limit) = limit
        && limit.units().is_some_and(|limit| limit < guest_bytes)
    {
        let path = FieldPath::new("spec.domain.memory.guest");
        findings.add(
            path,
            format!("guest memory is above limits.memory ({limit}): raise the limit"),
        );
    }
}
