//! The map of guest physical memory that the firmware (here: we) gives an operating system
//! (ACPI 6.5 §15).

use crate::memory::{HIGH_GPA, Ram};

/// End of conventional memory: the extended BIOS data area would start there.
const CONVENTIONAL_END_GPA: u64 = 0x9_fc00;
/// Start of memory above the legacy hole.
const EXTENDED_GPA: u64 = 0x10_0000;
/// MMCONFIG, which operating systems want to see reserved.
const MMCONFIG_GPA: u64 = 0xb000_0000;
const MMCONFIG_LEN_BYTES: u64 = 256 << 20;

/// Whether an operating system may use a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeKind {
    /// RAM.
    Usable,
    /// Not RAM, or RAM in use by firmware.
    Reserved,
}

impl RangeKind {
    /// Returns the type code of the map.
    #[must_use]
    pub fn code(self) -> u32 {
        match self {
            Self::Usable => 1,
            Self::Reserved => 2,
        }
    }
}

/// One entry of the map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct E820Entry {
    /// First guest physical address.
    pub gpa: u64,
    /// Length in bytes.
    pub len_bytes: u64,
    /// Its use.
    pub kind: RangeKind,
}

/// Returns the map of a machine, by rising address.
#[must_use]
pub fn map(ram: &Ram) -> Vec<E820Entry> {
    let range = |gpa, end_gpa, kind| E820Entry {
        gpa,
        len_bytes: end_gpa - gpa,
        kind,
    };
    let mut map = vec![
        range(0, CONVENTIONAL_END_GPA, RangeKind::Usable),
        range(CONVENTIONAL_END_GPA, 0xa_0000, RangeKind::Reserved),
        range(0xe_0000, EXTENDED_GPA, RangeKind::Reserved),
        range(EXTENDED_GPA, ram.low_end_gpa(), RangeKind::Usable),
        E820Entry {
            gpa: MMCONFIG_GPA,
            len_bytes: MMCONFIG_LEN_BYTES,
            kind: RangeKind::Reserved,
        },
    ];
    if ram.high_end_gpa() > HIGH_GPA {
        map.push(range(HIGH_GPA, ram.high_end_gpa(), RangeKind::Usable));
    }
    map
}
