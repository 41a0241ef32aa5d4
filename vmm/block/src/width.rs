//! Conversions between file offsets and lengths in memory, which are equally wide on our hosts.

const _: () = assert!(usize::BITS == 64, "disk images need a 64-bit host");

/// Converts a file offset or length into one that indexes memory.
pub(crate) fn to_usize(n: u64) -> usize {
    usize::try_from(n).expect("usize has 64 bits")
}

/// Converts a length in memory into a file offset or length.
pub(crate) fn to_u64(n: usize) -> u64 {
    u64::try_from(n).expect("usize has 64 bits")
}
