//! Status flags in the form that the host's `LAHF` and `SETO AL` leave in AX.
//!
//! Handlers run the guest's arithmetic on the host's own instruction and keep what it left: SF ZF AF PF
//! CF in bits 8..=15 (their places in the low byte of RFLAGS) and OF in bit 0. The undefined flags are
//! then the host's too. RFLAGS are put together only when something asks for them.

use crate::cpu::rflags;

const LOW: u64 = rflags::SF | rflags::ZF | rflags::AF | rflags::PF | rflags::CF;

/// OF in a status word.
pub(crate) const OF: u32 = 1;
/// CF in a status word.
pub(crate) const CF: u32 = 1 << 8;
/// PF in a status word.
pub(crate) const PF: u32 = 1 << 10;
/// AF in a status word.
pub(crate) const AF: u32 = 1 << 12;
/// ZF in a status word.
pub(crate) const ZF: u32 = 1 << 14;
/// SF in a status word.
pub(crate) const SF: u32 = 1 << 15;

/// The six status flags at their places in RFLAGS.
pub(crate) fn to_rflags(status: u32) -> u64 {
    u64::from(status >> 8) & LOW | u64::from(status & OF) << 11
}

/// The status word of the six status flags of RFLAGS.
pub(crate) fn from_rflags(value: u64) -> u32 {
    ((value & LOW) as u32) << 8 | (value >> 11) as u32 & OF
}
