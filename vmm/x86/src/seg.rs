//! Segmentation: effective address to linear address (SDM vol. 3 chapters 3 and 5).

use crate::cpu::{CS, Cpu, SS};
use crate::fault::Fault;

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
}

impl Cpu {
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
        let last = offset + (size - 1);
        let code = segment.attributes & attr::CODE != 0;
        if self.is_protected() && !self.is_v86() {
            let wanted = if write {
                !code && segment.attributes & attr::WRITABLE != 0
            } else {
                !code || segment.attributes & attr::READABLE != 0
            };
            if segment.unusable || !wanted && !(seg == CS && !write && !code) {
                return false;
            }
        }
        let limit = u64::from(segment.limit);
        if !code && segment.attributes & attr::EXPAND_DOWN != 0 {
            let top = if segment.attributes & attr::DB != 0 {
                0xffff_ffff
            } else {
                0xffff
            };
            return offset > limit && last <= top;
        }
        last <= limit
    }
}
