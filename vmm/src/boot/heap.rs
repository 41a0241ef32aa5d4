//! Memory of the process that boot files took for a moment.
//!
//! glibc learns from the first large buffer that is freed to keep buffers of that size, so that some MiB of
//! a kernel that was read long ago would stay resident for the life of the machine.

#![expect(unsafe_code, reason = "tunes the C library's allocator")]

/// Buffers from this size on are mappings of their own, which are gone when they are freed.
#[cfg(target_env = "gnu")]
const OWN_MAPPING_BYTES: i32 = 1 << 20;

/// Makes the allocator give large buffers back to the host when they are freed, from now on.
pub(super) fn give_back_from_now_on() {
    #[cfg(target_env = "gnu")]
    for parameter in [nix::libc::M_MMAP_THRESHOLD, nix::libc::M_TRIM_THRESHOLD] {
        // SAFETY: `mallopt` may be called at any time with any values; it refuses those that it does not know.
        unsafe { nix::libc::mallopt(parameter, OWN_MAPPING_BYTES) };
    }
}

/// Gives everything back that is free now.
pub(super) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: `malloc_trim` may be called at any time; it only touches memory that nobody has.
    unsafe {
        nix::libc::malloc_trim(0);
    }
}
