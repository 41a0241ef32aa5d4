//! Where a vCPU's thread sleeps while its guest halts, and how others wake it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use devices::Wake;
use x86::memory::Attention;

use crate::hv::Kick;

/// The doorbell of one vCPU: reaches it while it runs and while it sleeps.
#[derive(Debug)]
pub(super) struct Doorbell {
    attention: Arc<Attention>,
    kicked: AtomicBool,
    rung: Mutex<bool>,
    signal: Condvar,
}

impl Doorbell {
    pub(super) fn new(attention: Arc<Attention>) -> Self {
        Self {
            attention,
            kicked: AtomicBool::new(false),
            rung: Mutex::new(false),
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

    /// Sleeps until the bell rings (also if it rang before) or the time is over.
    pub(super) fn sleep(&self, timeout: Option<Duration>) {
        let rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let mut rung = match timeout {
            None => self.signal.wait_while(rung, |rung| !*rung),
            Some(timeout) => self
                .signal
                .wait_timeout_while(rung, timeout, |rung| !*rung)
                .map(|(rung, _)| rung)
                .map_err(|poisoned| PoisonError::new(poisoned.into_inner().0)),
        }
        .unwrap_or_else(PoisonError::into_inner);
        *rung = false;
    }

    fn ring(&self) {
        let mut rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        if !*rung {
            *rung = true;
            self.signal.notify_one();
        }
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
