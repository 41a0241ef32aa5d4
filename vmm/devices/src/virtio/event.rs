//! Event counters of the host as something to wait for.

#![expect(
    unsafe_code,
    reason = "vmm-sys-util's EventFd lends its descriptor only as a number"
)]

use std::os::fd::{AsRawFd, BorrowedFd};

use vmm_sys_util::eventfd::EventFd;

/// Lends the event's descriptor.
pub(super) fn borrow(event: &EventFd) -> BorrowedFd<'_> {
    // SAFETY: the event owns its descriptor, keeps it open until it is dropped, and outlives the
    // loan, whose lifetime is that of the reference.
    unsafe { BorrowedFd::borrow_raw(event.as_raw_fd()) }
}

/// Sets the counter back to zero. The event must not block.
pub(super) fn take(event: &EventFd) {
    match event.read() {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
        Err(error) => tracing::error!(%error, "an event cannot be read"),
    }
}
