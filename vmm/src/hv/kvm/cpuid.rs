//! CPUID under KVM: the model's leaves, without the features that the host cannot give.

use kvm_bindings::{CpuId, KVM_CPUID_FLAG_SIGNIFCANT_INDEX, kvm_cpuid_entry2};
use kvm_ioctls::VcpuFd;
use x86::cpuid::{CpuModel, Dynamic, Topology};

use super::host;
use crate::hv::HvError;

/// Leaves whose registers are sets of features.
const FEATURE_LEAVES: [u32; 5] = [1, 7, 0xd, 0x4000_0001, 0x8000_0001];
/// Features of leaf 1 that KVM gives without naming them: TSC deadline timer and x2APIC.
const ALWAYS_1_ECX: u32 = 1 << 24 | 1 << 21;
/// Leaves with subleaves.
const INDEXED_LEAVES: [u32; 4] = [4, 7, 0xb, 0xd];
/// The XSAVE area of x87 and SSE.
const XCR0: u64 = 3;

/// Returns the table for the vCPU with `apic_id`.
pub(super) fn table(
    model: &CpuModel,
    topology: &Topology,
    apic_id: u32,
    supported: &CpuId,
    fd: &VcpuFd,
) -> Result<CpuId, HvError> {
    let tsc_khz = fd.get_tsc_khz().map_err(host("read the TSC's frequency"))?;
    let dynamic = Dynamic {
        apic_id,
        osxsave: false,
        xcr0: XCR0,
        tsc_khz,
    };
    let entries: Vec<_> = model
        .leaves(topology, &dynamic)
        .into_iter()
        .map(|(leaf, subleaf, answer)| {
            entry(leaf, subleaf, filter(leaf, subleaf, answer, supported))
        })
        .collect();
    CpuId::from_entries(&entries).map_err(|error| HvError::Model {
        field: "model",
        problem: format!("it has too many CPUID leaves for KVM: {error:?}"),
    })
}

fn entry(leaf: u32, subleaf: u32, [eax, ebx, ecx, edx]: [u32; 4]) -> kvm_cpuid_entry2 {
    kvm_cpuid_entry2 {
        function: leaf,
        index: subleaf,
        flags: if INDEXED_LEAVES.contains(&leaf) {
            KVM_CPUID_FLAG_SIGNIFCANT_INDEX
        } else {
            0
        },
        eax,
        ebx,
        ecx,
        edx,
        ..kvm_cpuid_entry2::default()
    }
}

/// Takes away the features that the host does not support.
fn filter(leaf: u32, subleaf: u32, answer: [u32; 4], supported: &CpuId) -> [u32; 4] {
    if !FEATURE_LEAVES.contains(&leaf) {
        return answer;
    }
    let host = supported
        .as_slice()
        .iter()
        .find(|entry| entry.function == leaf && entry.index == subleaf);
    let [eax, ebx, ecx, edx] = host.map_or([0; 4], |h| [h.eax, h.ebx, h.ecx, h.edx]);
    let [a, b, c, d] = answer;
    match (leaf, subleaf) {
        // Signature and numbers are the model's.
        (1, _) => [a, b, c & (ecx | ALWAYS_1_ECX), d & edx],
        (7, _) => [a, b & ebx, c & ecx, d & edx],
        // Sizes stay; only the instructions depend on the host.
        (0xd, 1) => [a & eax, b, c, d],
        (0xd, _) => answer,
        (0x4000_0001, _) => [a & eax, b, c, d],
        _ => [a, b, c & ecx, d & edx],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_that_the_host_lacks_are_taken_away() {
        let host = entry(7, 0, [0, 0x0f, 0, 0]);
        let supported = CpuId::from_entries(&[host]).unwrap();
        assert_eq!(
            filter(7, 0, [1, 0xff, 0xff, 0], &supported),
            [1, 0x0f, 0, 0]
        );
    }

    #[test]
    fn numbers_are_the_models() {
        let supported = CpuId::from_entries(&[]).unwrap();
        assert_eq!(filter(0x15, 0, [1, 2, 3, 4], &supported), [1, 2, 3, 4]);
    }
}
