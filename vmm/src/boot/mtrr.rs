//! The memory types that firmware sets up, for machines that have none (SDM vol. 3 §12.11).
//!
//! Everything is write-back but the legacy video memory. Without this, kernels take the default type, uncached, for a
//! sign that nobody set the registers up, and give up page attributes with them.

use x86::CpuState;

const DEF_TYPE: u32 = 0x2ff;
/// Enabled, fixed ranges too, write-back.
const DEF_TYPE_VALUE: u64 = 0xc06;
const WRITE_BACK: u64 = 0x0606_0606_0606_0606;
const UNCACHED: u64 = 0;
/// Below 512 KiB in pieces of 64 KiB; up to 640 KiB and 768 KiB in pieces of 16 KiB; up to 1 MiB in pieces of 4 KiB.
const FIXED: [(u32, u64); 11] = [
    (0x250, WRITE_BACK),
    (0x258, WRITE_BACK),
    (0x259, UNCACHED),
    (0x268, WRITE_BACK),
    (0x269, WRITE_BACK),
    (0x26a, WRITE_BACK),
    (0x26b, WRITE_BACK),
    (0x26c, WRITE_BACK),
    (0x26d, WRITE_BACK),
    (0x26e, WRITE_BACK),
    (0x26f, WRITE_BACK),
];

/// Gives the processor the memory types.
pub(super) fn add(state: &mut CpuState) {
    for (index, value) in FIXED.into_iter().chain([(DEF_TYPE, DEF_TYPE_VALUE)]) {
        state.msrs.retain(|(other, _)| *other != index);
        state.msrs.push((index, value));
    }
}

/// Gives a processor that has the registers the memory types; tells whether it has.
pub(super) fn set(state: &mut CpuState) -> bool {
    let is_there = state.msrs.iter().any(|(index, _)| *index == DEF_TYPE);
    if is_there {
        add(state);
    }
    is_there
}
