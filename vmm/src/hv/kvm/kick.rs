//! Stops a vCPU from other threads: the immediate-exit flag and a signal without effect.

#![expect(
    unsafe_code,
    reason = "signals a thread and writes a flag in memory shared with the kernel"
)]

use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};

use kvm_ioctls::VcpuFd;
use nix::libc::{pthread_t, siginfo_t};
use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use crate::hv::Kick;

extern "C" fn nothing(_: c_int, _: *mut siginfo_t, _: *mut c_void) {}

static HANDLER: Once = Once::new();

/// Where the vCPU is: its flag and, once it runs, its thread.
#[derive(Debug)]
struct Target {
    immediate_exit: *mut u8,
    thread: Option<pthread_t>,
}

// SAFETY: the flag is only written atomically, and only while the vCPU keeps it mapped: it takes the
// target away, under the lock, before it ends.
unsafe impl Send for Target {}

struct Thread(pthread_t);

// SAFETY: the handle is that of a live thread: a vCPU leaves its target before its thread ends.
unsafe impl Killable for Thread {
    fn pthread_handle(&self) -> pthread_t {
        self.0
    }
}

/// Reaches one vCPU.
#[derive(Debug)]
pub(super) struct Kicker {
    kicked: AtomicBool,
    target: Mutex<Option<Target>>,
}

impl Kicker {
    /// Makes the kicker of a vCPU, which calls [`Kicker::leave`] before it is dropped.
    pub(super) fn new(fd: &mut VcpuFd) -> Arc<Self> {
        HANDLER.call_once(|| {
            if let Err(error) = register_signal_handler(SIGRTMIN(), nothing) {
                tracing::error!(%error, "vCPUs will stop late: their signal has no handler");
            }
        });
        let immediate_exit = std::ptr::from_mut(&mut fd.get_kvm_run().immediate_exit);
        Arc::new(Self {
            kicked: AtomicBool::new(false),
            target: Mutex::new(Some(Target {
                immediate_exit,
                thread: None,
            })),
        })
    }

    /// Says that the calling thread runs the vCPU.
    pub(super) fn enter(&self) {
        let mut target = self.target.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(target) = target.as_mut() {
            target.thread = Some(nix::sys::pthread::pthread_self());
        }
    }

    /// Says that there is no vCPU any more.
    pub(super) fn leave(&self) {
        let mut target = self.target.lock().unwrap_or_else(PoisonError::into_inner);
        *target = None;
    }

    /// Takes the request to return to the machine, and lets the vCPU run again.
    pub(super) fn take(&self) -> bool {
        self.release();
        self.kicked.swap(false, Ordering::SeqCst)
    }

    /// Keeps the vCPU from entering the guest: it only finishes what it has begun.
    pub(super) fn hold(&self) {
        self.flag(1);
    }

    /// Undoes [`Kicker::hold`].
    pub(super) fn release(&self) {
        self.flag(0);
    }

    fn flag(&self, value: u8) {
        let target = self.target.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(target) = target.as_ref() {
            set_flag(target, value);
        }
    }

    /// Makes the vCPU leave the guest and look at the PIC.
    pub(super) fn interrupt(&self) {
        let target = self.target.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(target) = target.as_ref() else {
            return;
        };
        set_flag(target, 1);
        let Some(thread) = target.thread else { return };
        if thread == nix::sys::pthread::pthread_self() {
            return;
        }
        if let Err(error) = Thread(thread).kill(SIGRTMIN()) {
            tracing::error!(%error, "a vCPU cannot be signalled");
        }
    }
}

fn set_flag(target: &Target, value: u8) {
    // SAFETY: the flag lies in the mapping that the vCPU keeps as long as the target is there, and
    // everyone else, the kernel included, accesses it as one byte.
    let flag = unsafe { AtomicU8::from_ptr(target.immediate_exit) };
    flag.store(value, Ordering::SeqCst);
}

impl Kick for Kicker {
    fn kick(&self) {
        self.kicked.store(true, Ordering::SeqCst);
        self.interrupt();
    }
}
