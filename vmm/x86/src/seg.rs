//! Segmentation: effective address to linear address (SDM vol. 3 chapters 3 and 5), and what follows from
//! the segment registers: how code decodes, and the bases that addresses add.

use crate::cpu::{CS, Cpu, FS, GS, Mode, SS};
use crate::fault::Fault;
use crate::state::Segment;

pub(crate) mod descriptor;
pub(crate) mod far;
pub(crate) mod inspect;
pub(crate) mod iret;
pub(crate) mod load;
pub(crate) mod registers;
pub(crate) mod stack;
pub(crate) mod task;

/// Descriptor attribute bits as in [`crate::state::Segment::attributes`].
pub(crate) mod attr {
    pub(crate) const ACCESSED: u16 = 1;
    pub(crate) const WRITABLE: u16 = 1 << 1;
    /// Of code: readable.
    pub(crate) const READABLE: u16 = 1 << 1;
    /// Of data: expand-down. Of code: conforming.
    pub(crate) const EXPAND_DOWN: u16 = 1 << 2;
    pub(crate) const CONFORMING: u16 = 1 << 2;
    pub(crate) const CODE: u16 = 1 << 3;
    pub(crate) const S: u16 = 1 << 4;
    pub(crate) const DPL: u16 = 3 << 5;
    pub(crate) const P: u16 = 1 << 7;
    pub(crate) const L: u16 = 1 << 13;
    pub(crate) const DB: u16 = 1 << 14;
    pub(crate) const G: u16 = 1 << 15;
    /// Present, accessed, readable code without a size.
    pub(crate) const CODE_SEGMENT: u16 = P | S | CODE | READABLE | ACCESSED;
    /// Present, accessed, writable data without a size.
    pub(crate) const DATA_SEGMENT: u16 = P | S | WRITABLE | ACCESSED;
}

impl Cpu {
    /// Recomputes what depends on the segment registers, the mode bits and CPL.
    pub(crate) fn mode_changed(&mut self) {
        let code = self.segs[CS].attributes;
        let bits = if self.is_long() && code & attr::L != 0 {
            64
        } else if code & attr::DB != 0 {
            32
        } else {
            16
        };
        self.mode = Mode {
            bits,
            wide_stack: bits == 64 || self.segs[SS].attributes & attr::DB != 0,
        };
        for seg in 0..self.segs.len() {
            self.base_changed(seg);
        }
        self.class_changed();
    }

    /// Recomputes the base that addresses in a segment add.
    pub(crate) fn base_changed(&mut self, seg: usize) {
        let flat = self.mode.bits == 64 && seg != FS && seg != GS;
        self.seg_base[seg] = if flat { 0 } else { self.segs[seg].base };
    }

    /// Enters code of a segment that was checked. `cpl` becomes the privilege level and the selector's RPL.
    pub(crate) fn set_code(&mut self, mut segment: Segment, cpl: u8) {
        segment.selector = segment.selector & !3 | u16::from(cpl);
        self.cpl = cpl;
        self.set_code_unchanged(segment);
    }

    /// Sets CS as it is given; the jump cache, which is keyed by RIP, does not survive a new base.
    pub(crate) fn set_code_unchanged(&mut self, segment: Segment) {
        if segment.base != self.segs[CS].base {
            self.tlb.generation += 1;
        }
        self.segs[CS] = segment;
        self.mode_changed();
    }

    /// Whether the processor runs in protected mode proper, where selectors name descriptors.
    pub(crate) fn uses_descriptors(&self) -> bool {
        self.is_protected() && !self.is_v86()
    }

    /// Linear address of `offset` in a segment, checked against the segment for `size` bytes.
    pub(crate) fn segment_address(
        &self,
        seg: usize,
        offset: u64,
        size: u64,
        write: bool,
    ) -> Result<u64, Fault> {
        if self.mode.bits == 64 {
            return Ok(self.seg_base[seg & 7].wrapping_add(offset));
        }
        if seg > 5 {
            return Ok(offset & 0xffff_ffff);
        }
        if self.segment_allows(seg, offset, size, write) {
            Ok(self.segs[seg].base.wrapping_add(offset) & 0xffff_ffff)
        } else {
            Err(if seg == SS { Fault::SS0 } else { Fault::GP0 })
        }
    }

    fn segment_allows(&self, seg: usize, offset: u64, size: u64, write: bool) -> bool {
        let segment = &self.segs[seg];
        let code = segment.attributes & attr::CODE != 0;
        if self.uses_descriptors() {
            let wanted = if write {
                !code && segment.attributes & attr::WRITABLE != 0
            } else {
                !code || segment.attributes & attr::READABLE != 0
            };
            if segment.unusable || !wanted {
                return false;
            }
        }
        segment.holds(offset, size)
    }
}

impl Segment {
    /// Whether `size` bytes at `offset` lie inside the limit (SDM vol. 3 §5.3).
    pub(crate) fn holds(&self, offset: u64, size: u64) -> bool {
        let last = offset + (size - 1);
        let limit = u64::from(self.limit);
        let code = self.attributes & attr::CODE != 0;
        if code || self.attributes & attr::EXPAND_DOWN == 0 {
            return last <= limit;
        }
        let wide = self.attributes & attr::DB != 0;
        offset > limit && last <= if wide { 0xffff_ffff } else { 0xffff }
    }

    /// A flat segment of 4 GiB, as SYSCALL and SYSENTER make it.
    pub(crate) const fn flat(selector: u16, attributes: u16) -> Self {
        Self {
            selector,
            base: 0,
            limit: 0xffff_ffff,
            attributes,
            unusable: false,
        }
    }

    /// What a null selector leaves.
    pub(crate) const fn null(selector: u16) -> Self {
        Self {
            selector,
            base: 0,
            limit: 0,
            attributes: 0,
            unusable: true,
        }
    }
}
