//! Guest RAM as the CPU sees it, and how other threads reach a running CPU.

#![expect(
    unsafe_code,
    reason = "guest RAM is host memory that other threads write too"
)]

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::code_map::CodeMap;

/// One piece of guest RAM.
#[derive(Clone, Copy, Debug)]
pub struct RamRegion {
    /// First guest physical address, a multiple of 4 KiB.
    pub gpa: u64,
    /// Length in bytes, a multiple of 4 KiB.
    pub len_bytes: u64,
    /// Where it is mapped in this process.
    pub host: *mut u8,
    /// Whether guest writes are dropped (ROM).
    pub read_only: bool,
}

/// All RAM of a machine, shared by its CPUs.
#[derive(Debug)]
pub struct Memory {
    regions: Vec<RamRegion>,
    code: CodeMap,
    mailboxes: Vec<Arc<Attention>>,
}

// SAFETY: the regions are plain addresses of mappings that outlive this value (see `Memory::new`),
// and every access through them is volatile or atomic.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// Describes guest RAM to CPUs `0..cpus`.
    ///
    /// # Safety
    /// Every region must stay mapped, readable and writable for the life of the value, and nobody may
    /// hold Rust references into it.
    #[must_use]
    pub unsafe fn new(mut regions: Vec<RamRegion>, cpus: usize) -> Arc<Self> {
        regions.sort_by_key(|r| r.gpa);
        let pages = regions
            .iter()
            .map(|r| (r.gpa + r.len_bytes) >> 12)
            .max()
            .unwrap_or(0);
        let mailboxes = (0..cpus).map(|_| Arc::new(Attention::default())).collect();
        Arc::new(Self {
            regions,
            code: CodeMap::new(pages, cpus),
            mailboxes,
        })
    }

    /// The handle through which other threads reach CPU `id`.
    ///
    /// # Panics
    /// When `id` is not below the number of CPUs.
    #[must_use]
    pub fn attention(&self, id: usize) -> Arc<Attention> {
        Arc::clone(&self.mailboxes[id])
    }

    pub(crate) fn mailboxes(&self) -> &[Arc<Attention>] {
        &self.mailboxes
    }

    pub(crate) fn code(&self) -> &CodeMap {
        &self.code
    }

    /// The region that holds `gpa`.
    pub(crate) fn region(&self, gpa: u64) -> Option<&RamRegion> {
        let after = self.regions.partition_point(|r| r.gpa <= gpa);
        let region = &self.regions[after.checked_sub(1)?];
        (gpa - region.gpa < region.len_bytes).then_some(region)
    }

    /// Host address of `gpa`, where it is RAM.
    pub(crate) fn host(&self, gpa: u64) -> Option<*mut u8> {
        self.region(gpa)
            .map(|r| r.host.wrapping_add((gpa - r.gpa) as usize))
    }

    /// Tells the CPUs that something other than a CPU wrote guest RAM (a device, the monitor). To be called
    /// after the bytes are there.
    pub fn written(&self, gpa: u64, len_bytes: usize) {
        if len_bytes == 0 {
            return;
        }
        for page in gpa >> 12..=(gpa + len_bytes as u64 - 1) >> 12 {
            let first = gpa.max(page << 12) & 0xfff;
            let last = (gpa + len_bytes as u64 - 1).min((page << 12) | 0xfff) & 0xfff;
            if self.code.overlaps(page, first, last) {
                self.code.forget(page, || {
                    self.mailboxes
                        .iter()
                        .for_each(|m| m.post(Letter::Forget(page)));
                });
            }
        }
    }
}

/// What [`Attention`] can carry.
pub(crate) mod ask {
    /// Leave [`crate::Vcpu::run`].
    pub(crate) const EXIT: u32 = 1;
    /// The board may have an interrupt, an NMI or a timer for this CPU.
    pub(crate) const INTERRUPT: u32 = 2;
    /// The page mailbox holds something.
    pub(crate) const MAIL: u32 = 4;
    /// Set by the CPU itself: the interrupt shadow or a window needs a look at the next instruction.
    pub(crate) const SELF: u32 = 8;
}

/// A CPU's doorbell: requests from other threads, looked at between traces.
#[derive(Debug, Default)]
pub struct Attention {
    word: AtomicU32,
    /// The CPU may touch guest memory before it looks at its mail.
    inside: AtomicBool,
    mail: Mutex<Mail>,
}

#[derive(Debug, Default)]
pub(crate) struct Mail {
    pub(crate) letters: Vec<Letter>,
    pub(crate) everything: bool,
}

/// What one CPU asks of another about a physical page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Letter {
    /// Its code has changed: forget the traces. Permission to write goes with them.
    Forget(u64),
    /// It becomes code: give up permission to write. Traces of it stay good.
    Revoke(u64),
}

/// More letters than this in a mailbox and the CPU drops all its traces and write permissions at once,
/// which costs about as much as acting on that many.
const LETTERS_MAX: usize = 256;

impl Attention {
    /// Makes [`crate::Vcpu::run`] return [`crate::Exit::Kicked`] soon, now or at its next start.
    pub fn kick(&self) {
        self.raise(ask::EXIT);
    }

    /// Makes the CPU ask the board for interrupts between two traces.
    pub fn interrupt(&self) {
        self.raise(ask::INTERRUPT);
    }

    pub(crate) fn raise(&self, bits: u32) {
        self.word.fetch_or(bits, Ordering::SeqCst);
    }

    pub(crate) fn word(&self) -> &AtomicU32 {
        &self.word
    }

    pub(crate) fn take(&self, bits: u32) -> u32 {
        self.word.fetch_and(!bits, Ordering::SeqCst) & bits
    }

    /// Asks something of the CPU.
    pub(crate) fn post(&self, letter: Letter) {
        let mut mail = self.lock();
        if mail.letters.len() < LETTERS_MAX {
            mail.letters.push(letter);
        } else {
            mail.everything = true;
        }
        self.raise(ask::MAIL);
    }

    /// Takes what the mailbox holds. The doorbell goes on ringing until a look finds it empty, so that
    /// whoever waits for [`Attention::has_mail`] to fall knows that all mail was acted upon.
    pub(crate) fn take_mail(&self) -> Option<Mail> {
        let mut mail = self.lock();
        if mail.letters.is_empty() && !mail.everything {
            self.take(ask::MAIL);
            return None;
        }
        Some(std::mem::take(&mut *mail))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Mail> {
        self.mail
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Whether the CPU is in no position to touch guest memory before it reads its mail.
    pub(crate) fn is_outside(&self) -> bool {
        !self.inside.load(Ordering::SeqCst)
    }

    pub(crate) fn set_outside(&self, outside: bool) {
        self.inside.store(!outside, Ordering::SeqCst);
    }

    pub(crate) fn has_mail(&self) -> bool {
        self.word.load(Ordering::SeqCst) & ask::MAIL != 0
    }
}

#[cfg(test)]
mod tests;
