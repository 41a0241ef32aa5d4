//! Which pages of guest RAM hold decoded code, and which CPUs may write them without a look here.
//!
//! One word a page: the low half has a bit per 128 bytes of decoded code, the high half a bit per CPU
//! (number modulo 32) that holds a TLB entry with write permission. Both halves change in one atomic
//! step, so a CPU that decodes and a CPU that gains write permission cannot miss each other:
//! write permission is granted only while the low half is zero, and whoever makes the low half
//! non-zero takes write permission from the CPUs in the high half before it decodes.

#![expect(
    unsafe_code,
    reason = "the table of a large guest must not be touched to be zeroed"
)]

use std::sync::atomic::{AtomicU64, Ordering};

/// The table, one word per page of guest physical address space up to the end of RAM.
#[derive(Debug)]
pub(crate) struct CodeMap {
    words: Box<[AtomicU64]>,
}

const CODE: u64 = 0xffff_ffff;

fn chunks(first: u64, last: u64) -> u64 {
    let (lo, hi) = (first >> 7, last >> 7);
    (u64::MAX >> (63 - (hi - lo))) << lo & CODE
}

fn writer(cpu: usize) -> u64 {
    1 << (32 + cpu % 32)
}

impl CodeMap {
    /// A table for `pages` pages. Zeroed memory is not touched until it is used.
    pub(crate) fn new(pages: u64) -> Self {
        let words = Box::new_zeroed_slice(usize::try_from(pages).unwrap_or(0));
        // SAFETY: all-zero bytes are a valid `AtomicU64`.
        Self {
            words: unsafe { words.assume_init() },
        }
    }

    /// Whether bytes `first..=last` of `page` overlap decoded code.
    pub(crate) fn overlaps(&self, page: u64, first: u64, last: u64) -> bool {
        self.words
            .get(page as usize)
            .is_some_and(|w| w.load(Ordering::SeqCst) & chunks(first, last) != 0)
    }

    /// Marks code; gives the CPUs (a bit each) that held write permission if the page held no code.
    pub(crate) fn mark_code(&self, page: u64, first: u64, last: u64) -> u32 {
        let Some(word) = self.words.get(page as usize) else {
            return 0;
        };
        let bits = chunks(first, last);
        if word.load(Ordering::SeqCst) & bits == bits {
            return 0;
        }
        let old = word.fetch_or(bits, Ordering::SeqCst);
        if old & CODE == 0 {
            (old >> 32) as u32
        } else {
            0
        }
    }

    /// Forgets the code of a page.
    pub(crate) fn clear_code(&self, page: u64) {
        if let Some(word) = self.words.get(page as usize) {
            word.fetch_and(!CODE, Ordering::SeqCst);
        }
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
            word.fetch_and(!writer(cpu), Ordering::SeqCst);
        }
        old & CODE == 0
    }

    /// Notes that the CPUs in `cpus` hold no write permission any more.
    pub(crate) fn revoke_write(&self, page: u64, cpus: u32) {
        if let Some(word) = self.words.get(page as usize) {
            word.fetch_and(!(u64::from(cpus) << 32), Ordering::SeqCst);
        }
    }
}
