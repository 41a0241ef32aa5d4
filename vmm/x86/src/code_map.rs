//! Which pages of guest RAM hold decoded code, and which CPUs may write them without a look here.
//!
//! Two words a page: one has a bit per 128 bytes of decoded code, the other a bit per CPU that holds a
//! TLB entry with write permission. Whoever wants either sets its own bits first and looks at the other
//! word then, all in one total order, so a CPU that decodes and a CPU that gains write permission cannot
//! miss each other: write permission is granted only where there is no code, and whoever marks code takes
//! write permission from the CPUs that have it before it decodes. A CPU that stores without such permission
//! puts its bit there too before it looks for code in its way: who decodes meanwhile waits for the store.
//!
//! Marks are cleared before the CPUs that decoded the code have been told. Whoever finds no marks
//! therefore waits until nobody is in between (`CodeMap::forget`).

#![expect(
    unsafe_code,
    reason = "the table of a large guest must not be touched to be zeroed"
)]

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The tables, one entry per page of guest physical address space up to the end of RAM.
#[derive(Debug)]
pub(crate) struct CodeMap {
    code: Box<[AtomicU32]>,
    writers: Box<[AtomicU64]>,
    cpus: usize,
    /// Holders of, and waiters for, `forgetting`.
    forgetters: AtomicU32,
    forgetting: Mutex<()>,
}

/// CPUs that a table can tell apart.
const CPUS_MAX: usize = 64;

fn chunks(first: u64, last: u64) -> u32 {
    let (lo, hi) = (first >> 7, last >> 7);
    (u32::MAX >> (31 - (hi - lo))) << lo
}

impl CodeMap {
    /// Tables for `pages` pages and `cpus` CPUs. Zeroed memory is not touched until it is used.
    pub(crate) fn new(pages: u64, cpus: usize) -> Self {
        assert!(cpus <= CPUS_MAX, "a machine has at most 64 CPUs");
        let pages = usize::try_from(pages).unwrap_or(0);
        let (code, writers) = (Box::new_zeroed_slice(pages), Box::new_zeroed_slice(pages));
        // SAFETY: all-zero bytes are a valid `AtomicU32`.
        let code = unsafe { code.assume_init() };
        // SAFETY: all-zero bytes are a valid `AtomicU64`.
        let writers = unsafe { writers.assume_init() };
        Self {
            code,
            writers,
            cpus,
            forgetters: AtomicU32::new(0),
            forgetting: Mutex::new(()),
        }
    }

    fn page(&self, page: u64) -> Option<(&AtomicU32, &AtomicU64)> {
        let page = usize::try_from(page).ok()?;
        Some((self.code.get(page)?, self.writers.get(page)?))
    }

    /// Whether bytes `first..=last` of `page`, which were written before the call, overlap decoded code.
    pub(crate) fn overlaps(&self, page: u64, first: u64, last: u64) -> bool {
        fence(Ordering::SeqCst);
        let found = self
            .page(page)
            .is_some_and(|(code, _)| code.load(Ordering::SeqCst) & chunks(first, last) != 0);
        if !found {
            self.wait_for_forgetters();
        }
        found
    }

    /// Announces a store by `cpu` to bytes `first..=last`; gives whether they overlap decoded code.
    pub(crate) fn announce_write(&self, page: u64, cpu: usize, first: u64, last: u64) -> bool {
        // A single CPU never decodes while it stores.
        if self.cpus > 1
            && let Some((_, writers)) = self.page(page)
            && writers.load(Ordering::SeqCst) & 1 << cpu == 0
        {
            writers.fetch_or(1 << cpu, Ordering::SeqCst);
        }
        self.overlaps(page, first, last)
    }

    /// Marks code; gives the CPUs (a bit each) that may write the page.
    pub(crate) fn mark_code(&self, page: u64, first: u64, last: u64) -> u64 {
        let Some((code, writers)) = self.page(page) else {
            return 0;
        };
        let bits = chunks(first, last);
        if code.load(Ordering::SeqCst) & bits != bits {
            code.fetch_or(bits, Ordering::SeqCst);
        }
        writers.load(Ordering::SeqCst)
    }

    /// Forgets the code of a page; `tell` tells the CPUs that may have decoded it.
    pub(crate) fn forget(&self, page: u64, tell: impl FnOnce()) {
        self.forgetters.fetch_add(1, Ordering::SeqCst);
        let guard = self.lock();
        if let Some((code, _)) = self.page(page) {
            code.store(0, Ordering::SeqCst);
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
        let Some((code, writers)) = self.page(page) else {
            return false;
        };
        if code.load(Ordering::SeqCst) != 0 {
            return false;
        }
        writers.fetch_or(1 << cpu, Ordering::SeqCst);
        if code.load(Ordering::SeqCst) != 0 {
            // The bit may stay: it may stand for permission that is about to be taken away.
            return false;
        }
        self.wait_for_forgetters();
        true
    }

    /// Notes that `cpu` holds no write permission any more.
    pub(crate) fn revoke_write(&self, page: u64, cpu: usize) {
        if let Some((_, writers)) = self.page(page) {
            writers.fetch_and(!(1 << cpu), Ordering::SeqCst);
        }
    }
}
