//! Traces: decoded once, kept by physical address and mode, found again fast.
//!
//! A trace is a run of records in the arena, from an entry point to an instruction that always leaves
//! it, to the end of its page, or to [`TRACE_OPS_MAX`] instructions. Conditional branches inside a trace
//! leave it when taken. The `imm` of a direct branch holds the trace it is linked to.
//!
//! Records are never freed one by one. Those of code that changed become stale ([`Op::make_stale`]):
//! whoever jumps or falls into one comes back to the dispatcher. When the arena is full, the dispatcher
//! starts it anew.

use std::collections::HashMap;
use std::sync::Arc;

use iced_x86::{Decoder, DecoderError, DecoderOptions, Instruction};

use crate::cpu::{CS, Cpu, TRACE_RIP};
use crate::fault::Fault;
use crate::lower::{self, Lowered};
use crate::op::Op;
use crate::paging::Access;
use crate::tlb::class;

/// Instructions in a trace at most.
const TRACE_OPS_MAX: usize = 64;
/// Longest instruction in bytes (SDM vol. 2 §2.3.11).
const INSN_BYTES_MAX: usize = 15;
/// Records in the arena: 3 MiB.
const ARENA_OPS: usize = 96 * 1024;
/// Records that an idle guest may well need.
const RESTING_OPS: usize = 16 * 1024;
/// Buckets of the table of traces by physical address.
const TABLE: usize = 1 << 15;
/// Entries of the jump cache.
const JUMPS: usize = 1 << 12;
const NONE: u32 = u32::MAX;
const NO_PAGE: u64 = u64::MAX;

/// Where a trace starts and what it covers.
#[derive(Clone, Copy, Debug)]
struct Trace {
    /// Physical address of the first byte.
    gpa: u64,
    /// Physical page of the tail of an instruction that crosses into another page, or [`NO_PAGE`].
    second_page: u64,
    /// First record.
    first: u32,
    /// Next trace in the same bucket.
    next_in_bucket: u32,
    /// Next trace that starts in the same physical page.
    next_in_page: u32,
    /// Number of records.
    ops: u8,
    /// Mode key.
    mode: u8,
}

const _: () = assert!(size_of::<Trace>() == 32 && TRACE_OPS_MAX < 255);

/// A remembered jump target.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct Jump {
    pub(crate) rip: u64,
    pub(crate) tag: u64,
    pub(crate) first: *const Op,
}

const NO_JUMP: Jump = Jump {
    rip: 0,
    tag: 0,
    first: std::ptr::null(),
};

/// The traces of one CPU.
pub(crate) struct TraceCache {
    /// Room for [`ARENA_OPS`] or for none: records never move. What is not in use is not touched.
    arena: Vec<Op>,
    /// The same room: a trace has one record at least.
    traces: Vec<Trace>,
    table: Box<[u32]>,
    /// The latest trace that starts in a physical page.
    pages: HashMap<u64, u32>,
    /// Traces by their second page.
    second_pages: HashMap<u64, Vec<u32>>,
    pub(crate) jumps: Box<[Jump]>,
    /// How often a page was forgotten.
    forgotten: u64,
    /// Where the records at the end of the arena start that are run once and are in no list.
    passing: Option<usize>,
}

impl TraceCache {
    pub(crate) fn new() -> Self {
        Self {
            arena: Vec::new(),
            traces: Vec::new(),
            table: vec![NONE; TABLE].into_boxed_slice(),
            pages: HashMap::new(),
            second_pages: HashMap::new(),
            jumps: vec![NO_JUMP; JUMPS].into_boxed_slice(),
            forgotten: 0,
            passing: None,
        }
    }

    /// Forgets everything. Not to be called while a handler runs.
    fn clear(&mut self) {
        self.arena.clear();
        self.traces.clear();
        self.table.fill(NONE);
        self.pages.clear();
        self.second_pages.clear();
        self.jumps.fill(NO_JUMP);
    }

    /// Whether there are more traces than an idle guest needs.
    pub(crate) fn is_large(&self) -> bool {
        self.arena.len() > RESTING_OPS
    }

    /// Forgets everything and gives its memory back. Not to be called while a handler runs.
    pub(crate) fn release(&mut self) {
        self.clear();
        (self.arena, self.traces) = (Vec::new(), Vec::new());
        (self.pages, self.second_pages) = (HashMap::new(), HashMap::new());
    }

    /// Makes room for all records there may be.
    fn make_room(&mut self) {
        self.arena.reserve_exact(ARENA_OPS);
        self.traces.reserve_exact(ARENA_OPS);
    }

    fn bucket(gpa: u64, mode: u8) -> usize {
        ((gpa ^ gpa >> 15 ^ u64::from(mode) << 9) as usize) & (TABLE - 1)
    }

    fn find(&self, gpa: u64, mode: u8) -> Option<Trace> {
        let mut at = self.table[Self::bucket(gpa, mode)];
        while at != NONE {
            let trace = self.traces[at as usize];
            if trace.gpa == gpa && trace.mode == mode {
                return Some(trace);
            }
            at = trace.next_in_bucket;
        }
        None
    }

    fn first(&self, trace: &Trace) -> *const Op {
        &raw const self.arena[trace.first as usize]
    }

    fn full(&self) -> bool {
        self.arena.len() + TRACE_OPS_MAX + 2 > ARENA_OPS
    }

    /// Makes every record of the traces of a page stale.
    fn forget_page(&mut self, page: u64) {
        let mut id = self.pages.remove(&page).unwrap_or(NONE);
        while id != NONE {
            self.forget(id);
            id = self.traces[id as usize].next_in_page;
        }
        for id in self.second_pages.remove(&page).unwrap_or_default() {
            self.forget(id);
        }
    }

    fn forget(&mut self, id: u32) {
        let trace = self.traces[id as usize];
        let first = trace.first as usize;
        self.arena[first..first + usize::from(trace.ops)]
            .iter_mut()
            .for_each(Op::make_stale);
        self.unlink(id, &trace);
    }

    fn unlink(&mut self, id: u32, trace: &Trace) {
        let bucket = Self::bucket(trace.gpa, trace.mode);
        if self.table[bucket] == id {
            self.table[bucket] = trace.next_in_bucket;
            return;
        }
        let mut at = self.table[bucket];
        while at != NONE && self.traces[at as usize].next_in_bucket != id {
            at = self.traces[at as usize].next_in_bucket;
        }
        if at != NONE {
            self.traces[at as usize].next_in_bucket = trace.next_in_bucket;
        }
    }
}

impl Cpu {
    /// Forgets the traces of a physical page. Handlers may be running in them: they stop after the
    /// instruction they are at.
    pub(crate) fn forget_code(&mut self, page: u64) {
        self.traces.forgotten += 1;
        self.traces.forget_page(page);
    }

    /// Forgets all traces; handlers may be running.
    pub(crate) fn forget_all_code(&mut self) {
        self.traces.forgotten += 1;
        let pages: Vec<u64> = self.traces.pages.keys().copied().collect();
        pages
            .into_iter()
            .for_each(|page| self.traces.forget_page(page));
        self.traces.second_pages.clear();
    }

    /// The first record of the trace at `self.rip`; decodes it if it is new. Called by the dispatcher
    /// only.
    pub(crate) fn trace_at_rip(&mut self) -> Result<*const Op, Fault> {
        let la = self.fetch_address()?;
        let class = if self.cpl == 3 {
            class::USER
        } else {
            class::KERNEL
        };
        let gpa = self.translate(la, Access::Fetch, class)?.gpa;
        let mode = self.mode.key();
        let found = self.traces.find(gpa, mode);
        if let Some(trace) = found
            && self.still_crosses(&trace, la)?
        {
            let first = self.traces.first(&trace);
            self.remember_jump(first);
            return Ok(first);
        }
        let forgotten = self.traces.forgotten;
        let first = self.decode(la, gpa, TRACE_OPS_MAX)?;
        if self.traces.forgotten == forgotten {
            self.remember_jump(first);
        }
        Ok(first)
    }

    fn remember_jump(&mut self, first: *const Op) {
        let slot = jump_slot(self.rip);
        self.traces.jumps[slot] = Jump {
            rip: self.rip,
            tag: self.jump_tag,
            first,
        };
    }

    /// Linear address of the next instruction, with the checks of the code segment.
    fn fetch_address(&self) -> Result<u64, Fault> {
        if self.mode.bits == 64 {
            let canonical = (self.rip as i64) << 16 >> 16 == self.rip as i64;
            return if canonical {
                Ok(self.rip)
            } else {
                Err(Fault::GP0)
            };
        }
        if self.rip > u64::from(self.segs[CS].limit) {
            return Err(Fault::GP0);
        }
        Ok(self.segs[CS].base.wrapping_add(self.rip) & 0xffff_ffff)
    }

    fn still_crosses(&mut self, trace: &Trace, la: u64) -> Result<bool, Fault> {
        if trace.second_page == NO_PAGE {
            return Ok(true);
        }
        let class = if self.cpl == 3 {
            class::USER
        } else {
            class::KERNEL
        };
        let next = (la & !0xfff).wrapping_add(0x1000);
        Ok(self.translate(next, Access::Fetch, class)?.gpa >> 12 == trace.second_page)
    }

    /// A trace of one instruction, decoded afresh and never linked: for single stepping.
    pub(crate) fn single_at_rip(&mut self) -> Result<*const Op, Fault> {
        let la = self.fetch_address()?;
        let class = if self.cpl == 3 {
            class::USER
        } else {
            class::KERNEL
        };
        let gpa = self.translate(la, Access::Fetch, class)?.gpa;
        self.decode(la, gpa, 1)
    }

    fn decode(&mut self, la: u64, gpa: u64, most: usize) -> Result<*const Op, Fault> {
        if let Some(start) = self.traces.passing.take() {
            self.traces.arena.truncate(start);
        }
        if self.traces.arena.capacity() == 0 {
            self.traces.make_room();
        } else if self.traces.full() {
            self.traces.clear();
        }
        let (start, forgotten) = (self.traces.arena.len(), self.traces.forgotten);
        let room = (0x1000 - (gpa & 0xfff)) as usize;
        let mut second_page = NO_PAGE;
        let (mut off, mut count) = (0usize, 0usize);
        loop {
            let mut bytes = [0; INSN_BYTES_MAX];
            let mut have = INSN_BYTES_MAX.min(room - off);
            self.fetch(gpa + off as u64, &mut bytes[..have]);
            let mut insn = self.decode_one(&bytes[..have], off);
            if insn.is_none() && count > 0 {
                self.push(lower::fall_through(), off, 0, count);
                break;
            }
            if insn.is_none() {
                second_page = self.fetch_next_page(la, &mut bytes[have..])?;
                have = INSN_BYTES_MAX;
                insn = self.decode_one(&bytes[..have], off);
            }
            let insn = insn.unwrap_or_default();
            count += 1;
            let (op, ends) = match lower::lower(&insn, self.mode, &bytes[..have]) {
                Lowered::Next(op) => (op, false),
                Lowered::End(op) => (op, true),
            };
            self.push(op, off, insn.len(), count);
            off += insn.len();
            if ends {
                break;
            }
            if count == most || off >= room {
                self.push(lower::fall_through(), off, 0, count);
                break;
            }
        }
        if most == 1 {
            self.traces.passing = Some(start);
        } else if self.traces.forgotten != forgotten {
            self.keep_one(start);
        } else {
            self.enter(gpa, start, second_page);
        }
        Ok(&raw const self.traces.arena[start])
    }

    /// Leaves one instruction of a trace whose code may have changed while it was decoded: mail about it was
    /// read when the trace was in no list yet. That one is run, so that a CPU that keeps writing near the
    /// code cannot stop this one.
    fn keep_one(&mut self, start: usize) {
        self.traces.arena.truncate(start + 1);
        let first = self.traces.arena[start];
        self.push(lower::fall_through(), usize::from(first.len), 0, 1);
        self.traces.passing = Some(start);
    }

    /// Decodes one instruction; `None` when `bytes` end before it does. Bytes that are no instruction
    /// give an invalid one of length 1.
    fn decode_one(&self, bytes: &[u8], off: usize) -> Option<Instruction> {
        let bits = u32::from(self.mode.bits);
        let mut decoder = Decoder::with_ip(bits, bytes, off as u64, DecoderOptions::NONE);
        let mut insn = decoder.decode();
        if insn.is_invalid() {
            if decoder.last_error() == DecoderError::NoMoreBytes && bytes.len() < INSN_BYTES_MAX {
                return None;
            }
            insn.set_len(1);
        }
        Some(insn)
    }

    /// Reads code bytes that lie in one page, after marking them as code: a store by another CPU from
    /// then on finds the mark.
    fn fetch(&mut self, gpa: u64, bytes: &mut [u8]) {
        let memory = Arc::clone(&self.memory);
        let first = gpa & 0xfff;
        let writers = memory
            .code()
            .mark_code(gpa >> 12, first, first + bytes.len() as u64 - 1);
        if writers != 0 {
            self.revoke_writers(gpa >> 12, writers);
        }
        self.read_phys(gpa, bytes);
    }

    /// Reads code from the start of the page after that of `la`; gives the physical page.
    fn fetch_next_page(&mut self, la: u64, bytes: &mut [u8]) -> Result<u64, Fault> {
        let class = if self.cpl == 3 {
            class::USER
        } else {
            class::KERNEL
        };
        let next = (la & !0xfff).wrapping_add(0x1000);
        let next = if self.is_long() {
            next
        } else {
            next & 0xffff_ffff
        };
        let gpa = self.translate(next, Access::Fetch, class)?.gpa;
        self.fetch(gpa, bytes);
        Ok(gpa >> 12)
    }

    fn push(&mut self, mut op: Op, off: usize, len: usize, count: usize) {
        op.off = off as u16;
        op.len = len as u8;
        op.count = count as u8;
        self.traces.arena.push(op);
    }

    fn enter(&mut self, gpa: u64, start: usize, second_page: u64) {
        let cache = &mut self.traces;
        let mode = self.mode.key();
        let id = cache.traces.len() as u32;
        let bucket = TraceCache::bucket(gpa, mode);
        cache.traces.push(Trace {
            gpa,
            second_page,
            first: start as u32,
            next_in_bucket: std::mem::replace(&mut cache.table[bucket], id),
            next_in_page: cache.pages.insert(gpa >> 12, id).unwrap_or(NONE),
            ops: (cache.arena.len() - start) as u8,
            mode,
        });
        if second_page != NO_PAGE {
            cache.second_pages.entry(second_page).or_default().push(id);
        }
    }

    /// The trace at a branch target in the page of the running trace, if there is one that a branch may
    /// be linked to.
    pub(crate) fn link_target(&mut self, rip: u64) -> Option<*const Op> {
        let here = self.segs[CS].base.wrapping_add(self.regs[TRACE_RIP]);
        let target = self.segs[CS].base.wrapping_add(rip);
        if (here ^ target) >> 12 != 0 {
            return None;
        }
        let class = if self.cpl == 3 {
            class::USER
        } else {
            class::KERNEL
        };
        let target = if self.is_long() {
            target
        } else {
            target & 0xffff_ffff
        };
        let gpa = self.translate(target, Access::Fetch, class).ok()?.gpa;
        let trace = self.traces.find(gpa, self.mode.key())?;
        (trace.second_page == NO_PAGE).then(|| self.traces.first(&trace))
    }
}

/// Where the jump cache keeps a target.
#[inline(always)]
pub(crate) fn jump_slot(rip: u64) -> usize {
    (rip ^ rip >> 12) as usize & (JUMPS - 1)
}
