//! Features by name, with their CPUID bits (SDM vol. 2, CPUID; APM vol. 3 appendix E).

/// A register of a CPUID leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// Leaf 1, ECX.
    Ecx1,
    /// Leaf 1, EDX.
    Edx1,
    /// Leaf 6, EAX.
    Eax6,
    /// Leaf 7, subleaf 0, EBX.
    Ebx7,
    /// Leaf 7, subleaf 0, ECX.
    Ecx7,
    /// Leaf 7, subleaf 0, EDX.
    Edx7,
    /// Leaf 0x8000_0001, ECX.
    ExtEcx1,
    /// Leaf 0x8000_0001, EDX.
    ExtEdx1,
    /// Leaf 0x8000_0007, EDX.
    ExtEdx7,
}

/// A feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// Name, as libvirt spells it.
    pub name: &'static str,
    /// Where CPUID tells it.
    pub register: Register,
    /// Bit in that register.
    pub bit: u8,
    /// Another spelling in use, or the same again.
    alias: &'static str,
}

const fn plain(name: &'static str, register: Register, bit: u8) -> Feature {
    Feature {
        name,
        register,
        bit,
        alias: name,
    }
}

const fn also(name: &'static str, alias: &'static str, register: Register, bit: u8) -> Feature {
    Feature {
        name,
        register,
        bit,
        alias,
    }
}

use Register::{Eax6, Ebx7, Ecx1, Ecx7, Edx1, Edx7, ExtEcx1, ExtEdx1, ExtEdx7};

/// Every feature that the software CPU knows.
pub(super) static FEATURES: &[Feature] = &[
    plain("fpu", Edx1, 0),
    plain("de", Edx1, 2),
    plain("pse", Edx1, 3),
    plain("tsc", Edx1, 4),
    plain("msr", Edx1, 5),
    plain("pae", Edx1, 6),
    plain("mce", Edx1, 7),
    plain("cx8", Edx1, 8),
    plain("apic", Edx1, 9),
    plain("sep", Edx1, 11),
    plain("mtrr", Edx1, 12),
    plain("pge", Edx1, 13),
    plain("mca", Edx1, 14),
    plain("cmov", Edx1, 15),
    plain("pat", Edx1, 16),
    plain("pse36", Edx1, 17),
    also("clflush", "clfsh", Edx1, 19),
    plain("mmx", Edx1, 23),
    plain("fxsr", Edx1, 24),
    plain("sse", Edx1, 25),
    plain("sse2", Edx1, 26),
    also("pni", "sse3", Ecx1, 0),
    also("pclmuldq", "pclmulqdq", Ecx1, 1),
    plain("ssse3", Ecx1, 9),
    plain("cx16", Ecx1, 13),
    plain("pcid", Ecx1, 17),
    also("sse4.1", "sse4_1", Ecx1, 19),
    also("sse4.2", "sse4_2", Ecx1, 20),
    plain("x2apic", Ecx1, 21),
    plain("movbe", Ecx1, 22),
    plain("popcnt", Ecx1, 23),
    also("tsc-deadline", "tsc_deadline_timer", Ecx1, 24),
    plain("aes", Ecx1, 25),
    plain("xsave", Ecx1, 26),
    also("rdrand", "rdrnd", Ecx1, 30),
    plain("hypervisor", Ecx1, 31),
    plain("arat", Eax6, 2),
    plain("fsgsbase", Ebx7, 0),
    also("tsc_adjust", "tsc-adjust", Ebx7, 1),
    plain("bmi1", Ebx7, 3),
    plain("smep", Ebx7, 7),
    plain("bmi2", Ebx7, 8),
    plain("erms", Ebx7, 9),
    plain("invpcid", Ebx7, 10),
    plain("rdseed", Ebx7, 18),
    plain("adx", Ebx7, 19),
    plain("smap", Ebx7, 20),
    plain("umip", Ecx7, 2),
    plain("fsrm", Edx7, 4),
    also("lahf_lm", "lahf-lm", ExtEcx1, 0),
    also("abm", "lzcnt", ExtEcx1, 5),
    plain("3dnowprefetch", ExtEcx1, 8),
    plain("syscall", ExtEdx1, 11),
    also("nx", "xd", ExtEdx1, 20),
    plain("pdpe1gb", ExtEdx1, 26),
    plain("rdtscp", ExtEdx1, 27),
    plain("lm", ExtEdx1, 29),
    also("invtsc", "nonstop_tsc", ExtEdx7, 8),
];

/// The processor of every model: x86-64-v1 and what belongs to the machine.
pub(super) const BASE: &[&str] = &[
    "fpu",
    "de",
    "pse",
    "tsc",
    "msr",
    "pae",
    "mce",
    "cx8",
    "apic",
    "sep",
    "mtrr",
    "pge",
    "mca",
    "cmov",
    "pat",
    "pse36",
    "clflush",
    "mmx",
    "fxsr",
    "sse",
    "sse2",
    "x2apic",
    "tsc-deadline",
    "hypervisor",
    "arat",
    "tsc_adjust",
    "syscall",
    "nx",
    "pdpe1gb",
    "rdtscp",
    "lm",
    "invtsc",
    "pcid",
    "invpcid",
    "fsgsbase",
    "smep",
    "smap",
    "umip",
    "erms",
    "3dnowprefetch",
];

/// What x86-64-v2 and the default model add.
pub(super) const V2: &[&str] = &[
    "pni", "ssse3", "sse4.1", "sse4.2", "popcnt", "cx16", "lahf_lm", "aes", "pclmuldq", "rdrand",
    "rdseed", "xsave", "bmi1", "bmi2", "abm", "movbe", "adx",
];

/// Position of a feature in the table.
pub(super) fn index(name: &str) -> Option<usize> {
    FEATURES
        .iter()
        .position(|f| f.name == name || f.alias == name)
}

impl Feature {
    /// Whether this host has the instructions that the software CPU runs the feature with.
    #[must_use]
    pub fn host_has(&self) -> bool {
        match self.name {
            "pni" => is_x86_feature_detected!("sse3"),
            "ssse3" => is_x86_feature_detected!("ssse3"),
            "sse4.1" => is_x86_feature_detected!("sse4.1"),
            "sse4.2" => is_x86_feature_detected!("sse4.2"),
            "popcnt" => is_x86_feature_detected!("popcnt"),
            "cx16" => is_x86_feature_detected!("cmpxchg16b"),
            "aes" => is_x86_feature_detected!("aes"),
            "pclmuldq" => is_x86_feature_detected!("pclmulqdq"),
            "bmi1" => is_x86_feature_detected!("bmi1"),
            "bmi2" => is_x86_feature_detected!("bmi2"),
            "abm" => is_x86_feature_detected!("lzcnt"),
            "adx" => is_x86_feature_detected!("adx"),
            "rdrand" => is_x86_feature_detected!("rdrand"),
            "rdseed" => is_x86_feature_detected!("rdseed"),
            _ => true,
        }
    }
}
