//! Where a vCPU's thread sleeps while its guest halts, and how others wake it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use devices::Wake;
use x86::memory::Attention;

use crate::hv::Kick;

/// The doorbell of one vCPU: reaches it while it runs and while it sleeps.
#[derive(Debug)]
pub(super) struct Doorbell {
    attention: Arc<Attention>,
    kicked: AtomicBool,
    bell: Mutex<Bell>,
    signal: Condvar,
}

#[derive(Debug, Default)]
struct Bell {
    rung: bool,
    /// Somebody sleeps who has to be woken.
    asleep: bool,
}

impl Doorbell {
    pub(super) fn new(attention: Arc<Attention>) -> Self {
        Self {
            attention,
            kicked: AtomicBool::new(false),
            bell: Mutex::default(),
            signal: Condvar::new(),
        }
    }

    /// Takes the request to return to the machine.
    pub(super) fn take_kick(&self) -> bool {
        self.kicked.swap(false, Ordering::SeqCst)
    }

    /// Makes the CPU leave its loop so that its own thread looks at INIT and SIPI.
    pub(super) fn leave(&self) {
        self.attention.kick();
    }

    /// Sleeps until the bell rings (also if it rang before) or the time is over; returns whether it rang.
    pub(super) fn sleep(&self, timeout: Option<Duration>) -> bool {
        let mut bell = self.lock();
        bell.asleep = true;
        let mut bell = match timeout {
            None => self.signal.wait_while(bell, |bell| !bell.rung),
            Some(timeout) => self
                .signal
                .wait_timeout_while(bell, timeout, |bell| !bell.rung)
                .map(|(bell, _)| bell)
                .map_err(|poisoned| PoisonError::new(poisoned.into_inner().0)),
        }
        .unwrap_or_else(PoisonError::into_inner);
        bell.asleep = false;
        std::mem::take(&mut bell.rung)
    }

    fn ring(&self) {
        let mut bell = self.lock();
        if !bell.rung && bell.asleep {
            self.signal.notify_one();
        }
        bell.rung = true;
    }

    fn lock(&self) -> MutexGuard<'_, Bell> {
        self.bell.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Doorbell {
    fn wake(&self) {
        self.attention.interrupt();
        self.ring();
    }
}

impl Kick for Doorbell {
    fn kick(&self) {
        self.kicked.store(true, Ordering::SeqCst);
        self.attention.kick();
        self.ring();
    }
}
