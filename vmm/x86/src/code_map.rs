//! Which pages of guest RAM hold decoded code, and which CPUs may write them without a look here.
//!
//! One word a page: the low half has a bit per 128 bytes of decoded code, the high half a bit per CPU
//! (number modulo 32) that holds a TLB entry with write permission. Both halves change in one atomic
//! step, so a CPU that decodes and a CPU that gains write permission cannot miss each other:
//! write permission is granted only while the low half is zero, and whoever marks code takes write
//! permission from the CPUs in the high half before it decodes. A CPU that stores without such permission
//! puts its bit there too before it looks for code in its way: who decodes meanwhile waits for the store.
//!
//! Marks are cleared before the CPUs that decoded the code have been told. Whoever finds no marks
//! therefore waits until nobody is in between ([`CodeMap::forget`]).

#![expect(
    unsafe_code,
    reason = "the table of a large guest must not be touched to be zeroed"
)]

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The table, one word per page of guest physical address space up to the end of RAM.
#[derive(Debug)]
pub(crate) struct CodeMap {
    words: Box<[AtomicU64]>,
    cpus: usize,
    /// Holders of, and waiters for, `forgetting`.
    forgetters: AtomicU32,
    forgetting: Mutex<()>,
}

const CODE: u64 = 0xffff_ffff;
const WRITERS: u64 = !CODE;
/// CPUs that have a bit of their own.
const WRITER_BITS: usize = 32;

fn chunks(first: u64, last: u64) -> u64 {
    let (lo, hi) = (first >> 7, last >> 7);
    (u64::MAX >> (63 - (hi - lo))) << lo & CODE
}

fn writer(cpu: usize) -> u64 {
    1 << (32 + cpu % WRITER_BITS)
}

impl CodeMap {
    /// A table for `pages` pages and `cpus` CPUs. Zeroed memory is not touched until it is used.
    pub(crate) fn new(pages: u64, cpus: usize) -> Self {
        let words = Box::new_zeroed_slice(usize::try_from(pages).unwrap_or(0));
        // SAFETY: all-zero bytes are a valid `AtomicU64`.
        let words = unsafe { words.assume_init() };
        Self {
            words,
            cpus,
            forgetters: AtomicU32::new(0),
            forgetting: Mutex::new(()),
        }
    }

    /// Whether bytes `first..=last` of `page`, which were written before the call, overlap decoded code.
    pub(crate) fn overlaps(&self, page: u64, first: u64, last: u64) -> bool {
        fence(Ordering::SeqCst);
        let found = self
            .words
            .get(page as usize)
            .is_some_and(|w| w.load(Ordering::SeqCst) & chunks(first, last) != 0);
        if !found {
            self.wait_for_forgetters();
        }
        found
    }

    /// Announces a store by `cpu` to bytes `first..=last`; gives whether they overlap decoded code.
    pub(crate) fn announce_write(&self, page: u64, cpu: usize, first: u64, last: u64) -> bool {
        // A single CPU never decodes while it stores.
        if self.cpus > 1
            && let Some(word) = self.words.get(page as usize)
            && word.load(Ordering::SeqCst) & writer(cpu) == 0
        {
            word.fetch_or(writer(cpu), Ordering::SeqCst);
        }
        self.overlaps(page, first, last)
    }

    /// Marks code; gives the CPUs (a bit each) that may write the page.
    pub(crate) fn mark_code(&self, page: u64, first: u64, last: u64) -> u32 {
        let Some(word) = self.words.get(page as usize) else {
            return 0;
        };
        let bits = chunks(first, last);
        if word.load(Ordering::SeqCst) & (bits | WRITERS) == bits {
            return 0;
        }
        (word.fetch_or(bits, Ordering::SeqCst) >> 32) as u32
    }

    /// Forgets the code of a page; `tell` tells the CPUs that may have decoded it.
    pub(crate) fn forget(&self, page: u64, tell: impl FnOnce()) {
        self.forgetters.fetch_add(1, Ordering::SeqCst);
        let guard = self.lock();
        if let Some(word) = self.words.get(page as usize) {
            word.fetch_and(!CODE, Ordering::SeqCst);
        }
        tell();
        drop(guard);
        self.forgetters.fetch_sub(1, Ordering::SeqCst);
    }

    /// Waits until everybody has been told of the code whose marks are gone.
    fn wait_for_forgetters(&self) {
        if self.forgetters.load(Ordering::SeqCst) != 0 {
            drop(self.lock());
        }
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.forgetting
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Asks for write permission for `cpu`; `false` when the page holds code.
    pub(crate) fn grant_write(&self, page: u64, cpu: usize) -> bool {
        let Some(word) = self.words.get(page as usize) else {
            return false;
        };
        if word.load(Ordering::SeqCst) & CODE != 0 {
            return false;
        }
        let old = word.fetch_or(writer(cpu), Ordering::SeqCst);
        if old & CODE != 0 {
            // The bit may stay: it may stand for permission that is about to be taken away.
            return false;
        }
        self.wait_for_forgetters();
        true
    }

    /// Notes that `cpu` holds no write permission any more. A bit that other CPUs share stays.
    pub(crate) fn revoke_write(&self, page: u64, cpu: usize) {
        let shared = cpu >= WRITER_BITS || cpu + WRITER_BITS < self.cpus;
        if let Some(word) = self.words.get(page as usize).filter(|_| !shared) {
            word.fetch_and(!writer(cpu), Ordering::SeqCst);
        }
    }
}
