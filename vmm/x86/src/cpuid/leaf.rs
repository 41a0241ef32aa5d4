//! The leaves of CPUID (SDM vol. 2, CPUID), those of KVM's paravirtual interface included.

use super::{CpuModel, Dynamic, Register, Topology};
use crate::paging::PHYS_BITS;

/// Highest leaves that there are.
const BASIC_MAX: u32 = 0x16;
const HYPERVISOR_MAX: u32 = 0x4000_0010;
const EXTENDED_MAX: u32 = 0x8000_0008;

/// Family 6, model 0x36, stepping 1: see the module's description.
const SIGNATURE: u32 = 0x0003_0661;
/// Bytes in a cache line.
const LINE_BYTES: u32 = 64;
const LINEAR_BITS: u32 = 48;
/// Rate of the local APIC's timer, which a guest takes for the crystal's: 1 GHz, as KVM's.
const APIC_KHZ: u64 = 1_000_000;
const BRAND: &[u8; 48] = b"Ferrovirt CPU (in order, x86-64)\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
/// Bytes of the XSAVE area for x87 and SSE.
const XSAVE_BYTES: u32 = 576;
const XCR0: u32 = 3;
const OSXSAVE: u32 = 1 << 27;
/// More than one logical processor in a package.
const HTT: u32 = 1 << 28;

/// KVM_FEATURE_NOP_IO_DELAY, _CLOCKSOURCE2 and _CLOCKSOURCE_STABLE_BIT (Documentation/virt/kvm/x86/cpuid).
const KVM_FEATURES: u32 = 1 << 1 | 1 << 3 | 1 << 24;

/// A cache: level, type (1 data, 2 instruction, 3 both), ways, sets.
const CACHES: [(u32, u32, u32, u32); 4] = [
    (1, 1, 8, 64),
    (1, 2, 8, 64),
    (2, 3, 16, 1024),
    (3, 3, 16, 16384),
];

fn word(text: &[u8], at: usize) -> u32 {
    let byte = |n: usize| u32::from(text.get(at + n).copied().unwrap_or(0));
    byte(0) | byte(1) << 8 | byte(2) << 16 | byte(3) << 24
}

impl CpuModel {
    /// The answer to CPUID: EAX, EBX, ECX, EDX.
    #[must_use]
    pub fn leaf(
        &self,
        leaf: u32,
        subleaf: u32,
        topology: &Topology,
        dynamic: &Dynamic,
    ) -> [u32; 4] {
        match leaf {
            0 => vendor(BASIC_MAX, b"GenuntelineI"),
            1 => self.signature(topology, dynamic),
            // Cache descriptors: see leaf 4.
            2 => [0xff01, 0, 0, 0],
            4 => cache(subleaf, topology),
            6 => [self.bits(Register::Eax6), 0, 0, 0],
            7 if subleaf == 0 => [
                0,
                self.bits(Register::Ebx7),
                self.bits(Register::Ecx7),
                self.bits(Register::Edx7),
            ],
            0xb => levels(subleaf, topology, dynamic.apic_id),
            0xd => self.xsave(subleaf),
            0x15 => clock(dynamic.tsc_khz),
            0x16 => {
                let mhz = dynamic.tsc_khz / 1000;
                [mhz, mhz, 100, 0]
            }
            0x4000_0000 if self.has("hypervisor") => {
                let name = b"KVMKVMKVM\0\0\0";
                [HYPERVISOR_MAX, word(name, 0), word(name, 4), word(name, 8)]
            }
            0x4000_0001 if self.has("hypervisor") => [KVM_FEATURES, 0, 0, 0],
            0x4000_0010 if self.has("hypervisor") => [dynamic.tsc_khz, APIC_KHZ as u32, 0, 0],
            0x8000_0000 => [EXTENDED_MAX, 0, 0, 0],
            0x8000_0001 => [
                0,
                0,
                self.bits(Register::ExtEcx1),
                self.bits(Register::ExtEdx1),
            ],
            0x8000_0002..=0x8000_0004 => {
                let at = (leaf - 0x8000_0002) as usize * 16;
                [0, 4, 8, 12].map(|n| word(BRAND, at + n))
            }
            // Line size, ways (8: 16 ways) and KiB of the second level.
            0x8000_0006 => [0, 0, LINE_BYTES | 8 << 12 | 1024 << 16, 0],
            0x8000_0007 => [0, 0, 0, self.bits(Register::ExtEdx7)],
            0x8000_0008 => [PHYS_BITS | LINEAR_BITS << 8, 0, 0, 0],
            _ => [0; 4],
        }
    }

    /// Every leaf and subleaf that is not zero, for back ends that want CPUID as a table.
    #[must_use]
    pub fn leaves(&self, topology: &Topology, dynamic: &Dynamic) -> Vec<(u32, u32, [u32; 4])> {
        let ranges = [
            0..=BASIC_MAX,
            0x4000_0000..=HYPERVISOR_MAX,
            0x8000_0000..=EXTENDED_MAX,
        ];
        let mut table = Vec::new();
        for leaf in ranges.into_iter().flatten() {
            let subleaves = match leaf {
                4 => 5,
                0xb => 3,
                0xd => 2,
                _ => 1,
            };
            for subleaf in 0..subleaves {
                let answer = self.leaf(leaf, subleaf, topology, dynamic);
                if answer != [0; 4] || subleaf == 0 && leaf & 0xffff == 0 {
                    table.push((leaf, subleaf, answer));
                }
            }
        }
        table
    }

    fn bits(&self, register: Register) -> u32 {
        self.features()
            .filter(|f| f.register == register)
            .fold(0, |bits, f| bits | 1 << f.bit)
    }

    fn signature(&self, topology: &Topology, dynamic: &Dynamic) -> [u32; 4] {
        let in_package = (1u32 << topology.package_bits()).min(255);
        let ebx = (dynamic.apic_id & 0xff) << 24 | in_package << 16 | (LINE_BYTES / 8) << 8;
        let osxsave = if dynamic.osxsave && self.has("xsave") {
            OSXSAVE
        } else {
            0
        };
        let many = if topology.cores * topology.threads > 1 {
            HTT
        } else {
            0
        };
        [
            SIGNATURE,
            ebx,
            self.bits(Register::Ecx1) | osxsave,
            self.bits(Register::Edx1) | many,
        ]
    }

    fn xsave(&self, subleaf: u32) -> [u32; 4] {
        if subleaf == 0 && self.has("xsave") {
            [XCR0, XSAVE_BYTES, XSAVE_BYTES, 0]
        } else {
            [0; 4]
        }
    }
}

/// Vendor strings are read in the order EBX, EDX, ECX; `name` is in the order of the registers.
fn vendor(max: u32, name: &[u8; 12]) -> [u32; 4] {
    [max, word(name, 0), word(name, 4), word(name, 8)]
}

/// Deterministic cache parameters.
fn cache(subleaf: u32, topology: &Topology) -> [u32; 4] {
    let Some(&(level, kind, ways, sets)) = CACHES.get(subleaf as usize) else {
        return [0; 4];
    };
    let shared_bits = if level == 3 {
        topology.package_bits()
    } else {
        topology.thread_bits()
    };
    let core_bits = topology.package_bits() - topology.thread_bits();
    let eax = kind
        | level << 5
        | 1 << 8
        | ((1u32 << shared_bits) - 1).min(0xfff) << 14
        | ((1u32 << core_bits) - 1).min(0x3f) << 26;
    [eax, (ways - 1) << 22 | (LINE_BYTES - 1), sets - 1, 0]
}

/// Extended topology.
fn levels(subleaf: u32, topology: &Topology, apic_id: u32) -> [u32; 4] {
    let (bits, count, kind) = match subleaf {
        0 => (topology.thread_bits(), topology.threads, 1),
        1 => (
            topology.package_bits(),
            topology.threads * topology.cores,
            2,
        ),
        _ => return [0, 0, subleaf, apic_id],
    };
    [bits, count & 0xffff, subleaf | kind << 8, apic_id]
}

/// TSC rate as a ratio to the crystal. Guests multiply crystal kHz by the numerator in 32 bits, so the
/// ratio is in MHz and the rest goes into a crystal of nearly 1 GHz.
fn clock(tsc_khz: u32) -> [u32; 4] {
    let mhz = tsc_khz / 1000;
    if mhz == 0 || u64::from(mhz) * (APIC_KHZ + 1000) > u64::from(u32::MAX) {
        return [0; 4];
    }
    let crystal_khz = u64::from(tsc_khz) * 1000 / u64::from(mhz);
    [1000, mhz, (crystal_khz * 1000) as u32, 0]
}
